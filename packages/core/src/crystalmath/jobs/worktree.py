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
    """

    path: str
    size: int
    modified_at: float
    is_link: bool = False


def files_below(
    directory: str, on_error: Callable[[str, OSError], None] | None = None
) -> Iterator[WorkFile]:
    """Go through all files below a directory, in no order.

    What is removed meanwhile, and folders that cannot be read, are passed over.

    Parameters
    ----------
    directory : str
        The directory.
    on_error : callable, optional
        Called with each folder that could not be read, or not to its end, and why.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(f"{directory}/{folder}") as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")
                    elif (found := _file(entry, path)) is not None:
                        yield found
        except OSError as error:
            if on_error is not None and not isinstance(error, FileNotFoundError):
                on_error(folder, error)


def _file(entry: os.DirEntry[str], path: str) -> WorkFile | None:
    try:
        seen = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return WorkFile(path, seen.st_size, seen.st_mtime, stat.S_ISLNK(seen.st_mode))


def as_text(path: object) -> str:
    """Give a path as text that JSON can hold; names need not be UTF-8."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")
