"""The one place that joins what is below: preflight, store, run directories and engines."""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Self

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
    from crystalmath.models import NewJob, Submission
    from crystalmath.models.inputs import Preset
    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.event_feed import Feed
    from crystalmath.running.pruning import Choice
    from crystalmath.submitting.admission import Checked
    from crystalmath.submitting.intake import Answers

_LOG = logging.getLogger("crystalmath.service")

#: How often jobs of other processes are looked at while somebody waits for them, in seconds.
POLL_S = 0.25


class JobService(HomeJobs):
    """Submit, follow and cancel the jobs of one home.

    A `Source` of the configuration is asked again at each submission; by default the configuration
    is read now. `environ` is the environment of jobs whose submission brings none.
    """

    def __init__(
        self,
        configured: config.Config | config.Source | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        source = configured if isinstance(configured, config.Source) else None
        given = configured.last if isinstance(configured, config.Source) else configured
        home = given or config.load()
        self._environ = environ
        self._process = os.getpid()
        self._recorder = Recorder(
            home.database_url,
            home.jobs_directory,
            network=home.network,
            unwritten=lambda: self._runners.unwritten(),  # noqa: PLW0108 - they come next
            is_busy=lambda: self._runners.is_busy(),  # noqa: PLW0108 - likewise
        )
        self._runners = Runners(lambda: self.config, self._recorder.report)
        own_identity(home.jobs_directory, home.lease_s)
        self._recovery = Recovery(
            self._recorder,
            self._runners.get,
            self._follows,
            home.jobs_directory,
            wait=lambda job_ids: self._waiting.add(job_ids),  # noqa: PLW0108 - it comes next
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
            wait=lambda job_ids: self._waiting.add(job_ids),  # noqa: PLW0108 - it comes next
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
        """End the engines; what became of the jobs can be read still.

        This process's own unfinished jobs are cancelled, or let go: then what runs goes on, and
        what waits is for whoever takes it over.
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
        """Take one job, and return it as it is on record, durably; the engine is told afterwards.

        The check may take seconds: after it the job is recorded only if it is still `wanted`.
        `InvalidJob` (`JobRefused` with the findings of the preflight): something in it cannot be
        used. `UnknownEngine`, `ImportError`: the engine is not installed, or its plugin cannot
        load. Then nothing was recorded, written or started.
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

        One may refer to an earlier one of them by its position, as job ``#0``, or ``#-1`` for the
        one before it. In the place of one that cannot be read stands why.

        They are recorded in one transaction, with those that others submit at the time; none if
        they are not `wanted` any more. What a key has given before is given again, whatever has
        become of the files that the job was found to need.
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
            return True  # what nearly all have, and no engine need be loaded for it
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
        """Announces new events while somebody listens; close forgets who does."""
        return self._recorder.feed

    def wait(self, job_ids: Sequence[str], timeout: float | None = None) -> Iterator[JobMetadata]:
        """Yield the state of each job, then each change, until all have ended; take over others."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        changed: queue.SimpleQueue[list[JobMetadata]] = queue.SimpleQueue()
        self._recorder.waiters.add(changed)
        try:
            seen: dict[str, tuple[int, JobState]] = {}
            # By their rows: the owner of one that was seen to have ended may have died before.
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
                    # Those of another process, or of another service in this one: nobody tells us.
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
            # A full disk, perhaps because of this very job: it is stopped all the same.
            _LOG.warning("cannot note that job %s is to be stopped: %s", job_id, error)
        if self._waiting.cancel([job_id]):
            return True
        runner = self._runners.following(job_id)
        if runner is not None:
            # A job that was just taken over may have ended by what was noted, before it is asked.
            first = job.cancel_requested_at is None
            stops = runner.cancel(job_id)
            return stops or (first and runner.get_status(job_id) is JobState.CANCELLED)
        # Another process owns it, perhaps one that is about to write it down; or its engine is
        # not to be had, and what there was to do is done.
        now = self._store.get(job_id)
        # One that waits has no files, and its owner sees what was noted.
        if not (now.state.is_terminal() or now.waits):
            try:
                make_own(self.config.jobs_directory)
                request_cancel(self.directory(job_id), self._recovery.host)
            except OSError as error:
                raise CrystalMathError(
                    f"job {job_id} has another owner, and the request to stop it cannot be written "
                    f"for that ({error}); make room, and cancel it again"
                ) from error
        return True

    def cancel_waiting(self, job_ids: Collection[str]) -> set[str]:
        """Cancel those of some jobs that wait here for others; return their ids."""
        waiting = [job_id for job_id in job_ids if job_id in self._waiting]
        if not waiting:
            return set()
        # First: what is about to be released is not handed over then.
        self._recorder.note_cancel(waiting)
        return self._waiting.cancel(waiting)

    def successors(self, job_ids: Sequence[str]) -> list[str]:
        """Return the jobs that wait for some, also through others, the farthest first."""
        waiting: dict[str, None] = {}
        left = list(job_ids)
        while left:
            jobs = self._existing(left[0]).get_many(self._store.successors(left))
            left = [job.job_id for job in jobs if job.waits and job.job_id not in waiting]
            waiting |= dict.fromkeys(left)
        return [*reversed(waiting)]

    def cancel_all(self) -> None:
        """Request that all jobs be stopped that are followed here, or by nobody."""
        try:
            self.take_over()
            jobs = self.unfinished(abandoned=True)
        except CrystalMathError as error:
            # Without the database: those that were submitted here are stopped by `close`.
            _LOG.warning("cannot look for jobs that nobody follows: %s", error)
            return
        for job_id in jobs:
            try:
                self.cancel(job_id)
            except (CrystalMathError, OSError) as error:
                _LOG.warning("cannot cancel job %s: %s", job_id, error)

    def abandoned(self) -> set[str]:
        """Name the engines of the unfinished jobs that nobody follows."""
        return {job.engine for job in self._recovery.left()} if self._recorder.exists() else set()

    def take_over(self, engine: str | None = None) -> list[str]:
        """Follow the unfinished jobs whose owner has died, all or an engine's; return their ids.

        What is missing of their files is written again, the engines are asked what they know of
        them, and what an engine does not know is handed out again. A job whose engine cannot be
        loaded stays as it is; its reason and the log say why.
        """
        if not self._recorder.exists():
            return []
        return self._recovery.take_over(
            [job for job in self._recovery.left() if engine in {None, job.engine}]
        )

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """Take over those of these jobs whose owner has died."""
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
        # In this order: what waits no more is with its engine.
        return (waiting and self._waiting.may_go_on()) or self._runners.is_busy()

    def _follows(self, job_id: str) -> bool:
        return job_id in self._waiting or super()._follows(job_id)

    # --- files and engines -------------------------------------------------------------------

    def prune(
        self, choice: Choice, *, dry_run: bool = False, limit: int = 1000, cursor: str | None = None
    ) -> Generator[None, None, Pruned]:
        """Throw away files of ended jobs; see :func:`crystalmath.running.pruning.prune`."""
        if self.config.restricted is not None and not dry_run:
            raise InvalidJob(
                "this home is restricted, and removes no files of its jobs; take [restricted] out "
                "of its config.toml while you prune"
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

    def engine_states(self) -> Mapping[str, str]:
        """Return the state of each installed engine here, without loading any."""
        return self._runners.states()

    def engine_workers(self) -> Mapping[str, int | None]:
        """Return how many jobs each loaded engine runs at once; ``None`` where it does not know."""
        return self._runners.workers()

    def backlog(self) -> Mapping[str, int]:
        """Return of each loaded engine how many jobs that are followed here wait to begin."""
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
            # Registered after the engines' own, so called before: the store is told of the end.
            import crystalmath.quacc.engines  # noqa: F401

            atexit.register(service.close)
        elif service.config != configured:
            service.config = configured
        return service
