"""Heartbeats on the file system of the jobs, for hosts that see nothing else of this process.

The heart is a counter in the file of an identity, to which all of its claims are links. A reader
judges it by the reader's own clock (`Hearts`). A supervisor that could not beat for half of the
lease ends its processes, as others may run the attempt again once the lease is over. An owner ends
nothing and goes on beating as soon as it can; the files of the jobs then say who owns them.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from crystalmath.jobs.facts import Silence

#: How often in each lease a heart beats, and how often the process checks that it does.
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
    """A beat while the process has work, in a thread that the file system may hold up.

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
        """Start beating. A claim follows, and is a sign of life itself."""
        with self._lock:
            self._last, self._beats, self._overdue = self._now(), True, False
            if self._stopping is not None:
                return
            self._stopping = stopping = threading.Event()
        if math.isfinite(self.lease_s):
            try:
                for target in [self._go_on, *([self._watch_over] if self._end else [])]:
                    threading.Thread(
                        target=target, args=[stopping], name="crystalmath-heart", daemon=True
                    ).start()
            except RuntimeError:  # no more threads: the next `begin` tries again
                self.stop()
                raise

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
        """Return whether no beat succeeded for half of the lease; for a job this is final."""
        with self._lock:
            late = self._beats and self._now() - self._last >= self.lease_s / 2
            self._overdue = late or (self._overdue and self._end is not None)
            return self._overdue

    def _has_ended(self) -> bool:
        return self._end is not None and self.is_overdue()

    def _go_on(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.lease_s / BEATS):
            # Check first: after a suspend a beat must not hide the time without one.
            if self._beats and not self._has_ended():
                self._try()

    def _try(self) -> None:
        # No reader can have seen the beat before this moment.
        began = self._now()
        try:
            self._beat()
        except OSError:
            return  # the lease keeps running out
        if not self._has_ended():
            with self._lock:
                self._last = max(self._last, began)

    def _watch_over(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.lease_s / LOOKS):
            if self.is_overdue() and self._end is not None:
                self._end()

    def _now(self) -> float:
        return time.clock_gettime(self._clock)


# --- hearts on other hosts, as seen from here -----------------------------------------------------


@dataclass(slots=True)
class _LastBeat:
    """One heart as read: its last beat, since when, and when it was last read."""

    heart: Heart
    host: Hashable
    since: float
    listened: float

    def silent_s(self) -> float:
        return self.listened - self.since


class Hearts:
    """The hearts of other processes, and how long each has not been seen to beat.

    If a heart was not read for half of a lease, its silence begins anew: this process may have been
    stopped, or its file system may have hung. `clock` is a monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, _LastBeat] = {}
        self._lock = threading.Lock()

    def listen(self, whose: str, heart: Heart, host: Hashable = None) -> Silence:
        """Record a heart as just read from the file `whose`, and return its silence.

        Hosts are counted by `host`; ``None`` keeps the heart out of that count.
        """
        # Workers only beat, and do not need it.
        from crystalmath.jobs.facts import Silence

        now = self._clock()
        with self._lock:
            last = self._last.get(whose)
            if last is None or last.heart != heart or now - last.listened > heart.lease_s / 2:
                last = self._last[whose] = _LastBeat(heart, host, now, now)
            last.listened = now
            silent_s = last.silent_s()
            hosts, silent = (0, 0) if silent_s < heart.lease_s / 2 else self._hosts(now)
        return Silence(for_s=silent_s, lease_s=heart.lease_s, hosts=hosts, silent_hosts=silent)

    def forget(self, whose: str) -> None:
        """Forget a heart that need not beat any more."""
        if self._last:
            with self._lock:
                self._last.pop(whose, None)

    def _hosts(self, now: float) -> tuple[int, int]:
        """Count the hosts that are listened to, and the silent ones among them."""
        beats: dict[Hashable, bool] = {}
        for last in self._last.values():
            lease_s = last.heart.lease_s
            if last.host is not None and now - last.listened <= lease_s / 2:
                beat = now - last.since < lease_s / 2
                beats[last.host] = beats.get(last.host, False) or beat
        return len(beats), sum(not beat for beat in beats.values())
