"""Attempts for the engine boundary: written down as core does, and launched by a test itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.jobs.identities import own_identity
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.models import Attempt, JobSpec
from crystalmath.quacc.runner import generate_job_id

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["attempt_of", "write_down"]


def write_down(
    home: Path, engine: str, recipe: str, cluster: str = "local", /, **parameters: Any
) -> str:
    """Make the run directory of a job that nobody has launched; give the job's id."""
    from ase.build import bulk

    from crystalmath import config
    from crystalmath.jobs.ownership import spec_header
    from crystalmath.quacc.engine import submission_environment
    from crystalmath.recipes import codec

    spec = JobSpec(
        job_id=generate_job_id(),
        recipe=f"crystalmath.testing.recipes.{recipe}",
        atoms=bulk("Al"),
        parameters=parameters,
        cluster=cluster,
        environment=submission_environment(config.load()),
    )
    jobs = home / "jobs"
    jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = RunDirectory(jobs / spec.job_id)
    owner = own_identity(jobs).identity.as_dict()
    directory.write_spec(spec_header(spec, engine, owner), codec.encode_spec(spec))
    return spec.job_id


def attempt_of(
    home: Path,
    job_id: str,
    handle: str | None = None,
    number: int = 1,
    *,
    cluster: str = "local",
) -> Attempt:
    """Give an attempt as core gives it to an engine."""
    return Attempt(
        id=attempt_id(job_id, number),
        job_id=job_id,
        directory=home / "jobs" / job_id,
        cluster=cluster,
        handle=handle,
    )
