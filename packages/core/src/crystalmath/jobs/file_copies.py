"""Copy the files below a folder, as references to the same blocks where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: `ioctl` of Linux that lets a file share the blocks of another until either is written
#: (ioctl_ficlone(2)). Btrfs, XFS and others can.
_FICLONE = 0x40049409
#: Its errors if two files cannot share blocks.
_CANNOT_SHARE = frozenset(
    (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)
)


@frozen
class Copied:
    """The size of a copy, and the part that shares its blocks with the source, in bytes."""

    size: int = 0
    shared: int = 0


def copy_files(source: Path, target: Path, is_wanted: Callable[[os.DirEntry[str]], bool]) -> Copied:
    """Copy a folder to a path that does not exist yet; the copy is complete, or there is none.

    Links are followed, so that writing into the copy changes no other folder.
    Broken links, and links to a folder around them, are left out. Hard links are never made,
    because programs write files in place.

    Parameters
    ----------
    source : pathlib.Path
        The folder. The copy is empty if it does not exist.
    target : pathlib.Path
        The path of the copy.
    is_wanted : callable
        Whether a file or a folder below `source` is copied.

    Returns
    -------
    Copied
        Its size in bytes.
    """
    part = target.with_name(f"{target.name}.part")
    size = shared = 0
    try:
        part.mkdir(mode=0o700)
        for file in files_to_copy(source, is_wanted):
            inside = part / file.relative_to(source)
            inside.parent.mkdir(parents=True, exist_ok=True)
            is_shared = _copy(file, inside)
            written = inside.stat().st_size
            size += written
            shared += written if is_shared else 0
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Copied(size, shared)


def files_to_copy(source: Path, is_wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[Path]:
    """Yield the files that are copied, by their paths below `source`."""
    folders = [(source, frozenset((os.path.realpath(source),)))]
    while folders:
        folder, around = folders.pop()
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            if folder != source:
                raise
            return
        with entries:
            for entry in filter(is_wanted, entries):
                if entry.is_file():
                    yield Path(entry.path)
                elif entry.is_dir() and (real := os.path.realpath(entry.path)) not in around:
                    folders.append((Path(entry.path), around | {real}))


def _copy(source: Path, target: Path) -> bool:
    """Copy one file; return whether both share their blocks."""
    is_shared = False
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            is_shared = True
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            # It copies in large pieces, inside the kernel if possible.
            shutil.copyfile(source, target)
    # Times show people what is new. Permissions are not copied: the program must be able to write.
    times = source.stat()
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    return is_shared
