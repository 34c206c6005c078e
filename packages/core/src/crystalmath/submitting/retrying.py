"""Makes of jobs on record the submissions that run them, or read their calculations, again."""

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
    from collections.abc import Sequence
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
    """A submission, and what it comes of."""

    submission: Submission
    parents: Sequence[Parent] = ()
    only_retry: bool = False
    #: Of a step of a flow: structure and parameters as the flow has called it, as JSON.
    body: Mapping[str, Any] | None = None
    #: Settings of quacc, as environment variables; they go above those of its cluster.
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
    """Ask for a job once more: as it was submitted, but for what is changed.

    Its key stays with it, as a key never gives a second job.

    `environ` is taken where no environment is on record, as of a job that was imported. With `once`
    the job is refused, as it is recorded, where another is a retry of the same one.

    Raises `InvalidJob`: it has not ended, a change cannot be made, or there is nothing to go on
    from.
    """
    if not job.state.is_terminal():
        short = job.job_id[:8]
        raise InvalidJob(
            f"job {job.job_id} is {job.state.value}, and can run again once it has ended; wait for "
            f"it (crystalmath wait {short}), or stop it (crystalmath cancel {short})"
        )
    for parent in job.parents:
        if parent["role"] == "reread":
            raise InvalidJob(
                f"job {job.job_id} has read job {parent['job_id']} again, and computed nothing; "
                "name that one"
            )
    header, _, document = specification.partition("\n")
    if not document:
        raise InvalidJob(
            f"job {job.job_id} cannot run again: what it was asked to do is not on record any more"
        )
    told = json.loads(header)
    # Where it runs now has its own.
    unasked: dict[str, Any] = dict.fromkeys(told.get("defaulted", ()))
    job = evolve(job, **unasked)
    asked = json.loads(document)
    given = structure_of(asked)
    parents = [parent for parent in job.parents if _gave(parent)]
    if changes.continued:
        found = _last(job, given, directory, configured)
        if not changes.force:
            _check_runaway(job, found, directory.work(job.attempt))
        given = found.atoms
        parents = [{"job_id": job.job_id, "role": "structure", "file": found.file}]
    step = step_of(job.parents) is not None
    # Of a step, what it was called with is in its body.
    had = codec.decode_request(told.get("changed", {}) if step else asked["parameters"])
    parameters = merged(had, changes.parameters)
    if changes.copy:
        given_files = parameters.get(PARAMETER)
        parameters |= copied_files(job, changes.copy, directory, configured, given_files)
    engine, cluster = _place(job, changes, configured)
    resources = changes.resources.over(job.resources)
    before, now = Asked(had, job.resources), Asked(parameters, resources)
    name, labels = told_anew(job.name, job.labels, before, now)
    terms: TermsGiven = {
        **job.terms(),
        "name": name,
        "labels": labels,
        "key": None if changes.key is None else f"{changes.key}/{job.job_id}",
        "cluster": cluster,
        "walltime_s": changes.walltime_s or job.walltime_s,
        # What it was packed with may have no use there.
        "parcel": None if changes.engine or changes.cluster or changes.walltime_s else job.parcel,
        "resources": resources,
        "priority": job.priority if changes.priority is None else changes.priority,
        "continue_lost": (
            job.continue_lost if changes.continue_lost is None else changes.continue_lost
        ),
    }
    # A home that is restricted takes none, and gives its own.
    restricted = configured.restricted is not None
    submission = Submission(
        **terms,
        recipe=job.recipe,
        atoms=None if step else given,
        parameters=parameters,
        engine=engine,
        strict=changes.strict,
        lax=changes.lax,
        **_flow_terms(told, changes),
        **_awaited(job),
        environment=None if restricted else environment_before(told) or environ,
    )
    retried: Parent = {"job_id": job.job_id, "role": "retry"}
    if step:
        if changes.continued:
            asked["atoms"] = codec.encode_request(given)
        submission = evolve(submission, after=(), on_failure="wait")
        settings = told.get("settings", {})
        return Again(submission, [*_not_again(job), retried], once, asked, settings)
    return Again(submission, [*cast("Sequence[Parent]", parents), retried], once)


def _flow_terms(header: Mapping[str, Any], changes: Retry) -> dict[str, Any]:
    """Return what a flow alone has, but for what is changed."""
    had = Submission.flow_terms_in(header)
    new = {name: getattr(changes, name, None) for name in OF_FLOW}
    changed = {name: value for name, value in new.items() if value is not None}
    return {**had, **changed, "by_step": merged(had.get("by_step", {}), changes.by_step)}


