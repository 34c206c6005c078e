"""The handlers for the inputs, the progress, the trajectory and the story of a job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal, Required, TypeAlias, TypedDict

from crystalmath import server
from crystalmath.archive.script import asked_of_job, python_script, shell_script, written_by_job
from crystalmath.errors import InvalidJob
from crystalmath.models import Inputs
from crystalmath.models.fields import Limits
from crystalmath.preflight.step_inputs import with_marks
from crystalmath.progress.search import MOST_STEPS
from crystalmath.reading import job_answers
from crystalmath.server.handlers.submission import submitting_pool
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc import large
from crystalmath.server.rpc.declare import JobIdParams, method
from crystalmath.wire.answers import (
    JobId,
    JobInputs,
    JobScript,
    Name,
    ProgressList,
    Story,
    Trajectory,
)

if TYPE_CHECKING:
    from crystalmath.service import JobService


@method(server.JOBS_INPUTS)
async def handle_jobs_inputs(service: JobService, params: JobIdParams) -> JobInputs:
    """Return the inputs of a job's programs, calculation by calculation, before and after it runs.

    Once the job has written input files, they are read. The recipe is called up to its
    calculations as well, which may take seconds: it says who has set each value, and has all
    inputs of calculators without files.
    """
    inputs = await _inputs(service, params["job_id"])
    await large.turn()
    return {"job_id": params["job_id"], "inputs": inputs.document(), "error": None}


async def _inputs(service: JobService, job_id: str) -> Inputs:
    job = await in_pool("asking", service.job, job_id)
    inputs = await in_slices("files", written_by_job(service, job))
    pool = submitting_pool({"recipe": job.recipe, "inputs": True})
    of_recipe = await in_pool(pool, asked_of_job, service, job)
    return with_marks(inputs, of_recipe) if inputs.steps else of_recipe


# --- as scripts ------------------------------------------------------------------------------


class ScriptParams(JobIdParams, total=False):
    """The parameters of ``jobs.script``."""

    shell: Annotated[
        bool,
        "also write a shell script that starts the programs in folders with the files of "
        "jobs.inputs; default: false",
    ]


@method(server.JOBS_SCRIPT)
async def handle_jobs_script(service: JobService, params: ScriptParams) -> JobScript:
    """Write a job as a Python script that runs the same calculation with quacc alone."""
    job_id = params["job_id"]
    script = await in_pool("files", _script, service, job_id)
    shell = None
    if params.get("shell"):
        inputs = await _inputs(service, job_id)
        shell = await in_pool("files", _shell, service, job_id, inputs)
    await large.turn()
    return {"job_id": job_id, "script": script, "shell": shell, "error": None}


def _script(service: JobService, job_id: str) -> str:
    return python_script(
        service.job(job_id), service.specification(job_id), service.config.recipes_allow
    )


def _shell(service: JobService, job_id: str, inputs: Inputs) -> str | None:
    from crystalmath.preflight.programs_here import programs

    header = json.loads(service.specification(job_id).partition("\n")[0])
    environment = header.get("environment", {})
    commands = [
        next((line for each in programs() if (line := each.command(step, environment))), None)
        for step in inputs.steps
    ]
    return shell_script(
        service.job(job_id), inputs.steps, commands, service.pseudopotentials(job_id)
    )


# --- progress --------------------------------------------------------------------------------

#: How many jobs a request may name: the files of each are read.
_MOST = 200
#: How many with their histories.
_MOST_HISTORIES = 20


class ProgressParams(TypedDict, total=False):
    """The parameters of ``jobs.progress``."""

    job_ids: Required[Annotated[list[JobId], Limits(maxItems=_MOST)]]
    history: Annotated[
        bool,
        f"include the last {MOST_STEPS} ionic steps of each job; for {_MOST_HISTORIES} jobs at "
        "most",
    ]


@method(server.JOBS_PROGRESS, bulk=True)
async def handle_jobs_progress(service: JobService, params: ProgressParams) -> ProgressList:
    """Return the progress of jobs, read from the files that their programs write.

    ``progress`` describes the newest calculation of a job's present attempt, also after its end. It
    is ``null`` until a calculation has written a file that a reader knows. With ``history`` it has
    the ionic steps of all calculations of the job; their whole files are read for that.
    """
    job_ids, history = params["job_ids"], params.get("history", False)
    if history and len(job_ids) > _MOST_HISTORIES:
        raise InvalidJob(
            f"a request has the histories of {_MOST_HISTORIES} jobs at most, not {len(job_ids)}"
        )
    work = job_answers.progress(service, job_ids, history=history)
    return {"jobs": await in_slices("files", work), "error": None}


_Place: TypeAlias = Annotated[int, Limits(minimum=-(2**53), maximum=2**53)]


class TrajectoryParams(JobIdParams, total=False):
    """The parameters of ``jobs.trajectory``."""

    file: Annotated[
        Name,
        "a file of frames below the work directory, by its name or the end of its path; default: "
        "that of the newest calculation",
    ]
    start: Annotated[_Place, "the first frame; a negative one counts from the end; default: 0"]
    stop: Annotated[
        _Place, "the frame after the last; a negative one counts from the end; default: the end"
    ]
    stride: Annotated[int, Limits(minimum=1, maximum=2**53), "every how many frames; default: 1"]
    dtype: Annotated[
        Literal["float32", "float64"],
        "the type of positions, forces and moments; default: float32, as viewers draw them",
    ]


@method(server.JOBS_TRAJECTORY, bulk=True)
async def handle_jobs_trajectory(service: JobService, params: TrajectoryParams) -> Trajectory:
    """Return geometries, energies and forces that a job's calculation has written, frame by frame.

    They are read from ASE's trajectories, vasprun.xml and the output of pw.x of the job's present
    attempt, also while it runs: ``start`` -1 is its present geometry. An answer has 16 MiB at most;
    ``next`` is the ``start`` for the rest.
    """
    return await in_slices("files", job_answers.trajectory(service, params))


# --- the story -------------------------------------------------------------------------------


@method(server.JOBS_SHOW, pool="files")
def handle_jobs_show(service: JobService, params: JobIdParams) -> Story:
    """Return a job's whole story: its parents and children, its attempts and events.

    ``jobs.files`` lists the files that it has written, and ``jobs.logs`` reads one.
    """
    return job_answers.story(service, params["job_id"])
