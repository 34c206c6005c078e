"""A heart that beats on the file system of the jobs, for hosts that see nothing else of us.

It is a counter in the file of an identity, to which all claims of it are links. A reader judges it
by its own clock alone (:mod:`crystalmath.jobs.hearts`). Who could not beat for half of the lease
ends what it runs: at the end of the lease others may run it again.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Heart", "Heartbeat"]

#: So often a heart beats, and is it looked whether it does, in each lease.
BEATS = 10
LOOKS = 20


@frozen
class Heart:
    """What stands in the file of a process: its last beat, and its lease, in seconds."""

    beat: str
    lease_s: float

    @classmethod
    def read(cls, header: Mapping[str, Any]) -> Self | None:
        """Read it from the header of a claim or an identity; ``None`` in an older release's."""
        try:
            return cls(str(header["heart"]), float(header["lease_s"]))
        except (KeyError, TypeError, ValueError):
            return None


class Heartbeat:
    """Beat while there is something to live for, in a thread that the file system may hold up.

    Parameters
    ----------
    beat : callable
        Writes a beat, durably; `OSError` if that cannot be done.
    lease_s : float
        The lease, in seconds.
    end : callable, optional
        Called, again and again, in a thread of its own once the heart is overdue. It must not touch
        the file system of the jobs: that is what hangs.
    """

    def __init__(
        self, beat: Callable[[], None], lease_s: float, end: Callable[[], None] | None = None
    ) -> None:
        self._beat = beat
        self.lease_s = lease_s
        self._end = end
        self._lock = threading.Lock()
        self._beats = False
        self._overdue = False
        self._last = 0.0
        self._started = False

    def begin(self) -> None:
        """Have it beat from now on: a claim is about to be made, which is a sign of life, too."""
        with self._lock:
            self._last, self._beats, self._overdue = _now(), True, False
            started, self._started = self._started, True
        if not started and math.isfinite(self.lease_s):
            threads = [self._go_on, *([self._watch_over] if self._end else [])]
            for target in threads:
                threading.Thread(target=target, name="crystalmath-heart", daemon=True).start()

    def rest(self) -> None:
        """Have it beat no more until the next beginning."""
        with self._lock:
            self._beats = False

    def is_overdue(self) -> bool:
        """Tell whether it could not beat for half of the lease; once it is so, it stays so."""
        with self._lock:
            if self._beats and _now() - self._last >= self.lease_s / 2:
                self._overdue = True
            return self._overdue

    def _go_on(self) -> None:
        while True:
            time.sleep(self.lease_s / BEATS)
            # Looked at first: after a night asleep a beat must not hide that night.
            if self._beats and not self.is_overdue():
                self._try()

    def _try(self) -> None:
        # A reader cannot have seen the beat before this.
        began = _now()
        try:
            self._beat()
        except OSError:
            return  # the lease goes on running
        if not self.is_overdue():
            with self._lock:
                self._last = max(self._last, began)

    def _watch_over(self) -> None:
        while True:
            time.sleep(self.lease_s / LOOKS)
            if self.is_overdue() and self._end is not None:
                self._end()


def _now() -> float:
    """Tell the time that goes on while a host is suspended, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
