"""What lies below a directory: its files with their sizes and times, links not followed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@frozen
class WorkFile:
    """A file, or a link, as it was when somebody looked.

    Parameters
    ----------
    path : str
        Relative to the directory that was asked for.
    size : int
        In bytes; of a link its own.
    modified_at : float
        When it was last written, in seconds since the epoch.
    is_link : bool
        It is a link, to wherever.
    disk_size : int
        What it takes on the disk, in bytes, in whole blocks. One of several hard links takes its
        share.
    """

    path: str
    size: int
    modified_at: float
    is_link: bool = False
    disk_size: int = 0


def files_below(
    directory: str,
    on_error: Callable[[str, OSError], None] | None = None,
    *,
    folders_too: bool = False,
) -> Iterator[WorkFile]:
    """Go through all files below a directory, in no order.

    What is removed meanwhile, and folders that cannot be read, are passed over.

    Parameters
    ----------
    directory : str
        The directory.
    on_error : callable, optional
        Called with each folder that could not be read, or not to its end, and why.
    folders_too : bool
        Return folders as well; their paths end in ``/``.
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
                    if (found := _file(entry, path)) is not None:
                        yield found
        except OSError as error:
            if on_error is not None and not isinstance(error, FileNotFoundError):
                on_error(folder, error)


def _file(entry: os.DirEntry[str], path: str) -> WorkFile | None:
    try:
        seen = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    # POSIX counts blocks in units of 512 bytes, whatever the file system's own are.
    links = 1 if stat.S_ISDIR(seen.st_mode) else max(1, seen.st_nlink)
    taken = seen.st_blocks * 512 // links
    return WorkFile(path, seen.st_size, seen.st_mtime, stat.S_ISLNK(seen.st_mode), taken)


def as_text(path: object) -> str:
    """Return a path as text that JSON can hold; names need not be UTF-8."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")
