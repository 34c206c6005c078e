"""Take submissions: check them, record them, and only then hand them to engines."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from crystalmath.errors import CrystalMathError, EngineUnavailable, KeyConflict
from crystalmath.jobs.changes import Change
from crystalmath.models import Finding, JobState
from crystalmath.service.admission import Admission, Checked, Prepared
from crystalmath.service.geometries import Geometries
from crystalmath.service.job_results import JobResults
from crystalmath.service.retrying import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath import config
    from crystalmath.models import Submission
    from crystalmath.models.inputs import Preset
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.engine_pool import Runners
    from crystalmath.service.recorder import Recorder
    from crystalmath.service.recovery import Recovery

    #: For each job that is asked for, the job or why there is none.
    Answers: TypeAlias = list[JobMetadata | CrystalMathError | ImportError]


class Intake(JobResults):
    """The way of a job from its submission to its engine."""

    _recorder: Recorder
    _recovery: Recovery
    _runners: Runners

    _environ: Mapping[str, str]
    _leaving: bool
    _source: config.Source | None

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
            As recorded, durably; the engine is told of it afterwards.

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
    ) -> Answers:
        """Take many jobs, each accepted or refused on its own, in order.

        They are recorded in one transaction, with those that others submit at the time; none if
        they are not `wanted` any more. What a key has given before is given again, whatever has
        become of the files that the job was found to need.
        """
        return self._submit([Again(submission) for submission in submissions], wanted)

    def _submit(self, asked: Sequence[Again], wanted: Callable[[], bool]) -> Answers:
        answers, prepared = self._prepare(asked, wanted)
        _require(wanted)
        answers |= self._record(prepared)
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
                asked = admission.read(self._as_known(submission, job), item.parents)
                if job is not None and asked.spec_hash == job.spec_hash:
                    answers[index] = self._given_before(job)
                else:
                    ready = admission.prepare(asked)
                    row = attrs.evolve(ready.row, only_retry=item.only_retry)
                    prepared[index] = attrs.evolve(ready, row=row)
            except (CrystalMathError, ImportError) as error:
                # Its frames hold the answers, and with them all of a batch.
                answers[index] = error.with_traceback(None)
        return answers, prepared

    def _given_before(self, job: JobMetadata) -> JobMetadata:
        """Return the job of a known key as it is now."""
        return attrs.evolve(self._recovery.seen([job])[0], given_before=True)

    def _as_known(self, submission: Submission, known: JobMetadata | None) -> Submission:
        """Have a job's geometry come from the job that the key has given, as that was given it.

        The files of the one whose geometry it is may have been removed since.
        """
        from crystalmath.recipes.job_structure import JobStructure

        structure = None if known is None else JobStructure.read(submission.atoms)
        if known is None or structure is None:
            return submission
        atoms = Geometries(self).given_from(structure, known)
        return submission if atoms is None else attrs.evolve(submission, atoms=atoms)

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Return all that is wrong with a submission, and what it would read; submit nothing.

        Parameters
        ----------
        submission : Submission
            What is asked for.
        inputs : bool
            Also say what its programs would get; any recipe is asked then, which may take seconds.
        """
        admission = self._admission()
        known = self._of_keys([submission]).get(str(submission.key))
        submission = self._as_known(submission, known)
        checked = admission.check(submission, inputs=inputs)
        if known is None:
            return checked
        try:
            same = admission.read(submission).spec_hash == known.spec_hash
        except CrystalMathError:
            return checked  # which says why it cannot be read
        if same:
            return attrs.evolve(checked, findings=(_given_before(known),))
        told = str(KeyConflict.of(known.key, known.job_id))
        conflict = Finding(severity="error", code=KeyConflict.code, message=told)
        return attrs.evolve(checked, findings=(*checked.findings, conflict))

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
        """List quacc's presets with what each sets.

        Parameters
        ----------
        environment : mapping of str to str, optional
            The caller's, of which the home's configuration picks what a job sees.
        name : str, optional
            Only those of this name (`InvalidJob` if there is none).
        """
        from crystalmath.preflight.programs_here import presets
        from crystalmath.quacc.engine import submission_environment

        given = self._environ if environment is None else environment
        return presets(submission_environment(self.config, given), name)

    def _admission(self) -> Admission:
        if self._source is not None:
            # Where the jobs are cannot change while somebody has them open.
            url = self.config.database_url
            self.config = replace(self._source.current(), database_url=url)
        return Admission(self.config, self._runners.get, self._environ, Geometries(self).take)

    def _of_keys(self, submissions: Sequence[Submission]) -> dict[str, JobMetadata]:
        """Return the jobs that have the keys of these."""
        keys = [each.key for each in submissions if isinstance(each.key, str)]
        if not (keys and self._recorder.exists()):
            return {}
        self._recorder.open()
        return self._recorder.store.by_key(keys)

    def _record(self, prepared: dict[int, Prepared]) -> dict[int, Any]:
        """Commit the rows, and only then tell the engines of them."""
        if not prepared:
            return {}
        owner = self._recovery.host.own_fields()
        rows = [attrs.evolve(item.row, owner=owner) for item in prepared.values()]
        recorded = dict(zip(prepared, self._recorder.insert(rows), strict=True))
        refused = {at: job for at, job in recorded.items() if isinstance(job, Exception)}
        accepted = {at: job for at, job in recorded.items() if not isinstance(job, Exception)}
        return refused | self._start_all(prepared, accepted)

    def _start_all(
        self, prepared: Mapping[int, Prepared], accepted: Mapping[int, JobMetadata]
    ) -> dict[int, JobMetadata]:
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
            self._runners.start(item.runner, item.spec, item.document)
        except EngineUnavailable:
            # Its options have changed meanwhile, and another runner was made.
            runner = self._runners.get(item.row.engine)
            if runner is item.runner:
                raise
            self._runners.start(runner, item.spec, item.document)


def _given_before(job: JobMetadata) -> Finding:
    """Say that a submission is no new one: whatever is found now, it gives the job that it gave."""
    return Finding(
        severity="warning",
        code="key_known",
        message=f"the key {job.key!r} has given job {job.job_id} already, which is "
        f"{job.state.value}: submitting it again gives that job, and starts nothing",
        remedy="take another key for another job",
    )


def _require(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise CrystalMathError("nobody waits for the answer any more; nothing was recorded")
