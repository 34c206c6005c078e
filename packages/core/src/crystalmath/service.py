"""The one place that joins what is below: preflight, store, run directories and engines."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from crystalmath import config, processes
from crystalmath.admission import Admission, Prepared, Submission
from crystalmath.errors import CrystalMathError, InvalidJob, UnknownJob
from crystalmath.quacc.changes import Change
from crystalmath.quacc.runner import JobState
from crystalmath.recorder import Recorder
from crystalmath.recovery import Recovery, has_no_owner
from crystalmath.rundir import IdentityFile, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from crystalmath.models import Finding
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import JobMetadata, JobStore

__all__ = ["JobService", "default_service"]

_LOG = logging.getLogger("crystalmath.service")

#: How often jobs of other processes are looked at while somebody waits for them, in seconds.
POLL_S = 0.25


class JobService:
    """Submit, follow and cancel the jobs of one home.

    Parameters
    ----------
    configured : Config, optional
        Default: read from the environment and the configuration file.
    """

    def __init__(self, configured: config.Config | None = None) -> None:
        self.config = configured or config.load()
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._runners: dict[str, EngineRunner] = {}
        self._recorder = Recorder(self.config.database_url)
        self._recovery = Recovery(self._recorder, self._runner, self.config.jobs_directory)
        self._identity = IdentityFile(
            self.config.jobs_directory / ".identities", processes.own_identity()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel this process's own unfinished jobs, end the engines, and close the store."""
        if os.getpid() != self._process:
            return  # a forked child has no jobs of its own, and must not touch the parent's
        with self._lock:
            runners, self._runners = self._runners, {}
        for runner in runners.values():
            runner.close()
        self._recorder.finish()
        self._recovery.disown()
        self._recorder.close()
        self._identity.remove()

    # --- submitting --------------------------------------------------------------------------

    def submit(self, submission: Submission) -> JobMetadata:
        """Take one job.

        Returns
        -------
        JobMetadata
            As recorded, durably; the engine hears of it afterwards.

        Raises
        ------
        InvalidJob
            Something in it cannot be used (`JobRefused` with the findings of the preflight).
            Nothing was recorded, written or started.
        UnknownEngine, ImportError
            The engine is not installed, or its plugin cannot load.
        """
        answer = self.submit_many([submission])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_many(
        self, submissions: Sequence[Submission]
    ) -> list[JobMetadata | CrystalMathError | ImportError]:
        """Take many jobs, each accepted or refused on its own, in order.

        All that are accepted are recorded in one transaction.
        """
        admission = self._admission()
        answers: dict[int, Any] = {}
        prepared: dict[int, Prepared] = {}
        for index, submission in enumerate(submissions):
            try:
                prepared[index] = admission.prepare(submission)
            except (CrystalMathError, ImportError) as error:
                answers[index] = error
        answers |= self._record(prepared)
        return [answers[index] for index in range(len(submissions))]

    def check(self, submission: Submission) -> list[Finding]:
        """Say all that is wrong with a submission, without submitting it."""
        return self._admission().check(submission)

    def _admission(self) -> Admission:
        return Admission(self.config, self._runner, _owner())

    def _record(self, prepared: dict[int, Prepared]) -> dict[int, Any]:
        """Commit the rows, and only then let the engines hear of them."""
        if not prepared:
            return {}
        try:
            recorded = self._store.insert([item.row for item in prepared.values()])
        except InvalidJob as error:
            if len(prepared) == 1:
                return dict.fromkeys(prepared, error)
            answers: dict[int, Any] = {}
            for index, item in prepared.items():
                answers |= self._record({index: item})
            return answers
        answers = dict(zip(prepared, recorded, strict=True))
        unstarted = dict(answers)
        try:
            for index, item in prepared.items():
                if answers[index].job_id == item.spec.job_id:
                    answers[index] = self._start(item, answers[index])
                else:
                    # A key that was there already has given the job of an earlier submission.
                    answers[index] = self._recovery.current([answers[index]])[0]
                del unstarted[index]
        except BaseException as error:
            # Ctrl-C: what is on record and was not handed over must not stay pending for ever.
            fresh = [row for row in unstarted.values() if row.state is JobState.pending]
            told = f"not handed to the engine: {type(error).__name__}"
            changes = [
                Change(job_id=row.job_id, state=JobState.failed, at=time.time(), error=told)
                for row in fresh
                if not self._follows(row.job_id)
            ]
            self._recorder.apply(*changes)
            raise
        return answers

    def _start(self, item: Prepared, recorded: JobMetadata) -> JobMetadata:
        try:
            item.runner.start(item.spec, item.document)
        except Exception as error:  # noqa: BLE001 - the row must not stay pending for ever
            failed = Change(
                job_id=recorded.job_id,
                state=JobState.failed,
                at=time.time(),
                error=f"could not be handed to the engine: {error}",
            )
            self._recorder.apply(failed)
            return self._store.get(recorded.job_id)
        return recorded

    def _runner(self, engine: str) -> EngineRunner:
        from crystalmath.quacc.engines import runner_for

        with self._lock:
            runner = self._runners.get(engine)
            if runner is None or runner.closed:
                runner = runner_for(engine, self.config)
                runner.subscribe(self._recorder.report)
                self._runners[engine] = runner
            return runner

    # --- following ---------------------------------------------------------------------------

    def job(self, job_id: str) -> JobMetadata:
        """Tell all that is recorded of a job (`UnknownJob` if there is none)."""
        return self._recovery.current([self._existing(job_id).get(job_id)])[0]

    def jobs(
        self,
        *,
        state: JobState | None = None,
        engine: str | None = None,
        label: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[JobMetadata]:
        """List jobs, newest first."""
        if not self._recorder.exists():
            return []
        self._recovery.current(self._store.unfinished())
        return self._store.list(state=state, engine=engine, label=label, limit=limit)

    def find(self, prefix: str) -> str:
        """Give the one job id that begins so.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do.
        """
        found = self._existing(prefix).find(prefix, limit=5)
        if not found:
            raise UnknownJob(prefix)
        if len(found) > 1:
            raise InvalidJob(f"several job ids begin with {prefix!r}: {', '.join(found)}, ...")
        return found[0]

    def wait(self, job_ids: Sequence[str], timeout: float | None = None) -> Iterator[JobMetadata]:
        """Yield the present state of each job and then each change, until all are finished.

        Jobs that nobody follows are taken over.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs.
        timeout : float, optional
            Time in seconds after which it ends all the same.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        news: queue.SimpleQueue[list[JobMetadata]] = queue.SimpleQueue()
        self._recorder.waiters.add(news)
        try:
            seen: dict[str, int] = {}
            batch = self._all(job_ids)
            if self._recovery.take_over(batch):
                batch = self._all(job_ids)
            remaining = set(job_ids)
            while True:
                for job in batch:
                    if job.job_id in remaining and job.revision > seen.get(job.job_id, -1):
                        seen[job.job_id] = job.revision
                        if job.state.is_terminal():
                            remaining.discard(job.job_id)
                        yield job
                left = end - time.monotonic()
                if not remaining or left <= 0:
                    return
                try:
                    batch = news.get(timeout=min(POLL_S, left))
                except queue.Empty:
                    # Those of another process, or of another service in this one: nobody tells us.
                    foreign = [job_id for job_id in sorted(remaining) if not self._follows(job_id)]
                    batch = self._store.get_many(foreign)
                    if self._recovery.take_over(batch):
                        batch = self._store.get_many(foreign)
                    batch = self._recovery.current(batch)
        finally:
            self._recorder.waiters.discard(news)

    def _follows(self, job_id: str) -> bool:
        return any(runner.follows(job_id) for runner in list(self._runners.values()))

    def _all(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        jobs = self._existing(next(iter(job_ids), "")).get_many(job_ids)
        for missing in set(job_ids) - {job.job_id for job in jobs}:
            raise UnknownJob(missing)
        return self._recovery.current(jobs)

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Give what the recipe returned, as `JobRunner.get_result` does."""
        from crystalmath.quacc.outcomes import read_result

        job = self.job(job_id)
        if not job.state.is_terminal():
            return None
        if job.state is JobState.completed:
            with _readable(job_id):
                return read_result(self._directory(job_id))
        more = {"traceback": job.traceback} if job.traceback else {}
        return {"error": job.error, **more}

    def result_json(self, job_id: str) -> bytes | None:
        """Give the stored JSON of a result, undecoded; ``None`` unless the job completed."""
        from crystalmath.quacc import codec

        job = self.job(job_id)
        if job.state is not JobState.completed:
            return None
        with _readable(job_id):
            return codec.result_json(self._directory(job_id).payload(job.attempt))

    def work_directory(self, job_id: str) -> Path:
        """Give the working directory of a job's present attempt; it may not exist yet."""
        return Path(self._directory(job_id).work(self.job(job_id).attempt))

    def log_file(self, job_id: str) -> Path:
        """Give the log of a job's present attempt; it exists once the job has printed."""
        return Path(self._directory(job_id).log(self.job(job_id).attempt))

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped; ``False`` if it had finished."""
        from crystalmath.quacc.outcomes import cancel_files

        job = self.job(job_id)
        if job.state.is_terminal():
            return False
        self._store.note_cancel(job_id, time.time())
        if has_no_owner(job):
            self._recovery.take_over([job])
        directory = self._directory(job_id)
        runner = self._runners.get(job.engine)
        if runner is not None and runner.follows(job_id):
            return runner.cancel(job_id)
        if directory.exists():
            cancel_files(directory, self._identity)
        elif has_no_owner(job):
            self._recorder.apply(Change(job_id=job_id, state=JobState.cancelled, at=time.time()))
        else:
            # Its owner is about to write it down, and then finds this.
            self.config.jobs_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.request_cancel()
        self._recovery.current([job])
        return True

    def _directory(self, job_id: str) -> RunDirectory:
        return RunDirectory(self.config.jobs_directory / job_id)

    def take_over(self) -> list[str]:
        """Follow all unfinished jobs whose owner has died as this process's own.

        What is missing of their files is written again, the engines are asked what they know of
        them, and what an engine does not know is handed out again.

        Returns
        -------
        list of str
            The ids of the jobs that are followed here now. One whose engine cannot be loaded stays
            as it is, and the log says why.
        """
        return self._recovery.take_over(self._store.unfinished())

    # --- the store ---------------------------------------------------------------------------

    @property
    def _store(self) -> JobStore:
        return self._recorder.store

    def _existing(self, job_id: str) -> JobStore:
        """Give the store for a question; asking for a job makes no database."""
        if not self._recorder.exists():
            raise UnknownJob(job_id)
        return self._store


@contextlib.contextmanager
def _readable(job_id: str) -> Iterator[None]:
    """Say in plain words that the files of a finished job are gone."""
    try:
        yield
    except FileNotFoundError as error:
        raise CrystalMathError(
            f"the result of job {job_id} is gone: {error.filename} was removed"
        ) from error


def _owner() -> dict[str, Any]:
    return processes.own_identity().as_dict()


_services: dict[Path, JobService] = {}
_services_lock = threading.Lock()


def default_service() -> JobService:
    """Give this process's service for the present home; it ends with the interpreter."""
    configured = config.load()
    with _services_lock:
        service = _services.get(configured.home)
        if service is None:
            service = _services[configured.home] = JobService(configured)
            # Registered after the engines' own, so called before: the store hears of the end.
            import crystalmath.quacc.engines  # noqa: F401

            atexit.register(service.close)
        elif service.config != configured:
            service.config = configured
        return service