def as_asked(
    job: JobMetadata, specification: str, configured: Config, *, environ: Mapping[str, str]
) -> Again:
    """Ask for a job that waits for others as it was asked for; see :func:`again`."""
    header, _, document = specification.partition("\n")
    told, asked = json.loads(header), json.loads(document)
    unasked: dict[str, Any] = dict.fromkeys(told.get("defaulted", ()))
    restricted = configured.restricted is not None
    step = step_of(job.parents) is not None
    submission = Submission(
        **evolve(job, **unasked).terms(),
        recipe=job.recipe,
        atoms=None if step else structure_of(asked),
        parameters=codec.decode_request(told.get("changed", {}) if step else asked["parameters"]),
        engine=job.engine,
        strict=bool(told.get("strict")),
        lax=bool(told.get("lax")),
        **Submission.flow_terms_in(told),
        environment=None if restricted else environment_before(told) or environ,
    )
    if step:
        return Again(submission, job.parents, body=asked, settings=told.get("settings", {}))
    submission = evolve(submission, **_awaited(job))
    return Again(submission, [parent for parent in job.parents if "awaited" not in parent])


def _not_again(job: JobMetadata) -> list[Parent]:
    """Return the parents of a job, but for those that it runs or reads again."""
    return [parent for parent in job.parents if parent["role"] not in {"retry", "reread"}]


def _gave(parent: Parent) -> bool:
    """Return whether a job has what it was given by another, and is given it again."""
    return parent["role"] not in {"retry", "reread"} and "awaited" not in parent


def _awaited(job: JobMetadata) -> _Awaited:
    """Return which jobs one has waited for that has never begun; references are in its body."""
    waited_for = awaited(job.parents)
    after = [parent for parent in waited_for if parent["role"] == "after"]
    fails = any(parent.get("on_failure") == "fail" for parent in waited_for)
    return {
        "after": [{"job_id": one["job_id"], "ends": one["awaited"]} for one in after],
        "on_failure": "fail" if fails else "wait",
    }


def _last(
    job: JobMetadata,
    given: Mapping[str, Any] | None,
    directory: RunDirectory,
    configured: Config,
) -> LastGeometry:
    """Find the geometry from which a job can go on."""
    if said := job.without_files():
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {said}; without --continue it begins anew"
        )
    if given is None or "data" not in given:
        raise InvalidJob(
            f"job {job.job_id} was given no structure, and there is none to go on from; without "
            "--continue it begins anew"
        )
    if not moves_atoms_alone(job.recipe, configured):
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {job.recipe} computes also geometries that are "
            "not on the way to its own, such as displaced or strained ones; without --continue it "
            "begins anew"
        )
    try:
        return last_geometry(directory, job.attempt, parse_structure(given))
    except InvalidJob as error:
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {error}; without --continue it begins anew"
        ) from error


def _check_runaway(job: JobMetadata, found: LastGeometry, work: str) -> None:
    """Refuse to go on from a calculation that ran away: it would end nowhere, after hours."""
    from crystalmath.jobs.runaway import find_runaway

    if (ran_away := find_runaway(found.atoms, work)) is not None:
        raise InvalidJob(
            f"job {job.job_id} ran away, and is not continued: {ran_away.cause} ({found.file}): "
            f"{ran_away.details}; begin anew from another structure, or continue it with "
            "force (--force)"
        )


def _place(job: JobMetadata, changes: Retry, configured: Config) -> tuple[str | None, str]:
    """Return engine and cluster: a configured cluster implies its engine."""
    if changes.cluster is not None:
        known = changes.cluster in configured.clusters
        return changes.engine or (None if known else job.engine), changes.cluster
    if changes.engine is None or changes.engine == job.engine:
        return job.engine, job.cluster
    return changes.engine, "local"


