"""What stands behind every engine runner: its jobs, and the two threads that follow them."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from crystalmath import processes
from crystalmath.errors import BadFile, CrystalMathError, EngineUnavailable, UnknownJob
from crystalmath.jobs.identities import own_identity
from crystalmath.jobs.outcomes import cancel_files, publish_unbegun, read_state
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.jobs.tracking import Sight, Tracked, take_over
from crystalmath.models import JobState, Sighting
from crystalmath.worker.chains import close_idle

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crystalmath.jobs.changes import Change
    from crystalmath.models import Attempt, Capabilities, EngineSettings

__all__ = ["Driver"]

#: How often the files of unfinished jobs are looked at, in seconds.
LOOK_S = 0.1
#: How long news is gathered, in seconds.
GATHER_S = 0.01
#: How long an attempt may be launched and unclaimed before the engine is asked, in seconds.
PROBE_S = 5.0
#: How long an engine that is not available is left alone, at most, in seconds.
BACKOFF_S = 10.0
#: How long `close` waits for the jobs that it cancels, in seconds.
CLOSE_S = 20.0
#: An attempt that the engine lost so often before it began is given up.
RELAUNCHES = 5
#: How long an engine that could start nothing is given until the interpreter ends, in seconds.
ENDS_S = 0.5


class Engine(Protocol):
    """What an engine author writes (:class:`crystalmath.quacc.engine.EngineRunner`)."""

    capabilities: ClassVar[Capabilities]
    settings: EngineSettings
    log: logging.Logger

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Hand attempts over to the engine."""

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Tell what the engine knows of attempts."""

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop what is queued."""

    def stop(self) -> None:
        """End the engine."""


