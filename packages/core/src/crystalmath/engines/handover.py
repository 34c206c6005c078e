"""Call the engine: one call at a time, on the driver's thread, because each may block."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from typing import TYPE_CHECKING, TypeGuard

from attrs import evolve

from crystalmath.engines.followed import Phase
from crystalmath.engines.packing import MEASURE_S, Packer
from crystalmath.errors import CrystalMathError, EngineUnavailable
from crystalmath.jobs.rundir import attempt_id
from crystalmath.models import JobState, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.engines.engine_interface import Engine
    from crystalmath.engines.followed import Followed
    from crystalmath.jobs.changes import Change
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.reconcile import Job, Parcel
    from crystalmath.models import Attempt

#: How long an attempt may be launched and unclaimed before the engine is probed, in seconds.
PROBE_S = 5.0
#: How often the engine is probed about jobs that run on other hosts, in seconds.
RUNNING_S = 15.0
#: How often the engine is probed about jobs that are being stopped on other hosts, in seconds.
STOPPING_S = 2.0
#: The longest pause before an engine that is not available is called again, in seconds.
BACKOFF_S = 10.0
#: The longest pause before an attempt that the engine has lost is launched again, in seconds.
RELAUNCH_S = 60.0
#: How long to wait for the interpreter's end when an engine can start nothing, in seconds.
ENDS_S = 0.5
#: How often `release` is tried before the engine is ended.
_LAST_TRIES = 3
#: How long a job may hold up the others of its parcel, in seconds: they are then launched alone.
HELD_UP_S = 10.0
#: Errors of the system that may pass.
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
#: Python's message if the system has no room for another thread.
_NO_THREADS = "can't start new thread"


def is_passing(error: object) -> bool:
    """Return whether an error may pass: no descriptors are left, or a file system is away."""
    if isinstance(error, RuntimeError):
        return str(error) == _NO_THREADS
    return isinstance(error, OSError) and error.errno in _PASSING


class Handover:
    """Hand attempts to the engine, probe them, and release those that are not wanted.

    Only `turn` and `finish` call the engine, both on the driver's thread. The other methods are
    called by threads that submit and by the thread that looks at files. The driver's `lock` guards
    the shared state; it is never held during a call to the engine. `report` takes changes for
    listeners; `notice` has the watcher look at the files of a job.
    """

    def __init__(
        self,
        engine: Engine,
        followed: Followed,
        lock: threading.RLock,
        *,
        host: Host,
        report: Callable[[Sequence[Change]], None],
        notice: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self.log = engine.log
        self._host = host
        self._followed = followed
        self._lock = lock
        self._report = report
        self._notice = notice
        self.wake = threading.Event()
        #: Whether the driver is closing: no job is handed over any more.
        self.is_closing = False
        self._packer = Packer(engine, followed)
        self.run_times = self._packer.run_times
        self._to_release: list[Attempt] = []
        # Whether the name of a new run directory may not be on the disk yet.
        self._has_unsynced = False
        self._retry_at = 0.0
        self._backoff = 1.0
        self._probe_at = 0.0
        self._started = False
        # How many jobs this turn has handed over.
        self._launched = 0

    # --- called by others --------------------------------------------------------------------

    def place(self, job: Job) -> None:
        """Note how far a job has come; the driver's thread launches it if it waits."""
        with self._lock:
            self._packer.note_placed(job)
            if self._followed.place(job):
                self._has_unsynced = True
                self.wake.set()

    def put_again(self, job: Job, *, ends: int = 0) -> None:
        """Queue the same attempt again, which the engine lost before a worker began it."""
        record = job.record
        now = self._host.monotonic()
        since = now if record.lost_since is None else record.lost_since
        count = record.relaunches + 1
        job.update(launched=False, relaunches=count, lost_since=since, ends=ends)
        pause = PROBE_S * 2 ** (record.relaunches - 1) if record.relaunches else 0.0
        job.not_before = now + min(pause, RELAUNCH_S)
        # Jobs of a dead owner may share a parcel again.
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

    def probe_soon(self) -> None:
        """Have the next turn probe the parcels that were silent for long."""
        self._probe_at = 0.0
        self.wake.set()

    # --- on the driver's thread --------------------------------------------------------------

    def wait(self) -> None:
        """Wait until there is something to do."""
        self.wake.wait(self._pause())
        self.wake.clear()

    def turn(self) -> int:
        """Launch, release and probe as needed; return how many jobs the engine was handed."""
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
        """Release the remaining attempts, and end the engine; return whether it was ever used."""
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
        return min(pause, MEASURE_S / 10) if self._packer.is_measuring else pause

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            with _exit_raised():
                call()
        except EngineUnavailable as error:
            self._retry_at = self._host.monotonic() + self._backoff
            self._backoff = min(2 * self._backoff, BACKOFF_S)
            self.log.warning("the engine is not available, trying again: %s", error)
        except Exception:
            self.log.exception("the engine failed in %s", call.__name__)

    def _launch_waiting(self) -> None:
        with self._lock:
            parcels = [] if self.is_closing else self._packer.next_parcels(self._host.monotonic())
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
            self._note_unavailable([job for parcel in parcels for job in parcel.members], error)
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
        if self._packer.alone:
            self.wake.set()  # launch the next one alone, after pending releases

    def _note_unavailable(self, jobs: Iterable[Job], error: Exception) -> None:
        """Report that jobs wait for an engine that is not available."""
        self._report([note for job in jobs for note in job.note(f"trying again: {error}")])

    def _record_answer(self, parcel: Parcel, answer: str | Exception | None) -> None:
        """Act on the answer of `launch` for one parcel."""
        jobs = list(parcel.members)
        handle = None if isinstance(answer, Exception) else answer
        if _is_later(answer):
            self._note_unavailable(jobs, answer)
        elif isinstance(answer, Exception) and len(jobs) > 1:
            self._separate(jobs, answer)
        elif isinstance(answer, Exception):
            self._fail(jobs[0], answer)
            handle = parcel.attempt.id
        self._record_launch(parcel, handle)

    def _list_members(self, parcel: Parcel) -> None:
        """Write the list of jobs that the engine's worker runs after the first one of a parcel."""
        (first, number), *others = list(parcel.members.items())
        try:
            if others:
                first.leads = True
                listed = [(job.job_id, attempt) for job, attempt in others]
                first.directory.write_parcel(number, listed, batch=parcel.is_batch)
            elif first.leads or first.adopted:
                first.directory.remove_parcel(number)
        except OSError as error:
            self.log.warning("job %s is launched alone: %s", first.job_id, error)
            with self._lock:
                for job, _ in others:
                    job.update(launched=False)
                    self._followed.place(job)
                    del parcel.members[job]

    def _sync(self) -> None:
        """Sync the names of new run directories to the disk before anything is published in them.

        One sync serves all jobs of a launch, and no outcome has to sync the name again.
        """
        if not self._has_unsynced:
            return
        self._has_unsynced = False
        try:
            self._host.sync_entries()
        except OSError as error:
            self._has_unsynced = True
            raise EngineUnavailable(f"run directories do not reach the disk: {error}") from error

    def _is_decided(self, jobs: Sequence[Job], error: Exception) -> bool:
        """Act on an exception of `launch`; return whether the one job has failed with it."""
        if is_passing(error):
            self._note_unavailable(jobs, error)
            raise EngineUnavailable(str(error)) from error
        if isinstance(error, RuntimeError) and _interpreter_ends():
            return False  # `close` comes in a moment, and cancels them
        if len(jobs) > 1:
            # The engine may have begun some of them, and none fails for another one's error.
            self._separate(jobs, error)
            return False
        self._fail(jobs[0], error)
        return True

    def _separate(self, jobs: Sequence[Job], error: Exception) -> None:
        """Launch each of several jobs alone."""
        name, trace = _logged(error)
        self.log.warning("cannot launch %d, trying each: %s", len(jobs), name, exc_info=trace)
        with self._lock:
            self._packer.alone.update(job.job_id for job in jobs)
        self.wake.set()

    def _fail(self, job: Job, error: Exception) -> None:
        """Note that the engine refuses to start a job."""
        name, trace = _logged(error)
        if job.job_id in self._packer.alone:
            trace = None  # it was logged when they were launched together
        self.log.error("the engine could not launch job %s: %s", job.job_id, name, exc_info=trace)
        reason = name if isinstance(error, CrystalMathError) else f"{name}: {error}"
        # If a worker runs it nevertheless, its heartbeat shows that.
        job.note_sighting(job.attempt_id, Sighting("gone", reason, fatal=True, unseen=True))
        self._notice(job.job_id)

    def _record_launch(self, parcel: Parcel, handle: str | None) -> None:
        with self._lock:
            parcel.since = self._host.monotonic()
            if handle is not None:
                parcel.attempt = evolve(parcel.attempt, handle=handle)
            # Other members have ended meanwhile, or were lost and wait as another attempt.
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
            try:
                first.directory.write_handle(number, handle)
            except OSError as error:
                # The engine finds its work by the attempt's id, too.
                self.log.warning("cannot record the handle of %s: %s", parcel.attempt.id, error)

    def _release(self) -> None:
        with self._lock:
            attempts, self._to_release = self._to_release, []
        if not attempts:
            return
        self._started = True
        with self._lock:
            followed = [self._followed.jobs.get(attempt.job_id) for attempt in attempts]
            ids = {attempt.id for attempt in attempts}
            jobs = [job for job in followed if job is not None and job.attempt_id in ids]
        try:
            with _exit_raised():
                self._engine.release(attempts)
        except EngineUnavailable as error:
            with self._lock:
                self._to_release += attempts
            self._note_unavailable(jobs, error)
            raise
        except Exception:
            self.log.exception("the engine failed in release")  # it would fail again
        for job in jobs:
            job.update(dropped=True)
            self._notice(job.job_id)
        self._probe_at = min(self._probe_at, self._host.monotonic() + STOPPING_S)

    def _probe_interval(self, parcel: Parcel) -> float:
        """Return how long a parcel may be silent before the engine is probed, in seconds."""
        if parcel.unbegun:
            return PROBE_S
        if any(map(self._is_stopping, parcel.jobs.values())):
            return 0.0
        # On this host the process table shows sooner whether an attempt runs.
        here = self._engine.capabilities_of(parcel.attempt.cluster).workers_here
        return math.inf if here else RUNNING_S

    def _is_stopping(self, job: Job) -> bool:
        """Return whether a job is being stopped on another host, whose processes we do not see."""
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
        # An engine that was probed must be stopped: it may have opened something to answer.
        self._started = True
        try:
            attempts = {parcel.attempt.id: parcel.attempt for parcel in silent}
            sightings = self._engine.probe(list(attempts.values()))
        except EngineUnavailable as error:
            self._note_unavailable(
                [job for parcel in silent for job in parcel.jobs.copy().values()], error
            )
            raise
        for parcel in silent:
            sighting = sightings.get(parcel.attempt.id, Sighting("unknown"))
            if len(parcel.members) > 1:
                sighting = _for_members(parcel, sighting, now)
            with self._lock:
                parcel.since = self._host.monotonic()
                jobs = list((parcel.unbegun or parcel.jobs).values())
            self._report([note for job in jobs for note in job.note(sighting.reason)])
            for job in jobs if sighting.state in {"gone", "unknown"} else ():
                job.note_sighting(attempt_id(job.job_id, parcel.members[job]), sighting)
                self._notice(job.job_id)


