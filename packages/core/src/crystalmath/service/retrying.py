"""Makes of a job on record the submission of its next try."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve, frozen

from crystalmath.errors import InvalidJob
from crystalmath.models import Submission
from crystalmath.service.copied_files import PARAMETER, copied_files
from crystalmath.service.going_on import moves_atoms_alone
from crystalmath.service.swept_labels import Asked, told_anew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.config import Config
    from crystalmath.jobs.last_geometry import LastGeometry
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models.job_notes import Parent
    from crystalmath.models.retry import Retry
    from crystalmath.models.submission import TermsGiven
    from crystalmath.quacc.store import JobMetadata


@frozen
class Again:
    """A submission, and what it comes of."""

    submission: Submission
    parents: Sequence[Parent] = ()
    only_retry: bool = False


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

    Parameters
    ----------
    job : JobMetadata
        What is on record of it.
    specification : str
        What was recorded of what was asked for.
    changes : Retry
        What is other this time.
    configured : Config
        The home's configuration, which says what engine a cluster is of.
    directory : RunDirectory
        Where its files are.
    environ : mapping of str to str
        The environment of submissions that bring none. It is taken where none is on record, as of a
        job that was imported.
    once : bool
        Whether the job is refused, as it is recorded, where another is a retry of the same one.

    Raises
    ------
    InvalidJob
        It has not ended, a change cannot be made, or there is nothing to go on from.
    """
    from crystalmath.recipes import codec

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
    given = asked["atoms"] and {"format": "ase-json", "data": asked["atoms"]["data"]}
    parents = [parent for parent in job.parents if parent["role"] == "structure"]
    if changes.continued:
        found = _last(job, given, directory, configured)
        given = found.atoms
        parents = [{"job_id": job.job_id, "role": "structure", "file": found.file}]
    had = codec.decode_request(asked["parameters"])
    parameters = _merged(had, changes.parameters)
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
        atoms=given,
        parameters=parameters,
        engine=engine,
        strict=changes.strict,
        environment=None if restricted else _environment(told) or environ,
    )
    retried: Parent = {"job_id": job.job_id, "role": "retry"}
    return Again(submission, [*cast("Sequence[Parent]", parents), retried], once)


def _last(
    job: JobMetadata,
    given: Mapping[str, Any] | None,
    directory: RunDirectory,
    configured: Config,
) -> LastGeometry:
    """Find the geometry from which a job can go on."""
    from crystalmath.jobs.last_geometry import last_geometry
    from crystalmath.recipes.structures import parse_structure

    if said := job.without_files():
        raise InvalidJob(
            f"job {job.job_id} cannot be continued: {said}; without --continue it begins anew"
        )
    if given is None:
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


def _place(job: JobMetadata, changes: Retry, configured: Config) -> tuple[str | None, str]:
    """Return engine and cluster: a configured cluster implies its engine."""
    if changes.cluster is not None:
        known = changes.cluster in configured.clusters
        return changes.engine or (None if known else job.engine), changes.cluster
    if changes.engine is None or changes.engine == job.engine:
        return job.engine, job.cluster
    return changes.engine, "local"


def _environment(header: Mapping[str, Any]) -> dict[str, str]:
    """Return a job's environment as it was before its resources were told to its programs."""
    environment = dict(header.get("environment", {}))
    for name, value in header.get("replaced", {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Change of a table what is named, and of tables in it likewise."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(before, value)
        else:
            merged[name] = value
    return merged
