"""How much time an attempt has: its walltime, and the end of the allocation that it runs in."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.jobs.rundir import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variable of a worker: when its allocation is over, in seconds since the epoch.
ENDS = "CRYSTALMATH_ALLOCATION_ENDS"
#: How long it may take until the recipe of a job with a walltime begins, at least, in seconds.
BEGIN_S = 600.0
#: So long before its allocation is over a job is ended, at most, beside what its processes may take
#: to end: afterwards nobody could write down what became of it. In seconds.
MARGIN_S = 15.0


class TimeLeft:
    """The time of one attempt, from now on.

    Parameters
    ----------
    header : mapping
        The header of its specification.
    shared : bool
        Others run in its allocation, too, one after another.
    environ : mapping of str to str
        The worker's environment.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        *,
        shared: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        environment, now, lasts = header["environment"], time.monotonic(), _lasts(environ)
        lasts -= min(_margin(environment), lasts / 10)  # a short one would be all margin
        self._walltime_s: float = header["walltime_s"] or math.inf
        self._own = now + max(self._walltime_s, BEGIN_S)
        self._allocations = now + lasts
        self._begun = False
        # One that may have a fresh allocation of the same length is tried again, unless its own
        # walltime says that this was long enough.
        self._allocations_end = "lost" if shared and not header["walltime_s"] else "failed"
        notice_s, all_of_it = config.walltime_notice(environment), min(self._walltime_s, lasts)
        # Asked at once, it might as well not begin.
        self._notice_s = notice_s if notice_s < all_of_it else all_of_it / 2

    def left(self, *, begun: bool) -> float:
        """Return how much time it has, in seconds; its walltime counts from when it has begun."""
        if begun and not self._begun:
            self._begun = True
            self._own = time.monotonic() + self._walltime_s
        return min(self._own, self._allocations) - time.monotonic()

    def is_short(self, left: float) -> bool:
        """Return whether to ask the program to stop by itself, with so many seconds left."""
        return (self._begun or self._is_allocations) and left <= self._notice_s

    def is_urgent(self, left: float) -> bool:
        """Return whether that should be as soon as it can."""
        return left <= self._notice_s / 2

    @property
    def name(self) -> str:
        """Which time is over first."""
        return "the walltime of its allocation" if self._is_allocations else "the walltime"

    @property
    def end(self) -> str:
        """The state of an attempt whose time is up: ``failed`` or ``lost``."""
        return self._allocations_end if self._is_allocations else "failed"

    def over(self) -> str:
        """Return which time is over."""
        if self._is_allocations:
            return f"stopped: {self.name} is over"
        if self._begun:
            return f"stopped: {self.name} of {self._walltime_s:g} s is over"
        waited_s = max(self._walltime_s, BEGIN_S)
        return (
            f"stopped: the recipe had not begun after {waited_s:g} s; look at what its module does "
            "when it is imported, and at the file system of the libraries"
        )

    @property
    def _is_allocations(self) -> bool:
        return self._allocations < self._own


def least_left(directory: str | os.PathLike[str]) -> float:
    """Return how much must be left of a shared allocation for a job to begin in it, in seconds.

    With less it would be asked to stop, or ended, at once; another attempt of a job that has just
    been is not to come back to what is left of the same allocation.

    Parameters
    ----------
    directory : str or path-like
        The run directory of a job without a walltime.
    """
    environment = RunDirectory(directory).read_header()["environment"]
    return max(config.walltime_notice(environment), _margin(environment))


def _margin(environment: Mapping[str, str]) -> float:
    return MARGIN_S + config.cancel_grace(environment)


def _lasts(environ: Mapping[str, str]) -> float:
    """Return how long the allocation lasts from now on, in seconds, where its worker knows."""
    try:
        lasts = float(environ.get(ENDS) or math.inf) - time.time()
    except ValueError:
        return math.inf
    return max(lasts, 0.0)
