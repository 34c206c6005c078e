"""The driver's half that calls the engine: one call at a time, on one thread, each may block."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeGuard

from attrs import evolve

from crystalmath.engines.followed import WITH_ENGINE, Phase
from crystalmath.errors import CrystalMathError, EngineUnavailable
from crystalmath.jobs.rundir import attempt_id
from crystalmath.models import JobState, Sighting
from crystalmath.models.submission import MOST_PRIORITY

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.engines.followed import Followed
    from crystalmath.jobs.changes import Change
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.reconcile import Job, Parcel
    from crystalmath.models import Attempt, Capabilities, EngineSettings

#: How long an attempt may be launched and unclaimed before the engine is asked, in seconds.
PROBE_S = 5.0
#: How often the engine is asked about what runs where nobody here can see it, in seconds.
RUNNING_S = 15.0
#: How often it is asked about what is being stopped there, in seconds.
STOPPING_S = 2.0
#: How long an engine that is not available is left alone, at most, in seconds.
BACKOFF_S = 10.0
#: How long an attempt that the engine lost again and again is kept back, at most, in seconds.
RELAUNCH_S = 60.0
#: How long an engine that could start nothing is given until the interpreter ends, in seconds.
ENDS_S = 0.5
#: So often what is to be released is offered to an engine that is about to be ended.
_LAST_TRIES = 3

#: How long the jobs of a parcel run together, about, in seconds: none waits longer for another.
#: And how long they do where little waits: to hand over what is shorter costs more than to run it.
PARCEL_S, SHORT_S = 2.0, 0.05
#: So many jobs it has at most, where the configuration says nothing.
PARCEL_JOBS = 50
#: So many parcels for each worker are made of what waits, at least.
_PARCELS = 4
#: So many jobs an engine may have, in however few parcels.
_JOBS = 1000
#: How long others wait for the first ones of a recipe to be measured, at most, in seconds.
MEASURE_S = 5.0
#: How long a job may hold up the others of its parcel, in seconds: they are then launched alone.
HELD_UP_S = 10.0
#: How much the last run time of a recipe counts in the mean.
_WEIGHT = 0.3

_PASSING = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.EIO,
        errno.ESTALE,
        errno.EACCES,
        errno.ETIMEDOUT,
        errno.ENOSPC,
        errno.EDQUOT,
    }
)
#: What Python says of that where a thread cannot be started.
_NO_THREADS = "can't start new thread"


def is_passing(error: object) -> bool:
    """Return whether an error of the system may pass: no descriptors left, a file system away."""
    if isinstance(error, RuntimeError):
        return str(error) == _NO_THREADS
    return isinstance(error, OSError) and error.errno in _PASSING


class Engine(Protocol):
    """The interface of an engine's author (:class:`crystalmath.quacc.engine.EngineRunner`)."""

    capabilities: ClassVar[Capabilities]
    settings: EngineSettings
    log: logging.Logger

    def workers(self) -> int | None:
        """Return how many jobs run at once on this host."""

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return what the engine can do on a cluster."""

    def runs_here(self, cluster: str) -> bool:
        """Return whether a cluster's jobs run on this host."""

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Hand attempts over to the engine."""

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return what the engine knows of attempts."""

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop these attempts if they are queued."""

    def stop(self) -> None:
        """End the engine."""


class Handover:
    """Hand attempts to the engine, probe them, and release those that are not wanted.

    Only `turn` and `finish` call the engine, both on the driver's thread. The other methods are
    called by threads that submit and by the thread that looks at files. `lock`, which is the
    driver's, guards what they share; it is never held during a call. `tell` takes changes; `notice`
    has the files of a job looked at.
    """

    def __init__(
        self,
        engine: Engine,
        followed: Followed,
        lock: threading.RLock,
        *,
        host: Host,
        tell: Callable[[Sequence[Change]], None],
        notice: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._log = engine.log
        self._host = host
        self._followed = followed
        self._lock = lock
        self._tell = tell
        self._notice = notice
        self.wake = threading.Event()
        #: Whether the jobs are about to be left: none is handed over any more.
        self.leaves = False
        # Of these a launch of several failed: each is handed over alone, to see which is to blame.
        self._alone: set[str] = set()
        self._to_release: list[Attempt] = []
        # The mean run time of each recipe on each cluster, in seconds.
        self._ran: dict[tuple[str, str], float] = {}
        # When the first of a recipe was launched that has no mean yet; and whether others wait.
        self._first_at: dict[tuple[str, str], float] = {}
        self._measures = False
        # Whether a run directory may be new, and its name not on the disk yet.
        self._is_new = False
        # Whether some may have outlived the last owner.
        self._has_survivors = False
        self._retry_at = 0.0
        self._backoff = 1.0
        self._probe_at = 0.0
        self._started = False
        # How many jobs the present turn has handed over.
        self._launched = 0

    # --- called by others --------------------------------------------------------------------

    def place(self, job: Job) -> None:
        """Note how far a job has come; one that waits is launched next."""
        with self._lock:
            self._has_survivors |= job.survivor
            if self._followed.place(job):
                self._is_new = True
                self.wake.set()

    def put_again(self, job: Job, *, ends: int = 0) -> None:
        """Launch the same attempt again: the engine lost it before it began."""
        record = job.record
        now = self._host.monotonic()
        since = now if record.lost_since is None else record.lost_since
        count = record.relaunches + 1
        job.update(launched=False, relaunches=count, lost_since=since, ends=ends)
        pause = PROBE_S * 2 ** (record.relaunches - 1) if record.relaunches else 0.0
        job.not_before = now + min(pause, RELAUNCH_S)
        # Those of a dead owner may go together again.
        job.apart = not record.inherited

    def release(self, job: Job) -> None:
        """Release the present attempt of a job, unless others of its parcel are still wanted."""
        with self._lock:
            job.update(released=True)
            parcel = job.parcel
            if parcel is None:
                self._to_release.append(job.attempt())
            elif all(each.record.released for each in parcel.jobs.values()):
                self._to_release.append(parcel.attempt)
        self.wake.set()

    def note_ran(self, job: Job, change: Change) -> None:
        """Note how long a recipe ran, if it came to its end."""
        began, ended = change.started_at, change.finished_at
        if began is not None and ended is not None and job.state is not JobState.CANCELLED:
            ran_s, kind = max(0.0, ended - began), _kind(job)
            self._first_at.pop(kind, None)
            self._ran[kind] = ran_s + (1 - _WEIGHT) * (self._ran.get(kind, ran_s) - ran_s)

    def probe_soon(self) -> None:
        """Ask the engine about those that were silent for long."""
        self._probe_at = 0.0
        self.wake.set()

    # --- on the driver's thread --------------------------------------------------------------

    def wait(self) -> None:
        """Wait until there is something to do."""
        self.wake.wait(self._pause())
        self.wake.clear()

    def turn(self) -> int:
        """Call the engine for all that there is to do; return how many jobs it was handed."""
        now = self._host.monotonic()
        self._launched = 0
        if now >= self._retry_at:
            self._guarded(self._launch_waiting)
        self._guarded(self._release)
        if now >= self._probe_at:
            self._probe_at = now + PROBE_S
            self._guarded(self._probe_silent)
        return self._launched

    def finish(self) -> bool:
        """Release what is left, and end the engine; return whether it was ever used."""
        for _ in range(_LAST_TRIES):
            if self._to_release:
                self._guarded(self._release)
        if self._started:
            self._guarded(self._engine.stop)
        return self._started

    def _pause(self) -> float:
        now = self._host.monotonic()
        pause = min(PROBE_S, max(0.05, self._probe_at - now))
        if self._followed.count(Phase.WAITING) and self._retry_at > now:
            pause = min(pause, max(0.05, self._retry_at - now))
        return min(pause, MEASURE_S / 10) if self._measures else pause

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            with _exit_raised():
                call()
        except EngineUnavailable as error:
            self._retry_at = self._host.monotonic() + self._backoff
            self._backoff = min(2 * self._backoff, BACKOFF_S)
            self._log.warning("the engine is not available, trying again: %s", error)
        except Exception:  # noqa: BLE001 - whatever an engine raises
            self._log.exception("the engine failed in %s", call.__name__)

    def _launch_waiting(self) -> None:
        with self._lock:
            parcels = [] if self.leaves else self._next()
        attempts = [parcel.attempt for parcel in parcels]
        if not attempts:
            return
        self._launched = sum(len(parcel.members) for parcel in parcels)
        self._started = True
        answers: Mapping[str, str | Exception] = {}
        try:
            self._sync()
            for parcel in parcels:
                self._list_members(parcel)
            with _exit_raised():
                answers = self._engine.launch(attempts)
        except EngineUnavailable as error:
            self._note([job for parcel in parcels for job in parcel.members], error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever an engine raises
            if not self._is_decided([job for each in parcels for job in each.members], error):
                return
            answers = {attempt.id: attempt.id for attempt in attempts}
        finally:
            for parcel in parcels:
                self._record_answer(parcel, answers.get(parcel.attempt.id))
        left = [str(each) for each in answers.values() if _is_later(each)]
        if len(left) == len(answers):
            raise EngineUnavailable(left[0] if left else "it took none of the attempts")
        self._backoff = 1.0
        if self._alone:
            self.wake.set()  # the next of them, after what there is to release

    def _note(self, jobs: Iterable[Job], error: Exception) -> None:
        """Report that jobs wait for an engine that is not available."""
        self._tell([note for job in jobs for note in job.note(f"trying again: {error}")])

    def _record_answer(self, parcel: Parcel, answer: str | Exception | None) -> None:
        """Do what follows for jobs from what `launch` answered of their parcel."""
        jobs = list(parcel.members)
        handle = None if isinstance(answer, Exception) else answer
        if _is_later(answer):
            self._note(jobs, answer)
        elif isinstance(answer, Exception) and len(jobs) > 1:
            self._separate(jobs, answer)
        elif isinstance(answer, Exception):
            self._fail(jobs[0], answer)
            handle = parcel.attempt.id
        self._record_launch(parcel, handle)

    def _list_members(self, parcel: Parcel) -> None:
        """Write down for the engine's worker what it runs after the first job of a parcel."""
        (first, number), *others = list(parcel.members.items())
        try:
            if others:
                first.leads = True
                listed = [(job.job_id, attempt) for job, attempt in others]
                first.directory.write_parcel(number, listed)
            elif first.leads or first.adopted:
                first.directory.remove_parcel(number)
        except OSError as error:
            self._log.warning("job %s is launched alone: %s", first.job_id, error)
            with self._lock:
                for job, _ in others:
                    job.update(launched=False)
                    self._followed.place(job)
                    del parcel.members[job]

    def _sync(self) -> None:
        """Sync the names of new run directories to the disk before anything is published in them.

        Once for all that are launched together; afterwards an outcome costs no more than its own.
        """
        if not self._is_new:
            return
        self._is_new = False
        try:
            self._host.sync_entries()
        except OSError as error:
            self._is_new = True
            raise EngineUnavailable(f"run directories do not reach the disk: {error}") from error

    def _next(self) -> list[Parcel]:
        """Pack the jobs that the engine gets next: the urgent ones, then as they came."""
        if not self._followed.count(Phase.WAITING):
            return []
        most = self._engine.capabilities.max_queued
        # One whose ends cannot be published keeps nothing else back: none of it runs any more.
        room = most - sum(not parcel.is_over() for parcel in self._followed.parcels)
        free = max(most, _JOBS) - self._followed.count(*WITH_ENGINE)
        now = self._host.monotonic()
        packing = _Packing(
            self._engine,
            self._followed,
            self._left_here(),
            now,
            ran=self._ran,
            first_at=self._first_at,
        )
        late: list[Job] = []
        full: set[str] = set()
        while (job := self._followed.next_waiting(full)) is not None:
            alone = job.job_id in self._alone
            # A pass of a flow waits for no other job: it has as much room of its own.
            own = most if _is_pass(job) else 0
            if min(free, room) + own <= 0 or (packing.parcels and alone):
                break
            if job.not_before > now:
                self._followed.set_aside(job)
                late.append(job)
                continue
            size = 1 if alone else packing.size(job)
            parcel = packing.find(job, size)
            if parcel is None:
                if len(packing.parcels) >= room + own:
                    break
                if not packing.may_begin(job, size):
                    full.add(job.cluster)
                    continue
            packing.add(job, size, parcel)
            free -= 1
            if alone:
                self._alone.remove(job.job_id)
                break
        for job in late:
            self._followed.put_back(job)
        self._measures = packing.measures
        return packing.parcels

    def _left_here(self) -> float:
        """Return how many parcels more may run on this host, where some outlived the last owner.

        Their workers are none of the engine's, which has as many as `workers` says beside them.
        """
        if self._has_survivors:
            followed = self._followed.those(*WITH_ENGINE)
            self._has_survivors = any(
                job.survivor and job.swept != job.record.attempt for job in followed
            )
        if not self._has_survivors:
            return math.inf
        workers = self._engine.workers()
        with_engine = self._followed.parcels
        here = sum(
            parcel.attempt.priority <= MOST_PRIORITY
            and not parcel.is_over()
            and self._engine.runs_here(parcel.attempt.cluster)
            for parcel in with_engine
        )
        return math.inf if workers is None else workers - here

    def _is_decided(self, jobs: Sequence[Job], error: Exception) -> bool:
        """Act on an exception; return whether it decides the handover."""
        if is_passing(error):
            self._note(jobs, error)
            raise EngineUnavailable(str(error)) from error
        if isinstance(error, RuntimeError) and _interpreter_ends():
            return False  # `close` comes in a moment, and cancels them
        if len(jobs) > 1:
            # It may have begun some of them, and none is failed for what another one asks.
            self._separate(jobs, error)
            return False
        self._fail(jobs[0], error)
        return True

    def _separate(self, jobs: Sequence[Job], error: Exception) -> None:
        """Launch each of several jobs alone."""
        name, trace = _logged(error)
        self._log.warning("cannot launch %d, trying each: %s", len(jobs), name, exc_info=trace)
        with self._lock:
            self._alone.update(job.job_id for job in jobs)
        self.wake.set()

    def _fail(self, job: Job, error: Exception) -> None:
        """Note that the engine refuses to start a job."""
        name, trace = _logged(error)
        trace = None if job.job_id in self._alone else trace  # it was told of all together
        self._log.error("the engine could not launch job %s: %s", job.job_id, name, exc_info=trace)
        told = name if isinstance(error, CrystalMathError) else f"{name}: {error}"
        # Should it run all the same, what became of it is for its heart to tell.
        job.note_sighting(job.attempt_id, Sighting("gone", told, fatal=True, unseen=True))
        self._notice(job.job_id)

    def _record_launch(self, parcel: Parcel, handle: str | None) -> None:
        with self._lock:
            parcel.since = self._host.monotonic()
            if handle is not None:
                parcel.attempt = evolve(parcel.attempt, handle=handle)
            # Others were lost meanwhile and wait as another attempt, or have ended.
            left = [job for job in parcel.members if job.parcel is parcel]
            for job in left:
                if handle is None:
                    job.update(launched=False)
                    self._followed.place(job)
                else:
                    job.update(inherited=False)
            if handle is None:
                return
            first, number = next(iter(parcel.members.items()))
            leads = first in left and first.record.attempt == number
            if leads:
                first.handle = handle
        for job in left:
            self._notice(job.job_id)
        if leads and handle != parcel.attempt.id:
            # An engine that finds its work by the attempt's id needs no file for that.
            try:
                first.directory.write_handle(number, handle)
            except OSError as error:
                # The engine finds its work by the attempt's id, too.
                self._log.warning("cannot record the handle of %s: %s", parcel.attempt.id, error)

    def _release(self) -> None:
        with self._lock:
            attempts, self._to_release = self._to_release, []
        if not attempts:
            return
        self._started = True
        with self._lock:
            asked = [(each, self._followed.jobs.get(each.job_id)) for each in attempts]
            jobs = [job for each, job in asked if job is not None and job.attempt_id == each.id]
        try:
            with _exit_raised():
                self._engine.release(attempts)
        except EngineUnavailable as error:
            with self._lock:
                self._to_release += attempts
            self._note(jobs, error)
            raise
        except Exception:  # noqa: BLE001 - whatever an engine raises
            self._log.exception("the engine failed in release")  # and would again
        for job in jobs:
            job.update(dropped=True)
            self._notice(job.job_id)
        self._probe_at = min(self._probe_at, self._host.monotonic() + STOPPING_S)

    def _probe_interval(self, parcel: Parcel) -> float:
        """Return how long a parcel may be silent before the engine is asked, in seconds."""
        if parcel.unbegun:
            return PROBE_S
        if any(map(self._is_stopping, parcel.jobs.values())):
            return 0.0
        # Elsewhere the process table shows sooner which attempts run.
        here = self._engine.capabilities_of(parcel.attempt.cluster).workers_here
        return math.inf if here else RUNNING_S

    def _is_stopping(self, job: Job) -> bool:
        """Return whether a job is being stopped on hosts whose processes nobody here sees."""
        released = job.state is JobState.RUNNING and job.record.released
        return released and not self._engine.capabilities_of(job.cluster).workers_here

    def _probe_silent(self) -> None:
        now = self._host.monotonic()
        with self._lock:
            if any(map(self._is_stopping, self._followed.those(Phase.RUNNING))):
                self._probe_at = now + STOPPING_S
            silent = []
            for parcel in self._followed.parcels:
                if len(parcel.members) > 1 and parcel.has_moved:
                    parcel.has_moved, parcel.moved_at = False, now
                if now - max(parcel.since, parcel.moved_at) > self._probe_interval(parcel):
                    silent.append(parcel)
        if not silent:
            return
        # What it opens to answer, it has to close.
        self._started = True
        try:
            attempts = {parcel.attempt.id: parcel.attempt for parcel in silent}
            sightings = self._engine.probe(list(attempts.values()))
        except EngineUnavailable as error:
            self._note([job for parcel in silent for job in parcel.jobs.copy().values()], error)
            raise
        for parcel in silent:
            sighting = sightings.get(parcel.attempt.id, Sighting("unknown"))
            if len(parcel.members) > 1:
                sighting = _of_each(parcel, sighting, now)
            with self._lock:
                parcel.since = self._host.monotonic()
                jobs = list((parcel.unbegun or parcel.jobs).values())
            self._tell([note for job in jobs for note in job.note(sighting.reason)])
            for job in jobs if sighting.state in {"gone", "unknown"} else ():
                job.note_sighting(attempt_id(job.job_id, parcel.members[job]), sighting)
                self._notice(job.job_id)


