"""The driver's half that calls the engine: one call at a time, on one thread, each may block."""

from __future__ import annotations

import errno
import math
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Protocol

from crystalmath.engines.followed import Phase
from crystalmath.errors import CrystalMathError, EngineUnavailable
from crystalmath.jobs.changes import Publish
from crystalmath.jobs.reconcile import publish
from crystalmath.models import JobState, Sighting

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crystalmath.engines.followed import Followed
    from crystalmath.jobs.changes import Change
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.reconcile import Job
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

#: The phases of the jobs that the engine has.
_WITH_ENGINE = (Phase.LAUNCHED, Phase.RUNNING)
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


def is_passing(error: BaseException) -> bool:
    """Return whether an error of the system may pass: no descriptors left, a file system away."""
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
        # Whether a run directory may be new, and its name not on the disk yet.
        self._is_new = False
        self._retry_at = 0.0
        self._backoff = 1.0
        self._probe_at = 0.0
        self._started = False

    # --- called by others --------------------------------------------------------------------

    def place(self, job: Job) -> None:
        """Note how far a job has come; one that waits is launched next."""
        with self._lock:
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

    def release(self, job: Job) -> None:
        """Release the present attempt of a job."""
        with self._lock:
            job.update(released=True)
            self._to_release.append(job.attempt())
        self.wake.set()

    def probe_soon(self) -> None:
        """Ask the engine about those that were silent for long."""
        self._probe_at = 0.0
        self.wake.set()

    # --- on the driver's thread --------------------------------------------------------------

    def wait(self) -> None:
        """Wait until there is something to do."""
        self.wake.wait(self._pause())
        self.wake.clear()

    def turn(self) -> None:
        """Call the engine for all that there is to do."""
        now = self._host.monotonic()
        if now >= self._retry_at:
            self._guarded(self._launch_waiting)
        self._guarded(self._release)
        if now >= self._probe_at:
            with self._lock:
                running = list(self._followed.those(Phase.RUNNING))
            stopping = any(map(self._is_stopping, running))
            self._probe_at = now + (STOPPING_S if stopping else PROBE_S)
            self._guarded(self._probe_silent)

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
        return pause

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except EngineUnavailable as error:
            self._retry_at = self._host.monotonic() + self._backoff
            self._backoff = min(2 * self._backoff, BACKOFF_S)
            self._log.warning("the engine is not available, trying again: %s", error)
        except Exception:  # noqa: BLE001 - whatever an engine raises
            self._log.exception("the engine failed in %s", call.__name__)

    def _launch_waiting(self) -> None:
        with self._lock:
            jobs = [] if self.leaves else self._next()
            attempts = [job.attempt() for job in jobs]
        if not attempts:
            return
        self._started = True
        answers: Mapping[str, str | Exception] = {}
        try:
            self._sync()
            answers = self._engine.launch(attempts)
        except EngineUnavailable as error:
            self._note(jobs, error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever an engine raises
            if not self._is_decided(jobs, error):
                return
            answers = {attempt.id: attempt.id for attempt in attempts}
        finally:
            for job, attempt in zip(jobs, attempts, strict=True):
                self._record_answer(job, attempt.id, answers.get(attempt.id))
        left = [each for each in answers.values() if isinstance(each, EngineUnavailable)]
        if len(left) == len(answers):
            raise left[0] if left else EngineUnavailable("it took none of the attempts")
        self._backoff = 1.0
        if self._alone:
            self.wake.set()  # the next of them, after what there is to release

    def _note(self, jobs: Iterable[Job], error: Exception) -> None:
        """Report that jobs wait for an engine that is not available."""
        self._tell([note for job in jobs for note in job.note(f"trying again: {error}")])

    def _record_answer(self, job: Job, attempt: str, answer: str | Exception | None) -> None:
        """Do what follows for a job from what `launch` answered of its attempt."""
        handle = None if isinstance(answer, Exception) else answer
        if isinstance(answer, EngineUnavailable):
            self._note([job], answer)
        elif isinstance(answer, Exception):
            self._fail(job, answer)
            handle = attempt
        self._record_launch(job, attempt, handle)

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

    def _next(self) -> list[Job]:
        """Mark the jobs that the engine gets next: the urgent ones, then as they came."""
        free = self._engine.capabilities.max_queued - self._followed.count(*_WITH_ENGINE)
        now = self._host.monotonic()
        jobs: list[Job] = []
        late: list[Job] = []
        full: set[str] = set()
        waits = free > 0 and self._followed.count(Phase.WAITING)
        here = self._left_here() if waits else math.inf
        while len(jobs) < free and (job := self._followed.next_waiting(full)) is not None:
            alone = job.job_id in self._alone
            if jobs and alone:
                break
            if job.not_before > now:
                self._followed.set_aside(job)
                late.append(job)
                continue
            if here < math.inf and self._is_here(job):
                if here <= 0:
                    full.add(job.cluster)
                    continue
                here -= 1
            # From here on a cancel must reach the engine, too.
            job.update(offered=True, launched=True, released=False, dropped=False)
            self._followed.place(job)
            jobs.append(job)
            if alone:
                self._alone.remove(job.job_id)
                break
        for job in late:
            self._followed.put_back(job)
        return jobs

    def _left_here(self) -> float:
        """Return how many jobs more may run on this host, where some outlived the last owner.

        Their workers are none of the engine's, which has as many as `workers` says beside them.
        """
        launched = list(self._followed.those(*_WITH_ENGINE))
        if not any(job.survivor for job in launched):
            return math.inf
        workers = self._engine.workers()
        return math.inf if workers is None else workers - sum(map(self._is_here, launched))

    def _is_here(self, job: Job) -> bool:
        return self._engine.runs_here(job.cluster)

    def _is_decided(self, jobs: Sequence[Job], error: Exception) -> bool:
        """Act on an exception; return whether it decides the handover."""
        if is_passing(error):
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
        """Decide a job that the engine refuses to start."""
        name, trace = _logged(error)
        trace = None if job.job_id in self._alone else trace  # it was told of all together
        self._log.error("the engine could not launch job %s: %s", job.job_id, name, exc_info=trace)
        told = name if isinstance(error, CrystalMathError) else f"{name}: {error}"
        end = Publish(state="failed", error=f"the engine could not start it: {told}", unbegun=True)
        try:
            publish(job.directory, job.record.attempt, end, self._host)
        except OSError as failure:
            # The engine says that it has not got it, when it is asked.
            self._log.warning("cannot end job %s: %s", job.job_id, failure)
        self._notice(job.job_id)

    def _record_launch(self, job: Job, attempt: str, handle: str | None) -> None:
        with self._lock:
            if job.attempt_id != attempt or self._followed.phase(job.job_id) is None:
                return  # it was lost meanwhile and waits as another attempt, or has ended
            if handle is None:
                job.update(launched=False)
                self._followed.place(job)
                return
            job.handle, job.since = handle, self._host.monotonic()
            job.update(inherited=False)
        self._notice(job.job_id)
        if handle != attempt:
            # An engine that finds its work by the attempt's id needs no file for that.
            try:
                job.directory.write_handle(job.record.attempt, handle)
            except OSError as error:
                # The engine finds its work by the attempt's id, too.
                self._log.warning("cannot record the handle of %s: %s", attempt, error)

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

    def _probe_interval(self, job: Job) -> float:
        """Return how long a job may be silent before the engine is asked, in seconds."""
        if job.state is JobState.PENDING:
            return PROBE_S
        if self._is_stopping(job):
            return 0.0
        # Elsewhere the process table shows sooner which attempts run.
        return math.inf if self._engine.capabilities_of(job.cluster).workers_here else RUNNING_S

    def _is_stopping(self, job: Job) -> bool:
        """Return whether a job is being stopped on hosts whose processes nobody here sees."""
        released = job.state is JobState.RUNNING and job.record.released
        return released and not self._engine.capabilities_of(job.cluster).workers_here

    def _probe_silent(self) -> None:
        now = self._host.monotonic()
        with self._lock:
            launched = self._followed.those(*_WITH_ENGINE)
            silent = [job for job in launched if now - job.since > self._probe_interval(job)]
            asked = {job.attempt(): job for job in silent}
        if not asked:
            return
        # What it opens to answer, it has to close.
        self._started = True
        try:
            sightings = self._engine.probe(list(asked))
        except EngineUnavailable as error:
            self._note(silent, error)
            raise
        for attempt, job in asked.items():
            sighting = sightings.get(attempt.id, Sighting("unknown"))
            job.since = self._host.monotonic()
            self._tell(job.note(sighting.reason))
            if sighting.state in {"gone", "unknown"}:
                job.note_sighting(attempt.id, sighting)
                self._notice(job.job_id)


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
