"""How much room is left where the jobs of a home write."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Why a running job goes on running while the disk is full: what it has computed waits for room.
DISK_FULL = "disk full"

#: With less room than this, in bytes, a result or a row of the database may not fit.
FULL = 2**20

#: How old what was seen may be before it is looked again, in seconds.
LOOK_S = 1.0


@frozen(kw_only=True)
class Disk:
    """The file system of the run directories when somebody looked.

    Parameters
    ----------
    path : str
        The folder that was looked at.
    free, size : int
        What is left for this user, and the whole, in bytes.
    full : bool
        Whether results wait for room.
    looked_at : float
        When that was, in seconds since the epoch.
    """

    path: str
    free: int
    size: int
    full: bool
    looked_at: float


class HomeDisk:
    """Look at the disk from threads that read the home anyway; tell at once what was seen.

    Parameters
    ----------
    place : callable
        Gives the folder of the run directories; until it is there, what it will be in counts.

    Attributes
    ----------
    last : Disk or None
        What was seen last; ``None`` before the first look, and where it cannot be told.
    """

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place = place
        self._look_at = 0.0
        self.last: Disk | None = None

    def look(self) -> None:
        """Look again if that was not done just now. The file system may hang: not on a loop."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            place = self._place()
            seen = (_seen(folder) for folder in (place, *place.parents))
            self.last = next(filter(None, seen), None)

    @property
    def is_full(self) -> bool:
        """Whether there was no room left when somebody looked last."""
        return self.last is not None and self.last.full


def _seen(place: Path) -> Disk | None:
    try:
        there = os.statvfs(place)
    except OSError:
        return None
    # What is reserved for root is left for root.
    blocks = there.f_bavail if os.geteuid() else there.f_bfree
    free = blocks * there.f_frsize
    return Disk(
        path=str(place),
        free=free,
        size=there.f_blocks * there.f_frsize,
        full=free < min(FULL, there.f_blocks * there.f_frsize),
        looked_at=time.time(),
    )