def _for_members(parcel: Parcel, sighting: Sighting, now: float) -> Sighting:
    """Return a sighting for the members of a parcel that have not begun, from the parcel's."""
    # A call of a batch may take minutes.
    is_late = not parcel.is_batch and now - parcel.moved_at >= HELD_UP_S
    held_up = parcel.has_begun and is_late
    if held_up or sighting.state == "gone":
        # Another job may have caused its end. These jobs are launched again, each alone.
        return Sighting("gone", sighting.reason)
    return sighting


@contextlib.contextmanager
def _exit_raised() -> Iterator[None]:
    """Raise an error if an engine calls `sys.exit`, which would end its thread silently."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code!r})") from error


def _is_later(answer: object) -> TypeGuard[Exception]:
    """Return whether the answer of `launch` means that the attempt is handed over again later."""
    return isinstance(answer, EngineUnavailable) or is_passing(answer)


def _logged(error: Exception) -> tuple[str, Exception | None]:
    """Return the text and the exception that a log may hold of an error.

    The words of foreign exceptions may hold a job's secrets, so only their type is logged. The
    server's log keeps the places of a traceback alone.
    """
    if isinstance(error, CrystalMathError):
        return str(error), None
    return type(error).__name__, error


def _interpreter_ends() -> bool:
    """Return whether the main thread ends within a moment, so that an engine can start nothing.

    Pools and threads refuse work ("cannot schedule new futures after interpreter shutdown") before
    any exit function is called.
    """
    end = time.monotonic() + ENDS_S
    while threading.main_thread().is_alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
