"""What a submission asks for: its terms, its structure, its environment, its engine."""

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


#: What a job has of its own, and no check of it depends on anything else of the job.
OWN = ("job_id", "name", "labels", "key")
#: All else but these three: one left out would be taken from the job that was read before.
_TERMS = {one.wire for one in declared(Submission)} - {*OWN, "structure", "params", "environment"}


@frozen
class AskedJob:
    """A submission that was read: what is to be run, and the text that the worker reads of it.

    The structure is decoded here once; the recipe's child, the database and the run directory get
    the text.
    """

    spec: JobSpec
    document: str
    spec_hash: str
    strict: bool = False
    #: Whether a misspelt parameter is a warning, as it always is of a flow's steps.
    lax: bool = False
    #: The first of its batch from which it differs in nothing but `OWN`: what was found of that one
    #: holds for both.
    first: AskedJob | None = field(default=None, repr=False)
    #: The first that has the same terms, parameters and environment: what was found of these holds
    #: for both.
    like: AskedJob | None = field(default=None, repr=False)
    #: Whether its structure, or its parameters, stand for those of other jobs still.
    refers: bool = False
    #: Whether it is a step of a flow: then its document is in the form of results.
    is_step: bool = False
    #: What it was read from, until the jobs that it refers to are among its parents.
    submission: Submission | None = field(default=None, repr=False)
    #: Of a structure that another job has to give.
    formula: str | None = None
    #: Why it cannot run yet: what it waits for, and what is to be said of that.
    reason: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def has_structure(self) -> bool:
        """Whether the recipe gets a structure, which may be one that another job has to give."""
        return self.spec.atoms is not None or awaits_structure(self.spec.parents)

    def of_hooks(self) -> dict[str, Any]:
        """Return what a preflight hook is told."""
        return {
            "recipe": self.spec.recipe,
            "atoms": self.spec.atoms,
            "parameters": self.spec.parameters,
            "environment": self.spec.environment,
            "document": self.document,
        }


@frozen
class _Last:
    """What was read last, and what it was read from."""

    terms: str
    environment: Mapping[str, str] | None
    structure: str
    asked: AskedJob


class SubmissionReader:
    """Read submissions, of a batch one after the other.

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
        # Of a batch all have mostly the same.
        self._forwarded: list[tuple[Mapping[str, str], dict[str, str]]] = []
        self._structure: tuple[str, tuple[Atoms, Mapping[str, Any]]] | None = None
        self._last: _Last | None = None

    def refer(self, with_ids: Callable[[Submission, Mapping[str, Any]], dict[str, Any]]) -> None:
        """Have the jobs that the next submissions refer to named by another function."""
        self._with_ids = with_ids

    def is_last(self, asked: AskedJob) -> bool:
        """Return whether the next ones are compared with this."""
        return self._last is not None and self._last.asked is asked

    def likewise(self, submission: Submission, terms: str | None) -> AskedJob | None:
        """Return what is asked for, if the last one has these `terms_of` and environment, too.

        `InvalidJob`: its structure is none.
        """
        last, given = self._last, submission.atoms
        if last is None or (last.terms, last.environment) != (terms, submission.environment):
            return None
        own = {name: getattr(submission, name) for name in OWN if name != "job_id"}
        spec = evolve(last.asked.spec, job_id=generate_job_id(), **own)
        text = _text_of(given)
        if text is not None and text == last.structure:
            return evolve(last.asked, spec=spec, first=last.asked)
        if spec.atoms is None or not isinstance(given, (str, Mapping)) or JobStructure.read(given):
            return None
        atoms, structure = self._parsed(given, text)
        body = codec.body_of(structure, spec.parameters)
        hashed, strict, lax = spec_hash(spec.identity(), body), last.asked.strict, last.asked.lax
        like, spec = last.asked.like or last.asked, evolve(spec, atoms=atoms)
        asked = AskedJob(spec, codec.body_text(body), hashed, strict, lax, like=like)
        self._last = None if text is None else evolve(last, structure=text, asked=asked)
        return asked

    def read(
        self,
        submission: Submission,
        parents: Sequence[Parent] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
        terms: str | None = None,
    ) -> AskedJob:
        """Read its structure and parameters; its fields have been checked.

        Those that come next with these `terms_of` may be read likewise.
        """
        given: object = submission.atoms
        text = _text_of(given)
        of_job = JobStructure.read(given)
        none = given is None or of_job is not None
        atoms, structure = (None, None) if none else self._parsed(given, text)
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
        # That text may also be a value.
        refers = of_job is not None or (
            is_in(f'"{JOB}"', document) and bool(references_in(body["parameters"]))
        )
        if refers or submission.after:
            if refers:
                body = self._with_ids(submission, body)
                document = codec.body_text(body)
            more: dict[str, Any] = {"refers": refers, "submission": submission}
            return AskedJob(spec, document, spec_hash(spec.identity(), body), *judged, **more)
        asked = AskedJob(spec, document, spec_hash(spec.identity(), body), *judged)
        self._last = None
        if terms is not None and text is not None:
            self._last = _Last(terms, submission.environment, text, asked)
        return asked

    def read_step(
        self,
        submission: Submission,
        parents: Sequence[Parent],
        body: Mapping[str, Any],
        settings: Mapping[str, str],
    ) -> AskedJob:
        """Read what a flow has called; its references are among the parents.

        The submission has those parameters that are other than the flow has called it with.
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
        asked = AskedJob(spec, document, hashed, lax=True, refers=refers, is_step=True)
        return asked if refers else with_arguments(asked)

    def _parsed(self, given: object, text: str | None) -> tuple[Atoms, Mapping[str, Any]]:
        """Read a structure; those of one short text that follow each other are read once."""
        if text is not None and self._structure is not None and self._structure[0] == text:
            return self._structure[1]
        parsed = parse_and_keep(given)
        self._structure = None if text is None else (text, parsed)
        return parsed

    def _environment(self, submission: Submission) -> dict[str, str]:
        """Return what the job sees of its submitter's environment; the preflight sees the same."""
        from crystalmath.quacc.engine import submission_environment

        environ = self._environ_of(submission)
        for known, forwarded in self._forwarded:
            if known is environ or known == environ:
                return forwarded
        forwarded = submission_environment(self._config, environ)
        self._forwarded[:] = [(environ, forwarded)]
        return forwarded

    def _placed(self, spec: JobSpec) -> JobSpec:
        """Give a job its cluster's variables and its settings, in place of its submitter's."""
        cluster = self._config.clusters.get(spec.cluster)
        own = {**(cluster.environment if cluster else {}), **spec.settings}
        if not own:
            return spec
        there = {**spec.environment, **own}
        return evolve(spec, environment=there, replaced=replaced(spec.environment, there))

    def _environ_of(self, submission: Submission) -> Mapping[str, str]:
        given = submission.environment
        # Where none is taken, an empty one is none.
        takes = given is not None and self._config.restricted is None
        return given if takes and given is not None else self._environ

    def _engine_of(self, submission: Submission) -> str:
        from crystalmath.quacc.engines import get_workflow_engine

        cluster = self._config.clusters.get(submission.cluster)
        named = submission.engine or (cluster and cluster.engine) or self._config.engine
        if named:
            return str(named)
        return get_workflow_engine(self._environ_of(submission)) or "local"