class Driver:
    """Follow the jobs of one runner.

    The watcher thread reads run directories; the driver thread alone calls the engine, which may
    block.

    Parameters
    ----------
    runner : Engine
        The engine.
    """

    def __init__(self, runner: Engine) -> None:
        self._runner = runner
        self.log = runner.log
        self.closed = False
        self._jobs_directory = runner.settings.home / "jobs"
        self._identity = own_identity(self._jobs_directory)
        self._lock = threading.RLock()
        self._jobs: dict[str, Tracked] = {}
        # Those of them that the engine has not got, in the order of their submission.
        self._waiting: dict[str, Tracked] = {}
        self._finished: dict[str, JobState] = {}
        self._noticed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._abandoned = False
        self._ended = False
        self._owner = os.getpid()
        self._to_release: list[Attempt] = []
        self._wake_watcher = threading.Event()
        self._wake_driver = threading.Event()
        self._look_at = 0.0
        self._retry_at = 0.0
        self._backoff = 1.0
        self._probe_at = 0.0
        self._engine_started = False
        self._adopting = threading.Lock()
        self._left: list[Tracked] = []
        self._threads: list[threading.Thread] = []
        self.listeners: list[Callable[[Sequence[Change]], None]] = []

    def notice(self, attempt: str) -> None:
        """Look at an attempt at once."""
        self._noticed.put(attempt.rpartition(".")[0])
        self._wake_watcher.set()

    def add(self, header: dict[str, Any], body: str) -> None:
        """Take a job: write its run directory and queue it for the engine."""
        job = Tracked(header, body, RunDirectory(self._jobs_directory / header["job_id"]))
        if os.getpid() != self._owner:
            raise EngineUnavailable("a forked process must get a runner of its own (get_runner)")
        with self._lock:
            if self.closed:
                raise EngineUnavailable(
                    f"the engine {self._runner.settings.name!r} has been closed"
                )
            self._start_threads()
            job.directory.write_spec(header, body)
            self._jobs[job.job_id] = self._waiting[job.job_id] = job
            if job.directory.cancel_requested():
                # Somebody was quicker than we: it is on record since a while.
                self._stop(job)
        self._wake_driver.set()
        self._wake_watcher.set()

    def adopt(self, job_id: str) -> bool:
        """Take over a job that nobody follows; tell whether it is followed here."""
        directory = self.directory(job_id)
        if os.getpid() != self._owner or read_state(directory).is_terminal():
            return False
        with self._adopting:
            if job_id in self._jobs or job_id in self._finished:
                return True
            job = None if self.closed else take_over(directory, self._runner.settings.name)
            if job is None:
                return False
            try:
                return self._take_in(job)
            except BaseException:
                job.let_go()
                raise

    def _take_in(self, job: Tracked) -> bool:
        with self._lock:
            if self.closed:
                job.let_go()
                return False
            if job.cancelled:
                # Its owner may have died between the two steps of a cancel.
                cancel_files(job.directory, self._identity, job.number)
            # What may fail comes before the job is followed.
            running = read_state(job.directory) is JobState.RUNNING
            self._start_threads()
            self._jobs[job.job_id] = job
            changes = job.settle(Sight(claimed=running))
        self._tell(changes)
        self._probe_at = 0.0
        self._wake_driver.set()
        self._wake_watcher.set()
        return True

    def follows(self, job_id: str) -> bool:
        """Tell whether the job's changes are told from here."""
        return job_id in self._jobs or job_id in self._finished

    def state(self, job_id: str) -> JobState:
        """Tell a job's present state; one that nobody follows is taken over."""
        job = self._jobs.get(job_id)
        if job is not None:
            return job.state
        if job_id in self._finished:
            return self._finished[job_id]
        state = read_state(self.directory(job_id))
        if state.is_terminal() or not self.adopt(job_id):
            return state
        return self.state(job_id)

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped."""
        if self.state(job_id).is_terminal():
            return False
        job = self._jobs.get(job_id)
        if job_id in self._finished:
            return False
        if job is None:
            # Another process follows it.
            cancel_files(self.directory(job_id), self._identity)
            return True
        with self._lock:
            if job.state.is_terminal():
                return False
            self._stop(job)
        self.notice(job.attempt().id)
        self._wake_driver.set()
        return True

    def _stop(self, job: Tracked) -> None:
        job.cancelled = True
        try:
            cancel_files(job.directory, self._identity, job.number)
        except OSError as error:
            # A full disk, a folder that was removed: the watcher sees what comes of it.
            self.log.warning("cannot write the cancel of job %s: %s", job.job_id, error)
        if job.launched:
            self._to_release.append(job.attempt())

    def unfinished(self) -> dict[str, JobState]:
        """Tell the unfinished jobs that are followed here, and their states."""
        return {job_id: job.state for job_id, job in list(self._jobs.items())}

    def close(self, *, cancel: bool) -> None:
        """End the engine; cancel the unfinished jobs that were submitted here, or let all go.

        Those that were taken over are let go in any case. A close that was interrupted may be
        called again and goes on.
        """
        if self._ended or os.getpid() != self._owner:
            return
        with self._lock:
            self.closed = True
        deadline = time.monotonic() + CLOSE_S
        for job in list(self._jobs.values()):
            try:
                if not cancel or (job.adopted and not job.cancelled):
                    self._let_go(job)
                else:
                    self.cancel(job.job_id)
            except (CrystalMathError, OSError) as error:
                self.log.warning("cannot leave job %s in order: %s", job.job_id, error)
        while self._jobs and time.monotonic() < deadline:
            time.sleep(0.02)
        for job_id in list(self._jobs):
            self.log.warning("job %s could not be stopped in %g s", job_id, CLOSE_S)
        self._abandoned = True
        self._wake_driver.set()
        self._wake_watcher.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=CLOSE_S)
        self._ended = True

    def _let_go(self, job: Tracked) -> None:
        with self._lock:
            if self._jobs.pop(job.job_id, None) is not None:
                self._waiting.pop(job.job_id, None)
                self._left.append(job)
                job.let_go()

    @property
    def left(self) -> frozenset[str]:
        """The ids of the attempts that were let go."""
        return frozenset(job.attempt().id for job in self._left)

    def spared(self) -> set[int]:
        """Give the pids of jobs that were let go and run on this host."""
        found: set[int] = set()
        for job in self._left:
            claimant, guardian = None, []
            with contextlib.suppress(BadFile):
                claimant = job.directory.claimant(job.number)
                guardian = job.directory.containment(job.number).get("guardian", [])[:1]
            if claimant and claimant.is_here():
                found |= {claimant.pid, *guardian, *processes.descendants(claimant.pid)}
        return found

    def directory(self, job_id: str) -> RunDirectory:
        """Give the run directory of a job; `UnknownJob` if there is none."""
        # The id becomes part of a path: nothing but an id may pass.
        directory = RunDirectory(self._jobs_directory / job_id) if is_job_id(job_id) else None
        if directory is None or not directory.exists():
            raise UnknownJob(job_id)
        return directory

    def _start_threads(self) -> None:
        if self._threads:
            return
        self._jobs_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for target in (self._drive, self._watch):
            name = f"crystalmath-{self._runner.settings.name}-{target.__name__.strip('_')}"
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _watch(self) -> None:
        """Look at the files of unfinished jobs."""
        while not self._is_over():
            if self._wake_watcher.wait(LOOK_S if self._jobs else None):
                # What happens at about the same time is told, and stored, together.
                time.sleep(GATHER_S)
            self._wake_watcher.clear()
            noticed = {self._noticed.get() for _ in range(self._noticed.qsize())}
            now = time.monotonic()
            # A wake without news, as at each submission, is no reason to look at all of them.
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                noticed = set(self._jobs)
            self._look(noticed)

    def _is_over(self) -> bool:
        return self.closed and (not self._jobs or self._abandoned)

    def _look(self, job_ids: Iterable[str]) -> None:
        changes: list[Change] = []
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is not None:
                changes += self._look_at_one(job)
        self._tell(changes)
        if changes and self._waiting:
            self._wake_driver.set()

    def _tell(self, changes: Sequence[Change]) -> None:
        for listener in self.listeners if changes else ():
            try:
                listener(changes)
            except Exception:
                self.log.exception("a listener failed")

    def _look_at_one(self, job: Tracked) -> list[Change]:
        try:
            # Outside the lock: nobody who submits or cancels waits for the end of a lost tree.
            sight = job.see()
            with self._lock:
                return self._settle(job, sight) if job.job_id in self._jobs else []
        except Exception as error:  # noqa: BLE001 - one bad file must not end the watch over all
            self.log.warning("cannot read the files of job %s: %s", job.job_id, error)
            return []

    def _settle(self, job: Tracked, sight: Sight) -> list[Change]:
        changes = job.settle(sight)
        if job.state.is_terminal():
            self._finished[job.job_id] = job.state
            del self._jobs[job.job_id]
            self._waiting.pop(job.job_id, None)
        elif changes and job.state is JobState.PENDING:
            if job.cancelled or job.directory.cancel_requested():
                self._stop(job)  # the attempt was lost before it could be stopped
            else:
                self._waiting[job.job_id] = job
        return changes

    def _drive(self) -> None:
        """Call the engine."""
        while not self._is_over():
            pause = max(0.05, self._retry_at - time.monotonic()) if self._waiting else PROBE_S
            self._wake_driver.wait(min(PROBE_S, pause))
            self._wake_driver.clear()
            if time.monotonic() >= self._retry_at:
                self._guarded(self._launch_waiting)
            self._guarded(self._release_cancelled)
            if time.monotonic() >= self._probe_at:
                self._probe_at = time.monotonic() + PROBE_S
                self._guarded(self._probe_silent)
        if self._engine_started:
            self._guarded(self._runner.stop)
            # Where the engine's workers are threads of this process, their chains are ours to end.
            close_idle()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except EngineUnavailable as error:
            self._retry_at = time.monotonic() + self._backoff
            self._backoff = min(2 * self._backoff, BACKOFF_S)
            self.log.warning("the engine is not available, trying again: %s", error)
            with self._lock:
                jobs = [job for job in self._jobs.values() if job.state is JobState.PENDING]
                changes = [change for job in jobs for change in job.hear(f"trying again: {error}")]
            self._tell(changes)
        except Exception:
            self.log.exception("the engine failed in %s", call.__name__)

    def _launch_waiting(self) -> None:
        with self._lock:
            launched = len(self._jobs) - len(self._waiting)
            free = max(0, self._runner.capabilities.max_queued - launched)
            jobs = [job for job in self._waiting.values() if not job.cancelled][:free]
            attempts = [job.attempt() for job in jobs]
            for job in jobs:
                # From here on a cancel must tell the engine, too.
                job.launched = True
        if not attempts:
            return
        self._engine_started = True
        handles: Mapping[str, str] = {}
        try:
            handles = self._runner.launch(attempts)
        except EngineUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an engine raises
            if isinstance(error, RuntimeError) and _interpreter_ends():
                return  # `close` comes in a moment, and cancels them
            self._fail(jobs, error)
            handles = {attempt.id: attempt.id for attempt in attempts}
        finally:
            for job, attempt in zip(jobs, attempts, strict=True):
                self._record_launch(job, attempt.id, handles.get(attempt.id))
        if not handles:
            raise EngineUnavailable("it took none of the attempts")
        self._backoff = 1.0

    def _fail(self, jobs: Sequence[Tracked], error: Exception) -> None:
        """Decide jobs that the engine refuses to start."""
        if isinstance(error, CrystalMathError):
            told = str(error)
            self.log.error("the engine could not launch: %s", told)
        else:
            told = f"{type(error).__name__}: {error}"
            self.log.error("the engine could not launch", exc_info=error)
        message = f"the engine could not start it: {told}"
        for job in jobs:
            with self._lock, contextlib.suppress(OSError):
                if job.job_id in self._jobs:
                    publish_unbegun(job.directory, job.number, self._identity, "failed", message)
            self.notice(job.attempt().id)

    def _record_launch(self, job: Tracked, attempt: str, handle: str | None) -> None:
        with self._lock:
            if job.attempt().id != attempt or job.job_id not in self._jobs:
                return  # it was lost meanwhile and waits as another attempt, or has ended
            job.launched = handle is not None
            if handle is None:
                return
            self._waiting.pop(job.job_id, None)
            job.handle, job.inherited = handle, False
            job.since = time.monotonic()
            if handle != attempt:
                # An engine that finds its work by the attempt's id needs no file for that.
                try:
                    job.directory.write_handle(job.number, handle)
                except OSError as error:
                    # The engine finds its work by the attempt's id, too.
                    self.log.warning("cannot record the handle of %s: %s", attempt, error)

    def _release_cancelled(self) -> None:
        with self._lock:
            attempts, self._to_release = self._to_release, []
        if not attempts:
            return
        self._engine_started = True
        try:
            self._runner.release(attempts)
        except EngineUnavailable:
            with self._lock:
                self._to_release += attempts
            raise

    def _probe_silent(self) -> None:
        now = time.monotonic()
        with self._lock:
            silent = {
                job.attempt().id: job
                for job in self._jobs.values()
                if job.launched and job.state is JobState.PENDING and now - job.since > PROBE_S
            }
        if not silent:
            return
        # What it opens to answer, it has to close.
        self._engine_started = True
        sightings = self._runner.probe([job.attempt() for job in silent.values()])
        for attempt, job in silent.items():
            sighting = sightings.get(attempt, Sighting("unknown"))
            job.since = time.monotonic()
            self._tell(job.hear(sighting.reason))
            if self._is_gone(job, sighting) and not job.directory.claimed(job.number):
                self._relaunch(job, sighting.reason)

    def _is_gone(self, job: Tracked, sighting: Sighting) -> bool:
        """Tell whether the engine will not start an attempt any more."""
        if sighting.state == "unknown":
            # The queue of the process that launched it went with that process.
            return job.inherited and self._runner.capabilities.queue_dies_with_owner
        return sighting.state == "gone"

    def _relaunch(self, job: Tracked, reason: str | None) -> None:
        """Hand out the same attempt again: the engine lost it before it began."""
        with self._lock:
            if job.job_id not in self._jobs or job.cancelled:
                return
            job.relaunches += 1
            if job.relaunches > RELAUNCHES:
                message = f"the engine lost it {job.relaunches} times before it began: {reason}"
                publish_unbegun(job.directory, job.number, self._identity, "failed", message)
            else:
                job.launched = False
                self._waiting[job.job_id] = job
                self._wake_driver.set()


def _interpreter_ends() -> bool:
    """Tell whether the main thread ends, which takes a moment: an engine can start nothing then.

    Pools and threads refuse work ("cannot schedule new futures after interpreter shutdown") before
    anybody's exit functions are called.
    """
    end = time.monotonic() + ENDS_S
    while threading.main_thread().is_alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
