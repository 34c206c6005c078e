"""Take submissions: check them, record them, and only then hand them to engines."""

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
from crystalmath.submitting.retrying import Again, again, as_asked, reading_again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

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

    #: For each job that is asked for, the job or why there is none.
    Answers: TypeAlias = list[JobMetadata | CrystalMathError | ImportError]

_LOG = logging.getLogger("crystalmath.service")
_Place = TypeVar("_Place")
#: So many jobs are run again in one transaction: their structures are in memory meanwhile.
_RETRIED = 200
#: So many admissions are kept for the next batches.
_KEPT = 8


class Intake:
    """The way of jobs to their engines; `leaving`: this process ends, and the next one goes on."""

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
        # Those of the last batches, of which each is used by one thread at a time.
        self._admissions: deque[Admission] = deque(maxlen=_KEPT)
        self.leaving = False

    def submit(
        self,
        asked: Sequence[Again | InvalidJob],
        wanted: Callable[[], bool],
        *,
        all_or_none: bool = False,
    ) -> Answers:
        """Take submissions; see :meth:`.JobService.submit_many`."""
        for _ in range(2):
            answers, prepared = self._prepare(asked, wanted)
            refused = [at for at, answer in answers.items() if isinstance(answer, Exception)]
            if all_or_none and refused:
                told = _not_submitted(asked, min(refused))
                return [answers.get(index, told) for index in range(len(asked))]
            _require(wanted)
            answers |= self._record(asked, prepared, all_or_none=all_or_none)
            # The same request may have been recorded meanwhile: then its jobs are found by keys.
            if not (all_or_none and any(isinstance(one, KeyConflict) for one in answers.values())):
                break
        return [answers[index] for index in range(len(asked))]

    def _prepare(
        self,
        submissions: Sequence[Again | InvalidJob],
        wanted: Callable[[], bool],
        planned: Collection[str] = (),
    ) -> tuple[dict[int, Any], dict[int, Prepared]]:
        """Return, by their numbers, what is answered already, and what is to be recorded."""
        admission = self._admission(planned, kept=True)
        answers: dict[int, Any] = {}
        prepared: dict[int, Prepared] = {}
        known = self._of_keys([one.submission for one in submissions if isinstance(one, Again)])
        # Of several with one key the first is recorded, which is then the job of all of them.
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
                asked = admission.read(*_parts(item))
                if item.findings:
                    asked = attrs.evolve(asked, findings=item.findings)
                if job is not None and asked.spec_hash == job.spec_hash:
                    answers[index] = self._given_before(job)
                elif job is not None:
                    answers[index] = self._conflict(job, asked)
                else:
                    ready = admission.prepare(asked)
                    row = ready.row
                    same = row if row.key is None else first.setdefault(row.key, row)
                    if same.spec_hash == row.spec_hash:
                        admission.plan(row)
                        prepared[index] = ready
                    else:
                        told = differing(asked, same.spec_hash, same.specification)
                        answers[index] = KeyConflict.of(same.key, same.job_id, told)
            except (CrystalMathError, ImportError) as error:
                # Its frames hold the answers, and with them all of a batch.
                answers[index] = error.with_traceback(None)
            except Exception as error:  # noqa: BLE001 - the others of a batch are not lost with it
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

    def _conflict(self, job: JobMetadata, asked: AskedJob) -> KeyConflict:
        text = self._recorder.store.specification(job.job_id)
        return KeyConflict.of(job.key, job.job_id, differing(asked, job.spec_hash, text))

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Return all that is wrong with a submission, and what it would read; submit nothing.

        With `inputs` any recipe is asked what its programs would get, which may take seconds.
        """
        admission = self._admission()
        known = self._of_keys([submission]).get(str(submission.key))
        checked = admission.check(submission, inputs=inputs)
        if known is None:
            return checked
        try:
            asked = admission.read(submission)
        except CrystalMathError:
            return checked  # which says why it cannot be read
        if asked.spec_hash == known.spec_hash:
            return attrs.evolve(checked, findings=(_given_before(known),))
        told = str(self._conflict(known, asked))
        conflict = Finding(severity="error", code=KeyConflict.code, message=told)
        return attrs.evolve(checked, findings=(*checked.findings, conflict))

    def _admission(self, planned: Collection[str] = (), *, kept: bool = False) -> Admission:
        """Return an admission: one that was kept, where that is allowed and it holds still."""
        if self._source is not None:
            # Where the jobs are cannot change while somebody has them open.
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
        """Return the jobs that have the keys of these."""
        keys = [each.key for each in submissions if isinstance(each.key, str)]
        if not (keys and self._recorder.exists()):
            return {}
        self._recorder.open()
        return self._recorder.store.by_key(keys)

    def _record(
        self,
        asked: Sequence[Again | InvalidJob],
        prepared: dict[int, Prepared],
        *,
        all_or_none: bool,
    ) -> dict[int, Any]:
        """Commit the rows, and only then tell the engines of them."""
        if not prepared:
            return {}
        self._recovery.host.require_links()
        owner = self._recovery.host.own_fields()
        once = {at for at, one in enumerate(asked) if isinstance(one, Again) and one.only_retry}
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
            told = dict.fromkeys(prepared, _not_submitted(asked, at_fault))
            return {**told, at_fault: error.with_traceback(None)}
        refused = {at: job for at, job in recorded.items() if isinstance(job, Exception)}
        accepted = {at: job for at, job in recorded.items() if not isinstance(job, Exception)}
        new = {at: job for at, job in accepted.items() if job.job_id == prepared[at].spec.job_id}
        waiting = {at: job for at, job in new.items() if job.waits}
        if waiting:
            self._wait([job.job_id for job in waiting.values()])
            accepted = {at: job for at, job in accepted.items() if at not in waiting}
        return refused | waiting | self._start_all(prepared, accepted)

    def release(self, jobs: Sequence[JobMetadata]) -> list[str]:
        """Complete jobs that wait no more, and hand them over; return the ids to try again."""
        admission = self._admission()
        ready: list[tuple[JobMetadata, Prepared]] = []
        again_later: list[str] = []
        for job in jobs:
            try:
                item = self._released(job, admission)
            except InvalidJob as error:
                self._fail(job.job_id, str(error))
            except FilesRemoved:
                again_later.append(job.job_id)  # what it waits for was found out by reading it
            except (CrystalMathError, ImportError, OSError, MemoryError) as error:
                again_later.append(job.job_id)
                self._note(job, f"cannot be started now, which is tried again: {error}")
            except Exception as error:  # noqa: BLE001 - it would hold up all others, and for ever
                self._fail(job.job_id, str(fault(f"job {job.job_id}", error)))
            else:
                if item.row.waits:  # what it took has changed meanwhile
                    again_later.append(job.job_id)
                else:
                    ready.append((job, item))
        if not ready:
            return again_later
        told = self._recorder.put_in([(job, item.row) for job, item in ready])
        items = {item.spec.job_id: item for _, item in ready}
        released = {job.job_id: job for job in told}
        self._start_all(items, released)
        return [*again_later, *(job_id for job_id in items if job_id not in released)]

    def record_steps(
        self,
        keys: Sequence[str],
        ask: Callable[[int, Sequence[str]], Again],
        refused: Callable[[int, Exception], CrystalMathError],
    ) -> list[JobMetadata]:
        """Take the steps that a flow has called, all of them or none; known keys give their jobs.

        `ask` asks for the one with a number, given the ids of those before it; `refused` says which
        one cannot be taken, and why.
        """
        admission = self._admission()
        known = self._recorder.store.by_key(keys)
        asked: list[Again] = []
        ids: list[str] = []
        prepared: dict[int, Prepared] = {}
        for index, key in enumerate(keys):
            asked.append(ask(index, ids))
            if (job := known.get(key)) is not None:
                ids.append(job.job_id)
                continue
            try:
                item = admission.prepare(admission.read(*_parts(asked[index])))
            except (InvalidJob, ImportError) as error:
                raise refused(index, error) from error
            admission.plan(item.row)
            prepared[index] = item
            ids.append(item.spec.job_id)
        told = self._record(asked, prepared, all_or_none=True)
        answers = known | {keys[at]: job for at, job in told.items()}
        for index, key in enumerate(keys):
            if isinstance(answers[key], InvalidJob) and answers[key].job_id is not None:
                raise refused(index, answers[key])
        return [answers[key] for key in keys]

    def next_pass(self, flow: JobMetadata, row: NewJob, spec: JobSpec, document: str) -> None:
        """Record that the next pass of a flow begins, and hand it to its engine."""
        runner = self._runners.get(str(spec.engine))
        told = self._recorder.put_in([(flow, row)])
        items = {flow.job_id: Prepared(row, spec, document, runner)}
        self._start_all(items, {job.job_id: job for job in told})

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
                        # A key that was there already has given the job of an earlier submission.
                        answers[index] = self._given_before(job)
                    del unstarted[index]
        except BaseException as error:
            # Ctrl-C: what is on record and was not handed over must not stay pending for ever.
            fresh = [row for row in unstarted.values() if row.state is JobState.PENDING]
            told = f"not handed to the engine: {type(error).__name__}"
            changes = [
                Change(job_id=row.job_id, state=JobState.FAILED, at=time.time(), error=told)
                for row in fresh
                if self._runners.following(row.job_id) is None
            ]
            self._recorder.apply(*changes)
            raise
        return answers

    def _start(self, item: Prepared, recorded: JobMetadata) -> JobMetadata:
        try:
            self._hand_over(item)
        except Exception as error:  # noqa: BLE001 - the row must not stay pending for ever
            if self.leaving:
                return recorded  # it is for whoever comes next, as all others
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
        """Make a job ready that waits no more; what is wrong with its values is told now."""
        text = self._home.specification(job.job_id)
        asked = as_asked(job, text, self._home.config, environ=self._environ)
        read = admission.read(*_parts(asked))
        # What was asked for may have named others by filters.
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
            # Its options have changed meanwhile, and another runner was made.
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
        """Run jobs again that have ended, each as a new job that points to the old one.

        With `once` each job is refused that another has run again by the time that its retry is
        recorded (`AlreadyRetried`). `wanted` says whether the next ones are still to be recorded.
        For each in turn the new job is returned, in a dry run as it would be, or why there is none.
        """
        answers: dict[int, Any] = {}
        planned: set[str] = set()

        def rehearse(asked: Sequence[Again], wanted: Callable[[], bool]) -> Answers:
            """Return what would be submitted, and record nothing of it."""
            told, prepared = self._prepare(asked, wanted, planned)
            told |= {index: item.row for index, item in prepared.items()}
            planned.update(asked[index].parents[-1]["job_id"] for index in prepared)
            return [told[index] for index in range(len(asked))]

        submit = rehearse if dry_run else self.submit
        for some in self._in_order(job_ids):
            ids = [job_ids[index] for index in some]
            try:
                told = self._retry(ids, changes, submit, wanted, once=once)
            except CrystalMathError as error:
                # What was recorded before is told: who asked for it again would have it twice.
                if not answers:
                    raise
                left = set(range(len(job_ids))) - answers.keys()
                answers |= dict.fromkeys(left, error.with_traceback(None))
                break
            answers |= zip(some, told, strict=True)
        return [answers[index] for index in range(len(job_ids))]

    def _in_order(self, job_ids: Sequence[str]) -> Iterator[list[int]]:
        """Yield the numbers of jobs, of each after those of them that it waits for."""
        parents: dict[str, Sequence[Parent]] = {}

        def first_try(job_id: str) -> str:
            while True:
                if job_id not in parents:
                    found = self._home.some_jobs([job_id])
                    parents[job_id] = found[0].parents if found else []
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
            for start in range(0, len(ready), _RETRIED):
                yield ready[start : start + _RETRIED]
            done = set(ready)
            left = [index for index in left if index not in done]

    def reread(
        self, job_id: str, changes: Retry, settings: Mapping[str, str] | None = None
    ) -> JobMetadata:
        """Read the calculations of a failed job again, as :func:`.reading_again` describes."""
        job, text = self._home.job(job_id), self._home.specification(job_id)
        told = changes, settings or {}
        where = self._where(job_id)
        asked = reading_again(job, text, *where, told, environ=self._environ)
        (answer,) = self.submit([asked], lambda: True)
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
        asked: dict[int, Again] = {}
        for index, job_id in enumerate(job_ids):
            try:
                job, text = self._home.job(job_id), self._home.specification(job_id)
                where = self._where(job_id)
                told = changes_by_step(changes, job, self._home) if job.stage else (changes, ())
                one = again(job, text, told[0], *where, environ=self._environ, once=once)
                asked[index] = attrs.evolve(one, findings=told[1])
            except CrystalMathError as error:
                # Its frames hold this dict: only the collector would free both.
                refused[index] = error.with_traceback(None)
        retried = submit(list(asked.values()), wanted)
        answers = refused | dict(zip(asked, retried, strict=True))
        return [answers[index] for index in range(len(job_ids))]

    def _where(self, job_id: str) -> tuple[config.Config, RunDirectory]:
        return self._home.config, self._home.directory(job_id)


def _given_before(job: JobMetadata) -> Finding:
    """Say that a submission is no new one: whatever is found now, it gives the job that it gave."""
    return Finding(
        severity="warning",
        code="key_known",
        message=f"the key {job.key!r} has given job {job.job_id} already, which is "
        f"{job.state.value}: submitting it again gives that job, and starts nothing",
        remedy="take another key for another job",
    )


def fault(what: str, error: Exception) -> CrystalMathError:
    """Log where a fault of ours is, but no text of it: that may hold parameters."""
    name, where = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("%s cannot be checked: %s\n%s", what, name, where)
    return CrystalMathError(
        f"it cannot be checked: {name}, a fault of CrystalMath's own; its log says where"
    )


def _name(asked: Again | InvalidJob) -> str | None:
    return asked.submission.name if isinstance(asked, Again) else None


def _parts(
    asked: Again,
) -> tuple[Submission, Sequence[Parent], Mapping[str, Any] | None, Mapping[str, str]]:
    return asked.submission, asked.parents, asked.body, asked.settings


def _not_submitted(asked: Sequence[Again | InvalidJob], refused: int) -> InvalidJob:
    return NotSubmitted.of(refused, _name(asked[refused]))


def _require(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise CrystalMathError("nobody waits for the answer any more; nothing was recorded")
