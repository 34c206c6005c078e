"""The handler that writes a job as scripts which run without us."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, cast

from crystalmath.models import Inputs
from crystalmath.models.answers import JobScript
from crystalmath.server.handlers.inputs import handle_jobs_inputs
from crystalmath.server.pools import in_pool
from crystalmath.server.rpc.declare import JobIdParams, method

if TYPE_CHECKING:
    from crystalmath.service import JobService


class ScriptParams(JobIdParams, total=False):
    """The parameters of ``jobs.script``."""

    shell: Annotated[
        bool,
        "also tell how the programs are started in folders of their inputs, as jobs.inputs tells "
        "these; default: false",
    ]


@method(
    "jobs.script",
    refused={"script": None, "shell": None},
    bulk=True,
)
async def handle_jobs_script(service: JobService, params: ScriptParams) -> JobScript:
    """Write a job as a Python script that runs the same calculation with quacc alone."""
    job_id = params["job_id"]
    told = await in_pool("files", _script, service, job_id)
    shell = None
    if params.get("shell"):
        answer = await handle_jobs_inputs(service, {"job_id": job_id})
        if answer["error"]:
            return cast("JobScript", {**answer, "script": None, "shell": None})
        shell = await in_pool("files", _shell, service, job_id, Inputs.read(answer["inputs"]))
    return {"job_id": job_id, "script": told, "shell": shell, "error": None}


def _script(service: JobService, job_id: str) -> str:
    from crystalmath.service.job_script import python_script

    return python_script(
        service.job(job_id), service.specification(job_id), service.config.recipes_allow
    )


def _shell(service: JobService, job_id: str, inputs: Inputs) -> str | None:
    from crystalmath.preflight.programs_here import programs
    from crystalmath.service.job_script import shell_script

    header = json.loads(service.specification(job_id).partition("\n")[0])
    environment = header.get("environment", {})
    commands = [
        next((told for each in programs() if (told := each.command(step, environment))), None)
        for step in inputs.steps
    ]
    return shell_script(
        service.job(job_id), inputs.steps, commands, service.pseudopotentials(job_id)
    )
