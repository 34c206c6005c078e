"""The unfinished jobs of a runner: their phases, and the order in which they are looked at."""

from __future__ import annotations

import contextlib
import itertools
from enum import IntEnum, auto
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from crystalmath import processes
from crystalmath.errors import BadFile
from crystalmath.jobs.reading import Depth
from crystalmath.jobs.reconcile import Parcel
from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from crystalmath.jobs.facts import Record
    from crystalmath.jobs.reconcile import Job
    from crystalmath.jobs.rundir import RunDirectory

#: How often a running job is looked at closely, in seconds.
CLOSE_S = 1.0
#: The number of running jobs in each turn.
_RUNNING = 50
#: The number of parcels in each turn, those that were launched first.
_FIRST = 16
#: The number of unbegun jobs to look at in a parcel that has begun.
_AHEAD = 4
#: The number of parcels after each change; there may be a hundred changes in a second.
_NEXT = 4
#: The number of other jobs in each turn, until all had theirs.
_OTHERS = 8


class Phase(IntEnum):
    """How far an unfinished job has come.

    ``NEW``: on record; its run directory was not written yet.
    ``UNWRITTEN``: the write failed, or the directory was there; a look decides.
    ``WAITING``: written, and not handed to the engine.
    ``LAUNCHED``: handed to the engine, and not begun.
    ``RUNNING``: begun.
    """

    NEW = auto()
    UNWRITTEN = auto()
    WAITING = auto()
    LAUNCHED = auto()
    RUNNING = auto()


#: The phases of the jobs that the engine has.
WITH_ENGINE = (Phase.LAUNCHED, Phase.RUNNING)


