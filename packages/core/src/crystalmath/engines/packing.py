"""Choose the waiting jobs that the engine gets next, and pack them into parcels."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from crystalmath.engines.followed import WITH_ENGINE, Phase
from crystalmath.errors import PluginError
from crystalmath.models import JobState
from crystalmath.models.submission import MOST_PRIORITY
from crystalmath.recipes.batched_recipes import most_of, parted

if TYPE_CHECKING:
    import logging
    from typing import TypeAlias

    from crystalmath.engines.engine_interface import Engine
    from crystalmath.engines.followed import Followed
    from crystalmath.jobs.changes import Change
    from crystalmath.jobs.reconcile import Job, Parcel

    #: A recipe and its cluster: their jobs are taken to run equally long.
    Kind: TypeAlias = tuple[str, str]

#: How long the jobs of a parcel run together, about, in seconds: no job waits longer for another.
PARCEL_S = 2.0
#: How long they run together at least, in seconds, if they are shorter than their launch.
SHORT_PARCEL_S = 0.05
#: The most jobs of a parcel, unless the configuration or a submission names a number.
MAX_PARCEL_JOBS = 50
#: How many parcels are made for each worker, at least, as long as so many jobs wait.
MIN_PARCELS_PER_WORKER = 4
#: The most jobs that an engine has, in however few parcels; or `max_queued`, if that is more.
MAX_JOBS_WITH_ENGINE = 1000
#: How long jobs wait, at most, until the first ones of their recipe are measured, in seconds.
MEASURE_S = 5.0
#: How many of the last runs of a recipe decide how long its next one is expected to take.
RECENT_RUNS = 5
#: The text before the parameters in the body of a specification.
_PARAMETERS = '"parameters":'
#: The beginning of a body whose structures, if there are any, are among the parameters.
_WITHOUT_STRUCTURE = '{"atoms":null'
#: How many batches each worker has, at most: the one that runs, and the next one. The jobs behind
#: them wait until a whole batch of them can go.
BATCHES_PER_WORKER = 2
#: How many waiting jobs are passed over, at most, in search of others for a batch that has room.
MOST_PASSED_OVER = 1000
#: How long it is taken for known whether a recipe has a batched function, in seconds.
KNOWN_S = 10.0


class RunTimes:
    """How long recipes have run on each cluster, and which ones are being measured.

    The median of the last runs counts. A run may be much longer than the others: the first one of
    each worker process may load a model for a minute.
    """

    def __init__(self) -> None:
        self._recent: dict[Kind, deque[float]] = {}
        self._median: dict[Kind, float] = {}
        self._measured_since: dict[Kind, float] = {}

    def note(self, job: Job, change: Change) -> None:
        """Note how long a job's recipe ran, if it came to its end."""
        began, ended = change.started_at, change.finished_at
        if began is None or ended is None or job.state is JobState.CANCELLED:
            return
        kind = _kind(job)
        self._measured_since.pop(kind, None)
        recent = self._recent.setdefault(kind, deque(maxlen=RECENT_RUNS))
        recent.append(max(0.0, ended - began))
        self._median[kind] = sorted(recent)[(len(recent) - 1) // 2]

    def expected(self, kind: Kind) -> float | None:
        """Return how long the next run will probably take, in seconds; ``None`` if unknown."""
        return self._median.get(kind)

    def measured_since(self, kind: Kind, now: float) -> float:
        """Return when the first job was launched of a recipe that has not been measured yet."""
        return self._measured_since.setdefault(kind, now)


class KnownBatches:
    """The most jobs of a recipe in one call of its batched function, by the recipe's source."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._known: dict[str, tuple[int | None, float]] = {}

    def most(self, recipe: str, now: float) -> int | None:
        """Return that number; ``None`` without a batched function."""
        most, until = self._known.get(recipe, (None, -math.inf))
        if now >= until:
            try:
                most = most_of(recipe)
            except PluginError as error:
                most = None
                self._log.warning("jobs of %s run one by one: %s", recipe, error)
            self._known[recipe] = most, now + KNOWN_S
        return most


class Packer:
    """Pack the jobs that wait for an engine; the driver's lock guards it."""

    def __init__(self, engine: Engine, followed: Followed) -> None:
        self._engine = engine
        self._followed = followed
        self.run_times = RunTimes()
        self._batches = KnownBatches(engine.log)
        #: The jobs of a launch that failed: each goes alone, which shows the one to blame.
        self.alone: set[str] = set()
        #: Whether jobs wait until their recipe is measured.
        self.is_measuring = False
        # Whether jobs of the last owner may still run.
        self._has_survivors = False

    def note_placed(self, job: Job) -> None:
        """Note that a job is followed which may have outlived its last owner."""
        self._has_survivors |= job.survivor

    def next_parcels(self, now: float) -> list[Parcel]:
        """Pack the jobs that the engine gets next: by priority, then in order of submission.

        `now` is in seconds of the monotonic clock.
        """
        if not self._followed.count(Phase.WAITING):
            return []
        most = self._engine.capabilities.max_queued
        # Parcels whose processes have all ended take no room, even if an outcome is unpublished.
        room = most - sum(not parcel.is_over() for parcel in self._followed.parcels)
        batched = sum(len(each.jobs) for each in self._followed.parcels if each.is_batch)
        free = max(most, MAX_JOBS_WITH_ENGINE) + batched - self._followed.count(*WITH_ENGINE)
        launch = _Launch(
            self._engine,
            self._followed,
            self.run_times,
            self._batches,
            workers_left=self._workers_left(),
            now=now,
        )
        late: list[Job] = []
        full: set[str] = set()
        while (job := self._followed.next_waiting(full)) is not None:
            alone = job.job_id in self.alone
            # Passes of flows wait for no other job: they have as much room of their own.
            extra = most if _is_pass(job) else 0
            if min(free, room) + extra <= 0 or (launch.parcels and alone):
                break
            if job.not_before > now:
                self._followed.set_aside(job)
                late.append(job)
                continue
            size = 1 if alone else launch.size(job)
            parcel = launch.find(job, size)
            if parcel is None:
                if len(launch.parcels) >= room + extra:
                    break
                if not launch.may_begin(job, size):
                    self._pass_over(job, launch, late, full)
                    continue
            # Batches are limited by their own number.
            free -= not launch.add(job, size, parcel).is_batch
            if alone:
                self.alone.remove(job.job_id)
                break
        for job in late:
            self._followed.put_back(job)
        self.is_measuring = launch.is_measuring
        return launch.parcels

    def _pass_over(self, job: Job, launch: _Launch, late: list[Job], full: set[str]) -> None:
        """Pass over a job that must wait, or all jobs of its cluster if none may join a batch."""
        if launch.has_room(job.cluster) and len(late) < MOST_PASSED_OVER:
            self._followed.set_aside(job)
            late.append(job)
        else:
            full.add(job.cluster)

    def _workers_left(self) -> float:
        """Return how many parcels may still begin on this host beside jobs of the last owner.

        Those jobs run in workers of their own. The engine has all of its `workers` besides, and
        would run too many jobs at once.
        """
        if self._has_survivors:
            followed = self._followed.those(*WITH_ENGINE)
            self._has_survivors = any(
                job.survivor and job.swept != job.record.attempt for job in followed
            )
        workers = self._engine.workers()
        if not self._has_survivors or workers is None:
            return math.inf
        return workers - sum(
            parcel.attempt.priority <= MOST_PRIORITY
            and not parcel.is_over()
            and self._engine.runs_here(parcel.attempt.cluster)
            for parcel in self._followed.parcels
        )


class _Launch:
    """The parcels of one launch; at most `workers_left` of them may begin on this host."""

    def __init__(
        self,
        engine: Engine,
        followed: Followed,
        run_times: RunTimes,
        batches: KnownBatches,
        *,
        workers_left: float,
        now: float,
    ) -> None:
        self.parcels: list[Parcel] = []
        #: Whether jobs wait until their recipe is measured.
        self.is_measuring = False
        self._engine = engine
        self._followed = followed
        self._run_times = run_times
        self._batches = batches
        self._workers_left = workers_left
        self._now = now
        self._workers = engine.workers()
        self._waiting_at_first = followed.count(Phase.NEW, Phase.WAITING)
        self._unmeasured: Counter[Kind] | None = None
        self._open: dict[object, Parcel] = {}
        # The parcels that others may join, and how many jobs each may have.
        self._sizes: dict[Parcel, int] = {}
        # The clusters on which a batch waits.
        self._held: set[str] = set()

    def size(self, job: Job) -> int:
        """Return how many jobs may go into a job's parcel; 0 if its recipe is being measured."""
        if not self._may_share(job):
            return 1
        size: int | None = job.header.get("parcel") or self._engine.settings.parcel
        if size is not None or self._workers is None:
            return size or 1
        if (most := self._most_in_call(job)) is not None:
            return min(most, math.ceil(self._waiting_at_first / self._workers))
        kind, waiting = _kind(job), self._followed.count(Phase.NEW, Phase.WAITING)
        run_s = self._run_times.expected(kind)
        if run_s is None:
            return self._unmeasured_size(kind, waiting, self._workers)
        run_s = max(run_s, 1e-3)
        fair = waiting // (MIN_PARCELS_PER_WORKER * self._workers)
        of_short = min(
            math.ceil(self._waiting_at_first / self._workers), int(SHORT_PARCEL_S / run_s)
        )
        return max(1, min(MAX_PARCEL_JOBS, max(fair, of_short), int(PARCEL_S / run_s)))

    def _most_in_call(self, job: Job) -> int | None:
        """Return how many jobs one call may compute; ``None`` if the recipe takes one at a time."""
        if self._waiting_at_first == 1 or _is_pass(job):
            return None  # a single job need not wait until its recipe's source was read
        return self._batches.most(str(job.header.get("recipe")), self._now)

    def _terms(self, job: Job) -> tuple[object, ...]:
        """Return the terms that all jobs of a parcel have in common."""
        terms = _common_terms(job)
        if self._most_in_call(job) is None:
            return terms
        if job.alike is None:
            job.alike = _alike(job.body)
        return *terms, job.alike

    def _unmeasured_size(self, kind: Kind, waiting: int, workers: int) -> int:
        """Return 1 for the first jobs of a recipe, and 0 for others that wait for their ends."""
        if waiting < MAX_PARCEL_JOBS * workers:
            return 1  # measuring is not worth the pause
        if self._unmeasured is None:
            self._unmeasured = Counter(map(_kind, self._followed.those(*WITH_ENGINE)))
        self._unmeasured[kind] += 1
        since = self._run_times.measured_since(kind, self._now)
        is_first = self._unmeasured[kind] <= MIN_PARCELS_PER_WORKER * workers
        if is_first or self._now - since > MEASURE_S:
            return 1
        self.is_measuring = True
        return 0

    def _may_share(self, job: Job) -> bool:
        """Return whether a job may go together with others.

        On other hosts only the engine knows each job's state. A job that was lost may end its next
        worker as well. A job with a walltime shares nothing but a call.
        """
        first = job.record.attempt == 1 and not job.apart
        if not first or not self._engine.capabilities_of(job.cluster).workers_here:
            return False
        return job.header.get("walltime_s") is None or self._most_in_call(job) is not None

    def find(self, job: Job, size: int) -> Parcel | None:
        """Return a parcel of this launch with room for a job, if there is one."""
        parcel = self._open.get(self._terms(job)) if size > 1 else None
        return parcel if parcel is not None and len(parcel.members) < size else None

    def may_begin(self, job: Job, size: int) -> bool:
        """Return whether a job may begin a parcel."""
        if size > 1 and self._is_held(job, size):
            self._held.add(job.cluster)
        # No job of the same cluster overtakes a batch that waits, unless another batch has room.
        if size == 0 or job.cluster in self._held:
            return False
        return self._workers_left > 0 or not self._takes_worker(job)

    def has_room(self, cluster: str) -> bool:
        """Return whether a batch of this launch, for a cluster, may get further jobs."""
        return any(
            parcel.is_batch and parcel.attempt.cluster == cluster and len(parcel.members) < size
            for parcel, size in self._sizes.items()
        )

    def _is_held(self, job: Job, size: int) -> bool:
        """Return whether a batch waits for more jobs, or for the end of another batch."""
        if self._workers is None or self._most_in_call(job) is None:
            return False
        batches = sum(each.is_batch for each in self._followed.parcels)
        if batches < self._workers:
            return False
        is_filling = self._followed.count(Phase.NEW) > 0
        is_whole = self._followed.count(Phase.WAITING) >= size or not is_filling
        return batches >= BATCHES_PER_WORKER * self._workers or not is_whole

    def _takes_worker(self, job: Job) -> bool:
        """Return whether a job keeps one of the workers of this host."""
        return not _is_pass(job) and self._engine.runs_here(job.cluster)

    def add(self, job: Job, size: int, parcel: Parcel | None) -> Parcel:
        """Launch a job in a parcel, or in a new one of at most `size` jobs; return the parcel."""
        # From here on a cancel must reach the engine, too.
        offered = job.record.offered or parcel is None
        job.update(offered=offered, launched=True, released=False, dropped=False)
        packed = self._followed.pack(job, parcel)
        self._followed.place(job)
        if parcel is not None:
            return packed
        self.parcels.append(packed)
        if size > 1:
            self._sizes[packed] = size
            packed.is_batch = self._most_in_call(job) is not None
            self._open[self._terms(job)] = packed
        if self._workers_left < math.inf and self._takes_worker(job):
            self._workers_left -= 1
        return packed


def _is_pass(job: Job) -> bool:
    return int(job.header.get("priority", 0)) > MOST_PRIORITY


def _kind(job: Job) -> Kind:
    return str(job.header.get("recipe")), job.cluster


def _alike(body: str) -> int:
    """Return a hash of a job's parameters; the worker compares the parameters themselves."""
    if body.startswith(_WITHOUT_STRUCTURE):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # a damaged one
            return hash(parted(body)[1])
    return hash(body.rpartition(_PARAMETERS)[2])


def _common_terms(job: Job) -> tuple[object, ...]:
    header = job.header
    terms = [repr(header.get(name)) for name in ("priority", "resources", "parcel", "walltime_s")]
    return *_kind(job), *terms, frozenset(header.get("environment", {}).items())
