"""The files below a job's work directory: find one, never outside it, and read parts of it."""

from __future__ import annotations

import codecs
import errno
import gzip
import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.jobs.rundir import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Part", "find", "read_chunks", "read_part", "read_tail"]

_SHOWN = 20
#: Bytes that are not the first of a character in UTF-8; one has at most three.
_CONTINUATION = bytes(range(0x80, 0xC0))


def find(directory: Path, name: str) -> Path:
    """Find a file below a directory by its name, or by the end of its path.

    Parameters
    ----------
    directory : pathlib.Path
        The work directory.
    name : str
        ``OUTCAR``, ``relax/OUTCAR``; a file ``OUTCAR.gz`` is found too.

    Raises
    ------
    InvalidJob
        There is none, there are several, or it lies outside.
    """
    wanted = PurePosixPath(name)
    if wanted.is_absolute() or ".." in wanted.parts or not wanted.parts:
        raise InvalidJob(f"{name!r} is no file below the work directory {directory}")
    files = _files(directory)
    there = _exact(files, wanted) or [file for file in files if _ends_with(file, wanted)]
    if not there:
        raise InvalidJob(f"there is no file {name!r} below {directory}{_listing(files)}")
    if len(there) > 1:
        raise InvalidJob(f"there are several files {name!r} below {directory}{_listing(there)}")
    return _inside(directory, there[0])


def read_chunks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece, decompressed if its name ends in ``.gz``.

    Raises
    ------
    InvalidJob
        It cannot be read or decompressed.
    """
    try:
        with _opened(path) as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            while chunk := stream.read(1 << 16):
                yield chunk
    except (OSError, EOFError) as error:
        raise InvalidJob(f"cannot read {path}: {error}") from error


def _opened(path: Path) -> BinaryIO:
    """Open what a job wrote; it may have put anything in its place.

    Raises
    ------
    InvalidJob
        It is no regular file: a FIFO would be waited for, a link lead anywhere.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise InvalidJob(f"{path} is no regular file, and is not read") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidJob(f"{path} is no regular file, and is not read")
    return os.fdopen(descriptor, "rb")


@frozen
class Part:
    """A part of a text file.

    Parameters
    ----------
    text : str
        The text; bytes that are no UTF-8 are shown as replacement characters.
    end : int
        Where it ends, in bytes of the (decompressed) file; the next part begins there.
    size : int
        The size of the whole file, in bytes.
    """

    text: str
    end: int
    size: int


def read_part(path: Path, offset: int, most: int, *, whole: bool) -> Part:
    """Read a file from an offset.

    Parameters
    ----------
    path : pathlib.Path
        The file, decompressed if its name ends in ``.gz``. It is empty where there is none.
    offset : int
        In bytes. Behind the end there is nothing; but in a log that has become shorter, it is gone
        on with the line that stands in the place of its middle.
    most : int
        How many bytes to read at most.
    whole : bool
        The file grows no more: a character that is cut at its end is cut for good.

    Raises
    ------
    InvalidJob
        It cannot be read or decompressed.
    """
    data, size = _window(path, offset, most)
    if offset > size and (begin := _middle(path)) is not None:
        data, size = _window(path, begin, most)
        offset = begin
    return _decoded(data, offset, size, whole=whole)


def _middle(path: Path) -> int | None:
    """Find the line that stands in the place of what was left out of a log."""
    position, before = 0, b""
    for chunk in read_chunks(path):
        found = (before + chunk).find(LEFT_OUT)
        if found >= 0:
            return position - len(before) + found
        position, before = position + len(chunk), chunk[-len(LEFT_OUT) :]
    return None


def read_tail(path: Path, lines: int, most: int, *, whole: bool) -> Part:
    """Read the last lines of a file, of its last `most` bytes; see :func:`read_part`."""
    data, size = _window(path, None, most)
    cut = data.split(b"\n")
    ends_line = 1 if data.endswith(b"\n") else 0
    kept = b"\n".join(cut[-(lines + ends_line) :]) if lines else b""
    if len(kept) == len(data) < size:  # it may begin in the middle of a character
        kept = kept[:3].lstrip(_CONTINUATION) + kept[3:]
    return _decoded(kept, size - len(kept), size, whole=whole)


def _window(path: Path, offset: int | None, most: int) -> tuple[bytes, int]:
    """Give bytes from an offset, or the last ones, and the size of the file."""
    if path.suffix == ".gz":
        return _window_of(read_chunks(path), offset, most)
    try:
        with _opened(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - most) if offset is None else offset)
            return stream.read(most), size
    except FileNotFoundError:
        return b"", 0
    except OSError as error:
        raise InvalidJob(f"cannot read {path}: {error}") from error


def _window_of(chunks: Iterator[bytes], offset: int | None, most: int) -> tuple[bytes, int]:
    size, data = 0, bytearray()
    for chunk in chunks:
        if offset is None:
            data += chunk
            del data[:-most]
        else:
            data += chunk[max(0, offset - size) :][: most - len(data)]
        size += len(chunk)
    return bytes(data), size


def _decoded(data: bytes, start: int, size: int, *, whole: bool) -> Part:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    end = start + len(data)
    text = decoder.decode(data, final=whole and end >= size)
    return Part(text, end - len(decoder.getstate()[0]), max(size, end))


def _files(directory: Path) -> list[PurePosixPath]:
    return sorted(
        PurePosixPath(Path(folder, name).relative_to(directory))
        for folder, _, names in os.walk(directory)
        for name in names
    )


def _exact(files: list[PurePosixPath], wanted: PurePosixPath) -> list[PurePosixPath]:
    named = [wanted, wanted.with_name(wanted.name + ".gz")]
    return [file for file in named if file in files][:1]


def _ends_with(file: PurePosixPath, wanted: PurePosixPath) -> bool:
    tail = file.parts[-len(wanted.parts) :]
    return tail in (wanted.parts, wanted.with_name(wanted.name + ".gz").parts)


def _inside(directory: Path, file: PurePosixPath) -> Path:
    path = directory / file
    real = path.resolve()
    if not real.is_relative_to(directory.resolve()):
        raise InvalidJob(f"{path} is a link that leaves the work directory, to {real}")
    if not real.is_file():
        raise InvalidJob(f"{path} is no regular file")
    return real if path.is_symlink() else path


def _listing(files: list[PurePosixPath]) -> str:
    if not files:
        return ""
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return "; there are " + ", ".join(str(file) for file in files[:_SHOWN]) + more