class Followed:
    """The unfinished jobs, by phase; the driver's lock guards this object."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._phases: dict[str, Phase] = {}
        self._by_phase: dict[Phase, dict[str, Job]] = {phase: {} for phase in Phase}
        #: The parcels that the engine has, in the order of their launches.
        self.parcels: dict[Parcel, None] = {}
        # Parcels with unbegun jobs, on clusters that start jobs in order and on the others. On the
        # others any parcel may begin next, so they are looked at in turns.
        self._unbegun: dict[Parcel, None] = {}
        self._unbegun_unordered: dict[Parcel, None] = {}
        self._unordered: set[str] = set()
        self._by_attempt: dict[str, Parcel] = {}
        # The waiting jobs of each cluster, by priority and then by their order. An entry whose job
        # no longer waits is dropped when it comes to the head.
        self._queues: dict[str, list[tuple[int, int, Job]]] = {}
        self._numbers = itertools.count()
        self._places: dict[str, tuple[int, int]] = {}
        # Running jobs and jobs with a doubt, and when a closer look at each is due.
        self._watched: dict[str, float] = {}
        self._round: list[str] = []
        self._round_at = 0.0

    def add(self, job: Job, *, in_order: bool = True) -> None:
        """Follow a job whose run directory was not written yet.

        `in_order` is whether the engine starts the jobs of its cluster in the order of their
        launches.
        """
        self.jobs[job.job_id] = job
        (self._unordered.discard if in_order else self._unordered.add)(job.cluster)
        # Jobs of equal priority keep their order, also when they are launched again.
        urgency = -int(job.header.get("priority", 0))
        self._places[job.job_id] = urgency, next(self._numbers)
        self._move(job, Phase.NEW)

    def place(self, job: Job) -> bool:
        """Note how far a job has come; return whether it has just begun to wait for the engine."""
        record, before = job.record, self._phases[job.job_id]
        phase = _phase(record)
        if phase in {Phase.RUNNING, Phase.UNWRITTEN} or record.doubt:
            self._watched.setdefault(job.job_id, 0.0)
        else:
            self._watched.pop(job.job_id, None)
        # A job that was taken over may be in a later attempt than the parcel knows.
        is_stale = job.parcel is not None and job.parcel.members[job] != record.attempt
        if is_stale:
            self._leave(job)
        elif phase is before:
            return False
        self._move(job, phase)
        if phase is not Phase.WAITING:
            return False
        self.put_back(job)
        return True

    def _move(self, job: Job, phase: Phase) -> None:
        before = self._phases.get(job.job_id, phase)
        self._by_phase[before].pop(job.job_id, None)
        self._phases[job.job_id] = phase
        self._by_phase[phase][job.job_id] = job
        if phase not in WITH_ENGINE:
            self._leave(job)
            return
        parcel = job.parcel or self.pack(job)
        if phase is Phase.RUNNING:
            parcel.has_begun = parcel.has_moved = True
            self._take_out(parcel, job)

    def pack(self, job: Job, parcel: Parcel | None = None) -> Parcel:
        """Put a job that the engine gets, or has, into `parcel`, by default into a new one."""
        if parcel is None:
            parcel = Parcel(job.attempt())
            self._by_attempt[parcel.attempt.id] = parcel
            is_unordered = parcel.attempt.cluster in self._unordered
            unbegun = self._unbegun_unordered if is_unordered else self._unbegun
            self.parcels[parcel] = unbegun[parcel] = None
        job.parcel = parcel
        parcel.members[job] = job.record.attempt
        parcel.jobs[job.job_id] = parcel.unbegun[job.job_id] = job
        return parcel

    def _take_out(self, parcel: Parcel, job: Job) -> None:
        """Remove a job from the unbegun ones of its parcel."""
        parcel.unbegun.pop(job.job_id, None)
        if not parcel.unbegun:
            self._unbegun.pop(parcel, None)
            self._unbegun_unordered.pop(parcel, None)

    def _leave(self, job: Job) -> None:
        """Remove a job from its parcel, as it has ended or has left the engine."""
        parcel, job.parcel = job.parcel, None
        if parcel is None:
            return
        ran = job.state.is_terminal() and job.state is not JobState.CANCELLED
        parcel.has_begun, parcel.has_moved = parcel.has_begun or ran, True
        del parcel.jobs[job.job_id]
        self._take_out(parcel, job)
        if not parcel.jobs:
            del self.parcels[parcel]
            # An attempt that was launched again has another parcel.
            if self._by_attempt.get(parcel.attempt.id) is parcel:
                del self._by_attempt[parcel.attempt.id]

    def forget(self, job_id: str) -> None:
        """Stop following a job."""
        self._leave(self.jobs[job_id])
        del self.jobs[job_id], self._places[job_id]
        del self._by_phase[self._phases.pop(job_id)][job_id]
        self._watched.pop(job_id, None)

    def shared(self, attempt: str) -> Parcel | None:
        """Return the parcel that the engine knows as an attempt, if it has several jobs."""
        parcel = self._by_attempt.get(attempt)
        return parcel if parcel is not None and len(parcel.members) > 1 else None

    def phase(self, job_id: str) -> Phase | None:
        """Return how far a job has come; ``None`` if it is not followed."""
        return self._phases.get(job_id)

    def count(self, *phases: Phase) -> int:
        """Return how many jobs are in some phases."""
        return sum(len(self._by_phase[phase]) for phase in phases)

    def those(self, *phases: Phase) -> Iterator[Job]:
        """Return the jobs in some phases, in the order of their arrival in each."""
        return itertools.chain.from_iterable(self._by_phase[phase].values() for phase in phases)

    def next_waiting(self, full: Container[str] = ()) -> Job | None:
        """Return the waiting job that is launched next, apart from those of full clusters."""
        heads = []
        for cluster, queue in self._queues.items():
            while queue and not self._waits(queue[0][-1]):
                heappop(queue)
            if queue and cluster not in full:
                heads.append(queue[0])
        return min(heads)[-1] if heads else None

    def set_aside(self, job: Job) -> None:
        """Take the job that `next_waiting` returned out of its queue, until it is put back."""
        heappop(self._queues[job.cluster])

    def put_back(self, job: Job) -> None:
        """Queue a waiting job at its place."""
        heappush(self._queues.setdefault(job.cluster, []), (*self._places[job.job_id], job))

    def _waits(self, job: Job) -> bool:
        # A job with a request to cancel is not launched, and ends soon.
        is_waiting = self._by_phase[Phase.WAITING].get(job.job_id) is job
        return is_waiting and not job.record.cancelled

    def after_changes(self, now: float) -> dict[str, Depth]:
        """Return jobs that may have begun or ended since the last change, and how to look at each.

        Each end leaves room for another job to begin. `now` is in seconds of the monotonic clock.
        """
        return self._launched(_NEXT) | self._running(now)

    def choose(self, now: float) -> dict[str, Depth]:
        """Return the jobs of this turn, and how closely to look at each.

        There are at most a hundred of them: the active ones, and a few of the rest. `now` is in
        seconds of the monotonic clock.
        """
        chosen = self._launched(_FIRST) | self._running(now)
        if not self._round and now >= self._round_at:
            self._round, self._round_at = list(self.jobs), now + CLOSE_S
        for _ in range(min(_OTHERS, len(self._round))):
            chosen[self._round.pop()] = Depth.LOOK
        return chosen

    def _launched(self, most: int) -> dict[str, Depth]:
        """Choose jobs that the engine has probably begun, from `most` parcels of either kind."""
        chosen: dict[str, Depth] = {}
        in_turn = list(islice(self._unbegun_unordered, most))
        for parcel in in_turn:
            self._unbegun_unordered[parcel] = self._unbegun_unordered.pop(parcel)  # to the end
        for parcel in [*islice(self._unbegun, most), *in_turn]:
            ahead = _AHEAD if parcel.has_begun else 1
            chosen |= dict.fromkeys(islice(parcel.unbegun, ahead), Depth.GLANCE)
        return chosen

    def _running(self, now: float) -> dict[str, Depth]:
        chosen = {}
        for job_id in list(islice(self._watched, _RUNNING)):
            due = self._watched.pop(job_id)
            chosen[job_id] = Depth.LOOK if now >= due else Depth.GLANCE
            self._watched[job_id] = now + CLOSE_S if now >= due else due
        return chosen


def _phase(record: Record) -> Phase:
    if record.state is JobState.RUNNING:
        return Phase.RUNNING
    if record.launched:
        return Phase.LAUNCHED
    return Phase.WAITING if record.written else Phase.UNWRITTEN


class LeftJobs:
    """The unfinished jobs that were let go; another owner may adopt them."""

    def __init__(self) -> None:
        self._runs: list[tuple[RunDirectory, int]] = []
        self._attempts: set[str] = set()

    def add(self, job: Job) -> None:
        """Note a job that is no longer followed."""
        self._runs.append((job.directory, job.record.attempt))
        self._attempts.add(job.parcel.attempt.id if job.parcel else job.attempt_id)

    def attempts(self) -> frozenset[str]:
        """Return the ids of the attempts by which the engine knows them."""
        return frozenset(self._attempts)

    def processes(self) -> set[int]:
        """Return the pids of their processes on this host."""
        pids: set[int] = set()
        for directory, attempt in self._runs:
            claimant, guardian = None, []
            with contextlib.suppress(BadFile, OSError):
                claimant = directory.claimant(attempt)
                containment = directory.containment(attempt)
                guardian = containment.get("guardian", [])[:1]
            if claimant and claimant.is_here():
                pids |= {claimant.pid, *guardian, *processes.descendants(claimant.pid)}
        return pids
