"""Follow the jobs of an engine runner, with two threads."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.engines.followed import Followed, LeftJobs, Phase
from crystalmath.engines.handover import Handover, is_passing
from crystalmath.errors import BadFile, CrystalMathError, EngineUnavailable, UnknownJob
from crystalmath.jobs import facts
from crystalmath.jobs.changes import Hold, Launch, LetGo, Release
from crystalmath.jobs.host import Host
from crystalmath.jobs.reading import Depth, view
from crystalmath.jobs.reconcile import Job, Looked, Reconciler, request_cancel
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.worker.chains import close_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from crystalmath.engines.engine_interface import Engine
    from crystalmath.jobs.changes import Action, Change, Listener
    from crystalmath.jobs.documents import SpecDocument
    from crystalmath.jobs.ownership import Recorded
    from crystalmath.models import Attempt, Capabilities, JobState

#: How often the files of unfinished jobs are looked at, in seconds.
LOOK_S = 0.1
#: How long a new job waits before it is written down, in seconds: first its submission returns.
ANSWER_S = 0.002
#: The pause after a turn, in seconds: for each of its changes, and at most. Single changes are seen
#: at once; many changes are gathered.
GATHER_EACH_S, GATHER_S = 0.003, 0.05
#: The same pauses between launches.
LAUNCH_EACH_S, LAUNCH_S = 0.01, 0.1
#: How long `close` waits for the jobs that it cancels, in seconds.
CLOSE_S = 20.0
#: How long an engine may take to stop thereafter, as the guide promises, in seconds.
STOP_S = 30.0
#: The number of ended jobs whose state is remembered; others are read from their directories.
FINISHED = 10_000
_NOTHING = Looked()
#: The number of jobs that are written down in each turn.
WRITES = 50


class Driver:
    """Follow the jobs of one runner.

    Only the watcher thread reads run directories, writes records, and acts on their files. Only the
    driver thread calls the engine, which may block. Threads that submit or cancel only notify
    these. Lock order: this lock, then a job's own. Neither is held during a call to the engine, nor
    while processes are ended.
    """

    def __init__(
        self,
        runner: Engine,
        host: Host | None = None,
        open_directory: Callable[[Path | str], RunDirectory] = RunDirectory,
    ) -> None:
        self._runner = runner
        self.log = runner.log
        self.closed = False
        self._jobs_directory = runner.settings.home / "jobs"
        self.host = host or Host(self._jobs_directory)
        self._open = open_directory
        self._lock = threading.RLock()
        self._followed = Followed()
        self._batches = 0
        self._newest: dict[str, Any] = {}
        self._finished: dict[str, JobState] = {}
        self._noticed: queue.SimpleQueue[tuple[str, Depth]] = queue.SimpleQueue()
        self._reconciler = Reconciler(self.host, lambda job_id: self._notice(job_id, Depth.LOOK))
        self._handover = Handover(
            runner,
            self._followed,
            self._lock,
            host=self.host,
            report=self._report,
            notice=self._notice,
        )
        self._abandoned = False
        self._ended = False
        self._owner = os.getpid()
        self._wake_watcher = threading.Event()
        self._look_at = 0.0
        self._changed = False
        self._adopting = threading.Lock()
        #: The jobs that were let go.
        self.left = LeftJobs()
        self._threads: list[threading.Thread] = []
        self.listeners: list[Listener] = []
        self._leaving: list[Listener] = []
        self._left_by_them: set[str] = set()

    def notice(self, attempt: str) -> None:
        """Look at an attempt at once."""
        parcel = self._followed.shared(attempt)
        for job_id in list(parcel.jobs) if parcel else [attempt.rpartition(".")[0]]:
            self._notice(job_id)

    def has_begun(self, attempt: Attempt) -> bool:
        """Return whether a worker has claimed an attempt, or another job of its parcel."""
        parcel = self._followed.shared(attempt.id)
        if parcel is None:
            return RunDirectory(attempt.directory).claimed(attempt.number)
        # Cancelled jobs do not count: a cancel claims a waiting job, too.
        wanted = {job: n for job, n in parcel.members.copy().items() if not job.record.cancelled}
        return parcel.has_begun or any(job.directory.claimed(n) for job, n in wanted.items())

    def has_ended(self, attempt: Attempt) -> bool:
        """Return whether an attempt, and each other job of its parcel, has its outcome."""
        parcel = self._followed.shared(attempt.id)
        if parcel is None:
            return RunDirectory(attempt.directory).decided(attempt.number)
        jobs = list(parcel.jobs.values())
        return all(job.directory.decided(job.record.attempt) for job in jobs)

    def _notice(self, job_id: str, depth: Depth = Depth.GLANCE) -> None:
        self._noticed.put((job_id, depth))
        self._wake_watcher.set()

    # --- what a caller uses ------------------------------------------------------------------

    def add(self, header: dict[str, Any], body: str, *, recorded: bool = False) -> None:
        """Write a job's run directory, and queue the job for the engine.

        With `recorded`, the job is on record elsewhere: the caller does not wait for the write, and
        a failed write is repeated later.
        """
        can = self._describe_engine(header)
        # Successive jobs share equal values, as ten thousands of them may wait.
        before, self._newest = self._newest, header
        header |= {name: before[name] for name in before if header.get(name) == before[name]}
        job = Job.of(
            header, body, self._open(f"{self._jobs_directory}/{header['job_id']}"), self.host
        )
        if os.getpid() != self._owner:
            raise EngineUnavailable("a forked process must get a runner of its own (get_runner)")
        with self._lock:
            if self.closed:
                raise EngineUnavailable(
                    f"the engine {self._runner.settings.name!r} has been closed"
                )
            self._start_threads()
            # The watcher is woken for the first job; after that it polls.
            is_awaited = not (self._batches if recorded else self._followed.jobs)
            if not recorded:
                self.host.require_links()
                self.host.make_room()
                self._write(job)
            self._followed.add(job, in_order=can.starts_in_order)
            if not recorded:
                self._place(job)
        if is_awaited:
            self._wake_watcher.set()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Begin jobs that are added inside this context only at its end.

        Work on the first jobs of a batch would delay the submission of the others.
        """
        with self._lock:
            self._batches += 1
        try:
            yield
        finally:
            with self._lock:
                self._batches -= 1
            self._wake_watcher.set()

    def _write(self, job: Job) -> None:
        job.write_first()
        # The job may be on record for a while, and another process may have cancelled it.
        if job.directory.cancel_requested():
            job.update(cancelled=True)

    def _write_new(self) -> int:
        """Write the run directories of the next `WRITES` new jobs; return how many."""
        with self._lock:
            jobs = list(islice(self._followed.those(Phase.NEW), WRITES))
        if not jobs:
            return 0
        changes: list[Change] = []
        with contextlib.suppress(OSError):  # the write of each job raises it again
            self.host.make_room()
        for job in jobs:
            try:
                self._write(job)
                changes += job.go_on()
            except Exception as error:  # noqa: BLE001 - one bad job must not end the watch over all
                if is_passing(error):
                    name = job.job_id
                    self.log.warning("cannot write down job %s, trying again: %s", name, error)
                    changes += job.note_stalled(error)
                else:
                    changes += job.refuse(f"could not be handed to the engine: {error}")
        with self._lock:
            for job in jobs:
                self._place(job)
        for job in jobs:
            if job.record.cancelled or not job.record.written:
                self._notice(job.job_id, Depth.LOOK)
        self._report(changes)
        if self._followed.count(Phase.NEW):
            self._wake_watcher.set()
        return len(jobs)

    def adopt(self, job_id: str, recorded: Recorded | None = None) -> bool:
        """Take over a job whose owner has died; return whether it is followed here."""
        directory = self._open(self._jobs_directory / job_id)
        if recorded is None:
            directory = self.directory(job_id)
        if os.getpid() != self._owner:
            return False
        with self._adopting:
            if self.follows(job_id):
                return True
            self.host.publish_left()
            flow = recorded is not None and bool(recorded.header.get("flow"))
            state = self._view(directory, job_id, is_flow=flow)
            if self.closed or state.is_terminal():
                return False
            if recorded is not None:
                header = dict(recorded.header)
                self._describe_engine(header)
                recorded = evolve(recorded, header=header)
            job = Job.taken_over(directory, self._runner.settings.name, self.host, recorded)
            if job is None:
                return False
            if recorded is None:
                job.update(state=state)
            return self._take_in(job)

    def _describe_engine(self, header: dict[str, Any]) -> Capabilities:
        """Write the engine's capabilities into ``spec``, for processes without the engine.

        Return what the engine can do on the job's cluster.
        """
        can = self._runner.capabilities_of(header["cluster"])
        header["capabilities"] = {
            "workers_here": can.workers_here,
            "gone_means_dead": can.gone_means_dead,
        }
        return can

    def _take_in(self, job: Job) -> bool:
        can = self._describe_engine(job.header)
        with contextlib.suppress(BadFile, OSError, ValueError):  # as if it had never been recorded
            job.handle = job.directory.read_handle(job.record.attempt)
        with contextlib.suppress(BadFile, OSError, ValueError):
            claimant = job.directory.claimant(job.record.attempt)
            job.survivor = claimant is not None and self.host.sees(claimant)
        with self._lock:
            if self.closed:
                job.let_go()
                return False
            self._start_threads()
            self._followed.add(job, in_order=can.starts_in_order)
            self._place(job)
        self._handover.probe_soon()
        self._notice(job.job_id, Depth.THOROUGH)
        return True

    def follows(self, job_id: str) -> bool:
        """Return whether this driver reports the job's changes."""
        return job_id in self._followed.jobs or job_id in self._finished

    def state(self, job_id: str) -> JobState:
        """Return a job's present state; take over a job whose owner has died."""
        job = self._job(job_id)
        if job is not None:
            return job.state
        if (ended := self._finished.get(job_id)) is not None:
            return ended
        state = self._view(self.directory(job_id), job_id)
        if state.is_terminal() or not self.adopt(job_id):
            return state
        return self.state(job_id)

    def _job(self, job_id: str) -> Job | None:
        """Return a job that is followed here; ``None`` in a fork, which has its parent's jobs."""
        return self._followed.jobs.get(job_id) if os.getpid() == self._owner else None

    def _view(self, directory: RunDirectory, job_id: str, *, is_flow: bool = False) -> JobState:
        record = facts.Record(job_id=job_id, place=directory.path, is_flow=is_flow)
        return view(directory, record, self.host).state

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped."""
        if self.state(job_id).is_terminal():
            return False
        job = self._job(job_id)
        if job_id in self._finished:
            return False
        if job is None:
            # Another process follows it.
            request_cancel(self.directory(job_id), self.host)
            return True
        if job.state.is_terminal():
            return False
        job.update(cancelled=True)
        job.try_at_once()
        try:
            # A directory without `spec` would pass for one that another process is writing.
            if self._followed.phase(job_id) is not Phase.NEW:
                job.directory.request_cancel()
        except OSError as error:
            # The disk is full, or the folder was removed: the watcher tries again.
            self.log.warning("cannot write the cancel of job %s: %s", job_id, error)
        self._notice(job_id, Depth.LOOK)
        return True

    def unfinished(self) -> dict[str, JobState]:
        """Return the unfinished jobs that are followed here, and their states."""
        return {job_id: job.state for job_id, job in list(self._followed.jobs.items())}

    def is_busy(self) -> bool:
        """Return whether an unfinished job is followed here."""
        return bool(self._followed.jobs)

    def unwritten(self) -> list[SpecDocument]:
        """Return header and body of the jobs that have no run directory yet."""
        with self._lock:
            return [
                (job.header, job.body) for job in self._followed.those(Phase.NEW, Phase.UNWRITTEN)
            ]

    def close_if_idle(self) -> bool:
        """End the engine unless a job is followed here; return whether it was ended."""
        with self._lock:
            if self._followed.jobs:
                return False
            self.closed = self._handover.is_closing = True
        self.close(cancel=True)
        return True

    def close(self, *, cancel: bool) -> None:
        """End the engine; cancel the unfinished jobs that were submitted here, or let all go.

        Jobs that were taken over are let go in any case. After an interruption `close` can be
        called again, and continues.
        """
        if self._ended or os.getpid() != self._owner:
            return
        with self._lock:
            # Nothing is launched from here on: each job that is let go would make room for another.
            self.closed = self._handover.is_closing = True
        self._end(list(self._followed.jobs.values()), cancel=cancel)
        self._abandoned = True
        self._handover.wake.set()
        self._wake_watcher.set()
        deadline = time.monotonic() + STOP_S
        others = [each for each in self._threads if each is not threading.current_thread()]
        for thread in others:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in others):
            self.log.warning("the engine has not stopped in %g s; it is not waited for", STOP_S)
        self.host.rest()
        self._ended = True

    def leave(self, listener: Listener, own: Collection[str], *, cancel: bool) -> None:
        """End the jobs of a listener, and report nothing more to it.

        With the last listener the engine ends, unless other jobs are under way. As long as there is
        another listener, jobs that were taken over, or are not cancelled, stay followed here.
        """
        with self._lock:
            self._leaving.append(listener)
            self._left_by_them.update(own)
            jobs = list(self._followed.jobs.values())
            others = [each for each in self.listeners if each not in self._leaving]
            foreign = [each for each in jobs if each.job_id not in self._left_by_them]
        if not others and all(job.adopted for job in foreign):
            self.close(cancel=cancel)
            return
        if cancel:
            self._end([job for job in jobs if job.job_id in own], cancel=True)
        with self._lock:
            self.listeners.remove(listener)
            self._leaving.remove(listener)
            self._left_by_them &= self._followed.jobs.keys()

    def _end(self, jobs: Sequence[Job], *, cancel: bool) -> None:
        deadline = time.monotonic() + CLOSE_S
        for job in jobs:
            try:
                if not cancel or (job.adopted and not job.record.cancelled):
                    self._let_go(job)
                else:
                    self.cancel(job.job_id)
            except (CrystalMathError, OSError) as error:
                self.log.warning("cannot leave job %s in order: %s", job.job_id, error)
        while (left := self._followed.jobs.keys() & {job.job_id for job in jobs}) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.02)
        for job_id in left:
            self.log.warning("job %s could not be stopped in %g s", job_id, CLOSE_S)

    def _let_go(self, job: Job) -> None:
        with self._lock:
            if job.job_id not in self._followed.jobs:
                return
            self.left.add(job)
            self._followed.forget(job.job_id)
        job.let_go()

    def directory(self, job_id: str) -> RunDirectory:
        """Return the run directory of a job; `UnknownJob` if there is none."""
        # The id becomes part of a path: nothing but an id may pass.
        directory = self._open(self._jobs_directory / job_id) if is_job_id(job_id) else None
        if directory is None or not directory.has("spec"):
            raise UnknownJob(job_id)
        return directory

    # --- the two threads ---------------------------------------------------------------------

    def _start_threads(self) -> None:
        for target in (self._drive, self._watch)[len(self._threads) :]:
            name = f"crystalmath-{self._runner.settings.name}-{target.__name__.strip('_')}"
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()  # if this raises, the next job tries again
            self._threads.append(thread)

    def _is_over(self) -> bool:
        return self.closed and (not self._followed.jobs or self._abandoned)

    def _drive(self) -> None:
        """Call the engine."""
        due = 0.0
        while not self._is_over():
            self._handover.wait()
            # The first of many jobs is handed over at once, the others in batches.
            if (pause := due - time.monotonic()) > 0:
                time.sleep(pause)
                self._handover.wake.clear()
            launched = self._handover.turn()
            due = time.monotonic() + min(LAUNCH_S, launched * LAUNCH_EACH_S)
        if self._handover.finish():
            # The engine's workers may be threads of this process: then their chains are here.
            close_idle()

    def _watch(self) -> None:
        """Look at the files of unfinished jobs."""
        due = 0.0
        while not self._is_over():
            self._wake_watcher.wait(LOOK_S if self._followed.jobs else None)
            # The first change is seen at once; changes soon after it are reported together.
            new = self._followed.count(Phase.NEW)
            pause = max(due - time.monotonic(), ANSWER_S if new else 0.0)
            if pause > 0 and new < WRITES:
                time.sleep(pause)
            self._wake_watcher.clear()
            count = self.turn()
            due = time.monotonic() + min(GATHER_S, count * GATHER_EACH_S)

    def turn(self) -> int:
        """Look at jobs that were noticed and, if it is time, at the next other ones.

        Return how many jobs were written down or had changed.
        """
        written = self._write_new()
        chosen: dict[str, Depth] = {}
        for _ in range(self._noticed.qsize()):
            job_id, depth = self._noticed.get()
            chosen[job_id] = max(depth, chosen.get(job_id, depth))
        now = self.host.monotonic()
        # The thread was perhaps only woken for the noticed jobs.
        regular, changed = now >= self._look_at, self._changed
        self._changed = False
        if regular or changed:
            with self._lock:
                if regular:
                    self._look_at = now + LOOK_S
                    others = self._followed.choose(now)
                else:
                    others = self._followed.after_changes(now)
            for job_id, depth in others.items():
                chosen[job_id] = max(depth, chosen.get(job_id, depth))
        return written + self._look(chosen)

    def _look(self, chosen: Mapping[str, Depth]) -> int:
        changes: list[Change] = []
        for job_id, depth in chosen.items():
            job = self._followed.jobs.get(job_id)
            if job is not None and self._followed.phase(job_id) is not Phase.NEW:
                changes += self._look_at_one(job, depth)
        self._report(changes)
        if changes:
            self._changed = True
            self._wake_watcher.set()
            self._handover.wake.set()
        return len(changes)

    def _look_at_one(self, job: Job, depth: Depth) -> Sequence[Change]:
        attempt, before, sighting = job.attempt_id, job.record, job.take_sighting()
        try:
            engine = facts.Engine(sighting, self._runner.capabilities_of(job.cluster))
            # Without the lock: no submission waits until the processes of a lost job have ended.
            looked = self._reconciler.look(job, Depth.THOROUGH if sighting else depth, engine)
            if job.record is before and looked == _NOTHING:
                return ()  # as for most jobs
            with self._lock:
                if job.job_id not in self._followed.jobs:
                    return ()
                if sighting is not None and not looked.done:
                    job.note_sighting(attempt, sighting)
                for request in looked.requests:
                    self._pass_on(job, request)
                self._place(job)
                for change in looked.changes:
                    self._handover.run_times.note(job, change)
        except Exception as error:  # noqa: BLE001 - one bad file must not end the watch over all
            self.log.warning("cannot look after job %s: %s", job.job_id, error)
            return ()
        return looked.changes

    def _pass_on(self, job: Job, request: Action) -> None:
        """Carry out an action that concerns the engine."""
        if isinstance(request, Release):
            self._handover.release(job)
        elif isinstance(request, Launch):
            self._handover.put_again(job, ends=request.ends)
        elif isinstance(request, Hold):
            self._followed.forget(job.job_id)
        elif isinstance(request, LetGo):
            self.log.warning("job %s has another owner now", job.job_id)
            self._followed.forget(job.job_id)

    def _place(self, job: Job) -> None:
        """Note a job's phase, or forget it if it has ended; the caller holds the lock."""
        if job.job_id not in self._followed.jobs:
            return
        if not job.state.is_terminal():
            self._handover.place(job)
            return
        self._finished[job.job_id] = job.state
        if len(self._finished) > FINISHED:
            del self._finished[next(iter(self._finished))]  # its directory has it
        self._followed.forget(job.job_id)

    def _report(self, changes: Sequence[Change]) -> None:
        for listener in self.listeners if changes else ():
            try:
                listener(changes)
            except Exception:
                self.log.exception("a listener failed")
