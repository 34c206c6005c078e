"""Make submissions from recorded jobs: to run them again, or to read their output again."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, cast

from attrs import evolve, field, frozen

from crystalmath.errors import InvalidJob
from crystalmath.jobs.last_geometry import last_geometry
from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.workfiles import as_stored, read_tail
from crystalmath.jobs.worktree import at_once
from crystalmath.models import JobState, Resources, Submission
from crystalmath.models.fields import declared
from crystalmath.models.job_notes import awaited, step_of
from crystalmath.models.resources import RESOURCE_NAMES
from crystalmath.models.submission import OF_FLOW, Terms, merged
from crystalmath.models.written import label_of, label_value, memory_text, read_megabytes
from crystalmath.recipes import codec
from crystalmath.recipes.json_text import structure_of
from crystalmath.recipes.structures import parse_structure
from crystalmath.submitting.going_on import PARAMETER, copied_files, moves_atoms_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from crystalmath.config import Config
    from crystalmath.errors import Finding
    from crystalmath.jobs.last_geometry import LastGeometry
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models.job_notes import Parent
    from crystalmath.models.retry import Retry
    from crystalmath.models.submission import TermsGiven
    from crystalmath.plugins.program import Program
    from crystalmath.quacc.store import JobMetadata


class _Awaited(TypedDict):
    after: list[dict[str, str]]
    on_failure: str


@frozen
class Again:
    """A submission and the jobs that it comes from."""

    submission: Submission
    parents: Sequence[Parent] = ()
    only_retry: bool = False
    #: For a step of a flow: structure and parameters of the flow's call, as JSON.
    body: Mapping[str, Any] | None = None
    #: Settings of quacc, as environment variables; they override those of the cluster.
    settings: Mapping[str, str] = field(factory=dict)
    findings: tuple[Finding, ...] = ()


def again(
    job: JobMetadata,
    specification: str,
    changes: Retry,
    configured: Config,
    directory: RunDirectory,
    *,
    environ: Mapping[str, str],
    once: bool = False,
) -> Again:
    """Return the submission that runs a job again, with some changes.

    The new job does not get the key of the old one: a key belongs to one job.

    `environ` is used if no environment is on record, as for an imported job. With `once` the new
    job is refused when it is recorded if the old one already has a retry.

    Raises `InvalidJob`: the job has not ended, a change is not possible, or the job left nothing to
    continue from.
    """
    if not job.state.is_terminal():
        # Without its id, so that many refused jobs have one message.
        raise InvalidJob(
            f"the job is {job.state.value}, and can run again once it has ended; wait for it "
            "(crystalmath wait ID), or stop it (crystalmath cancel ID)"
        )
    for parent in job.parents:
        if parent["role"] == "reread":
            raise InvalidJob(
                f"job {job.job_id} has read job {parent['job_id']} again, and computed nothing; "
                "retry that one"
            )
    head, _, document = specification.partition("\n")
    if not document:
        raise InvalidJob(
            f"job {job.job_id} cannot run again: its specification is not on record any more"
        )
    header = json.loads(head)
    # The defaults of the cluster and engine are chosen again.
    defaulted: dict[str, Any] = dict.fromkeys(header.get("defaulted", ()))
    job = evolve(job, **defaulted)
    body = json.loads(document)
    structure = structure_of(body)
    parents = [parent for parent in job.parents if _is_kept(parent)]
    if changes.continued:
        geometry = _last(job, structure, directory, configured)
        if not changes.force:
            _check_runaway(job, geometry, directory.work(job.attempt))
        structure = geometry.atoms
        parents = [{"job_id": job.job_id, "role": "structure", "file": geometry.file}]
    step = step_of(job.parents) is not None
    # The body of a step has the parameters of the flow's call; the header has the changes.
    had = codec.decode_request(header.get("changed", {}) if step else body["parameters"])
    parameters = merged(had, changes.parameters)
    if changes.copy:
        given_files = parameters.get(PARAMETER)
        parameters |= copied_files(job, changes.copy, directory, configured, given_files)
    engine, cluster = _place(job, changes, configured)
    resources = changes.resources.over(job.resources)
    before, now = LabelValues(had, job.resources), LabelValues(parameters, resources)
    name, labels = updated_names(job.name, job.labels, before, now)
    terms: TermsGiven = {
        **job.terms(),
        **cast("TermsGiven", _changed(changes, [term.name for term in declared(Terms)])),
        "name": name,
        "labels": labels,
        "key": None if changes.key is None else f"{changes.key}/{job.job_id}",
        "cluster": cluster,
        "resources": resources,
        # The size of a parcel fits one engine, cluster and walltime.
        "parcel": None if changes.engine or changes.cluster or changes.walltime_s else job.parcel,
    }
    # A restricted home takes no environment from submissions.
    restricted = configured.restricted is not None
    submission = Submission(
        **terms,
        recipe=job.recipe,
        atoms=None if step else structure,
        parameters=parameters,
        engine=engine,
        strict=changes.strict,
        lax=changes.lax,
        **_flow_terms(header, changes),
        **_awaited(job),
        environment=None if restricted else environment_before(header) or environ,
    )
    retried: Parent = {"job_id": job.job_id, "role": "retry"}
    if step:
        if changes.continued:
            body["atoms"] = codec.encode_request(structure)
        submission = evolve(submission, after=(), on_failure="wait")
        settings = header.get("settings", {})
        return Again(submission, [*_not_again(job), retried], once, body, settings)
    return Again(submission, [*cast("Sequence[Parent]", parents), retried], once)


def _flow_terms(header: Mapping[str, Any], changes: Retry) -> dict[str, Any]:
    """Return the terms that only flows have, with the changes of a retry."""
    before = Submission.flow_terms_in(header)
    by_step = merged(before.get("by_step", {}), changes.by_step)
    return {**before, **_changed(changes, OF_FLOW), "by_step": by_step}


def _changed(changes: Retry, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named terms that a retry sets."""
    values = {name: getattr(changes, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def as_submitted(
    job: JobMetadata, specification: str, configured: Config, *, environ: Mapping[str, str]
) -> Again:
    """Return the submission of a job that waits for others; see :func:`again`."""
    head, _, document = specification.partition("\n")
    header, body = json.loads(head), json.loads(document)
    defaulted: dict[str, Any] = dict.fromkeys(header.get("defaulted", ()))
    restricted = configured.restricted is not None
    step = step_of(job.parents) is not None
    submission = Submission(
        **evolve(job, **defaulted).terms(),
        recipe=job.recipe,
        atoms=None if step else structure_of(body),
        parameters=codec.decode_request(header.get("changed", {}) if step else body["parameters"]),
        engine=job.engine,
        strict=bool(header.get("strict")),
        lax=bool(header.get("lax")),
        **Submission.flow_terms_in(header),
        environment=None if restricted else environment_before(header) or environ,
    )
    if step:
        return Again(submission, job.parents, body=body, settings=header.get("settings", {}))
    submission = evolve(submission, **_awaited(job))
    return Again(submission, [parent for parent in job.parents if "awaited" not in parent])


def _not_again(job: JobMetadata) -> list[Parent]:
    """Return the parents of a job, except the job that it retries or rereads."""
    return [parent for parent in job.parents if parent["role"] not in {"retry", "reread"}]


def _is_kept(parent: Parent) -> bool:
    """Return whether a parent has already provided its values, which a retry keeps."""
    return parent["role"] not in {"retry", "reread"} and "awaited" not in parent


def _awaited(job: JobMetadata) -> _Awaited:
    """Return the `after` terms of a job that never began; references are in its body."""
    waited_for = awaited(job.parents)
    after = [parent for parent in waited_for if parent["role"] == "after"]
    fails = any(parent.get("on_failure") == "fail" for parent in waited_for)
    return {
        "after": [{"job_id": one["job_id"], "ends": one["awaited"]} for one in after],
        "on_failure": "fail" if fails else "wait",
    }


def _last(
    job: JobMetadata,
    structure: Mapping[str, Any] | None,
    directory: RunDirectory,
    configured: Config,
) -> LastGeometry:
    """Return the geometry from which a job can be continued, or raise `InvalidJob`."""
    if said := job.without_files():
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {said}; without --continue it begins anew"
        )
    if structure is None or "data" not in structure:
        raise InvalidJob(
            f"job {job.job_id} has no structure to continue from; without --continue it begins anew"
        )
    if not moves_atoms_alone(job.recipe, configured):
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {job.recipe} also computes other "
            "geometries, such as displaced or strained ones; without --continue it begins anew"
        )
    try:
        return last_geometry(directory, job.attempt, parse_structure(structure))
    except InvalidJob as error:
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {error}; without --continue it begins anew"
        ) from error