def environment_before(header: Mapping[str, Any]) -> dict[str, str]:
    """Return a job's environment as it was before its resources were told to its programs."""
    environment = dict(header.get("environment", {}))
    for name, value in header.get("replaced", {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


# --- labels and names that tell what a job is asked for --------------------------------------


_SCHEMAS = {one.name: one.about.schema for one in declared(Terms)}
_LONGEST_LABEL: int = _SCHEMAS["labels"]["additionalProperties"]["maxLength"]
_LONGEST_NAME: int = _SCHEMAS["name"]["maxLength"]


@frozen
class Asked:
    """What a label may tell of a job."""

    parameters: Mapping[str, Any]
    resources: Resources

    def text(self, key: str) -> str | None:
        """Write a parameter, else a resource, as its label has it; ``None`` if there is none."""
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


def told_anew(
    name: str | None, labels: Mapping[str, str], before: Asked, now: Asked
) -> tuple[str | None, dict[str, str]]:
    """Return name and labels of a job that runs again, with what it is asked for this time.

    A label that is called as a parameter or a resource, and told its value, tells the new one, and
    so does ``KEY=VALUE`` in the name. What can be no label is left out.
    """
    told = {}
    for key, label in labels.items():
        was, text = before.text(key), now.text(key)
        if was is None or was == text or not _tells(key, label, was):
            told[key] = label
            continue
        new = ""
        if text is not None and text.isprintable() and len(text) <= _LONGEST_LABEL:
            told[key] = text
            new = f"{key}={text}"
        if name is not None:
            name = _renamed(name, f"{key}={label}", new)
    return name, told


def _tells(key: str, label: str, value: str) -> bool:
    """Return whether a label says a value, in whatever way it is written: ``0.20``, ``4096MB``."""
    if label == value or label_of(label_value(label)) == value:
        return True
    megabytes = read_megabytes(label) if RESOURCE_NAMES.get(key) == "memory_mb" else None
    return megabytes is not None and memory_text(megabytes) == value


def _renamed(name: str, old: str, new: str) -> str | None:
    pattern = rf"(?<![\w.]){re.escape(old)}(?![\w.+-])" + ("" if new else r"\s*")
    return re.sub(pattern, lambda _: new, name).strip()[-_LONGEST_NAME:] or None


# --- calculations that could not be read -----------------------------------------------------


#: Of an output so many bytes are looked at, from its end.
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
    """Ask for a job whose program is not started: its output is what the program wrote before.

    `changes` say where it runs this time, and which settings of quacc are other
    (``CHECK_CONVERGENCE``: ``False``). The others are as for :func:`again`.

    Raises `InvalidJob`: it has not failed, or its last calculation has not come to its end.
    """
    short = job.job_id[:8]
    if job.state is not JobState.FAILED:
        has = "its result is there" if job.state is JobState.COMPLETED else "it has no calculation"
        raise InvalidJob(
            f"job {job.job_id} is {job.state.value}: {has} to be read again; that is for jobs that "
            "failed after their program had come to its end"
        )
    place, settings = changes
    work = directory.work(job.attempt)
    program = _ended_program(work, short)
    asked = again(job, specification, place, configured, directory, environ=environ)
    if asked.submission.environment is None or program.launcher is None:
        raise InvalidJob(
            f"job {job.job_id} cannot be read again: this home is restricted, and its jobs take no "
            "settings of their own"
        )
    command = [sys.executable, "-P", "-m", "crystalmath.worker.given_outputs", work]
    command.append(",".join(name for name in program.input_files if not is_potcar(name)))
    for name in settings:
        if not _SETTING.fullmatch(name):
            raise InvalidJob(f"{name!r} is no setting of quacc; write one as CHECK_CONVERGENCE")
    told = {f"QUACC_{name}": value for name, value in settings.items()}
    launcher = {f"QUACC_{program.launcher}": shlex.join(command)}
    reread: Parent = {"job_id": job.job_id, "role": "reread"}
    return evolve(
        asked,
        submission=evolve(asked.submission, resources=Resources()),
        parents=[*asked.parents[:-1], reread],
        settings={**asked.settings, **told, **launcher},
    )


def _ended_program(work: str, short: str) -> Program:
    """Return the program of the last calculation, which must have ended as it should."""
    from crystalmath.preflight.programs_here import programs
    from crystalmath.preflight.step_inputs import calculations

    known = [each for each in programs() if each.endings and each.launcher]
    found = at_once(calculations(work, known))
    if not found:
        titles = ", ".join(each.files.title for each in known)
        raise InvalidJob(
            f"job {short} has left no calculation of a program that can be read again ({titles}); "
            f"crystalmath retry {short} runs it once more"
        )
    folder, program = found[-1]
    looked = []
    for name, words in program.endings.items():
        text = _end_of(folder, name)
        if text is not None and words in text:
            return program
        looked += [] if text is None else [f"{name} does not say {words!r}"]
    said = "; ".join(looked) or f"there is no {' or '.join(list(program.endings)[:1])}"
    raise InvalidJob(
        f"the calculation in {folder} did not come to its end ({said}), so that there is nothing "
        f"whole to read; crystalmath retry --continue {short} goes on from its last geometry"
    )


def _end_of(folder: Path, name: str) -> str | None:
    for path in as_stored(folder, name):
        return at_once(read_tail(path, _LINES, _TAIL, whole=True)).text
    return None
