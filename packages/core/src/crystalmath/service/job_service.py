"""The service that joins preflight, store, run directories and engines."""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import queue
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from crystalmath import config
from crystalmath._permissions import make_own
from crystalmath.errors import CrystalMathError, InvalidJob, StoreError, UnknownJob
from crystalmath.jobs.identities import own_identity
from crystalmath.jobs.reconcile import request_cancel
from crystalmath.models import JobState
from crystalmath.models.job_notes import counted
from crystalmath.reading.current_jobs import Presence
from crystalmath.reading.home_jobs import HomeJobs
from crystalmath.running.engine_pool import Runners
from crystalmath.running.job_packs import Packed, pack, pack_old, unpack
from crystalmath.running.pruning import Pruned, prune
from crystalmath.running.recorder import Recorder
from crystalmath.running.recovery import Recovery
from crystalmath.service.dependencies import Waiting
from crystalmath.service.flows import Flows
from crystalmath.submitting.intake import Intake
from crystalmath.submitting.retrying import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from crystalmath.jobs.changes import Change
    from crystalmath.jobs.documents import SpecDocument
    from crystalmath.models import NewJob, Submission
    from crystalmath.models.inputs import Preset
    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.event_feed import Feed
    from crystalmath.running.pruning import Choice
    from crystalmath.submitting.admission import Checked
    from crystalmath.submitting.intake import Answers

_LOG = logging.getLogger("crystalmath.service")

#: How often `wait` reads jobs of other processes, in seconds.
POLL_S = 0.25