def _check_runaway(job: JobMetadata, geometry: LastGeometry, work: str) -> None:
    """Refuse to continue a runaway calculation, which would waste hours."""
    from crystalmath.jobs.runaway import find_runaway

    if (ran_away := find_runaway(geometry.atoms, work)) is not None:
        raise InvalidJob(
            f"job {job.job_id} ran away, and is not continued: {ran_away.cause} ({geometry.file}): "
            f"{ran_away.details}; begin anew from another structure, or continue it with "
            "force (--force)"
        )


def _place(job: JobMetadata, changes: Retry, configured: Config) -> tuple[str | None, str]:
    """Return engine and cluster of the new job; a configured cluster implies its engine."""
    if changes.cluster is not None:
        known = changes.cluster in configured.clusters
        return changes.engine or (None if known else job.engine), changes.cluster
    if changes.engine is None or changes.engine == job.engine:
        return job.engine, job.cluster
    return changes.engine, "local"


def environment_before(header: Mapping[str, Any]) -> dict[str, str]:
    """Return a job's environment without the variables that CrystalMath has set."""
    environment = dict(header.get("environment", {}))
    for name, value in header.get("replaced", {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


# --- labels and names that repeat a parameter or resource ------------------------------------


_SCHEMAS = {one.name: one.about.schema for one in declared(Terms)}
_LONGEST_LABEL: int = _SCHEMAS["labels"]["additionalProperties"]["maxLength"]
_LONGEST_NAME: int = _SCHEMAS["name"]["maxLength"]


@frozen
class LabelValues:
    """The parameters and resources of a job, whose values labels may repeat."""

    parameters: Mapping[str, Any]
    resources: Resources

    def text(self, key: str) -> str | None:
        """Return a parameter, else a resource, as label text; ``None`` if there is none."""
        value: Any = self.parameters
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            return label_of(value)
        name = RESOURCE_NAMES.get(key)
        value = name and getattr(self.resources, name)
        if value is None:
            return None
        return memory_text(value) if name == "memory_mb" else label_of(value)


def updated_names(
    name: str | None, labels: Mapping[str, str], before: LabelValues, now: LabelValues
) -> tuple[str | None, dict[str, str]]:
    """Return name and labels of a retry, with the new values of parameters and resources.

    A label changes if its key is a parameter or a resource and its text was the old value. So does
    ``KEY=VALUE`` in the name. A value that cannot be a label is left out.
    """
    updated = {}
    for key, label in labels.items():
        was, text = before.text(key), now.text(key)
        if was is None or was == text or not _equals(key, label, was):
            updated[key] = label
            continue
        new = ""
        if text is not None and text.isprintable() and len(text) <= _LONGEST_LABEL:
            updated[key] = text
            new = f"{key}={text}"
        if name is not None:
            name = _renamed(name, f"{key}={label}", new)
    return name, updated


def _equals(key: str, label: str, value: str) -> bool:
    """Return whether a label has a value, however it is written: ``0.20``, ``4096MB``."""
    if label == value or label_of(label_value(label)) == value:
        return True
    megabytes = read_megabytes(label) if RESOURCE_NAMES.get(key) == "memory_mb" else None
    return megabytes is not None and memory_text(megabytes) == value


def _renamed(name: str, old: str, new: str) -> str | None:
    pattern = rf"(?<![\w.]){re.escape(old)}(?![\w.+-])" + ("" if new else r"\s*")
    return re.sub(pattern, lambda _: new, name).strip()[-_LONGEST_NAME:] or None


# --- output that is read again ---------------------------------------------------------------


#: How many bytes at the end of an output are searched for the closing words.
_TAIL = 2**16
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
_LINES = 1000


def reading_again(
    job: JobMetadata,
    specification: str,
    configured: Config,
    directory: RunDirectory,
    changes: tuple[Retry, Mapping[str, str]],
    *,
    environ: Mapping[str, str],
) -> Again:
    """Return the submission that reads a job's last output again, without starting its program.

    `changes` has the place where it runs and the changed settings of quacc
    (``CHECK_CONVERGENCE``: ``False``). The other parameters are those of :func:`again`.

    Raises `InvalidJob`: the job has not failed, or its last calculation did not finish.
    """
    short = job.job_id[:8]
    if job.state is not JobState.FAILED:
        has = "its result is there" if job.state is JobState.COMPLETED else "it has no calculation"
        raise InvalidJob(
            f"job {job.job_id} is {job.state.value}: {has} to be read again; only jobs "
            "that failed after their program had finished can be"
        )
    place, settings = changes
    work = directory.work(job.attempt)
    program = _ended_program(work, short)
    request = again(job, specification, place, configured, directory, environ=environ)
    if request.submission.environment is None or program.launcher is None:
        raise InvalidJob(
            f"job {job.job_id} cannot be read again: this home is restricted, and its jobs "
            "have no settings of their own"
        )
    command = [sys.executable, "-P", "-m", "crystalmath.worker.given_outputs", work]
    command.append(",".join(name for name in program.input_files if not is_potcar(name)))
    for name in settings:
        if not _SETTING.fullmatch(name):
            raise InvalidJob(f"{name!r} is no setting of quacc; write one as CHECK_CONVERGENCE")
    variables = {f"QUACC_{name}": value for name, value in settings.items()}
    launcher = {f"QUACC_{program.launcher}": shlex.join(command)}
    reread: Parent = {"job_id": job.job_id, "role": "reread"}
    return evolve(
        request,
        submission=evolve(request.submission, resources=Resources()),
        parents=[*request.parents[:-1], reread],
        settings={**request.settings, **variables, **launcher},
    )


def _ended_program(work: str, short: str) -> Program:
    """Return the program of the last calculation, which must have finished."""
    from crystalmath.preflight.programs_here import programs
    from crystalmath.preflight.step_inputs import calculations

    known = [each for each in programs() if each.endings and each.launcher]
    runs = at_once(calculations(work, known))
    if not runs:
        titles = ", ".join(each.files.title for each in known)
        raise InvalidJob(
            f"job {short} has left no calculation of a program that can be read again ({titles}); "
            f"crystalmath retry {short} runs it once more"
        )
    folder, program = runs[-1]
    looked = []
    for name, words in program.endings.items():
        text = _end_of(folder, name)
        if text is not None and words in text:
            return program
        looked += [] if text is None else [f"{name} does not contain {words!r}"]
    reason = "; ".join(looked) or f"there is no {next(iter(program.endings))}"
    raise InvalidJob(
        f"the calculation in {folder} did not finish ({reason}), so its output is incomplete; "
        f"crystalmath retry --continue {short} goes on from its last geometry"
    )


def _end_of(folder: Path, name: str) -> str | None:
    for path in as_stored(folder, name):
        return at_once(read_tail(path, _LINES, _TAIL, whole=True)).text
    return None
