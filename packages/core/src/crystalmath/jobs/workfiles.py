"""The files below a job's work directory: find one, never outside it, and read parts of it.

Trees and files may be large, and an archive larger than it looks. Functions that may take long are
generators: they yield for other work, and return their result at the end.
"""

from __future__ import annotations

import bisect
import codecs
import contextlib
import errno
import gzip
import os
import stat
import zlib
from collections import deque
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.jobs.rundir import LEFT_OUT
from crystalmath.jobs.worktree import as_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_T = TypeVar("_T")
_Work: TypeAlias = "Generator[None, None, _T]"

_SHOWN = 20
_CHUNK = 2**16
#: A loop yields after this many steps.
_STEPS = 1000
#: Bytes that are not the first of a character in UTF-8; one has at most three.
_CONTINUATION = bytes(range(0x80, 0xC0))


@frozen
class Found:
    """The files that have a name."""

    #: The file that was written last.
    path: Path
    #: The others, the newest first, by their paths below the directory.
    others: tuple[str, ...] = ()


def find(directory: Path, name: str) -> _Work[Found]:
    """Find a file below a directory by its name, or by the end of its path (``relax/OUTCAR``).

    A file ``OUTCAR.gz`` is found as ``OUTCAR``, too. `InvalidJob` is raised if there is none, or if
    it lies outside.
    """
    wanted = PurePosixPath(name)
    if wanted.is_absolute() or ".." in wanted.parts or not wanted.parts:
        raise InvalidJob(f"{name!r} is no file below the work directory {directory}")
    names = (wanted, wanted.with_name(f"{wanted.name}.gz"))
    # A known path needs no walk.
    for exact in names:
        if _is_there(directory, exact):
            return Found(check_inside(directory, directory / exact))
    matches: list[PurePosixPath] = []
    all_files = _Listing()
    for folder, _, files in os.walk(directory):
        for number, file in enumerate(files):
            if number % _STEPS == 0:
                yield
            path = PurePosixPath(os.path.relpath(folder, directory), file)
            all_files.add(path)
            if path.parts[-len(wanted.parts) :] in {one.parts for one in names}:
                matches.append(path)
    if not matches:
        raise InvalidJob(f"there is no file {name!r} below {directory}{all_files}")
    newest, *others = sorted(matches, key=lambda path: _written_at(directory / path), reverse=True)
    return Found(check_inside(directory, directory / newest), tuple(map(as_text, others)))


def _written_at(path: Path) -> tuple[int, str]:
    """Return when a file was written last; files of the same time are ordered by their paths."""
    try:
        return path.stat().st_mtime_ns, str(path)
    except OSError:  # removed meanwhile, or a link that leads nowhere
        return 0, str(path)


def check_inside(directory: Path, path: Path) -> Path:
    """Return a path unchanged if it is a file below a directory; else raise `InvalidJob`."""
    real = Path(os.path.realpath(path))  # `resolve` raises if a link leads to itself
    if not real.is_relative_to(directory.resolve()):
        raise InvalidJob(f"{path} is a link that leaves the work directory, to {real}")
    if not real.is_file():
        raise InvalidJob(f"{path} is no regular file")
    return real if path.is_symlink() else path


