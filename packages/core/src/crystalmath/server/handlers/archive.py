"""The handlers with which jobs travel between homes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Required, TypedDict

from crystalmath.errors import InvalidJob
from crystalmath.models.answers import ArchiveAnswer, ImportAnswer, JobIds
from crystalmath.models.filters import FilterParams
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method, once
from crystalmath.service.job_answers import read_filters
from crystalmath.service.pruning import pages

if TYPE_CHECKING:
    from collections.abc import Generator

    from crystalmath.service import JobService


class ArchiveParams(TypedDict, total=False):
    """The parameters of ``jobs.archive``."""

    file: Required[Annotated[str, "the whole path of the archive, which is made"]]
    job_ids: Annotated[JobIds, "these jobs"]
    filters: Annotated[
        FilterParams, "in place of ids, the filters of jobs.list; of jobs that have ended"
    ]


@method(
    "jobs.archive",
    refused={"jobs": 0, "files": 0, "left_out": []},
    repeatable=once,  # the file would be in the way of itself
)
async def handle_jobs_archive(service: JobService, params: ArchiveParams) -> ArchiveAnswer:
    """Write jobs that have ended into a file that another home takes in (``jobs.import``).

    Record, results and files are in it; POTCARs and environments never are.
    """
    path = _path(service, params["file"])
    job_ids, filters = params.get("job_ids"), params.get("filters")
    return await in_slices("files", _archived(service, path, job_ids, filters))


def _archived(
    service: JobService, path: Path, job_ids: list[str] | None, filters: FilterParams | None
) -> Generator[None, None, ArchiveAnswer]:
    from crystalmath.service.job_archive import write_archive

    if (job_ids is None) == (filters is None):
        raise InvalidJob("say which jobs: either 'job_ids' or 'filters'")
    if job_ids is None:
        found = pages(service, **read_filters(filters or {}))
        job_ids = [job.job_id for page in found for job in page if job.state.is_terminal()]
    if not job_ids:
        raise InvalidJob("there is no job that has ended and fits the filters; nothing was written")
    written = yield from write_archive(service, path, list(dict.fromkeys(job_ids)))
    return {
        "jobs": len(set(job_ids)),
        "files": written.files,
        "left_out": list(written.left_out),
        "error": None,
    }


class ImportParams(TypedDict):
    """The parameters of ``jobs.import``."""

    file: Annotated[str, "the whole path of the archive"]


@method(
    "jobs.import",
    refused={"job_ids": [], "known": []},
)
async def handle_jobs_import(service: JobService, params: ImportParams) -> ImportAnswer:
    """Take in the jobs of an archive that another home has written (``jobs.archive``).

    All of them, or, where anything in it is not as it should be, none.
    """
    from crystalmath.service.archive_import import import_archive

    taken = await in_slices("files", import_archive(service, _path(service, params["file"])))
    return {"job_ids": list(taken.job_ids), "known": list(taken.known), "error": None}


def _path(service: JobService, file: str) -> Path:
    if service.config.restricted is not None:
        raise InvalidJob("this home is restricted, and reads and writes no files that are named")
    path = Path(file)
    if not path.is_absolute():
        raise InvalidJob(f"{file!r:.200} is no whole path; write it from the root on")
    return path
