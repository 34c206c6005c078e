"""The mark of an attempt on the warm runner itself, so that what it forks carries it, too.

``/proc/PID/environ`` shows the environment that a process was started with. A variable that is set
later shows only in programs that it starts; a child by ``fork`` alone would go unmarked, and
outlive a lost attempt unseen. So the runner is started with a placeholder, and writes over it in
place. It is the last variable: readers may take the zero bytes behind a short mark for the end.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NAME = b"CRYSTALMATH_ATTEMPT="
#: As long as any attempt's id.
PLACE = "-" * 48
#: Where ``/proc/self/stat`` tells the address of the environment, counted behind the name.
_ENV_START = 47


class Mark:
    """The placeholder in this process's initial environment."""

    def __init__(self) -> None:
        os.environ.pop("CRYSTALMATH_ATTEMPT", None)
        block = Path("/proc/self/environ").read_bytes()
        offset = (b"\0" + block).find(b"\0" + _NAME + PLACE.encode())
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        self._address = int(fields[_ENV_START]) + offset + len(_NAME) if offset >= 0 else None

    def write(self, attempt: str) -> None:
        """Mark this process, and all that it starts from now on."""
        os.environ["CRYSTALMATH_ATTEMPT"] = attempt
        self._put(attempt.encode())

    def clear(self) -> None:
        """Take the mark away: the next job is not yet known."""
        os.environ.pop("CRYSTALMATH_ATTEMPT", None)
        self._put(b"")

    def _put(self, value: bytes) -> None:
        if self._address is not None and len(value) <= len(PLACE):
            ctypes.memmove(self._address, value.ljust(len(PLACE), b"\0"), len(PLACE))
