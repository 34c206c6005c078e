"""The files below a directory with their sizes and times, and the folders of calculations."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

#: quacc's prefixes of a calculation's folder while it runs, and after it has failed.
_NAMES = ("tmp-quacc-", "failed-quacc-")
#: The depth of calculations in a work directory; recipes make a folder for each.
_DEPTH = 4
#: The search yields after this many names.
_STEPS = 1000
_T = TypeVar("_T")


@frozen
class WorkFile:
    """A file, or a link, as it was when the directory was read."""

    #: Relative to the directory that was read.
    path: str
    #: In bytes; of a link its own.
    size: int
    #: When the file was last written, in seconds since the epoch.
    modified_at: float
    is_link: bool = False
    #: The disk space in whole blocks, in bytes. Each of several hard links takes its share.
    disk_size: int = 0


def files_below(
    directory: str,
    on_error: Callable[[str, OSError], None] | None = None,
    *,
    folders_too: bool = False,
) -> Iterator[WorkFile]:
    """Yield all files below a directory, in no order; with `folders_too` also folders (``NAME/``).

    Files that vanish meanwhile, and folders that cannot be read, are skipped. `on_error` is called
    with each folder that could not be read to its end, and its error.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(f"{directory}/{folder}") as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        path = f"{path}/"
                        folders.append(path)
                        if not folders_too:
                            continue
                    if (file := _file(entry, path)) is not None:
                        yield file
        except OSError as error:
            if on_error is not None and not isinstance(error, FileNotFoundError):
                on_error(folder, error)


def _file(entry: os.DirEntry[str], path: str) -> WorkFile | None:
    try:
        seen = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    # POSIX counts blocks in units of 512 bytes, on every file system.
    links = 1 if stat.S_ISDIR(seen.st_mode) else max(1, seen.st_nlink)
    taken = seen.st_blocks * 512 // links
    return WorkFile(path, seen.st_size, seen.st_mtime, stat.S_ISLNK(seen.st_mode), taken)


def as_text(path: object) -> str:
    """Return a path as text that JSON can hold; names need not be UTF-8."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def scratch_folders(work: str) -> list[str]:
    """Return the real paths of the scratch folders to which quacc's links in a directory lead.

    The list is empty if the work directory cannot be read.
    """
    try:
        with os.scandir(work) as entries:
            links = [each.path for each in entries if each.is_symlink() and each.is_dir()]
    except OSError:
        return []
    places = map(os.path.realpath, links)
    return [place for place in places if Path(place).name.startswith(_NAMES)]


def calculation_files(
    work: str, is_wanted: Callable[[str], bool]
) -> Generator[None, None, list[tuple[float, str]]]:
    """Return the times of last change, and the paths, of files whose names are wanted.

    Times are in seconds since the epoch. Only quacc's links to its scratch directory are followed.
    Files that cannot be read, or vanish meanwhile, are left out. It yields now and then for other
    work.
    """
    files = []
    folders = [(work, 0), *((each, 1) for each in scratch_folders(work))]
    seen = 0
    while folders:
        folder, depth = folders.pop()
        # Folders and files may be gone meanwhile, or not be readable.
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                seen += 1
                if seen % _STEPS == 0:
                    yield
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEPTH:
                        folders.append((entry.path, depth + 1))
                elif is_wanted(entry.name):
                    with contextlib.suppress(OSError):
                        files.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    yield
    return files


def at_once(work: Generator[None, None, _T]) -> _T:
    """Run a generator to its end, and return its value."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: _T = stop.value
            return value