def as_stored(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files with a name in a folder: as written, and as compressed by quacc.

    Links that leave the folder, and all but regular files, are skipped.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if os.path.lexists(path):
            with contextlib.suppress(InvalidJob):
                yield check_inside(folder, path)


def read_chunks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece, decompressed if its name ends in ``.gz``.

    `InvalidJob` is raised if the file cannot be read or decompressed.
    """
    try:
        with opened(path) as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            while chunk := stream.read(_CHUNK):
                yield chunk
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidJob(f"cannot read {path}: {error}") from error


def opened(path: Path) -> BinaryIO:
    """Open a regular file; else raise `InvalidJob`, as a job may have left a FIFO or a link."""
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
    """A part of a text file."""

    #: Bytes that are no UTF-8 are shown as replacement characters.
    text: str
    #: The end of the part in bytes of the (decompressed) file; the next part begins there.
    end: int
    #: The size of the whole file, in bytes.
    size: int


def read_part(path: Path, offset: int, most: int, *, whole: bool) -> _Work[Part]:
    """Read at most `most` bytes of a file (``.gz``: decompressed) from an offset.

    A missing file is empty, and nothing is read beyond the end. In a log that has become shorter,
    reading continues with the line that replaces its middle. With `whole`, the file grows no more,
    so a character that is cut at its end stays cut. `InvalidJob` is raised if the file cannot be
    read or decompressed.
    """
    data, size = yield from _window(path, offset, most)
    if offset > size and (begin := (yield from _middle(path))) is not None:
        data, size = yield from _window(path, begin, most)
        offset = begin
    return (yield from _decoded(data, offset, size, whole=whole))


def _middle(path: Path) -> _Work[int | None]:
    """Return the offset of the line that replaces the middle of a log."""
    position, before = 0, b""
    for chunk in read_chunks(path):
        offset = (before + chunk).find(LEFT_OUT)
        if offset >= 0:
            return position - len(before) + offset
        position, before = position + len(chunk), chunk[-len(LEFT_OUT) :]
        yield
    return None


def read_end(path: Path, most: int) -> _Work[bytes]:
    """Read the last `most` bytes of a file that grows; see :func:`read_part`."""
    data, _ = yield from _window(path, None, most)
    return data


def read_tail(path: Path, lines: int, most: int, *, whole: bool) -> _Work[Part]:
    """Read the last lines of a file, of its last `most` bytes; see :func:`read_part`."""
    data, size = yield from _window(path, None, most)
    kept = data[(yield from _start_of(data, lines)) :]
    if len(kept) == len(data) < size:  # it may begin in the middle of a character
        kept = kept[:3].lstrip(_CONTINUATION) + kept[3:]
    return (yield from _decoded(kept, size - len(kept), size, whole=whole))


def _start_of(data: bytes, lines: int) -> _Work[int]:
    """Return the offset of the last lines."""
    if not lines:
        return len(data)
    start = len(data) - 1 if data.endswith(b"\n") else len(data)
    for number in range(lines):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return 0
        if number % _STEPS == 0:
            yield
    return start + 1


def _window(path: Path, offset: int | None, most: int) -> _Work[tuple[bytes, int]]:
    """Return bytes from an offset, or the last ones, and the size of the file."""
    if path.suffix == ".gz":
        return (yield from _window_of(read_chunks(path), offset, most))
    return read_stored(path, offset, most)


def read_stored(path: Path, offset: int | None, most: int) -> tuple[bytes, int]:
    """Return bytes of a file from an offset, or its last ones, as they are, and its size.

    A missing file is empty. `InvalidJob` is raised if it cannot be read.
    """
    try:
        with opened(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            # File systems refuse offsets far beyond the end.
            stream.seek(max(0, size - most) if offset is None else min(offset, size))
            return stream.read(most), size
    except FileNotFoundError:
        return b"", 0
    except OSError as error:
        raise InvalidJob(f"cannot read {path}: {error}") from error


def digest(path: Path, end: int) -> _Work[str]:
    """Return the SHA-256 of a file's bytes before `end`; `InvalidJob`: it cannot be read."""
    from hashlib import sha256

    sha = sha256()
    try:
        with opened(path) as stream:
            while end > 0 and (chunk := stream.read(min(end, 2**20))):
                sha.update(chunk)
                end -= len(chunk)
                yield
    except FileNotFoundError:
        pass  # it is empty
    except OSError as error:
        raise InvalidJob(f"cannot read {path}: {error}") from error
    return sha.hexdigest()


def _window_of(chunks: Iterator[bytes], offset: int | None, most: int) -> _Work[tuple[bytes, int]]:
    size, length = 0, 0
    kept: deque[bytes] = deque()
    for chunk in chunks:
        part = chunk
        if offset is not None:
            part = chunk[max(0, offset - size) :][: most - length]
        size += len(chunk)
        if part:
            kept.append(part)
            length += len(part)
        while offset is None and length - len(kept[0]) >= most:
            length -= len(kept.popleft())
        yield
    data = b"".join(kept)
    return data if offset is not None else data[-most:], size


def _decoded(data: bytes, start: int, size: int, *, whole: bool) -> _Work[Part]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts = []
    for begin in range(0, len(data), _CHUNK):
        parts.append(decoder.decode(data[begin : begin + _CHUNK]))
        yield
    end = start + len(data)
    parts.append(decoder.decode(b"", final=whole and end >= size))
    return Part("".join(parts), end - len(decoder.getstate()[0]), max(size, end))


def _is_there(directory: Path, file: PurePosixPath) -> bool:
    """Return whether a file or a link exists, and none of its folders is a link."""
    path = directory / file
    if not os.path.lexists(path) or (path.is_dir() and not path.is_symlink()):
        return False
    return path.parent.resolve() == directory.resolve() / file.parent


class _Listing:
    """The first of many files, in order, and their number."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[PurePosixPath] = []

    def add(self, file: PurePosixPath) -> None:
        self.count += 1
        bisect.insort(self.first, file)
        del self.first[_SHOWN:]

    def __str__(self) -> str:
        if not self.count:
            return ""
        more = f" and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        return "; there are " + ", ".join(map(str, self.first)) + more
