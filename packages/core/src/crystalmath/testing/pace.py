"""How fast an engine is, and the limits that follow from it.

So a slow machine, a slow queue and an engine that starts a process for each job are no failures.
"""

from __future__ import annotations

from attrs import frozen

#: How long the first job may take if the author names no limit, in seconds.
FIRST_S = 300.0
#: How many times as long as it took once something may take later, on a machine that is busy then.
MARGIN = 4
#: The shortest limits, in seconds: those of an engine that is warm in a moment.
LEAST_START_S, LEAST_TURN_S = 60.0, 3.0
#: What the mean test of the kit consists of: waiting, in seconds, jobs on an engine that a test
#: starts, and jobs on a warm one that it waits for one after another. A guess, which one run of the
#: local engine confirms within a factor of two.
WAITS_S, COLD_JOBS, WARM_JOBS = 0.4, 0.1, 0.8


def fewer(number: int, turn_s: float) -> int:
    """Return how many attempts an engine is given that may be a slow one."""
    return max(1, int(number * min(1.0, LEAST_TURN_S / turn_s)))


@frozen
class Pace:
    """How long one job that does nothing takes.

    Parameters
    ----------
    cold_s : float
        From the first submission to the job's end, in seconds.
    warm_s : float
        The same for the next job, in seconds.
    apart : bool
        Whether a second process has workers of its own: while all of the first one's were busy, its
        job ran.
    """

    cold_s: float
    warm_s: float
    apart: bool = False

    @property
    def start_s(self) -> float:
        """How long the engine may take from its first launch to its first running job."""
        return max(LEAST_START_S, MARGIN * self.cold_s)

    @property
    def turn_s(self) -> float:
        """How long one job that does nothing may take on the warm engine."""
        return max(LEAST_TURN_S, MARGIN * self.warm_s)

    def estimate_s(self, tests: int, lanes: int) -> float:
        """Say about how long so many tests take, so many side by side, in seconds."""
        mean_s = WAITS_S + COLD_JOBS * self.cold_s + WARM_JOBS * self.warm_s
        return self.cold_s + tests * mean_s / lanes


#: Of an engine that was not measured: the shortest limits.
UNKNOWN = Pace(cold_s=0.0, warm_s=0.0)
