"""The handler that lists a job's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from crystalmath.errors import InvalidJob
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import as_text, files_below
from crystalmath.models.answers import JobFiles
from crystalmath.models.fields import Limits
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import JobIdParams, method
from crystalmath.service.job_answers import PAGE

if TYPE_CHECKING:
    from collections.abc import Generator

    from crystalmath.jobs.worktree import WorkFile
    from crystalmath.service import JobService

#: So many files are named.
_MOST = 10_000


class FilesParams(JobIdParams, total=False):
    """The parameters of ``jobs.files``."""

    attempt: Annotated[int, Limits(minimum=1), "of this attempt; default: the present one"]


@method(
    "jobs.files",
    refused={"attempt": None, "work_dir": None, "files": [], "more": 0},
    bulk=True,
)
async def handle_jobs_files(service: JobService, params: FilesParams) -> JobFiles:
    """List the files of a job's work directory with their sizes and times, by their paths.

    ``jobs.logs`` reads one. Links are named, and not followed.
    """
    return await in_slices("files", _listed(service, **params))


def _listed(
    service: JobService, job_id: str, attempt: int | None = None
) -> Generator[None, None, JobFiles]:
    job = service.job_with_files(job_id)
    if attempt is not None and attempt > job.attempt:
        had = f"{job.attempt} attempt{'s' if job.attempt > 1 else ''}"
        raise InvalidJob(f"job {job_id} has had {had}, there is no attempt {attempt} to list")
    number = attempt or job.attempt
    work_dir = Path(RunDirectory(service.config.jobs_directory / job_id).work(number))
    found: list[WorkFile] = []
    count = 0
    for count, file in enumerate(files_below(str(work_dir)), 1):
        found.append(file)
        if len(found) == 2 * _MOST:
            found = _first(found)
        if count % PAGE == 0:
            yield
    return {
        "job_id": job_id,
        "attempt": number,
        "work_dir": str(work_dir),
        "files": [
            {
                "file": as_text(file.path),
                "size": file.size,
                "modified_at": file.modified_at,
                "is_link": file.is_link,
            }
            for file in _first(found)
        ],
        "more": max(0, count - _MOST),
        "error": None,
    }


def _first(files: list[WorkFile]) -> list[WorkFile]:
    return sorted(files, key=lambda file: file.path)[:_MOST]
