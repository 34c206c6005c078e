"""The inputs of a job on record: the files that it has written, or what its recipe would write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from crystalmath.jobs.rundir import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Generator

    from crystalmath.models.inputs import Inputs
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.job_service import JobService


def written_by_job(service: JobService, job: JobMetadata) -> Generator[None, None, Inputs]:
    """Read the input files that the present attempt of a job has written; it may have none."""
    from crystalmath.preflight.programs_here import programs
    from crystalmath.preflight.step_inputs import written_inputs

    directory = RunDirectory(service.config.jobs_directory / job.job_id)
    return (yield from written_inputs(directory.work(job.attempt), programs()))


def asked_of_job(service: JobService, job: JobMetadata) -> Inputs:
    """Ask the recipe of a job what its programs would get, with what the job was given.

    Presets and settings are as they are now.
    """
    from crystalmath.preflight.step_inputs import asked_inputs
    from crystalmath.recipes import codec
    from crystalmath.recipes.structures import parse_structure

    header, _, document = service.specification(job.job_id).partition("\n")
    asked = json.loads(document)
    given = asked["atoms"] and {"format": "ase-json", "data": asked["atoms"]["data"]}
    return asked_inputs(
        job.recipe,
        None if given is None else parse_structure(given),
        codec.decode_request(asked["parameters"]),
        json.loads(header).get("environment", {}),
        document,
        here=service.runs_here(job),
    )
