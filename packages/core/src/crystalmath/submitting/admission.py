"""Checks that a submission must pass before it becomes a job; they change nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from crystalmath.errors import MISSPELT, CrystalMathError, InvalidJob, JobRefused, fault
from crystalmath.models import Finding, JobSpec, NewJob, Pseudopotential, Submission
from crystalmath.models.checks import check_fields
from crystalmath.models.fields import declared
from crystalmath.models.job_notes import written_findings
from crystalmath.reading.flow_steps import taken_over
from crystalmath.recipes.arguments import structures_argument
from crystalmath.recipes.job_structure import geometry_of
from crystalmath.recipes.structures import parse_structure
from crystalmath.submitting.asked_job import (
    OWN,
    AskedJob,
    SubmissionReader,
    check_restrictions,
    terms_of,
)
from crystalmath.submitting.flow_terms import first_pass
from crystalmath.submitting.job_checks import CHECKS, Check, Draft, JobChecks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.models.inputs import FlowCheck, Inputs
    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.submitting.references import References

#: The findings of a job hold this long for equal ones, in seconds.
HOLDS_S = 1.0
#: The fields of a submission but for structure and environment.
_VALUES = {one.name for one in declared(Submission)} - {"atoms", "environment"}


@frozen(kw_only=True)
class Checked:
    """The verdict on a submission.

    `environment` has the names of the variables that the job would see of its submitter's.
    """

    findings: tuple[Finding, ...] = ()
    pseudopotentials: tuple[Pseudopotential, ...] = ()
    environment: tuple[str, ...] = ()
    inputs: Inputs | None = None
    flow: FlowCheck | None = None
    #: The folders that the job would copy to run in, and the size of each copy in bytes.
    copies: tuple[tuple[str, int], ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse the job."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


@frozen
class Prepared:
    """A submission that has passed: its row, and what its engine gets."""

    row: NewJob
    spec: JobSpec
    document: str
    runner: EngineRunner


class _Findings(list[Finding]):
    """The findings of checks that run one after the other, each finding once."""

    def passes(
        self, check: Callable[[], Iterable[Finding | InvalidJob] | None], place: str | None = None
    ) -> bool:
        """Add the findings of a check and the error that it raises; return whether none is raised.

        An error that is yielded counts as raised.
        """
        fits = True
        try:
            for item in check() or ():
                fits &= isinstance(item, Finding)
                finding = item if isinstance(item, Finding) else fault(item, place)
                if finding not in self:
                    self.append(finding)
        except (CrystalMathError, ImportError) as error:
            self.append(fault(error, place))
            return False
        return fits


class Admission:
    """Check submissions and prepare their rows; one for each batch.

    The findings of a job hold for equal ones that follow, and those of its terms and parameters
    for the same terms with another structure. The next batch may use them, too, within `HOLDS_S`.

    Parameters
    ----------
    configured : Config
        The configuration of the home.
    runner_of : callable
        Returns the runner of an engine by its name.
    environ : mapping of str to str
        The environment of submissions that bring none.
    references : References
        The jobs to which submissions refer.
    """

    def __init__(
        self,
        configured: Config,
        runner_of: Callable[[str], EngineRunner],
        environ: Mapping[str, str],
        references: References,
    ) -> None:
        self._config = configured
        self._checks = JobChecks(configured, runner_of, references)
        self._reader = SubmissionReader(configured, environ, references.with_ids)
        self._prepared: tuple[AskedJob, Prepared] | None = None
        # A job, and for each check of its terms the findings and the terms that it has changed.
        self._kept: tuple[AskedJob | None, dict[str, tuple[list[Finding], dict[str, Any]]]]
        self._kept = (None, {})
        self._ends = time.monotonic() + HOLDS_S

    def for_next(self, configured: Config, references: References) -> bool:
        """Return whether it may serve the next batch, and take the references of that."""
        if configured != self._config or time.monotonic() > self._ends:
            return False
        self._checks.references = references
        self._reader.refer(references.with_ids)
        return True

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Return the verdict on a submission, with everything that is wrong with it."""
        findings = _Findings()
        findings.passes(partial(check_restrictions, submission, self._config))
        try:
            submission = self._together(submission)
        except InvalidJob as error:
            return Checked(findings=(*findings, fault(error, "structure")))
        wrong = [
            name
            for name in sorted({*_VALUES, "environment"})
            if not findings.passes(partial(check_fields, submission, {name}))
        ]
        draft = None if "environment" in wrong else self._draft(submission, findings)
        if draft is None:
            has_structure = submission.atoms is not None
            faults = partial(self._checks.recipe_faults, submission, has_structure=has_structure)
            findings.passes(faults, "recipe")
            return Checked(findings=tuple(findings))
        findings.passes(partial(self._unpack, draft.job))
        if "by_step" not in wrong:
            draft.passed.add("by_step")
        for check in CHECKS:
            if draft.passed.issuperset(check.after) and findings.passes(
                partial(check.run, self._checks, draft), check.place
            ):
                draft.passed.add(check.name)
        return self._verdict(draft, findings, inputs=inputs)

    def _draft(self, submission: Submission, findings: _Findings) -> Draft | None:
        """Read a submission, without its structure where that is what cannot be read."""
        jobs: list[AskedJob] = []

        def read(readable: Submission) -> None:
            jobs.append(self._reader.read(readable))

        has_structure, passed = submission.atoms is not None, {"structure"}
        if not findings.passes(partial(read, submission)):
            if not has_structure:
                return None
            wrong, passed = findings.pop(), set()
            if not findings.passes(partial(read, evolve(submission, atoms=None))):
                return None
            findings.append(replace(wrong, place=wrong.place or "structure"))
        lacks = has_structure and not passed
        return Draft(jobs[0], passed, lacks_structure=lacks, lists_steps=True)

    def _verdict(self, draft: Draft, findings: _Findings, *, inputs: bool) -> Checked:
        from crystalmath.store.rows import check as check_row

        job = draft.unallotted or draft.job
        has_engine = draft.passed.issuperset({"engine", "cluster", "allotment"})
        runs = has_engine and "structure" in draft.passed
        written = None
        if inputs and not job.refers and draft.passed.issuperset({"by_step", "flow_terms"}):
            here = has_engine and self._checks.runs_here(job.spec)
            written = self._checks.inputs(job, runs_here=here)
        if runs:
            row = _row(draft.job, draft.pseudopotentials, findings)
            findings.passes(partial(check_row, row))
        return Checked(
            findings=tuple(_judged(findings, job)),
            pseudopotentials=tuple(draft.pseudopotentials),
            environment=tuple(sorted(job.spec.environment)),
            inputs=written,
            flow=draft.flow,
            copies=tuple(self._checks.copies(job.spec)) if runs else (),
        )

    def plan(self, row: NewJob) -> None:
        """Let the next submissions refer to a job that is about to be recorded."""
        self._checks.references.plan(row)

    def list_next(self, job_id: str | None, name: str | None) -> None:
        """Let the next submissions refer to a job of their request; ``None`` if it was refused."""
        self._checks.references.list_next(job_id, name)

    def read(
        self,
        submission: Submission,
        parents: Sequence[Parent] = (),
        body: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AskedJob:
        """Read a submission: its terms, its structure and parameters.

        Parameters
        ----------
        submission : Submission
            The submission. That of a step has only the parameters that differ from the call.
        parents : sequence of Parent
            The jobs that it comes from.
        body : mapping, optional
            Structure and parameters with which a flow has called a step, in the form of results.
        settings : mapping of str to str, optional
            Variables that are set in any environment.

        Raises
        ------
        InvalidJob
            Part of it can belong to no job, whatever the recipe.
        """
        several = isinstance(submission.atoms, (list, tuple))
        terms = None if parents or body or settings or several else terms_of(submission)
        if terms is not None and (job := self._reader.likewise(submission, terms)) is not None:
            check_fields(submission, OWN)
            return job
        settings = settings or {}
        environment = {**(submission.environment or {}), **settings}
        whole = evolve(submission, environment=environment) if settings else submission
        check_fields(whole, _VALUES | {"environment"})
        if body is not None:
            if any(parent["role"] == "retry" for parent in parents):
                check_restrictions(submission, self._config, is_step=True)
            return self._reader.read_step(submission, parents, body, settings)
        check_restrictions(submission, self._config)
        return self._reader.read(self._together(submission), parents, settings, terms)

    def _together(self, submission: Submission) -> Submission:
        """Pass several structures as the recipe's first argument; `InvalidJob` if it takes one."""
        atoms: object = submission.atoms
        if not isinstance(atoms, (list, tuple)):
            return submission

        recipe = self._checks.recipe(str(submission.recipe))
        name = structures_argument(recipe)
        if name is None:
            raise InvalidJob(
                f"the recipe {recipe.name} takes no list of structures: its first argument is not "
                "annotated as one, structures: list[Atoms]; submit each as a job of its own"
            ).at("structure")
        if name in submission.parameters:
            raise InvalidJob(
                f"{name!r} are the structures themselves, the first argument of {recipe.name}; it "
                "cannot be a parameter too"
            ).at(f"params.{name}")
        structures = [geometry_of(each) or parse_structure(each) for each in atoms]
        parameters = {name: structures, **submission.parameters}
        return evolve(submission, atoms=None, parameters=parameters)

    def prepare(self, job: AskedJob) -> Prepared:
        """Check a job that was read, and prepare its row.

        No engine is loaded for a job that is refused before. A job that waits for the values of
        others is checked again when they have ended.

        Raises
        ------
        InvalidJob, JobRefused
            The job is refused.
        """
        if self._prepared is not None and self._prepared[0] is job.first:
            return _prepared_likewise(self._prepared[1], job)
        prepared = self._prepare(job)
        # A long document is not kept in memory: no other job is compared with it.
        self._prepared = (job, prepared) if self._reader.is_last(job) else None
        return prepared

    def _prepare(self, job: AskedJob) -> Prepared:
        from crystalmath.store.rows import check as check_row

        self._unpack(job)
        like = (job.like or job) if self._reader.is_last(job) else None
        draft = Draft(job, {"structure", "by_step"})
        findings: list[Finding] = []
        for check in CHECKS:
            if check.needs_engine:
                _require_no_errors(_unless_lax(findings, draft.job))
            new = self._findings(check, draft, like)
            findings += [finding for finding in new if finding not in findings]
            draft.passed.add(check.name)
        job = draft.job
        findings = _judged(findings, job)
        _require_no_errors(findings)
        if files := draft.pseudopotentials:
            spec = evolve(job.spec, files={file.path: file.sha256 for file in files})
            job = evolve(job, spec=spec)
        row, runner = _row(job, files, findings), self._checks.runner(job.spec)
        if self._checks.has_steps(job):
            taken = taken_over(self._checks.references.jobs, job.spec.parents)
            spec = first_pass(job.spec, *taken, self._config.flows_on_cluster)
            job = evolve(job, spec=spec)
            text = _specification(spec, job.document)
            row = evolve(row, specification=text, stage="pass")
            runner = self._checks.runner(spec)
        check_row(row)  # The store checks it only after it has made its database.
        return Prepared(row, job.spec, job.document, runner)

    def _unpack(self, job: AskedJob) -> None:
        """Unpack the jobs whose files a job names."""
        self._checks.references.jobs.unpack_named(job.document)

    def _findings(self, check: Check, draft: Draft, like: AskedJob | None) -> list[Finding]:
        """Run a check, or replay it for a job with the terms and parameters of an earlier one.

        An error is raised anew for each job.
        """
        if like is None or not check.of_terms:
            return _raising(check.run(self._checks, draft))
        if self._kept[0] is not like:
            self._kept = like, {}
        kept = self._kept[1]
        if check.name in kept:
            findings, changes = kept[check.name]
            if changes:
                draft.job = evolve(draft.job, spec=evolve(draft.job.spec, **changes))
            return findings
        before = draft.job.spec
        findings = _raising(check.run(self._checks, draft))
        kept[check.name] = findings, _changes(before, draft.job.spec)
        return findings


def _raising(items: Iterable[Finding | InvalidJob]) -> list[Finding]:
    """Return findings; raise the first error among them."""
    findings = []
    for item in items:
        if isinstance(item, InvalidJob):
            raise item
        findings.append(item)
    return findings


def _changes(before: JobSpec, after: JobSpec) -> dict[str, Any]:
    """Return the fields in which a job differs from what it was before a check."""
    if before is after:
        return {}
    return {
        each.name: value
        for each in declared(JobSpec)
        if (value := getattr(after, each.name)) is not getattr(before, each.name)
    }


def _require_no_errors(findings: Sequence[Finding]) -> None:
    """Raise `JobRefused` if one of the findings is an error."""
    if any(finding.severity == "error" for finding in findings):
        raise JobRefused(list(findings))


def _prepared_likewise(ready: Prepared, job: AskedJob) -> Prepared:
    """Prepare a job that differs from one that has passed in the fields of `OWN` only."""
    own: dict[str, Any] = {name: getattr(job.spec, name) for name in OWN}
    spec = evolve(ready.spec, **own)
    text = _specification(spec, job.document)
    row = evolve(ready.row, **own, specification=text, created_at=time.time())
    return Prepared(row, spec, job.document, ready.runner)


def _specification(spec: JobSpec, document: str, **more: bool) -> str:
    return f"{json.dumps({**spec.header(), **more})}\n{document}"


def _row(job: AskedJob, files: Sequence[Pseudopotential], findings: Sequence[Finding]) -> NewJob:
    spec = job.spec
    # A job that waits is checked again: its specification keeps how strictly.
    strictness = {"strict": job.strict, "lax": job.lax and not job.is_step}
    more = {name: True for name, on in strictness.items() if on and job.reason is not None}
    return NewJob(
        job_id=spec.job_id,
        recipe=spec.recipe,
        engine=str(spec.engine),
        spec_hash=job.spec_hash,
        specification=_specification(spec, job.document, **more),
        created_at=time.time(),
        formula=job.formula if spec.atoms is None else spec.atoms.get_chemical_formula(),
        parents=spec.parents,
        reason=job.reason,
        warnings=written_findings(findings),
        pseudopotentials=[asdict(file) for file in files],
        **spec.terms(),
    )


def _judged(findings: Sequence[Finding], job: AskedJob) -> list[Finding]:
    """Leave out repetitions, and make errors of all warnings of a strict submission."""
    kept = _without_repetitions(_unless_lax(findings, job))
    return [replace(finding, severity="error") for finding in kept] if job.strict else kept


def _unless_lax(findings: Sequence[Finding], job: AskedJob) -> list[Finding]:
    """Make errors of misspelt parameters, unless the submission is lax."""
    return [
        replace(finding, severity="error", remedy=_or_lax(finding.remedy))
        if finding.code == MISSPELT and finding.severity == "warning" and not job.lax
        else finding
        for finding in findings
    ]


def _or_lax(remedy: str | None) -> str:
    return " ".join(filter(None, (remedy, "lax (--lax) lets it pass")))


def _without_repetitions(findings: Sequence[Finding]) -> list[Finding]:
    """Keep the first finding about the name of a parameter or step."""
    names: set[str | None] = set()
    kept = []
    for finding in findings:
        if finding.code in {"parameter_unknown", "parameter_unread", MISSPELT, "step_unknown"}:
            name = finding.place if finding.code == "step_unknown" else finding.source
            if name is not None and name in names:
                continue
            names.add(name)
        kept.append(finding)
    return kept
