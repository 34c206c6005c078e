"""A heart that beats on the file system of the jobs, for hosts that see nothing else of us.

It is a counter in the file of an identity, to which all claims of it are links. A reader judges it
by its own clock alone (:mod:`crystalmath.jobs.hearts`). Who could not beat for half of the lease
ends what it runs: at the end of the lease others may run it again. Who only owns jobs ends nothing,
and beats again once it can: whose they are by then stands in their files.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: So often a heart beats, and is it looked whether it does, in each lease.
BEATS = 10
LOOKS = 20


class Heart(NamedTuple):
    """The content of a process's heart file: its last beat, and its lease in seconds."""

    beat: str
    lease_s: float

    @classmethod
    def read(cls, header: Mapping[str, Any]) -> Self | None:
        """Read it from the header of a claim or an identity; ``None`` if it has none."""
        try:
            return cls(str(header["heart"]), float(header["lease_s"]))
        except (KeyError, TypeError, ValueError):
            return None


class Heartbeat:
    """Beat while the process has work, in a thread that the file system may hold up.

    `beat` writes one beat durably, and raises `OSError` if it cannot. Once the heart is overdue, a
    thread calls `end` again and again, and the heart stops. `end` must not touch the file system of
    the jobs, which may hang. Without `end` the heart goes on as soon as it can. With `sleeps`, time
    in which this host is suspended does not count: for a laptop whose files no other host sees.
    """

    def __init__(
        self,
        beat: Callable[[], None],
        lease_s: float,
        end: Callable[[], None] | None = None,
        *,
        sleeps: bool = False,
    ) -> None:
        self._beat = beat
        self._clock = time.CLOCK_MONOTONIC if sleeps else time.CLOCK_BOOTTIME
        self.lease_s = lease_s
        self._end = end
        self._lock = threading.Lock()
        self._beats = False
        self._overdue = False
        self._last = 0.0
        self._stopping: threading.Event | None = None

    def begin(self) -> None:
        """Start beating: a claim follows, which is a sign of life, too."""
        with self._lock:
            self._last, self._beats, self._overdue = self._now(), True, False
            if self._stopping is not None:
                return
            self._stopping = stopping = threading.Event()
        if math.isfinite(self.lease_s):
            for target in [self._go_on, *([self._watch_over] if self._end else [])]:
                threading.Thread(
                    target=target, args=[stopping], name="crystalmath-heart", daemon=True
                ).start()

    def rest(self) -> None:
        """Pause until the next `begin`, which comes soon."""
        with self._lock:
            self._beats = False

    def stop(self) -> None:
        """Stop beating for good, and end the threads."""
        with self._lock:
            self._beats = False
            stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.set()

    def is_overdue(self) -> bool:
        """Return whether it could not beat for half of the lease; for a job this is final."""
        with self._lock:
            late = self._beats and self._now() - self._last >= self.lease_s / 2
            self._overdue = late or (self._overdue and self._end is not None)
            return self._overdue

    def _has_ended(self) -> bool:
        return self._end is not None and self.is_overdue()

    def _go_on(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.lease_s / BEATS):
            # Looked at first: after a night asleep a beat must not hide that night.
            if self._beats and not self._has_ended():
                self._try()

    def _try(self) -> None:
        # A reader cannot have seen the beat before this.
        began = self._now()
        try:
            self._beat()
        except OSError:
            return  # the lease goes on running
        if not self._has_ended():
            with self._lock:
                self._last = max(self._last, began)

    def _watch_over(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.lease_s / LOOKS):
            if self.is_overdue() and self._end is not None:
                self._end()

    def _now(self) -> float:
        return time.clock_gettime(self._clock)
