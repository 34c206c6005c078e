"""Submissions that were read: terms, structure, environment and engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from crystalmath.errors import InvalidJob, shown
from crystalmath.jobs.specification import read_header, spec_hash
from crystalmath.models import JobSpec, Submission
from crystalmath.models.fields import declared, to_wire
from crystalmath.models.job_notes import awaits_structure
from crystalmath.models.reference import JOB
from crystalmath.models.submission import merged
from crystalmath.quacc.runner import generate_job_id
from crystalmath.recipes import codec
from crystalmath.recipes.ase_classes import with_classes
from crystalmath.recipes.job_structure import JobStructure, references_in
from crystalmath.recipes.json_text import is_in, is_long
from crystalmath.recipes.lookup import full_name
from crystalmath.recipes.structures import parse_and_keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ase import Atoms

    from crystalmath.config import Config
    from crystalmath.models import Finding
    from crystalmath.models.job_notes import Parent


#: Fields whose checks do not depend on other fields of the job.
OWN = ("job_id", "name", "labels", "key")
#: The terms that equal jobs share; a field left out here would be taken from the last job.
_TERMS = {one.wire for one in declared(Submission)} - {*OWN, "structure", "params", "environment"}


@frozen
class AskedJob:
    """A submission that was read: the job to run, and its document, the text for the worker.

    The structure is decoded once, here; the inspecting process, the database and the run directory
    get the text.
    """

    spec: JobSpec
    document: str
    spec_hash: str
    strict: bool = False
    #: Whether a misspelt parameter is a warning, as it always is for the steps of a flow.
    lax: bool = False
    #: The first job of the batch that differs only in the fields of `OWN`; it has the same
    #: findings.
    first: AskedJob | None = field(default=None, repr=False)
    #: The first job with the same terms, parameters and environment; both have the same findings
    #: about these.
    like: AskedJob | None = field(default=None, repr=False)
    #: Whether its structure or parameters still refer to values of other jobs.
    refers: bool = False
    #: Whether it is a step of a flow; then its document has the format of results.
    is_step: bool = False
    #: The submission, until the jobs that it refers to are among the parents.
    submission: Submission | None = field(default=None, repr=False)
    #: The formula of a structure that another job provides.
    formula: str | None = None
    #: Why it cannot run yet: the jobs that it waits for.
    reason: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def has_structure(self) -> bool:
        """Whether the recipe gets a structure, its own or that of another job."""
        return self.spec.atoms is not None or awaits_structure(self.spec.parents)

    def of_hooks(self) -> dict[str, Any]:
        """Return the arguments of a preflight hook."""
        return {
            "recipe": self.spec.recipe,
            "atoms": self.spec.atoms,
            "parameters": self.spec.parameters,
            "environment": self.spec.environment,
            "document": self.document,
        }


@frozen
class _Last:
    """The job that was read last, and the parts of its submission."""

    terms: str
    environment: Mapping[str, str] | None
    structure: str
    job: AskedJob


class SubmissionReader:
    """Reads the submissions of a batch, one after the other.

    `environ` is the environment of submissions that bring none; `with_ids` is
    :meth:`.References.with_ids`.
    """

    def __init__(
        self,
        configured: Config,
        environ: Mapping[str, str],
        with_ids: Callable[[Submission, Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        self._config = configured
        self._environ = environ
        self._with_ids = with_ids
        # Submissions of a batch mostly share one environment.
        self._forwarded: list[tuple[Mapping[str, str], dict[str, str]]] = []
        self._structure: tuple[str, tuple[Atoms, Mapping[str, Any]]] | None = None
        self._last: _Last | None = None

    def refer(self, with_ids: Callable[[Submission, Mapping[str, Any]], dict[str, Any]]) -> None:
        """Set the function that names the jobs to which the next submissions refer."""
        self._with_ids = with_ids

    def is_last(self, job: AskedJob) -> bool:
        """Return whether the next submissions are compared with this job."""
        return self._last is not None and self._last.job is job

    def likewise(self, submission: Submission, terms: str | None) -> AskedJob | None:
        """Return the job, if the last one had the same `terms_of` and environment, else ``None``.

        `InvalidJob`: the structure cannot be read.
        """
        last, submitted = self._last, submission.atoms
        if last is None or (last.terms, last.environment) != (terms, submission.environment):
            return None
        own = {name: getattr(submission, name) for name in OWN if name != "job_id"}
        spec = evolve(last.job.spec, job_id=generate_job_id(), **own)
        text = _text_of(submitted)
        if text is not None and text == last.structure:
            return evolve(last.job, spec=spec, first=last.job)
        if (
            spec.atoms is None
            or not isinstance(submitted, (str, Mapping))
            or JobStructure.read(submitted)
        ):
            return None
        atoms, structure = self._parsed(submitted, text)
        body = codec.body_of(structure, spec.parameters)
        hashed, strict, lax = spec_hash(spec.identity(), body), last.job.strict, last.job.lax
        like, spec = last.job.like or last.job, evolve(spec, atoms=atoms)
        job = AskedJob(spec, codec.body_text(body), hashed, strict, lax, like=like)
        self._last = None if text is None else evolve(last, structure=text, job=job)
        return job

    def read(
        self,
        submission: Submission,
        parents: Sequence[Parent] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
        terms: str | None = None,
    ) -> AskedJob:
        """Read structure and parameters of a submission whose fields have been checked.

        The next submissions with the same `terms_of` may use :meth:`likewise`.
        """
        submitted: object = submission.atoms
        text = _text_of(submitted)
        of_job = JobStructure.read(submitted)
        none = submitted is None or of_job is not None
        atoms, structure = (None, None) if none else self._parsed(submitted, text)
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=str(submission.recipe),
            atoms=atoms,
            parameters=with_classes(str(submission.recipe), submission.parameters),
            engine=self._engine_of(submission),
            environment=self._environment(submission),
            parents=parents,
            settings=settings,
            **submission.flow_terms(),
            **submission.terms(),
        )
        body = codec.body_of(structure, spec.parameters)
        spec = self._placed(spec)
        judged = (submission.strict or self._config.strict, submission.lax)
        document = codec.body_text(body)
        # A parameter may contain this text without being a reference.
        refers = of_job is not None or (
            is_in(f'"{JOB}"', document) and bool(references_in(body["parameters"]))
        )
        if refers or submission.after:
            if refers:
                body = self._with_ids(submission, body)
                document = codec.body_text(body)
            more: dict[str, Any] = {"refers": refers, "submission": submission}
            return AskedJob(spec, document, spec_hash(spec.identity(), body), *judged, **more)
        job = AskedJob(spec, document, spec_hash(spec.identity(), body), *judged)
        self._last = None
        if terms is not None and text is not None:
            self._last = _Last(terms, submission.environment, text, job)
        return job

    def read_step(
        self,
        submission: Submission,
        parents: Sequence[Parent],
        body: Mapping[str, Any],
        settings: Mapping[str, str],
    ) -> AskedJob:
        """Read a step that a flow has called; the jobs that it refers to are among the parents.

        The parameters of the submission are those that differ from the flow's call.
        """
        changed = codec.encode_request(submission.parameters)
        body = {**body, "parameters": merged(body["parameters"], changed)}
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=str(submission.recipe),
            engine=self._engine_of(submission),
            environment=self._environment(submission),
            parents=parents,
            settings=settings,
            changed=changed,
            **submission.terms(),
        )
        spec, document = self._placed(spec), codec.body_text(body)
        hashed, refers = spec_hash(spec.identity(), body), bool(references_in(body))
        step = AskedJob(spec, document, hashed, lax=True, refers=refers, is_step=True)
        return step if refers else with_arguments(step)

    def _parsed(self, submitted: object, text: str | None) -> tuple[Atoms, Mapping[str, Any]]:
        """Read a structure; a short text that repeats the last one is not read again."""
        if text is not None and self._structure is not None and self._structure[0] == text:
            return self._structure[1]
        parsed = parse_and_keep(submitted)
        self._structure = None if text is None else (text, parsed)
        return parsed

    def _environment(self, submission: Submission) -> dict[str, str]:
        """Return the part of the submitter's environment that job and preflight see."""
        from crystalmath.quacc.engine import submission_environment

        environ = self._environ_of(submission)
        for known, forwarded in self._forwarded:
            if known is environ or known == environ:
                return forwarded
        forwarded = submission_environment(self._config, environ)
        self._forwarded[:] = [(environ, forwarded)]
        return forwarded

    def _placed(self, spec: JobSpec) -> JobSpec:
        """Return a job with the variables of its cluster and its settings in its environment."""
        cluster = self._config.clusters.get(spec.cluster)
        own = {**(cluster.environment if cluster else {}), **spec.settings}
        if not own:
            return spec
        there = {**spec.environment, **own}
        return evolve(spec, environment=there, replaced=replaced(spec.environment, there))

    def _environ_of(self, submission: Submission) -> Mapping[str, str]:
        environ = submission.environment
        # A restricted home ignores even an empty environment.
        takes = environ is not None and self._config.restricted is None
        return environ if takes and environ is not None else self._environ

    def _engine_of(self, submission: Submission) -> str:
        from crystalmath.quacc.engines import get_workflow_engine

        cluster = self._config.clusters.get(submission.cluster)
        named = submission.engine or (cluster and cluster.engine) or self._config.engine
        if named:
            return str(named)
        return get_workflow_engine(self._environ_of(submission)) or "local"


