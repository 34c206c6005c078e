"""The handlers about what jobs take on the disk, that throw it away, and with which jobs travel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Required, TypedDict, TypeVar, cast

from attrs import asdict

from crystalmath import server
from crystalmath.errors import InvalidJob
from crystalmath.models.fields import Limits
from crystalmath.models.filters import JobFilter, all_filters, filters_in, read_filters
from crystalmath.reading.job_answers import PAGE
from crystalmath.running.pruning import Choice, Pruned, Usage, measure, pages
from crystalmath.server.handlers.jobs import FiltersDocument
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method, once, trouble
from crystalmath.wire import answers
from crystalmath.wire.answers import MOST_JOBS, ArchivedJobs, Count, ImportedJobs, JobIds

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from crystalmath.jobs.removal import Use
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService


_Group = TypeVar("_Group")
#: So many groups are told, the largest.
_MOST = 1000


@method(server.JOBS_USAGE)
async def handle_jobs_usage(service: JobService, params: FiltersDocument) -> answers.Usage:
    """Measure what the run directories of jobs take: of all, by state, by recipe and by label.

    All filters must agree, as in jobs.list. Of recipes and labels the 1000 largest are told, the
    largest first. It looks at every file, which takes a second for some ten thousand.
    """
    usage: Usage = await in_slices("files", measure(service, **all_filters(params)))
    return {
        "total": _used(usage.total),
        "states": [{"state": state, **_used(use)} for state, use in _largest(usage.states)],
        "recipes": [{"recipe": recipe, **_used(use)} for recipe, use in _largest(usage.recipes)],
        "labels": [
            {"label": label, "value": value, **_used(use)}
            for (label, value), use in _largest(usage.labels)
        ],
        "error": None,
    }


def _used(use: Use) -> answers.Used:
    return cast("answers.Used", asdict(use))


def _largest(uses: Mapping[_Group, Use]) -> list[tuple[_Group, Use]]:
    return sorted(uses.items(), key=lambda item: (-item[1].size, str(item[0])))[:_MOST]


class PruneParams(TypedDict, total=False):
    """The parameters of ``jobs.prune`` beside filters."""

    job_ids: Annotated[JobIds, "of exactly these jobs, without filters"]
    older_s: Annotated[float, Limits(minimum=0), "only of jobs that ended longer ago, in seconds"]
    larger: Annotated[Count, "only of jobs of which more would be removed, in bytes"]
    keep_results: Annotated[
        bool,
        "only the heavy files: wave functions, charge densities, copies of POTCARs; default: false",
    ]
    dry_run: Annotated[bool, "remove nothing; default: false"]
    limit: Annotated[
        int, Limits(minimum=1, maximum=MOST_JOBS), "of no more jobs than so many; default: 1000"
    ]
    cursor: Annotated[str, "the `cursor` of the answer before"]


@method(server.JOBS_PRUNE, by_server=True)
async def handle_jobs_prune(
    service: JobService, params: Annotated[PruneParams, JobFilter]
) -> answers.Pruned:
    """Throw away the run directories of jobs that have ended, or only what is large in them.

    Rows, keys and summaries stay, and say what was removed when. Nothing of a job that has not
    ended is removed, nor what an unfinished job is to read. Something must say which jobs are
    meant: ``job_ids``, or filters, an age or a size, which must all agree. With ``dry_run`` it
    only tells. Where ``cursor`` is not ``null``, ask again with it for the rest.
    """
    filters = filters_in(params)
    for wider in ("steps", "all_tries"):  # their files are always among those that are meant
        filters.pop(wider, None)
    choice = Choice(
        job_ids=params.get("job_ids"),
        older_s=params.get("older_s"),
        larger=params.get("larger"),
        keep_results=params.get("keep_results", False),
        filters=all_filters(filters),
    )
    work = service.prune(
        choice,
        dry_run=params.get("dry_run", False),
        limit=params.get("limit", 1000),
        cursor=params.get("cursor"),
    )
    pruned: Pruned = await in_slices("files", work)
    return {
        "jobs": [
            _pruned(job, use.heavy_size if choice.keep_results else use.size)
            for job, use in pruned.jobs
        ],
        "left": [{"job_id": job_id, **trouble(error)} for job_id, error in pruned.left],
        "cursor": pruned.cursor,
        "error": None,
    }


def _pruned(job: JobMetadata, size: int) -> answers.PrunedJob:
    return {
        "job_id": job.job_id,
        "name": job.name,
        "status": job.state.value,
        "recipe": job.recipe,
        "finished_at": job.finished_at,
        "size": size,
    }


# --- travelling ------------------------------------------------------------------------------


class ArchiveParams(TypedDict, total=False):
    """The parameters of ``jobs.archive``."""

    file: Required[Annotated[str, "the whole path of the archive, which is made"]]
    job_ids: Annotated[JobIds, "these jobs"]
    filters: Annotated[
        FiltersDocument, "in place of ids, the filters of jobs.list; of jobs that have ended"
    ]


@method(
    server.JOBS_ARCHIVE,
    repeatable=once,  # the file would be in the way of itself
)
async def handle_jobs_archive(service: JobService, params: ArchiveParams) -> ArchivedJobs:
    """Write jobs that have ended into a file that another home takes in (``jobs.import``).

    Record, results and files are in it, of a flow those of its ended steps, too; POTCARs and
    environments never are.
    """
    path = _path(service, params["file"])
    job_ids, filters = params.get("job_ids"), params.get("filters")
    return await in_slices("files", _archived(service, path, job_ids, filters))


def _archived(
    service: JobService, path: Path, job_ids: list[str] | None, filters: Mapping[str, Any] | None
) -> Generator[None, None, ArchivedJobs]:
    from crystalmath.archive.writing import write_archive

    if (job_ids is None) == (filters is None):
        raise InvalidJob("say which jobs: either 'job_ids' or 'filters'")
    if job_ids is None:
        found = pages(service, **read_filters(filters or {}))
        job_ids = [job.job_id for page in found for job in page if job.state.is_terminal()]
    job_ids = [*job_ids, *_steps_of(service, job_ids)]
    if not job_ids:
        raise InvalidJob("there is no job that has ended and fits the filters; nothing was written")
    written = yield from write_archive(service, path, list(dict.fromkeys(job_ids)))
    return {
        "jobs": len(set(job_ids)),
        "files": written.files,
        "left_out": list(written.left_out),
        "error": None,
    }


def _steps_of(service: JobService, job_ids: list[str]) -> Iterator[str]:
    """Go through the steps of those of some jobs that are flows; one may be run again just now."""
    flows = [job.job_id for job in service.some_jobs(job_ids) if job.stage is not None]
    for start in range(0, len(flows), PAGE):
        for page in pages(service, parent=flows[start : start + PAGE]):
            yield from (job.job_id for job in page if job.state.is_terminal())


class ImportParams(TypedDict):
    """The parameters of ``jobs.import``."""

    file: Annotated[str, "the whole path of the archive"]


@method(server.JOBS_IMPORT)
async def handle_jobs_import(service: JobService, params: ImportParams) -> ImportedJobs:
    """Take in the jobs of an archive that another home has written (``jobs.archive``).

    All of them, or, where anything in it is not as it should be, none.
    """
    from crystalmath.archive.importing import import_archive

    taken = await in_slices("files", import_archive(service, _path(service, params["file"])))
    return {
        "job_ids": list(taken.job_ids),
        "known": list(taken.known),
        "without_key": list(taken.without_key),
        "error": None,
    }


def _path(service: JobService, file: str) -> Path:
    if service.config.restricted is not None:
        raise InvalidJob("this home is restricted, and reads and writes no files that are named")
    path = Path(file)
    if not path.is_absolute():
        raise InvalidJob(f"{file!r:.200} is no whole path; write it from the root on")
    return path