class JobService(HomeJobs):
    """Submits, follows and cancels the jobs of one home.

    A `Source` of the configuration is read again at each submission; by default the configuration
    is read once, now. `environ` is the environment of submissions without one.
    """

    def __init__(
        self,
        configured: config.Config | config.Source | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        source = configured if isinstance(configured, config.Source) else None
        home = configured.last if isinstance(configured, config.Source) else configured
        home = home or config.load()
        self._environ = environ
        self._process = os.getpid()
        self._recorder = Recorder(
            home.database_url,
            home.jobs_directory,
            network=home.network,
            unwritten=self._unwritten,
            is_busy=self.is_busy,
        )
        self._runners = Runners(lambda: self.config, self._recorder.report)
        own_identity(home.jobs_directory, home.lease_s)
        self._recovery = Recovery(
            self._recorder,
            self._runners.get,
            self._follows,
            home.jobs_directory,
            wait=self._wait_for_others,
        )
        self._recovery.host.publish_left()
        super().__init__(home, self._recorder, self._recovery, self._runners)
        self._presence = Presence(home.jobs_directory)
        parts = (self._recorder, self._recovery, self._runners)
        self._intake = Intake(
            self,
            *parts,
            source=source,
            environ=environ,
            wait=self._wait_for_others,
        )
        self._flows = Flows(self, self._recorder, self._intake, self.cancel)
        waited = (self._recorder, self._intake, self._recovery, self._flows)
        self._waiting = Waiting(self, *waited)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the job database, if there is one, and bring it to this release's schema.

        `UnknownSchemaError`: another build has made it. `StoreError`: it cannot be opened now.
        """
        self._recorder.open()

    def warm(self) -> None:
        """Have the configured engine's worker import quacc where the home is to be warm."""
        from crystalmath.quacc.engine import submission_environment
        from crystalmath.quacc.engines import get_workflow_engine

        if self.config.warm:
            engine = self.config.engine or get_workflow_engine(self._environ) or "local"
            runner = self._runners.get(engine)
            runner.warm(submission_environment(self.config, self._environ))

    def close(self, *, cancel: bool = True) -> None:
        """End the engines, and close the store; see :meth:`finish`."""
        self.finish(cancel=cancel)
        if os.getpid() == self._process:
            self._recorder.close()
            if self._presence is not None:
                self._presence.close()

    def finish(self, *, cancel: bool = True) -> None:
        """End the engines; the jobs can still be read.

        Unfinished jobs of this process are cancelled, or let go: then running jobs go on, and other
        processes adopt them and the waiting ones.
        """
        if os.getpid() != self._process:
            return  # a forked child has no jobs of its own, and must not touch the parent's
        self._intake.leaving = not cancel
        self._waiting.close(cancel=cancel)
        followed = self._runners.close(cancel=cancel)
        self._recorder.finish()
        try:
            if cancel:
                self._recovery.end_flows()
            self._recovery.disown(own=not cancel, but=followed)
        except CrystalMathError as error:
            _LOG.warning("cannot record that jobs are let go: %s", error)
        self._recovery.host.rest()

    # --- submissions -------------------------------------------------------------------------

    def submit(
        self, submission: Submission, *, wanted: Callable[[], bool] = lambda: True
    ) -> JobMetadata:
        """Record a job durably, return it, and hand it to its engine.

        The check may take seconds; after it the job is recorded only if it is still `wanted`.
        `InvalidJob` (`JobRefused` with the findings of the preflight): the submission cannot be
        used. `UnknownEngine`, `ImportError`: the engine is not installed, or its plugin cannot
        load. After an error, nothing was recorded, written or started.
        """
        answer = self.submit_many([submission], wanted=wanted)[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_many(
        self,
        submissions: Sequence[Submission | InvalidJob],
        *,
        all_or_none: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Answers:
        """Take many jobs, each accepted or refused on its own, in order; or all of them or none.

        A submission may refer to an earlier one by its position, as job ``#0``, or ``#-1`` for the
        previous one. An `InvalidJob` takes the place of a submission that could not be read.

        All are recorded in one transaction, which simultaneous calls share; none is recorded if
        they are no longer `wanted`. A known key returns its job, even if files that the job needed
        are missing by now.
        """
        requests = [one if isinstance(one, InvalidJob) else Again(one) for one in submissions]
        return self._intake.submit(requests, wanted, all_or_none=all_or_none)

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Return all that is wrong with a submission; see :meth:`.Intake.check`."""
        return self._intake.check(submission, inputs=inputs)

    def retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        *,
        dry_run: bool = False,
        once: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Answers:
        """Run jobs again that have ended; see :meth:`.Intake.retry`."""
        return self._intake.retry(job_ids, changes, dry_run=dry_run, once=once, wanted=wanted)

    def reread(
        self, job_id: str, changes: Retry, settings: Mapping[str, str] | None = None
    ) -> JobMetadata:
        """Read the calculations of a failed job again; see :meth:`.Intake.reread`."""
        return self._intake.reread(job_id, changes, settings)

    def record_ended(self, ended: Sequence[tuple[NewJob, Change]]) -> None:
        """Record jobs that have ended elsewhere: all, or none."""
        self._recorder.insert_ended(ended)
        for row, _ in ended:
            if row.stage is not None:
                header = json.loads(row.specification.partition("\n")[0])
                self._recorder.store.take_over(row.job_id, counted(header))

    def runs_here(self, job: JobMetadata) -> bool:
        """Return whether a job's cluster is this machine, as far as its engine can be asked."""
        if job.cluster == "local":
            return True  # without loading an engine
        try:
            return self._runners.get(job.engine).runs_here(job.cluster)
        except (CrystalMathError, ImportError):
            return False

    def presets(
        self, environment: Mapping[str, str] | None = None, name: str | None = None
    ) -> list[Preset]:
        """List quacc's presets with their settings, or those of one name (`InvalidJob` if none)."""
        from crystalmath.preflight.programs_here import presets
        from crystalmath.quacc.engine import submission_environment

        environ = self._environ if environment is None else environment
        return presets(submission_environment(self.config, environ), name)

    # --- jobs that run -----------------------------------------------------------------------

    @property
    def feed(self) -> Feed:
        """The feed of new events, until the service closes."""
        return self._recorder.feed

    def wait(self, job_ids: Sequence[str], timeout: float | None = None) -> Iterator[JobMetadata]:
        """Yield the state of each job, then each change, until all have ended; take over others."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        changed: queue.SimpleQueue[list[JobMetadata]] = queue.SimpleQueue()
        self._recorder.waiters.add(changed)
        try:
            seen: dict[str, tuple[int, JobState]] = {}
            # Judged by their rows: an ended job whose owner died is not recorded as ended.
            rows = self._rows(job_ids)
            if self._recovery.take_over(rows):
                rows = self._rows(job_ids)
            batch = self._recovery.seen(rows)
            remaining = set(job_ids)
            while True:
                for job in batch:
                    now, before = (job.revision, job.state), seen.get(job.job_id)
                    if job.job_id in remaining and (before is None or _is_later(now, before)):
                        seen[job.job_id] = now
                        if job.state.is_terminal():
                            remaining.discard(job.job_id)
                        yield job
                left = end - time.monotonic()
                if not remaining or left <= 0:
                    return
                try:
                    batch = changed.get(timeout=min(POLL_S, left))
                except queue.Empty:
                    # Jobs of other processes and services are not announced here.
                    foreign = [job_id for job_id in sorted(remaining) if not self._follows(job_id)]
                    batch = self._store.get_many(foreign)
                    if self._recovery.take_over(batch):
                        batch = self._store.get_many(foreign)
                    batch = self._recovery.seen(batch)
        finally:
            self._recorder.waiters.discard(changed)

    def _rows(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        jobs = self._existing(next(iter(job_ids), "")).get_many(job_ids)
        for missing in set(job_ids) - {job.job_id for job in jobs}:
            raise UnknownJob(missing)
        return jobs

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped; ``False`` if it had ended.

        `CrystalMathError`: the request cannot be written for the process that owns the job.
        """
        job = self.job(job_id)
        if job.state.is_terminal():
            return False
        try:
            self._recorder.note_cancel([job_id])
            self._recovery.take_over(self._store.get_many([job_id]))
        except StoreError as error:
            # A full disk, perhaps because of this job, must not prevent its end.
            _LOG.warning("cannot note that job %s is to be stopped: %s", job_id, error)
        if self._waiting.cancel([job_id]):
            return True
        runner = self._runners.following(job_id)
        if runner is not None:
            # The noted request may have ended a job that was just adopted.
            first = job.cancel_requested_at is None
            stops = runner.cancel(job_id)
            return stops or (first and runner.get_status(job_id) is JobState.CANCELLED)
        # Another process owns the job, or its engine cannot be loaded.
        now = self._store.get(job_id)
        # A waiting job has no files; its owner sees the noted request.
        if not (now.state.is_terminal() or now.waits):
            try:
                make_own(self.config.jobs_directory)
                request_cancel(self.directory(job_id), self._recovery.host)
            except OSError as error:
                raise CrystalMathError(
                    f"job {job_id} has another owner, and the request to stop it cannot be written "
                    f"({error}); make room, and cancel it again"
                ) from error
        return True

    def cancel_waiting(self, job_ids: Collection[str]) -> set[str]:
        """Cancel the jobs that wait here for others; return their ids."""
        waiting = [job_id for job_id in job_ids if job_id in self._waiting]
        if not waiting:
            return set()
        # Noted first, so that none is released meanwhile.
        self._recorder.note_cancel(waiting)
        return self._waiting.cancel(waiting)

    def successors(self, job_ids: Sequence[str]) -> list[str]:
        """Return the direct and indirect successors of jobs that still wait, the farthest first."""
        waiting: dict[str, None] = {}
        left = list(job_ids)
        while left:
            jobs = self._existing(left[0]).get_many(self._store.successors(left))
            left = [job.job_id for job in jobs if job.waits and job.job_id not in waiting]
            waiting |= dict.fromkeys(left)
        return [*reversed(waiting)]

    def cancel_all(self) -> None:
        """Request the end of all jobs that are followed here, and of orphans."""
        try:
            self.take_over()
            jobs = self.unfinished(abandoned=True)
        except CrystalMathError as error:
            # Without the database, `close` stops the jobs of this process.
            _LOG.warning("cannot look for jobs that nobody follows: %s", error)
            return
        for job_id in jobs:
            try:
                self.cancel(job_id)
            except (CrystalMathError, OSError) as error:
                _LOG.warning("cannot cancel job %s: %s", job_id, error)

    def abandoned(self) -> set[str]:
        """Return the engines of orphaned jobs."""
        return {job.engine for job in self._recovery.left()} if self._recorder.exists() else set()

    def take_over(self, engine: str | None = None) -> list[str]:
        """Adopt the unfinished jobs whose owner has died, all or an engine's; return their ids.

        Missing files of these jobs are written again. An engine gets a job again if it does not
        know it. A job whose engine cannot be loaded stays as it is; its reason and the log say why.
        """
        if not self._recorder.exists():
            return []
        return self._recovery.take_over(
            [job for job in self._recovery.left() if engine in {None, job.engine}]
        )

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """Adopt the jobs whose owner has died."""
        foreign = [job_id for job_id in job_ids if not self._follows(job_id)]
        if foreign and self._recorder.exists():
            self._recovery.take_over(self._store.get_many(foreign))

    def unfinished(self, *, abandoned: bool = False) -> dict[str, JobState]:
        """Return the states of unfinished jobs that are followed here, and of `abandoned` ones."""
        left = self._recovery.left() if abandoned and self._recorder.exists() else []
        here = self._waiting.states() | self._runners.unfinished()
        return {job.job_id: job.state for job in left} | here

    def is_busy(self, *, waiting: bool = False) -> bool:
        """Return whether engines have jobs of this service or, with `waiting`, some wait."""
        # In this order, as a released job moves to its engine.
        return (waiting and self._waiting.may_go_on()) or self._runners.is_busy()

    def _follows(self, job_id: str) -> bool:
        return job_id in self._waiting or super()._follows(job_id)

    def _unwritten(self) -> list[SpecDocument]:
        return self._runners.unwritten()

    def _wait_for_others(self, job_ids: Collection[str]) -> None:
        self._waiting.add(job_ids)

    # --- files and engines -------------------------------------------------------------------

    def prune(
        self, choice: Choice, *, dry_run: bool = False, limit: int = 1000, cursor: str | None = None
    ) -> Generator[None, None, Pruned]:
        """Remove files of ended jobs; see :func:`crystalmath.running.pruning.prune`."""
        if self.config.restricted is not None and not dry_run:
            raise InvalidJob(
                "this home is restricted, and removes no files of its jobs; remove [restricted] "
                "from its config.toml while you prune"
            )
        if not self._recorder.exists():
            self._require_no_directories()
            return Pruned()
        return (
            yield from prune(
                self._recorder,
                self.config.jobs_directory,
                choice,
                dry_run=dry_run,
                limit=limit,
                cursor=cursor,
            )
        )

    def pack(self, choice: Choice, **options: Any) -> Generator[None, None, Packed]:
        """Pack ended jobs; see :func:`crystalmath.running.job_packs.pack`."""
        if not self._recorder.exists():
            self._require_no_directories()
            return Packed()
        return (yield from pack(self._recorder, self.config.jobs_directory, choice, **options))

    def unpack(self, choice: Choice, **options: Any) -> Generator[None, None, Packed]:
        """Bring packed jobs back; see :func:`crystalmath.running.job_packs.unpack`."""
        if not self._recorder.exists():
            self._require_no_directories()
            return Packed()
        return (yield from unpack(self._recorder, self.config.jobs_directory, choice, **options))

    def pack_old(self, after_s: float) -> Generator[None, None, int]:
        """Pack jobs that ended longer ago; see :func:`crystalmath.running.job_packs.pack_old`."""
        if not self._recorder.exists():
            return 0
        return (yield from pack_old(self._recorder, self.config.jobs_directory, after_s))

    def engine_states(self) -> Mapping[str, str]:
        """Return the state of each installed engine here, without loading any."""
        return self._runners.states()

    def engine_workers(self) -> Mapping[str, int | None]:
        """Return how many jobs each loaded engine runs at once; ``None`` where it does not know."""
        return self._runners.workers()

    def backlog(self) -> Mapping[str, int]:
        """Return for each loaded engine how many jobs followed here wait to begin."""
        return self._runners.backlog()


def _is_later(now: tuple[int, JobState], before: tuple[int, JobState]) -> bool:
    return now[0] > before[0] or (now[0] == before[0] and now[1] is not before[1])


_services: dict[Path, JobService] = {}
_services_lock = threading.Lock()


def default_service() -> JobService:
    """Return this process's service for the present home; it ends with the interpreter."""
    configured = config.load()
    with _services_lock:
        service = _services.get(configured.home)
        if service is None:
            service = _services[configured.home] = JobService(configured)
            # Importing the engines registers their exit handlers, which must run after this one.
            import_module("crystalmath.quacc.engines")

            atexit.register(service.close)
        elif service.config != configured:
            service.config = configured
        return service