def with_arguments(step: AskedJob) -> AskedJob:
    """Read structure and parameters of a step of a flow that refers to no other job any more."""
    atoms, parameters = codec.decode_spec(step.document)
    return evolve(step, spec=evolve(step.spec, atoms=atoms, parameters=parameters))


def terms_of(submission: Submission) -> str | None:
    """Return the text of a short submission without structure, environment and `OWN`, or ``None``.

    Where two have the same, they ask for the same of it.
    """
    if is_long(submission.parameters):
        return None
    try:
        # Encoded, a tuple is no list.
        parameters = codec.encode_request(submission.parameters)
    except InvalidJob:
        return None
    return _text_of([to_wire(submission, defaults=False, only=_TERMS), parameters])


def _text_of(document: object) -> str | None:
    """Return the text of a short JSON document; ``None`` for a long one, and what is none."""
    try:
        return None if is_long(document) else json.dumps(document)
    except (RecursionError, TypeError, ValueError):
        return None


def replaced(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """Return what brings an environment back to what it was before."""
    names = before.keys() | after.keys()
    return {name: before.get(name) for name in names if before.get(name) != after.get(name)}


def defaulted(before: JobSpec, after: JobSpec) -> list[str]:
    """Name the terms that a job has been given, and was not asked for with."""
    was, now = before.terms(), after.terms()
    return [name for name, value in was.items() if value is None and now.get(name) is not None]


def differing(asked: AskedJob, other_hash: str | None, other: str) -> list[str]:
    """Name what a job asks for otherwise than another, of which the specification is known.

    Nothing is named where that specification is not what was asked for: values of other jobs are
    in it by now, or limits that those had.
    """
    try:
        header, before = map(json.loads, other.split("\n", 1))
    except ValueError:
        return []
    identity = read_header(header)[1].identity()
    if spec_hash(identity, before) != other_hash:
        return []
    was = _texts(identity, before)
    now = _texts(asked.spec.identity(), json.loads(asked.document))
    return [name for name in {**was, **now} if was.get(name) != now.get(name)]


def _texts(what: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, str]:
    """Return each part of a specification as a text, by its name: 1, 1.0 and true are three."""
    params = {f"parameters.{name}": value for name, value in body["parameters"].items()}
    parts = {**what, "structure": body["atoms"], **params}
    return {name: json.dumps(value, sort_keys=True) for name, value in parts.items()}


# --- what a restricted home takes ------------------------------------------------------------


_WHERE = "[restricted] in the home's config.toml"


def check_restrictions(
    submission: Submission, configured: Config, *, is_step: bool = False
) -> None:
    """Refuse what a restricted home does not take, also for a step; `InvalidJob` names it."""
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
        return  # who has admitted the flow has admitted it
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
    """Yield the parameters by dotted names, as the command line has them."""
    for key, value in parameters.items():
        # A dot inside a key must not be taken for one between two.
        name = f"{prefix}{key}" if isinstance(key, str) and key.isidentifier() else repr(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        # `PBE`, `GFN2-xTB`; but no path, no command with arguments, no name in a folder above.
        return all(c.isalnum() or c in "-+_" for c in value)
    if isinstance(value, Sequence):
        return type(value) in {list, tuple} and all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float}
