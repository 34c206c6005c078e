"""The hearts of processes on other hosts, as they are heard here: by this host's clock alone."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from attrs import define

from crystalmath.jobs.facts import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from crystalmath.jobs.heartbeat import Heart

__all__ = ["Hearts"]


@define
class _Heard:
    """What was heard of one heart: its last beat, since when, and when it was listened to last."""

    heart: Heart
    host: Hashable
    since: float
    listened: float

    def silent_s(self) -> float:
        return self.listened - self.since


class Hearts:
    """Remember since when each heart has not been heard to beat.

    Who is not listened to for half of a lease, because this process was stopped or its file system
    hung, is not silent for that: it is counted anew.

    Parameters
    ----------
    clock : callable
        A time that no one sets, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._lock = threading.Lock()

    def listen(self, whose: str, heart: Heart, host: Hashable = None) -> Silence:
        """Take note of a heart as it was just read, and tell for how long it is silent.

        Parameters
        ----------
        whose : str
            The file that it beats in.
        heart : Heart
            As it stands there.
        host : hashable, optional
            Where it beats; ``None`` keeps it out of the count of hosts.
        """
        now = self._clock()
        with self._lock:
            heard = self._heard.get(whose)
            if heard is None or heard.heart != heart or now - heard.listened > heart.lease_s / 2:
                heard = self._heard[whose] = _Heard(heart, host, now, now)
            heard.listened = now
            silent_s = heard.silent_s()
            hosts, silent = (0, 0) if silent_s < heart.lease_s / 2 else self._hosts(now)
        return Silence(for_s=silent_s, lease_s=heart.lease_s, hosts=hosts, silent_hosts=silent)

    def forget(self, whose: str) -> None:
        """Forget a heart that nobody needs to beat any more."""
        if self._heard:
            with self._lock:
                self._heard.pop(whose, None)

    def _hosts(self, now: float) -> tuple[int, int]:
        """Count the hosts that are listened to, and those of which no heart beats."""
        beats: dict[Hashable, bool] = {}
        for heard in self._heard.values():
            lease_s = heard.heart.lease_s
            if heard.host is not None and now - heard.listened <= lease_s / 2:
                beat = now - heard.since < lease_s / 2
                beats[heard.host] = beats.get(heard.host, False) or beat
        return len(beats), sum(not beat for beat in beats.values())
