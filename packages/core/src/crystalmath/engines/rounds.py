"""Which unfinished jobs are looked at now: those where something happens, and slowly the rest."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from crystalmath.jobs.reading import Depth
from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Collection

    from crystalmath.jobs.reconcile import Job

#: How often a running job is looked at closely, in seconds.
CLOSE_S = 1.0
#: So many running jobs are looked at in each turn.
_RUNNING = 50
#: So many are looked at in each turn of those that the engine was given first: it begins with them.
_FIRST = 16
#: So many of them are looked at after each change, which may come a hundred times in a second.
_NEXT = 4
#: So many are looked at in each turn of all, one after another.
_OTHERS = 8


class Rounds:
    """Choose the jobs of each turn, at most a hundred, however many there are.

    Only the thread that looks uses it, and :meth:`place`, which the driver calls under its lock.
    """

    def __init__(self) -> None:
        # Those that run, or about which something is in doubt, and when each is due.
        self._watched: dict[str, float] = {}
        self._launched: dict[str, None] = {}
        self._round: list[str] = []
        self._round_at = 0.0

    def place(self, job: Job) -> None:
        """Take note of what has become of a job."""
        record = job.record
        watched = record.state is JobState.RUNNING or record.doubt or not record.written
        if record.state.is_terminal() or not watched:
            self._watched.pop(job.job_id, None)
        else:
            self._watched.setdefault(job.job_id, 0.0)
        if record.state is JobState.PENDING and record.launched:
            self._launched.setdefault(job.job_id, None)
        else:
            self._launched.pop(job.job_id, None)

    def forget(self, job_id: str) -> None:
        """Look at a job no more."""
        self._watched.pop(job_id, None)
        self._launched.pop(job_id, None)

    def after_changes(self, now: float) -> dict[str, Depth]:
        """Return those that may have begun or ended with what has just changed, and how to look.

        The engine begins one after another, and ends leave room for the next.

        Parameters
        ----------
        now : float
            The time in seconds of the monotonic clock.
        """
        return dict.fromkeys(islice(self._launched, _NEXT), Depth.GLANCE) | self._running(now)

    def choose(self, jobs: Collection[str], now: float) -> dict[str, Depth]:
        """Return the jobs of this turn, and how closely to look at each.

        Parameters
        ----------
        jobs : collection of str
            All there are.
        now : float
            The time in seconds of the monotonic clock.
        """
        chosen = dict.fromkeys(islice(self._launched, _FIRST), Depth.GLANCE) | self._running(now)
        if not self._round and now >= self._round_at:
            self._round, self._round_at = list(jobs), now + CLOSE_S
        for _ in range(min(_OTHERS, len(self._round))):
            chosen[self._round.pop()] = Depth.LOOK
        return chosen

    def _running(self, now: float) -> dict[str, Depth]:
        chosen = {}
        for job_id in list(islice(self._watched, _RUNNING)):
            due = self._watched.pop(job_id)
            chosen[job_id] = Depth.LOOK if now >= due else Depth.GLANCE
            self._watched[job_id] = now + CLOSE_S if now >= due else due
        return chosen
