"""A full disk: the result of a job waits in memory until there is room.

A reserve beside the run directories is given up first. Mostly the program that fills the disk has
stopped by then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

#: The system's errors for a full disk, and for a full quota of this user.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: How long to wait until the next try, first and at most, in seconds.
FIRST_S = 0.1
MOST_S = 5.0
#: The reserve's file among the run directories, and its size in bytes.
RESERVE = ".reserve"
RESERVED = 2**20
#: The reserve takes at most this part of the free space.
_PART = 16


def keep_reserve(jobs_directory: str) -> None:
    """Make the reserve if it does not exist and there is enough room."""
    path = f"{jobs_directory}/{RESERVE}"
    with contextlib.suppress(OSError):
        if os.path.exists(path):
            return
        there = os.statvfs(jobs_directory)
        if there.f_bavail * there.f_frsize < _PART * RESERVED:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVED)
        except OSError:
            os.unlink(path)
        finally:
            os.close(descriptor)


def when_there_is_room(
    write: Callable[[], _T],
    jobs_directory: str,
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> _T:
    """Write, and try again as long as the disk is full and the result `is_wanted`.

    `write` writes all or nothing; the reserve of `jobs_directory` is given up for it. `OSError` is
    raised if writing fails for another reason, or the result is not wanted any more.
    """
    pause = FIRST_S
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL or not is_wanted():
                raise
        try:
            os.unlink(f"{jobs_directory}/{RESERVE}")
            continue
        except OSError:
            time.sleep(pause)
        pause = min(2 * pause, MOST_S)
