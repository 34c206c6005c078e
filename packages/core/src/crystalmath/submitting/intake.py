"""Check submissions, record them, and then hand them to engines."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs

from crystalmath.errors import (
    CrystalMathError,
    EngineUnavailable,
    FilesRemoved,
    InvalidJob,
    KeyConflict,
    NotSubmitted,
)
from crystalmath.jobs.changes import Change
from crystalmath.models import Finding, JobState
from crystalmath.models.job_notes import awaited, repeated
from crystalmath.submitting.admission import Admission, Checked, Prepared
from crystalmath.submitting.asked_job import differing
from crystalmath.submitting.flow_terms import changes_by_step
from crystalmath.submitting.references import References
from crystalmath.submitting.retrying import Again, again, as_submitted, reading_again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from crystalmath import config
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import JobSpec, NewJob, Submission
    from crystalmath.models.job_notes import Parent
    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.running.engine_pool import Runners
    from crystalmath.running.recorder import Recorder
    from crystalmath.running.recovery import Recovery
    from crystalmath.submitting.asked_job import AskedJob

    #: For each submission, its job or the error that refuses it.
    Answers: TypeAlias = list[JobMetadata | CrystalMathError | ImportError]

_LOG = logging.getLogger("crystalmath.service")
_Place = TypeVar("_Place")
#: The most jobs that are retried in one transaction, which keeps their structures in memory.
_MOST_RETRIED = 200
#: How many admissions are kept for the next batches.
_MOST_KEPT = 8


class Intake:
    """The path of jobs to their engines.

    While `leaving` is set this process ends, and the next one starts the recorded jobs.
    """

    def __init__(
        self,
        home: HomeJobs,
        recorder: Recorder,
        recovery: Recovery,
        runners: Runners,
        *,
        source: config.Source | None,
        environ: Mapping[str, str],
        wait: Callable[[Collection[str]], None],
    ) -> None:
        self._home = home
        self._recorder = recorder
        self._recovery = recovery
        self._runners = runners
        self._source = source
        self._environ = environ
        self._wait = wait
        # Admissions of the last batches; a thread removes one while it uses it.
        self._admissions: deque[Admission] = deque(maxlen=_MOST_KEPT)
        self.leaving = False

    def submit(
        self,
        requests: Sequence[Again | InvalidJob],
        wanted: Callable[[], bool],
        *,
        all_or_none: bool = False,
    ) -> Answers:
        """Take submissions; see :meth:`.JobService.submit_many`."""
        for _ in range(2):
            answers, prepared = self._prepare(requests, wanted)
            refused = [at for at, answer in answers.items() if isinstance(answer, Exception)]
            if all_or_none and refused:
                not_submitted = _not_submitted(requests, min(refused))
                return [answers.get(index, not_submitted) for index in range(len(requests))]
            _require(wanted)
            answers |= self._record(requests, prepared, all_or_none=all_or_none)
            # If the same request was recorded meanwhile, the second round finds its jobs by keys.
            if not (all_or_none and any(isinstance(one, KeyConflict) for one in answers.values())):
                break
        return [answers[index] for index in range(len(requests))]

    def _prepare(
        self,
        submissions: Sequence[Again | InvalidJob],
        wanted: Callable[[], bool],
        planned: Collection[str] = (),
    ) -> tuple[dict[int, Any], dict[int, Prepared]]:
        """Return, by their numbers, the answers that are final and the jobs to be recorded."""
        admission = self._admission(planned, kept=True)
        answers: dict[int, Any] = {}
        prepared: dict[int, Prepared] = {}
        known = self._of_keys([one.submission for one in submissions if isinstance(one, Again)])
        # Submissions with one key share one job: the first is recorded.
        first: dict[str | None, NewJob] = {}
        for index, item in enumerate(submissions):
            _require(wanted)
            if isinstance(item, InvalidJob):
                answers[index] = item
                admission.list_next(None, None)
                continue
            submission = item.submission
            try:
                job = known.get(submission.key) if isinstance(submission.key, str) else None
                candidate = admission.read(*_parts(item))
                if item.findings:
                    candidate = attrs.evolve(candidate, findings=item.findings)
                if job is not None and candidate.spec_hash == job.spec_hash:
                    answers[index] = self._given_before(job)
                elif job is not None:
                    answers[index] = self._conflict(job, candidate)
                else:
                    ready = admission.prepare(candidate)
                    row = ready.row
                    same = row if row.key is None else first.setdefault(row.key, row)
                    if same.spec_hash == row.spec_hash:
                        admission.plan(row)
                        prepared[index] = ready
                    else:
                        differences = differing(candidate, same.spec_hash, same.specification)
                        answers[index] = KeyConflict.of(same.key, same.job_id, differences)
            except (CrystalMathError, ImportError) as error:
                # The frames of its traceback would keep the whole batch in memory.
                answers[index] = error.with_traceback(None)
            except Exception as error:  # noqa: BLE001 - one fault must not lose the batch
                answers[index] = fault("a submission", error)
            if index in prepared:
                row = prepared[index].row
                admission.list_next(first.get(row.key, row).job_id, row.name)
            else:
                admission.list_next(getattr(answers[index], "job_id", None), _name(item))
        self._admissions.append(admission)
        return answers, prepared

    def _given_before(self, job: JobMetadata) -> JobMetadata:
        """Return the job of a known key as it is now."""
        return attrs.evolve(self._recovery.seen([job])[0], given_before=True)

    def _conflict(self, job: JobMetadata, candidate: AskedJob) -> KeyConflict:
        text = self._recorder.store.specification(job.job_id)
        return KeyConflict.of(job.key, job.job_id, differing(candidate, job.spec_hash, text))

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Return the findings about a submission and the files that it would read; submit nothing.

        With `inputs` the recipe also writes the input files of its programs, which may take
        seconds.
        """
        admission = self._admission()
        known = self._of_keys([submission]).get(str(submission.key))
        checked = admission.check(submission, inputs=inputs)
        if known is None:
            return checked
        try:
            candidate = admission.read(submission)
        except CrystalMathError:
            return checked  # its findings have the error
        if candidate.spec_hash == known.spec_hash:
            return attrs.evolve(checked, findings=(_key_known(known),))
        message = str(self._conflict(known, candidate))
        conflict = Finding(severity="error", code=KeyConflict.code, message=message)
        return attrs.evolve(checked, findings=(*checked.findings, conflict))

    def _admission(self, planned: Collection[str] = (), *, kept: bool = False) -> Admission:
        """Return a kept admission if one is allowed and still valid, else a new one."""
        if self._source is not None:
            # The database of an open home stays the same until the service closes.
            now, url = self._source.current(), self._home.config.database_url
            same = now.database_url == url
            self._home.config = now if same else replace(now, database_url=url)
        references = References(self._home, planned)
        last = None
        if kept:
            with contextlib.suppress(IndexError):
                last = self._admissions.pop()
        if last is not None and last.for_next(self._home.config, references):
            return last
        return Admission(self._home.config, self._runners.get, self._environ, references)

    def _of_keys(self, submissions: Sequence[Submission]) -> dict[str, JobMetadata]:
        """Return the recorded jobs that have the keys of some submissions."""
        keys = [each.key for each in submissions if isinstance(each.key, str)]
        if not (keys and self._recorder.exists()):
            return {}
        self._recorder.open()
        return self._recorder.store.by_key(keys)

    def _record(
        self,
        requests: Sequence[Again | InvalidJob],
        prepared: dict[int, Prepared],
        *,
        all_or_none: bool,
    ) -> dict[int, Any]:
        """Commit the rows, then hand the jobs to their engines."""
        if not prepared:
            return {}
        self._recovery.host.require_links()
        owner = self._recovery.host.own_fields()
        once = {at for at, one in enumerate(requests) if isinstance(one, Again) and one.only_retry}
        rows = [
            attrs.evolve(item.row, owner=owner, only_retry=index in once)
            for index, item in prepared.items()
        ]
        try:
            insert = self._recorder.insert_all if all_or_none else self._recorder.insert
            recorded = dict(zip(prepared, insert(rows), strict=True))
        except InvalidJob as error:
            ids = [row.job_id for row in rows]
            at_fault = list(prepared)[ids.index(str(error.job_id))]
            others = dict.fromkeys(prepared, _not_submitted(requests, at_fault))
            return {**others, at_fault: error.with_traceback(None)}
        refused = {at: job for at, job in recorded.items() if isinstance(job, Exception)}
        accepted = {at: job for at, job in recorded.items() if not isinstance(job, Exception)}
        new = {at: job for at, job in accepted.items() if job.job_id == prepared[at].spec.job_id}
        waiting = {at: job for at, job in new.items() if job.waits}
        if waiting:
            self._wait([job.job_id for job in waiting.values()])
            accepted = {at: job for at, job in accepted.items() if at not in waiting}
        return refused | waiting | self._start_all(prepared, accepted)

    def release(self, jobs: Sequence[JobMetadata]) -> list[str]:
        """Complete jobs that no longer wait, and hand them over; return the ids to try again."""
        admission = self._admission()
        ready: list[tuple[JobMetadata, Prepared]] = []
        again_later: list[str] = []
        for job in jobs:
            try:
                item = self._released(job, admission)
            except InvalidJob as error:
                self._fail(job.job_id, str(error))
            except FilesRemoved:
                again_later.append(job.job_id)  # its predecessor must be run again
            except (CrystalMathError, ImportError, OSError, MemoryError) as error:
                again_later.append(job.job_id)
                self._note(job, f"cannot be started now, trying again: {error}")
            except Exception as error:  # noqa: BLE001 - one fault must not block the others
                self._fail(job.job_id, str(fault(f"job {job.job_id}", error)))
            else:
                if item.row.waits:  # a predecessor has changed meanwhile
                    again_later.append(job.job_id)
                else:
                    ready.append((job, item))
        if not ready:
            return again_later
        recorded = self._recorder.put_in([(job, item.row) for job, item in ready])
        items = {item.spec.job_id: item for _, item in ready}
        released = {job.job_id: job for job in recorded}
        self._start_all(items, released)
        return [*again_later, *(job_id for job_id in items if job_id not in released)]

    def record_steps(
        self,
        keys: Sequence[str],
        ask: Callable[[int, Sequence[str]], Again],
        refused: Callable[[int, Exception], CrystalMathError],
    ) -> list[JobMetadata]:
        """Record the steps that a flow has called, all or none; return the jobs of known keys.

        `ask` returns the submission of the step with a number; it gets the ids of the steps before.
        `refused` returns the error for a step that cannot be recorded.
        """
        admission = self._admission()
        known = self._recorder.store.by_key(keys)
        requests: list[Again] = []
        ids: list[str] = []
        prepared: dict[int, Prepared] = {}
        for index, key in enumerate(keys):
            requests.append(ask(index, ids))
            if (job := known.get(key)) is not None:
                ids.append(job.job_id)
                continue
            try:
                item = admission.prepare(admission.read(*_parts(requests[index])))
            except (InvalidJob, ImportError) as error:
                raise refused(index, error) from error
            admission.plan(item.row)
            prepared[index] = item
            ids.append(item.spec.job_id)
        recorded = self._record(requests, prepared, all_or_none=True)
        answers = known | {keys[at]: job for at, job in recorded.items()}
        for index, key in enumerate(keys):
            if isinstance(answers[key], InvalidJob) and answers[key].job_id is not None:
                raise refused(index, answers[key])
        return [answers[key] for key in keys]

    def next_pass(self, flow: JobMetadata, row: NewJob, spec: JobSpec, document: str) -> None:
        """Record that the next pass of a flow begins, and hand it to its engine."""
        runner = self._runners.get(str(spec.engine))
        recorded = self._recorder.put_in([(flow, row)])
        items = {flow.job_id: Prepared(row, spec, document, runner)}
        self._start_all(items, {job.job_id: job for job in recorded})

    def _start_all(
        self, prepared: Mapping[_Place, Prepared], accepted: Mapping[_Place, JobMetadata]
    ) -> dict[_Place, JobMetadata]:
        answers = dict(accepted)
        unstarted = dict(answers)
        try:
            with contextlib.ExitStack() as batch:
                for runner in {id(item.runner): item.runner for item in prepared.values()}.values():
                    batch.enter_context(runner.together())
                for index, job in accepted.items():
                    if job.job_id == prepared[index].spec.job_id:
                        answers[index] = self._start(prepared[index], job)
                    else:
                        # The key belongs to the job of an earlier submission.
                        answers[index] = self._given_before(job)
                    del unstarted[index]
        except BaseException as error:
            # Ctrl-C: recorded jobs that were not handed over must not stay pending for ever.
            fresh = [row for row in unstarted.values() if row.state is JobState.PENDING]
            message = f"not handed to the engine: {type(error).__name__}"
            changes = [
                Change(job_id=row.job_id, state=JobState.FAILED, at=time.time(), error=message)
                for row in fresh
                if self._runners.following(row.job_id) is None
            ]
            self._recorder.apply(*changes)
            raise
        return answers

    def _start(self, item: Prepared, recorded: JobMetadata) -> JobMetadata:
        try:
            # Jobs that this one names may have been packed before it was on record.
            self._home.unpack_named(item.document)
            self._hand_over(item)
        except Exception as error:  # noqa: BLE001 - the row must not stay pending for ever
            if self.leaving:
                return recorded  # the next process starts it
            self._fail(recorded.job_id, f"could not be handed to the engine: {error}")
            return self._recorder.store.get(recorded.job_id)
        return recorded

    def _fail(self, job_id: str, error: str) -> None:
        change = Change(job_id=job_id, state=JobState.FAILED, at=time.time(), error=error)
        self._recorder.apply(change)

    def _note(self, job: JobMetadata, reason: str) -> None:
        if job.reason != reason:
            state, now = job.state, time.time()
            self._recorder.apply(Change(job_id=job.job_id, state=state, at=now, reason=reason))

    def _released(self, job: JobMetadata, admission: Admission) -> Prepared:
        """Prepare a job that no longer waits; `InvalidJob` if the values of others do not fit."""
        text = self._home.specification(job.job_id)
        request = as_submitted(job, text, self._home.config, environ=self._environ)
        read = admission.read(*_parts(request))
        # The hash stays that of the submission, which may name jobs by filters.
        prepared = admission.prepare(attrs.evolve(read, spec_hash=str(job.spec_hash)))
        spec = attrs.evolve(prepared.spec, job_id=job.job_id)
        body = prepared.row.specification.partition("\n")[2]
        row = attrs.evolve(
            prepared.row,
            job_id=job.job_id,
            created_at=job.created_at,
            specification=f"{json.dumps(spec.header())}\n{body}",
        )
        return attrs.evolve(prepared, row=row, spec=spec)

    def _hand_over(self, item: Prepared) -> None:
        try:
            self._runners.start(item.runner, item.spec, item.document)
        except EngineUnavailable:
            # The options of the engine have changed, and it has a new runner.
            runner = self._runners.get(str(item.spec.engine))
            if runner is item.runner:
                raise
            self._runners.start(runner, item.spec, item.document)

    # --- jobs on record ----------------------------------------------------------------------

    def retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        *,
        dry_run: bool = False,
        once: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Answers:
        """Run ended jobs again, each as a new job that points to the old one.

        With `once` a job that already has a retry is refused (`AlreadyRetried`). Jobs are recorded
        only while `wanted` returns true. Returns for each job the new one, or the error that
        refuses it; in a dry run the job that would be recorded.
        """
        answers: dict[int, Any] = {}
        planned: set[str] = set()

        def rehearse(requests: Sequence[Again], wanted: Callable[[], bool]) -> Answers:
            """Return the jobs that would be submitted; record nothing."""
            rehearsed, prepared = self._prepare(requests, wanted, planned)
            rehearsed |= {index: item.row for index, item in prepared.items()}
            planned.update(requests[index].parents[-1]["job_id"] for index in prepared)
            return [rehearsed[index] for index in range(len(requests))]

        submit = rehearse if dry_run else self.submit
        for some in self._in_order(job_ids):
            ids = [job_ids[index] for index in some]
            try:
                new_answers = self._retry(ids, changes, submit, wanted, once=once)
            except CrystalMathError as error:
                # Return the jobs that are recorded, or a repeated call would run them twice.
                if not answers:
                    raise
                left = set(range(len(job_ids))) - answers.keys()
                answers |= dict.fromkeys(left, error.with_traceback(None))
                break
            answers |= zip(some, new_answers, strict=True)
        return [answers[index] for index in range(len(job_ids))]

    def _in_order(self, job_ids: Sequence[str]) -> Iterator[list[int]]:
        """Yield the numbers of jobs in groups, each job after the jobs that it waits for."""
        parents: dict[str, Sequence[Parent]] = {}

        def first_try(job_id: str) -> str:
            while True:
                if job_id not in parents:
                    jobs = self._home.some_jobs([job_id])
                    parents[job_id] = jobs[0].parents if jobs else []
                if (before := repeated(parents[job_id])) is None:
                    return job_id
                job_id = before

        tries = [first_try(job_id) for job_id in job_ids]
        needs = [
            {first_try(one["job_id"]) for one in awaited(parents[job_id])} for job_id in job_ids
        ]
        left = list(range(len(job_ids)))
        while left:
            unmet = {tries[index] for index in left}
            ready = [at for at in left if not needs[at] & (unmet - {tries[at]})] or left
            for start in range(0, len(ready), _MOST_RETRIED):
                yield ready[start : start + _MOST_RETRIED]
            done = set(ready)
            left = [index for index in left if index not in done]

    def reread(
        self, job_id: str, changes: Retry, settings: Mapping[str, str] | None = None
    ) -> JobMetadata:
        """Read the calculations of a failed job again, as :func:`.reading_again` describes."""
        job, text = self._home.job(job_id), self._home.specification(job_id)
        changed, configured = (changes, settings or {}), self._home.config
        with self._home.files(job_id) as directory:
            request = reading_again(
                job, text, configured, directory, changed, environ=self._environ
            )
        (answer,) = self.submit([request], lambda: True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        submit: Callable[[Sequence[Again], Callable[[], bool]], Answers],
        wanted: Callable[[], bool],
        *,
        once: bool,
    ) -> Answers:
        refused: dict[int, Any] = {}
        requests: dict[int, Again] = {}
        for index, job_id in enumerate(job_ids):
            try:
                job, text = self._home.job(job_id), self._home.specification(job_id)
                of_flow = changes_by_step(changes, job, self._home) if job.stage else (changes, ())
                with self._files(job_id, needed=changes.continued or bool(changes.copy)) as files:
                    change, place = of_flow[0], self._home.config
                    one = again(job, text, change, place, files, environ=self._environ, once=once)
                requests[index] = attrs.evolve(one, findings=of_flow[1])
            except CrystalMathError as error:
                # The frames of its traceback hold this dict, a cycle.
                refused[index] = error.with_traceback(None)
        retried = submit(list(requests.values()), wanted)
        answers = refused | dict(zip(requests, retried, strict=True))
        return [answers[index] for index in range(len(job_ids))]

    def _files(self, job_id: str, *, needed: bool) -> AbstractContextManager[RunDirectory]:
        """Return the run directory of a job; if its files are needed, it stays unpacked."""
        home = self._home
        return home.files(job_id) if needed else contextlib.nullcontext(home.directory(job_id))


