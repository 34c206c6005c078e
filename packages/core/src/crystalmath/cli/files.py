"""Find a file below a job's work directory, and never outside it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find", "read_chunks"]

_SHOWN = 20


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
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            while chunk := stream.read(1 << 16):
                yield chunk
    except (OSError, EOFError) as error:
        raise InvalidJob(f"cannot read {path}: {error}") from error


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
    return path


def _listing(files: list[PurePosixPath]) -> str:
    if not files:
        return ""
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return "; there are " + ", ".join(str(file) for file in files[:_SHOWN]) + more
