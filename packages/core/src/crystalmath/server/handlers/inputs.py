"""The handlers that tell what a job is made of, how far it has come, and its whole story."""

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
    """Return what the programs of a job get, calculation by calculation, before it runs and after.

    Once it has written input files they are read. Its recipe is asked, too, with what the job was
    given, which may take seconds: it tells who has set what, and of calculators that have written
    nothing all.
    """
    inputs = await _inputs(service, params["job_id"])
    await large.turn()
    return {"job_id": params["job_id"], "inputs": inputs.document(), "error": None}


async def _inputs(service: JobService, job_id: str) -> Inputs:
    job = await in_pool("asking", service.job, job_id)
    inputs = await in_slices("files", written_by_job(service, job))
    asking = submitting_pool({"recipe": job.recipe, "inputs": True})
    asked = await in_pool(asking, asked_of_job, service, job)
    return with_marks(inputs, asked) if inputs.steps else asked


# --- as scripts ------------------------------------------------------------------------------


class ScriptParams(JobIdParams, total=False):
    """The parameters of ``jobs.script``."""

    shell: Annotated[
        bool,
        "also tell how the programs are started in folders of their inputs, as jobs.inputs tells "
        "these; default: false",
    ]


@method(server.JOBS_SCRIPT)
async def handle_jobs_script(service: JobService, params: ScriptParams) -> JobScript:
    """Write a job as a Python script that runs the same calculation with quacc alone."""
    job_id = params["job_id"]
    told = await in_pool("files", _script, service, job_id)
    shell = None
    if params.get("shell"):
        inputs = await _inputs(service, job_id)
        shell = await in_pool("files", _shell, service, job_id, inputs)
    await large.turn()
    return {"job_id": job_id, "script": told, "shell": shell, "error": None}


def _script(service: JobService, job_id: str) -> str:
    return python_script(
        service.job(job_id), service.specification(job_id), service.config.recipes_allow
    )


def _shell(service: JobService, job_id: str, inputs: Inputs) -> str | None:
    from crystalmath.preflight.programs_here import programs

    header = json.loads(service.specification(job_id).partition("\n")[0])
    environment = header.get("environment", {})
    commands = [
        next((told for each in programs() if (told := each.command(step, environment))), None)
        for step in inputs.steps
    ]
    return shell_script(
        service.job(job_id), inputs.steps, commands, service.pseudopotentials(job_id)
    )


# --- progress --------------------------------------------------------------------------------

#: Each is read from the files of its calculation.
_MOST = 200
#: With their histories.
_MOST_HISTORIES = 20


class ProgressParams(TypedDict, total=False):
    """The parameters of ``jobs.progress``."""

    job_ids: Required[Annotated[list[JobId], Limits(maxItems=_MOST)]]
    history: Annotated[
        bool,
        f"tell the ionic steps, too, the last {MOST_STEPS} of each job; of {_MOST_HISTORIES} jobs "
        "at most",
    ]


@method(server.JOBS_PROGRESS, bulk=True)
async def handle_jobs_progress(service: JobService, params: ProgressParams) -> ProgressList:
    """Return how far the calculations of jobs have come, read from what their programs write.

    ``progress`` is of the newest calculation of a job's present attempt, also after its end, and
    ``null`` where none has written anything yet that a reader knows. With ``history`` it has the
    ionic steps of all of the job's calculations, for which their files are read as a whole.
    """
    job_ids, history = params["job_ids"], params.get("history", False)
    if history and len(job_ids) > _MOST_HISTORIES:
        raise InvalidJob(
            f"the histories of {len(job_ids)} jobs were asked for at once; ask for those of "
            f"{_MOST_HISTORIES} at most"
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
    start: Annotated[_Place, "from this frame on; negative: counted from the end; default: 0"]
    stop: Annotated[_Place, "before this frame; negative: counted from the end; default: to it"]
    stride: Annotated[int, Limits(minimum=1, maximum=2**53), "each so many-th; default: 1"]
    dtype: Annotated[
        Literal["float32", "float64"],
        "of positions, forces and moments; default: float32, as viewers draw them",
    ]


@method(server.JOBS_TRAJECTORY, bulk=True)
async def handle_jobs_trajectory(service: JobService, params: TrajectoryParams) -> Trajectory:
    """Return geometries, energies and forces that a job's calculation has written, frame by frame.

    They are read from ASE's trajectories, vasprun.xml and the output of pw.x of the job's present
    attempt, also while it runs: ``start`` -1 is its present geometry. Where more was asked for than
    16 MiB, ``next`` says where to go on.
    """
    return await in_slices("files", job_answers.trajectory(service, params))


# --- the story -------------------------------------------------------------------------------


@method(server.JOBS_SHOW, pool="files")
def handle_jobs_show(service: JobService, params: JobIdParams) -> Story:
    """Return a job's whole story: what it came of and what came of it, its attempts and events.

    ``jobs.files`` lists what it has written, ``jobs.logs`` reads it.
    """
    return job_answers.story(service, params["job_id"])