def _key_known(job: JobMetadata) -> Finding:
    """Return the finding that a submission's key and terms are those of a recorded job."""
    return Finding(
        severity="warning",
        code="key_known",
        message=f"the key {job.key!r} belongs to job {job.job_id}, which is {job.state.value}: "
        "submitting it again returns that job, and starts nothing",
        remedy="take another key for another job",
    )


def fault(what: str, error: Exception) -> CrystalMathError:
    """Log where an unexpected error was raised, without its text, which may hold parameters."""
    name, where = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("%s cannot be checked: %s\n%s", what, name, where)
    return CrystalMathError(
        f"it cannot be checked: {name}, an error in CrystalMath itself; its log has the place"
    )


def _name(request: Again | InvalidJob) -> str | None:
    return request.submission.name if isinstance(request, Again) else None


def _parts(
    request: Again,
) -> tuple[Submission, Sequence[Parent], Mapping[str, Any] | None, Mapping[str, str]]:
    return request.submission, request.parents, request.body, request.settings


def _not_submitted(requests: Sequence[Again | InvalidJob], refused: int) -> InvalidJob:
    return NotSubmitted.of(refused, _name(requests[refused]))


def _require(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise CrystalMathError(
            "the caller does not wait for the answer any more; nothing was recorded"
        )