class _Packing:
    """The parcels of one launch, and how many jobs go into each.

    At most `here` may begin on this host. `ran` is the mean run time of recipes, in seconds;
    `first_at` is when the first was launched of those without one.
    """

    def __init__(
        self,
        engine: Engine,
        followed: Followed,
        here: float,
        now: float,
        *,
        ran: Mapping[tuple[str, str], float],
        first_at: dict[tuple[str, str], float],
    ) -> None:
        self.parcels: list[Parcel] = []
        #: Whether a recipe is being measured, for which others wait.
        self.measures = False
        self._engine = engine
        self._followed = followed
        self._here = here
        self._now = now
        self._ran = ran
        self._first_at = first_at
        self._workers = engine.workers()
        self._at_first = followed.count(Phase.NEW, Phase.WAITING)
        self._unmeasured: Counter[tuple[str, str]] | None = None
        self._open: dict[object, Parcel] = {}

    def size(self, job: Job) -> int:
        """Return how many may go into a job's parcel; 0: it waits until its recipe is measured."""
        if not self._may_share(job):
            return 1
        size: int | None = job.header.get("parcel") or self._engine.settings.parcel
        if size is not None or self._workers is None:
            return size or 1
        least, kind = _PARCELS * self._workers, _kind(job)
        waiting = self._followed.count(Phase.NEW, Phase.WAITING)
        if (ran_s := self._ran.get(kind)) is not None:
            ran_s = max(ran_s, 1e-3)
            short = min(math.ceil(self._at_first / self._workers), int(SHORT_S / ran_s))
            return max(1, min(PARCEL_JOBS, max(waiting // least, short), int(PARCEL_S / ran_s)))
        if waiting < PARCEL_JOBS * self._workers:
            return 1  # it is not worth a pause
        if self._unmeasured is None:
            self._unmeasured = Counter(map(_kind, self._followed.those(*WITH_ENGINE)))
        self._unmeasured[kind] += 1
        since = self._first_at.setdefault(kind, self._now)
        if self._unmeasured[kind] <= least or self._now - since > MEASURE_S:
            return 1
        self.measures = True
        return 0

    def _may_share(self, job: Job) -> bool:
        """Return whether others may go with a job.

        Elsewhere an engine's word is needed of each. One that was lost may lose its worker again.
        """
        first = job.record.attempt == 1 and not job.apart and job.header.get("walltime_s") is None
        return first and self._engine.capabilities_of(job.cluster).workers_here

    def find(self, job: Job, size: int) -> Parcel | None:
        """Return a parcel with room for a job, if one was begun."""
        parcel = self._open.get(_needs(job)) if size > 1 else None
        return parcel if parcel is not None and len(parcel.members) < size else None

    def may_begin(self, job: Job, size: int) -> bool:
        """Return whether a job may begin a parcel."""
        return size > 0 and (self._here > 0 or not self._takes_worker(job))

    def _takes_worker(self, job: Job) -> bool:
        """Return whether a job keeps one of the workers of this host."""
        return not _is_pass(job) and self._engine.runs_here(job.cluster)

    def add(self, job: Job, size: int, parcel: Parcel | None) -> None:
        """Launch a job: in a parcel, or in one that it begins."""
        # From here on a cancel must reach the engine, too.
        offered = job.record.offered or parcel is None
        job.update(offered=offered, launched=True, released=False, dropped=False)
        packed = self._followed.pack(job, parcel)
        self._followed.place(job)
        if parcel is not None:
            return
        self.parcels.append(packed)
        if size > 1:
            self._open[_needs(job)] = packed
        if self._here < math.inf and self._takes_worker(job):
            self._here -= 1


def _of_each(parcel: Parcel, sighting: Sighting, now: float) -> Sighting:
    """Return what an engine's report of a parcel says of its jobs that have not begun."""
    held_up = parcel.has_begun and now - parcel.moved_at >= HELD_UP_S
    if held_up or sighting.state == "gone":
        # How it ended was another job's doing, perhaps; from now on the engine has each alone.
        return Sighting("gone", sighting.reason)
    return sighting


@contextlib.contextmanager
def _exit_raised() -> Iterator[None]:
    """Raise an error where an engine calls `sys.exit`, which would end its thread in silence."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code!r})") from error


def _is_later(answer: object) -> TypeGuard[Exception]:
    """Return whether an engine's answer for an attempt is that it can be handed over later."""
    return isinstance(answer, EngineUnavailable) or is_passing(answer)


def _is_pass(job: Job) -> bool:
    return int(job.header.get("priority", 0)) > MOST_PRIORITY


def _kind(job: Job) -> tuple[str, str]:
    return str(job.header.get("recipe")), job.cluster


def _needs(job: Job) -> tuple[object, ...]:
    """Return what all jobs of a parcel have in common."""
    header = job.header
    terms = [repr(header.get(name)) for name in ("priority", "resources", "parcel")]
    return *_kind(job), *terms, frozenset(header.get("environment", {}).items())


def _logged(error: Exception) -> tuple[str, Exception | None]:
    """Return what a log may hold of an error: of others' no words, which may hold a job's secrets.

    The server's log has of their traceback the places alone.
    """
    if isinstance(error, CrystalMathError):
        return str(error), None
    return type(error).__name__, error


def _interpreter_ends() -> bool:
    """Return whether the main thread ends, which takes a moment: an engine can start nothing then.

    Pools and threads refuse work ("cannot schedule new futures after interpreter shutdown") before
    anybody's exit functions are called.
    """
    end = time.monotonic() + ENDS_S
    while threading.main_thread().is_alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