def with_arguments(step: AskedJob) -> AskedJob:
    """Read structure and parameters of a step that no longer refers to other jobs."""
    atoms, parameters = codec.decode_spec(step.document)
    return evolve(step, spec=evolve(step.spec, atoms=atoms, parameters=parameters))


def terms_of(submission: Submission) -> str | None:
    """Return the text of a short submission without structure, environment and `OWN`, or ``None``.

    Submissions with the same text have the same terms and parameters.
    """
    if is_long(submission.parameters):
        return None
    try:
        # Encoding keeps tuples and lists apart.
        parameters = codec.encode_request(submission.parameters)
    except InvalidJob:
        return None
    return _text_of([to_wire(submission, defaults=False, only=_TERMS), parameters])


def _text_of(document: object) -> str | None:
    """Return the text of a short JSON document; ``None`` if it is long or not JSON."""
    try:
        return None if is_long(document) else json.dumps(document)
    except (RecursionError, TypeError, ValueError):
        return None


def replaced(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """Return the changes that restore an environment from `after` to `before`."""
    names = before.keys() | after.keys()
    return {name: before.get(name) for name in names if before.get(name) != after.get(name)}


def defaulted(before: JobSpec, after: JobSpec) -> list[str]:
    """Name the terms that were unset before, and are set by defaults now."""
    was, now = before.terms(), after.terms()
    return [name for name, value in was.items() if value is None and now.get(name) is not None]


def differing(job: AskedJob, other_hash: str | None, other: str) -> list[str]:
    """Name the parts in which a job differs from the specification `other` of another job.

    Nothing is named if that specification has changed since the submission: it may have values of
    other jobs by now, or limits that those had.
    """
    try:
        header, before = map(json.loads, other.split("\n", 1))
    except ValueError:
        return []
    identity = read_header(header)[1].identity()
    if spec_hash(identity, before) != other_hash:
        return []
    was = _texts(identity, before)
    now = _texts(job.spec.identity(), json.loads(job.document))
    return [name for name in {**was, **now} if was.get(name) != now.get(name)]


def _texts(what: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of a specification as texts, by name; 1, 1.0 and true differ."""
    params = {f"parameters.{name}": value for name, value in body["parameters"].items()}
    parts = {**what, "structure": body["atoms"], **params}
    return {name: json.dumps(value, sort_keys=True) for name, value in parts.items()}


# --- restricted homes ------------------------------------------------------------------------


_WHERE = "[restricted] in the home's config.toml"


def check_restrictions(
    submission: Submission, configured: Config, *, is_step: bool = False
) -> None:
    """Raise `InvalidJob` for terms and parameters that a restricted home does not take."""
    if configured.restricted is None:
        return
    if submission.environment:
        raise InvalidJob(
            f"this home takes no environment from a submission ({_WHERE}); leave it out"
        )
    if submission.resources:
        raise InvalidJob(
            f"this home takes no resources from a submission ({_WHERE}); leave them out"
        )
    if submission.by_step or (is_step and submission.parameters):
        raise InvalidJob(f"this home takes no other terms for steps of flows ({_WHERE})")
    if is_step:
        return  # its flow was admitted
    allow = configured.recipes_allow
    recipes = {full_name(name, allow): names for name, names in configured.restricted.items()}
    if submission.recipe not in recipes:
        known = ", ".join(recipes) or "none"
        raise InvalidJob(f"this home does not run {submission.recipe}, but: {known} ({_WHERE})")
    admitted = recipes[submission.recipe]
    for name, value in _leaves(submission.parameters, ""):
        if name not in admitted:
            raise InvalidJob(
                f"this home does not take the parameter {name!r:.80} of {submission.recipe}, but: "
                f"{', '.join(admitted) or 'none'} ({_WHERE})"
            )
        if not _is_plain(value):
            raise InvalidJob(
                f"the parameter {name} must be a number, true or false, a word, or a list of such, "
                f"not {shown(value)} ({_WHERE})"
            )


def _leaves(parameters: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the parameters with their dotted names, as on the command line."""
    for key, value in parameters.items():
        # A dot inside a key does not separate two keys.
        name = f"{prefix}{key}" if isinstance(key, str) and key.isidentifier() else repr(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        # `PBE`, `GFN2-xTB`; no path and no command with arguments.
        return all(c.isalnum() or c in "-+_" for c in value)
    if isinstance(value, Sequence):
        return type(value) in {list, tuple} and all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float}
