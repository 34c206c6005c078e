"""The one place that joins what is below: preflight, store, run directories and engines."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import attrs

from crystalmath import config
from crystalmath.errors import CrystalMathError, EngineUnavailable, InvalidJob, StoreError
from crystalmath.jobs.changes import Change
from crystalmath.jobs.identities import own_identity
from crystalmath.jobs.reconcile import request_cancel
from crystalmath.models import JobState
from crystalmath.service.admission import Admission, Checked, Prepared
from crystalmath.service.ended_elsewhere import record_rows
from crystalmath.service.engine_pool import Runners
from crystalmath.service.geometries import Geometries
from crystalmath.service.home_disk import HomeDisk
from crystalmath.service.pruning import Pruned, prune
from crystalmath.service.queries import Queries
from crystalmath.service.recorder import Recorder
from crystalmath.service.recovery import Recovery
from crystalmath.service.reread_job import reading_again
from crystalmath.service.retrying import Again, again

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from crystalmath.models import Job, NewJob, Submission
    from crystalmath.models.inputs import Preset
    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.pruning import Choice

    #: For each job that is asked for, the job or why there is none.
    _Answers: TypeAlias = list[JobMetadata | CrystalMathError | ImportError]

__all__ = ["JobService", "default_service"]

_LOG = logging.getLogger("crystalmath.service")

#: So many jobs are run again in one transaction: their structures are in memory meanwhile.
_RETRIED = 200


class JobService(Queries):
    """Submit, follow and cancel the jobs of one home.

    Parameters
    ----------
    configured : Config or Source, optional
        The home's configuration; a source is asked again at each submission. Default: as read now
        from the environment and the configuration file.
    environ : mapping of str to str
        The environment of jobs whose submission brings none.

    Attributes
    ----------
    disk : HomeDisk
        How much room there is for its jobs.
    """

    def __init__(
        self,
        configured: config.Config | config.Source | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._source = configured if isinstance(configured, config.Source) else None
        given = configured.last if isinstance(configured, config.Source) else configured
        self.config: config.Config = given or config.load()
        self._environ = environ
        self._process = os.getpid()
        self._leaving = False
        self.disk = HomeDisk(lambda: self.config.jobs_directory)
        self._recorder = Recorder(
            self.config.database_url, self.config.jobs_directory, network=self.config.network
        )
        self._runners = Runners(lambda: self.config, self._recorder.report)
        own_identity(self.config.jobs_directory, self.config.lease_s)
        self._recovery = Recovery(
            self._recorder, self._runners.get, self._follows, self.config.jobs_directory
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

    def close(self, *, cancel: bool = True) -> None:
        """End the engines, and close the store.

        Parameters
        ----------
        cancel : bool
            Cancel this process's own unfinished jobs. Without it they are let go: what runs goes
            on, and what waits is for whoever takes it over.
        """
        if os.getpid() != self._process:
            return  # a forked child has no jobs of its own, and must not touch the parent's
        self._leaving = not cancel
        self._runners.close(cancel=cancel)
        self._recorder.finish()
        try:
            self._recovery.disown(own=not cancel)
        except CrystalMathError as error:
            _LOG.warning("cannot record that jobs are let go: %s", error)
        self._recovery.host.rest()
        self._recorder.close()

    # --- submitting --------------------------------------------------------------------------

    def submit(
        self, submission: Submission, *, wanted: Callable[[], bool] = lambda: True
    ) -> JobMetadata:
        """Take one job.

        Parameters
        ----------
        submission : Submission
            What is asked for.
        wanted : callable
            Whether it is still to be recorded once it has been checked, which may take seconds.

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
        answer = self.submit_many([submission], wanted=wanted)[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_many(
        self, submissions: Sequence[Submission], *, wanted: Callable[[], bool] = lambda: True
    ) -> _Answers:
        """Take many jobs, each accepted or refused on its own, in order.

        They are recorded in one transaction, with those that others submit at the time; none if
        they are not `wanted` any more. What a key has given before is given again, whatever has
        become of the files that the job was found to need.
        """
        return self._submit([Again(submission) for submission in submissions], wanted)

    def _submit(self, asked: Sequence[Again], wanted: Callable[[], bool]) -> _Answers:
        answers, prepared = self._prepare(asked, wanted)
        _require(wanted)
        answers |= self._record(prepared)
        return [answers[index] for index in range(len(asked))]

    def retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        *,
        dry_run: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> _Answers:
        """Run jobs again that have ended, each as a new job that points to the old one.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs.
        changes : Retry
            What is other this time; the rest is as it was submitted.
        dry_run : bool
            Record and start nothing.
        wanted : callable
            Whether the next ones are still to be recorded.

        Returns
        -------
        list of (JobMetadata or CrystalMathError or ImportError)
            For each in turn the new job, or why there is none: it passes what any submission must
            pass. In a dry run, the new job as it would be.
        """
        answers: _Answers = []
        for start in range(0, len(job_ids), _RETRIED):
            some = job_ids[start : start + _RETRIED]
            answers += self._retry(
                some, changes, self._rehearse if dry_run else self._submit, wanted
            )
        return answers

    def reread(
        self, job_id: str, changes: Retry, settings: Mapping[str, str] | None = None
    ) -> JobMetadata:
        """Read the calculations of a failed job again; see :mod:`.reread_job` for what it takes."""
        job, text = self.job(job_id), self.specification(job_id)
        told = changes, settings or {}
        asked = reading_again(job, text, self.config, self._directory(job_id), told)
        (answer,) = self._submit([asked], lambda: True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        submit: Callable[[Sequence[Again], Callable[[], bool]], _Answers],
        wanted: Callable[[], bool],
    ) -> _Answers:
        refused: dict[int, Any] = {}
        asked: dict[int, Again] = {}
        for index, job_id in enumerate(job_ids):
            try:
                job, text = self.job(job_id), self.specification(job_id)
                asked[index] = again(job, text, changes, self.config, self._directory(job_id))
            except CrystalMathError as error:
                refused[index] = error
        told = submit(list(asked.values()), wanted)
        answers = refused | dict(zip(asked, told, strict=True))
        return [answers[index] for index in range(len(job_ids))]

    def _rehearse(self, asked: Sequence[Again], wanted: Callable[[], bool]) -> _Answers:
        """Give what would be submitted, and record nothing of it."""
        answers, prepared = self._prepare(asked, wanted)
        answers |= {index: item.row for index, item in prepared.items()}
        return [answers[index] for index in range(len(asked))]

    def _prepare(
        self, submissions: Sequence[Again], wanted: Callable[[], bool]
    ) -> tuple[dict[int, Any], dict[int, Prepared]]:
        """Give, by their numbers, what is answered already, and what is to be recorded."""
        admission = self._admission()
        answers: dict[int, Any] = {}
        prepared: dict[int, Prepared] = {}
        known = self._of_keys([item.submission for item in submissions])
        for index, item in enumerate(submissions):
            submission = item.submission
            _require(wanted)
            try:
                job = known.get(submission.key) if isinstance(submission.key, str) else None
                asked = admission.read(submission, item.parents)
                if job is not None and asked.spec_hash == job.spec_hash:
                    answers[index] = self._recovery.seen([job])[0]
                else:
                    prepared[index] = admission.prepare(asked)
            except (CrystalMathError, ImportError) as error:
                answers[index] = error
        return answers, prepared

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Say all that is wrong with a submission, and what it would read; submit nothing.

        Parameters
        ----------
        submission : Submission
            What is asked for.
        inputs : bool
            Also say what its programs would get; any recipe is asked then, which may take seconds.
        """
        return self._admission().check(submission, inputs=inputs)

    def presets(
        self, environment: Mapping[str, str] | None = None, name: str | None = None
    ) -> list[Preset]:
        """List quacc's presets with what each sets.

        Parameters
        ----------
        environment : mapping of str to str, optional
            The caller's, of which the home's configuration picks what a job sees.
        name : str, optional
            Only those of this name (`InvalidJob` if there is none).
        """
        from crystalmath.preflight.preset_files import presets
        from crystalmath.quacc.engine import submission_environment

        given = self._environ if environment is None else environment
        return presets(submission_environment(self.config, given), name)

    def _admission(self) -> Admission:
        if self._source is not None:
            # Where the jobs are cannot change while somebody has them open.
            url = self.config.database_url
            self.config = attrs.evolve(self._source.current(), database_url=url)
        return Admission(self.config, self._runners.get, self._environ, Geometries(self).take)

    def _of_keys(self, submissions: Sequence[Submission]) -> dict[str, JobMetadata]:
        """Give the jobs that have the keys of these."""
        keys = [each.key for each in submissions if isinstance(each.key, str)]
        return self._recorder.store.by_key(keys) if keys and self._recorder.exists() else {}

    def _record(self, prepared: dict[int, Prepared]) -> dict[int, Any]:
        """Commit the rows, and only then let the engines hear of them."""
        if not prepared:
            return {}
        owner = self._recovery.host.own_fields()
        rows = [attrs.evolve(item.row, owner=owner) for item in prepared.values()]
        recorded = dict(zip(prepared, self._recorder.insert(rows), strict=True))
        refused = {at: job for at, job in recorded.items() if isinstance(job, InvalidJob)}
        accepted = {at: job for at, job in recorded.items() if not isinstance(job, InvalidJob)}
        return refused | self._start_all(prepared, accepted)

    def _start_all(
        self, prepared: Mapping[int, Prepared], accepted: Mapping[int, JobMetadata]
    ) -> dict[int, JobMetadata]:
        answers = dict(accepted)
        unstarted = dict(answers)
        try:
            for index, job in accepted.items():
                if job.job_id == prepared[index].spec.job_id:
                    answers[index] = self._start(prepared[index], job)
                else:
                    # A key that was there already has given the job of an earlier submission.
                    answers[index] = self._recovery.seen([job])[0]
                del unstarted[index]
        except BaseException as error:
            # Ctrl-C: what is on record and was not handed over must not stay pending for ever.
            fresh = [row for row in unstarted.values() if row.state is JobState.PENDING]
            told = f"not handed to the engine: {type(error).__name__}"
            changes = [
                Change(job_id=row.job_id, state=JobState.FAILED, at=time.time(), error=told)
                for row in fresh
                if not self._follows(row.job_id)
            ]
            self._recorder.apply(*changes)
            raise
        return answers

    def _start(self, item: Prepared, recorded: JobMetadata) -> JobMetadata:
        try:
            self._hand_over(item)
        except Exception as error:  # noqa: BLE001 - the row must not stay pending for ever
            if self._leaving:
                return recorded  # it is for whoever comes next, as all others
            failed = Change(
                job_id=recorded.job_id,
                state=JobState.FAILED,
                at=time.time(),
                error=f"could not be handed to the engine: {error}",
            )
            self._recorder.apply(failed)
            return self._store.get(recorded.job_id)
        return recorded

    def _hand_over(self, item: Prepared) -> None:
        try:
            item.runner.start(item.spec, item.document)
        except EngineUnavailable:
            # Its options have changed meanwhile, and another runner was made.
            runner = self._runners.get(item.row.engine)
            if runner is item.runner:
                raise
            runner.start(item.spec, item.document)

    def record_ended(self, ended: Sequence[tuple[Job, NewJob, str | None]]) -> None:
        """Record jobs that have ended elsewhere; see :mod:`crystalmath.service.job_archive`."""
        record_rows(self._recorder.store, ended)

    # --- throwing away -----------------------------------------------------------------------

    def prune(
        self, choice: Choice, *, dry_run: bool = False, limit: int = 1000, cursor: str | None = None
    ) -> Generator[None, None, Pruned]:
        """Throw away files of ended jobs; see :func:`crystalmath.service.pruning.prune`."""
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

    # --- stopping, taking over ---------------------------------------------------------------

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped; ``False`` if it had finished."""
        job = self.job(job_id)
        if job.state.is_terminal():
            return False
        try:
            self._recorder.note_cancel(job_id)
            self._recovery.take_over(self._store.get_many([job_id]))
        except StoreError as error:
            # A full disk, perhaps because of this very job: it is stopped all the same.
            _LOG.warning("cannot note that job %s is to be stopped: %s", job_id, error)
        runner = self._runners.following(job_id)
        if runner is not None:
            # A job that was just taken over may have ended by what was noted, before it is asked.
            first = job.cancel_requested_at is None
            asked = runner.cancel(job_id)
            return asked or (first and runner.get_status(job_id) is JobState.CANCELLED)
        # Another process owns it, perhaps one that is about to write it down; or its engine is
        # not to be had, and what there was to do is done.
        if not self._store.get(job_id).state.is_terminal():
            self.config.jobs_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            request_cancel(self._directory(job_id), self._recovery.host)
        return True

    def abandoned(self) -> set[str]:
        """Name the engines of the unfinished jobs that nobody follows."""
        return {job.engine for job in self._left()} if self._recorder.exists() else set()

    def take_over(self, engine: str | None = None) -> list[str]:
        """Follow the unfinished jobs whose owner has died as this process's own.

        What is missing of their files is written again, the engines are asked what they know of
        them, and what an engine does not know is handed out again.

        Parameters
        ----------
        engine : str, optional
            Only this engine's jobs.

        Returns
        -------
        list of str
            The ids of the jobs that are followed here now. One whose engine cannot be loaded stays
            as it is, and the log says why.
        """
        if not self._recorder.exists():
            return []
        return self._recovery.take_over(
            [job for job in self._left() if engine in {None, job.engine}]
        )

    def unfinished(self, *, abandoned: bool = False) -> dict[str, JobState]:
        """Tell the unfinished jobs that are followed by this service, and their states.

        Parameters
        ----------
        abandoned : bool
            Also those that nobody follows.
        """
        left = self._left() if abandoned and self._recorder.exists() else []
        return {job.job_id: job.state for job in left} | self._runners.unfinished()

    def engine_states(self) -> Mapping[str, str]:
        """Tell of each installed engine what has become of it here, without loading any."""
        return self._runners.states()

    def engine_workers(self) -> Mapping[str, int | None]:
        """Tell how many jobs each loaded engine runs at once; ``None`` where it does not know."""
        return self._runners.workers()

    def backlog(self) -> Mapping[str, int]:
        """Tell of each loaded engine how many jobs that are followed here wait to begin."""
        return self._runners.backlog()

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


def _require(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise CrystalMathError("nobody waits for the answer any more; nothing was recorded")


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
