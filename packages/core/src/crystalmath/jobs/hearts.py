"""The hearts of processes on other hosts, as seen from here, by this host's clock alone."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from attrs import define

from crystalmath.jobs.facts import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from crystalmath.jobs.heartbeat import Heart


@define
class _LastBeat:
    """One heart as read: its last beat, since when, and when it was last read."""

    heart: Heart
    host: Hashable
    since: float
    listened: float

    def silent_s(self) -> float:
        return self.listened - self.since


class Hearts:
    """Remember since when each heart has not been seen to beat.

    A heart that was not read for half of a lease is not silent for that: its time begins anew. This
    process may have been stopped, or its file system may have hung. `clock` is a monotonic time in
    seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, _LastBeat] = {}
        self._lock = threading.Lock()

    def listen(self, whose: str, heart: Heart, host: Hashable = None) -> Silence:
        """Record a heart as just read from the file `whose`, and return its silence.

        Hosts are counted by `host`; ``None`` keeps the heart out of that count.
        """
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
        """Forget a heart that nobody needs to beat any more."""
        if self._last:
            with self._lock:
                self._last.pop(whose, None)

    def _hosts(self, now: float) -> tuple[int, int]:
        """Count the hosts that are listened to, and those of which no heart beats."""
        beats: dict[Hashable, bool] = {}
        for last in self._last.values():
            lease_s = last.heart.lease_s
            if last.host is not None and now - last.listened <= lease_s / 2:
                beat = now - last.since < lease_s / 2
                beats[last.host] = beats.get(last.host, False) or beat
        return len(beats), sum(not beat for beat in beats.values())
