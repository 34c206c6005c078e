"""The handler that tells what the programs of a job get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models.answers import JobInputs
from crystalmath.preflight.step_inputs import with_marks
from crystalmath.server.handlers.submission import submitting_pool
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc.declare import JobIdParams, method
from crystalmath.service.job_script import asked_of_job, written_by_job

if TYPE_CHECKING:
    from crystalmath.service import JobService


@method(
    "jobs.inputs",
    refused={"inputs": None},
    bulk=True,
)
async def handle_jobs_inputs(service: JobService, params: JobIdParams) -> JobInputs:
    """Return what the programs of a job get, calculation by calculation, before it runs and after.

    Once it has written input files they are read. Its recipe is asked, too, with what the job was
    given, which may take seconds: it tells who has set what, and of calculators that have written
    nothing all.
    """
    job_id = params["job_id"]
    job = await in_pool("asking", service.job, job_id)
    inputs = await in_slices("files", written_by_job(service, job))
    asking = submitting_pool({"recipe": job.recipe, "inputs": True})
    asked = await in_pool(asking, asked_of_job, service, job)
    inputs = with_marks(inputs, asked) if inputs.steps else asked
    return {"job_id": job_id, "inputs": inputs.document(), "error": None}
