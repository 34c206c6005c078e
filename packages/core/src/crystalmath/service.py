"""The one place that joins what is below: preflight, store, run directories and engines."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import math
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
from crystalmath.rundir import IdentityFile, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from crystalmath.models import Finding
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import JobMetadata, JobStore

__all__ = ["JobService", "default_service"]

_LOG = logging.getLogger("crystalmath.service")

#: How long changes are gathered before they are written in one transaction, in seconds.
GATHER_S = 0.1
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
        self._lock = threading.RLock()
        self._opened: JobStore | None = None
        self._runners: dict[str, EngineRunner] = {}
        self._changes: queue.SimpleQueue[Sequence[Change] | None] = queue.SimpleQueue()
        self._waiters: set[queue.SimpleQueue[list[JobMetadata]]] = set()
        self._writer: threading.Thread | None = None
        self._taken: list[str] = []
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
        with self._lock:
            runners, self._runners = self._runners, {}
            writer, self._writer = self._writer, None
        for runner in runners.values():
            runner.close()
        if writer is not None:
            self._changes.put(None)
            writer.join()
        self._disown()
        with self._lock:
            store, self._opened = self._opened, None
        if store is not None:
            store.close()
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
        for index, item in prepared.items():
            if answers[index].job_id == item.spec.job_id:
                answers[index] = self._start(item, answers[index])
            else:
                # A key that was there already has given the job of an earlier submission.
                answers[index] = self._current([answers[index]])[0]
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
            self._apply(failed)
            return self._store.get(recorded.job_id)
        return recorded

    def _runner(self, engine: str) -> EngineRunner:
        from crystalmath.quacc.engines import runner_for

        with self._lock:
            runner = self._runners.get(engine)
            if runner is None or runner.closed:
                runner = runner_for(engine, self.config)
                runner.subscribe(self._changes.put)
                self._runners[engine] = runner
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write, name="crystalmath-store", daemon=True
                )
                self._writer.start()
            return runner

    # --- following ---------------------------------------------------------------------------

    def job(self, job_id: str) -> JobMetadata:
        """Tell all that is recorded of a job (`UnknownJob` if there is none)."""
        return self._current([self._existing(job_id).get(job_id)])[0]

    def jobs(
        self,
        *,
        state: JobState | None = None,
        engine: str | None = None,
        label: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[JobMetadata]:
        """List jobs, newest first."""
        from crystalmath.quacc.store import JobStore

        if not JobStore.exists(self.config.database_url):
            return []
        self._current(self._store.unfinished())
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
        self._waiters.add(news)
        try:
            seen: dict[str, int] = {}
            batch = self._all(job_ids)
            if self.take_over(batch):
                batch = self._all(job_ids)
            remaining = set(job_ids)
            # Those of another process, or of another service in this one: nobody tells us.
            foreign = {
                job.job_id
                for job in batch
                if job.owner != _owner() or job.engine not in self._runners
            }
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
                    batch = self._current(self._store.get_many(sorted(remaining & foreign)))
        finally:
            self._waiters.discard(news)

    def _all(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        jobs = self._existing(next(iter(job_ids), "")).get_many(job_ids)
        for missing in set(job_ids) - {job.job_id for job in jobs}:
            raise UnknownJob(missing)
        return self._current(jobs)

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Give what the recipe returned, as `JobRunner.get_result` does."""
        from crystalmath.quacc.driver import read_result

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
        from crystalmath.quacc.driver import cancel_files

        job = self.job(job_id)
        if job.state.is_terminal():
            return False
        self._store.note_cancel(job_id, time.time())
        with self._lock:
            runner = self._runners.get(job.engine)
        if runner is not None and job.owner == _owner():
            return runner.cancel(job_id)
        directory = self._directory(job_id)
        if directory.exists():
            cancel_files(directory, self._identity)
        elif _is_orphan(job):
            self._apply(Change(job_id=job_id, state=JobState.cancelled, at=time.time()))
        self._current([job])
        return True

    def _directory(self, job_id: str) -> RunDirectory:
        return RunDirectory(self.config.jobs_directory / job_id)

    # --- the store ---------------------------------------------------------------------------

    @property
    def _store(self) -> JobStore:
        from crystalmath.quacc.store import JobStore

        with self._lock:
            if self._opened is None:
                self._opened = JobStore(self.config.database_url)
            return self._opened

    def _existing(self, job_id: str) -> JobStore:
        """Give the store for a question; asking for a job makes no database."""
        from crystalmath.quacc.store import JobStore

        if self._opened is None and not JobStore.exists(self.config.database_url):
            raise UnknownJob(job_id)
        return self._store

    def _current(self, jobs: list[JobMetadata]) -> list[JobMetadata]:
        """Bring jobs that nobody follows up to date with their run directories."""
        return [
            self._refresh(job) if not job.state.is_terminal() and _is_orphan(job) else job
            for job in jobs
        ]

    def _refresh(self, job: JobMetadata) -> JobMetadata:
        from crystalmath.quacc.tracking import orphan_changes

        directory = self._directory(job.job_id)
        if directory.exists():
            with contextlib.suppress(ValueError):  # a specification that was written half
                self._apply(*orphan_changes(directory, job.state))
        return self._store.get(job.job_id)

    # --- recovery ----------------------------------------------------------------------------

    def take_over(self, jobs: Sequence[JobMetadata] | None = None) -> list[str]:
        """Follow unfinished jobs whose owner has died as this process's own.

        What is missing of their files is written again, the engine is asked what it knows of
        them, and what it does not know is handed out again.

        Parameters
        ----------
        jobs : sequence of JobMetadata, optional
            Default: all of the home.

        Returns
        -------
        list of str
            The ids of the jobs that are followed here now. One whose engine cannot be loaded stays
            as it is, and the log says why.
        """
        return [
            job.job_id
            for job in (self._store.unfinished() if jobs is None else jobs)
            if not job.state.is_terminal() and _is_orphan(job) and self._take_over(job)
        ]

    def _take_over(self, job: JobMetadata) -> bool:
        try:
            runner = self._runner(job.engine)
            self._restore(job)
            if not runner.adopt(job.job_id):
                return False
        except (CrystalMathError, ImportError, OSError) as error:
            _LOG.warning("cannot take over job %s: %s", job.job_id, error)
            return False
        self._taken.append(job.job_id)
        owner = _owner()
        reason = f"taken over by the process {owner['pid']} on {owner['host']}"
        self._store.set_owner(job.job_id, owner, reason, time.time())
        return True

    def _restore(self, job: JobMetadata) -> None:
        """Write the files of a job whose owner died between its row and its run directory."""
        directory = self._directory(job.job_id)
        if job.state is not JobState.pending or directory.claimed(job.attempt):
            return
        recorded, body = self._store.specification(job.job_id).split("\n", 1)
        with contextlib.suppress(OSError, ValueError):
            if directory.read_spec()[1] == body:
                return
        more = {"job_id": job.job_id, "attempt": job.attempt, "owner": None}
        directory.write_spec({**json.loads(recorded), **more}, body)

    def _disown(self) -> None:
        """Leave what was taken over, and is not finished, to whoever asks for it next."""
        for job_id in self._taken:
            self._store.set_owner(job_id, {}, "let go", time.time())
        self._taken.clear()

    def _apply(self, *changes: Change) -> None:
        applied = self._store.apply(changes) if changes else []
        if applied:
            for waiter in list(self._waiters):
                waiter.put(applied)

    def _write(self) -> None:
        """Write what the engines report, many changes in one transaction."""
        open_ = True
        written = 0.0
        while open_:
            batch = [self._changes.get()]
            # The first change after a quiet time is written at once, a flood in few transactions.
            time.sleep(max(0.0, GATHER_S - (time.monotonic() - written)))
            while not self._changes.empty():
                batch.append(self._changes.get())
            open_ = None not in batch
            changes = [change for group in batch if group is not None for change in group]
            pause = 0.1
            while changes:
                try:
                    self._apply(*changes)
                    written = time.monotonic()
                    break
                except Exception as error:  # noqa: BLE001 - a full disk, a database restarting
                    # Nothing is lost: the outcomes are on disk, and the batch is tried again.
                    _LOG.warning("cannot write to the job database, trying again: %s", error)
                    if not open_ and pause > 5:  # noqa: PLR2004 - seconds
                        return
                    time.sleep(pause)
                    pause = min(2 * pause, 10.0)


@contextlib.contextmanager
def _readable(job_id: str) -> Iterator[None]:
    """Say in plain words that the files of a finished job are gone."""
    try:
        yield
    except FileNotFoundError as error:
        raise CrystalMathError(
            f"the result of job {job_id} is gone: {error.filename} was removed"
        ) from error


@functools.cache
def _identity() -> processes.Identity:
    return processes.own_identity()


def _owner() -> dict[str, Any]:
    return _identity().as_dict()


def _is_orphan(job: JobMetadata) -> bool:
    return not job.owner or processes.Identity(**job.owner).is_dead()


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
