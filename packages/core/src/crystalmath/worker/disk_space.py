"""A full disk: what a job has computed waits in memory until there is room."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FULL", "when_there_is_room"]

_T = TypeVar("_T")

#: What the system says where there is no room, for anybody or for this user.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: How long to wait until the next try, first and at most, in seconds.
FIRST_S = 0.1
MOST_S = 5.0


def when_there_is_room(
    write: Callable[[], _T], *, is_wanted: Callable[[], bool] = lambda: True
) -> _T:
    """Write, again and again as long as the disk is full.

    Parameters
    ----------
    write : callable
        Writes all or nothing.
    is_wanted : callable
        Whether to go on trying.

    Raises
    ------
    OSError
        It cannot be written for another reason, or is not wanted any more.
    """
    pause = FIRST_S
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL or not is_wanted():
                raise
        time.sleep(pause)
        pause = min(2 * pause, MOST_S)
