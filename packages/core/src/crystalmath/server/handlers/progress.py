"""The handler that tells how far calculations have come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.engines.registry import plugins
from crystalmath.errors import UnknownJob
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Progress
from crystalmath.models.fields import array, nullable, properties, to_wire
from crystalmath.progress.search import read_progress
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method, trouble
from crystalmath.server.rpc.shapes import ERROR, JOB_ID, STATE, record

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from crystalmath.service import JobService

__all__ = ["handle_jobs_progress"]

#: Each is read from the files of its calculation.
_MOST = 200
_PROGRESS = nullable(record(properties(Progress, answer=True)))


@method(
    "jobs.progress",
    params={"job_ids": array(JOB_ID, maxItems=_MOST)},
    required=("job_ids",),
    result=record(
        {
            "jobs": array(
                record(
                    {
                        "job_id": JOB_ID,
                        "status": {"type": "string", "enum": [*STATE["enum"], "error"]},
                        "error": ERROR,
                        "progress": _PROGRESS,
                    },
                    {"code": {"type": "string"}},
                )
            ),
            "error": ERROR,
        }
    ),
    refused={"jobs": []},
    answer_size=lambda _: _MOST * 1000,
)
async def handle_jobs_progress(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Tell how far the calculations of jobs have come, read from what their programs write.

    ``progress`` is of the newest calculation of a job's present attempt, also after its end, and
    ``null`` where none has written anything yet that a reader knows.
    """
    return {"jobs": await in_slices("files", _all(service, params["job_ids"])), "error": None}


def _all(service: JobService, job_ids: list[str]) -> Generator[None, None, list[dict[str, Any]]]:
    readers = plugins().progress_readers()
    jobs = {job.job_id: job for job in service.some_jobs(job_ids)}
    answers: list[dict[str, Any]] = []
    for job_id in job_ids:
        if (job := jobs.get(job_id)) is None:
            told = {"status": "error", **trouble(UnknownJob(job_id)), "progress": None}
            answers.append({"job_id": job_id, **told})
            continue
        work = RunDirectory(service.config.jobs_directory / job_id).work(job.attempt)
        read = yield from read_progress(Path(work), readers)
        answers.append(
            {
                "job_id": job_id,
                "status": job.state.value,
                "error": job.error,
                "progress": None if read is None else to_wire(read),
            }
        )
    return answers
