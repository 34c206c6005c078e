"""Makes of a job on record the submission of its next try."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.models import Submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.config import Config
    from crystalmath.models.answers import Parent
    from crystalmath.models.retry import Retry
    from crystalmath.models.submission import TermsGiven
    from crystalmath.quacc.store import JobMetadata

__all__ = ["Again", "again"]


@frozen
class Again:
    """A submission, and what it comes of."""

    submission: Submission
    parents: Sequence[Parent] = ()


def again(job: JobMetadata, specification: str, changes: Retry, configured: Config) -> Again:
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

    Raises
    ------
    InvalidJob
        It has not ended, or a change cannot be made.
    """
    from crystalmath.recipes import codec

    if not job.state.is_terminal():
        short = job.job_id[:8]
        raise InvalidJob(
            f"job {job.job_id} is {job.state.value}, and can run again once it has ended; wait for "
            f"it (crystalmath wait {short}), or stop it (crystalmath cancel {short})"
        )
    header, document = specification.split("\n", 1)
    asked = json.loads(document)
    atoms = asked["atoms"]
    parameters = codec.decode_request(asked["parameters"])
    engine, cluster = _place(job, changes, configured)
    terms: TermsGiven = {
        **job.terms(),
        "key": None,
        "cluster": cluster,
        "walltime_s": changes.walltime_s or job.walltime_s,
        "resources": changes.resources.over(job.resources),
        "priority": job.priority if changes.priority is None else changes.priority,
    }
    submission = Submission(
        **terms,
        recipe=job.recipe,
        atoms=atoms and {"format": "ase-json", "data": atoms["data"]},
        parameters=_merged(parameters, changes.parameters),
        engine=engine,
        strict=changes.strict,
        # A restricted home takes none, and gives its own.
        environment=_environment(json.loads(header)) if configured.restricted is None else None,
    )
    parents = cast("Sequence[Parent]", job.parents)
    taken = [parent for parent in parents if parent["role"] == "structure"]
    return Again(submission, [*taken, {"job_id": job.job_id, "role": "retry"}])


def _place(job: JobMetadata, changes: Retry, configured: Config) -> tuple[str | None, str]:
    """Say where it runs: an engine has its own clusters, and a cluster of the file its engine."""
    if changes.cluster is not None:
        known = changes.cluster in configured.clusters
        return changes.engine or (None if known else job.engine), changes.cluster
    if changes.engine is None or changes.engine == job.engine:
        return job.engine, job.cluster
    return changes.engine, "local"


def _environment(header: Mapping[str, Any]) -> dict[str, str]:
    """Give a job's environment as it was before its resources were told to its programs."""
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
