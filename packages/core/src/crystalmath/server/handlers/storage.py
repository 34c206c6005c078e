"""The handlers that measure, remove, archive and import the files of jobs."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar, cast

from attrs import asdict

from crystalmath import server
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models.fields import Limits
from crystalmath.models.filters import JobFilter, all_filters, filters_in, read_filters
from crystalmath.reading.job_answers import PAGE
from crystalmath.running.pruning import Choice, Pruned, Usage, measure, pages
from crystalmath.server.handlers.jobs import FiltersDocument
from crystalmath.server.handlers.transfers import place_of
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method, trouble
from crystalmath.wire import answers
from crystalmath.wire.answers import MOST_JOBS, ArchivedJobs, Count, ImportedJobs, JobIds, Transfer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from crystalmath.jobs.removal import Use
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.running.job_packs import Packed
    from crystalmath.service import JobService


_Group = TypeVar("_Group")
#: How many groups an answer has at most, the largest.
_MOST = 1000


@method(server.JOBS_USAGE)
async def handle_jobs_usage(service: JobService, params: FiltersDocument) -> answers.Usage:
    """Measure the run directories of jobs: in total, by state, by recipe and by label.

    All filters must match, as in jobs.list. The answer has the 1000 largest recipes and labels, the
    largest first. Every file is looked at: some 10,000 in a second.
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


class UnpackParams(TypedDict, total=False):
    """The parameters of ``jobs.unpack`` beside filters."""

    job_ids: Annotated[JobIds, "exactly these jobs, without filters"]
    older_s: Annotated[float, Limits(minimum=0), "only jobs that ended longer ago, in seconds"]
    limit: Annotated[
        int, Limits(minimum=1, maximum=MOST_JOBS), "how many jobs at most; default: 1000"
    ]
    cursor: Annotated[str, "the `cursor` of the answer before"]


class PackParams(UnpackParams, total=False):
    """The parameters of ``jobs.pack`` beside filters."""

    dry_run: Annotated[bool, "change nothing; default: false"]


class PruneParams(UnpackParams, total=False):
    """The parameters of ``jobs.prune`` beside filters."""

    larger: Annotated[Count, "only jobs with more bytes to remove"]
    keep_results: Annotated[
        bool,
        "only the heavy files: wave functions, charge densities, copies of POTCARs; default: false",
    ]
    dry_run: Annotated[bool, "remove nothing; default: false"]


@method(server.JOBS_PRUNE, by_server=True)
async def handle_jobs_prune(
    service: JobService, params: Annotated[PruneParams, JobFilter]
) -> answers.Pruned:
    """Remove the run directories of jobs that have ended, or only the heavy files in them.

    Records, keys and summaries stay, and say what was removed when. Jobs that have not ended keep
    their files, and so do jobs whose files an unfinished job will read. Choose the jobs by
    ``job_ids``, or by filters, an age or a size, which must all match. With ``dry_run`` nothing is
    removed. If ``cursor`` is not ``null``, call again with it for the rest.
    """
    choice = _choice(params)
    work = service.prune(choice, dry_run=params.get("dry_run", False), **_page(params))
    pruned: Pruned = await in_slices("files", work)
    return {
        "jobs": [
            _pruned(job, use.heavy_size if choice.keep_results else use.size)
            for job, use in pruned.jobs
        ],
        "left": _left(pruned.left),
        "cursor": pruned.cursor,
        "error": None,
    }


def _choice(params: Any) -> Choice:
    filters = filters_in(params)
    for wider in ("steps", "all_tries"):  # steps and superseded jobs are always included
        filters.pop(wider, None)
    return Choice(
        job_ids=params.get("job_ids"),
        older_s=params.get("older_s"),
        larger=params.get("larger"),
        keep_results=params.get("keep_results", False),
        filters=all_filters(filters),
    )


def _page(params: Any) -> dict[str, Any]:
    return {"limit": params.get("limit", 1000), "cursor": params.get("cursor")}


def _pruned(job: JobMetadata, size: int) -> answers.PrunedJob:
    return {
        "job_id": job.job_id,
        "name": job.name,
        "status": job.state.value,
        "recipe": job.recipe,
        "finished_at": job.finished_at,
        "size": size,
    }


def _left(jobs: list[tuple[str, CrystalMathError]]) -> list[answers.LeftJob]:
    return [{"job_id": job_id, **trouble(error)} for job_id, error in jobs]


# --- packs -----------------------------------------------------------------------------------


@method(server.JOBS_PACK, by_server=True)
async def handle_jobs_pack(
    service: JobService, params: Annotated[PackParams, JobFilter]
) -> answers.PackedJobs:
    """Put the run directories of jobs that have ended into packs, files of up to 1000 jobs.

    Packed jobs answer all methods as before; those that read files beside results bring a job back
    first. Jobs that have not ended stay, and so do jobs whose files an unfinished job will read.
    Choose the jobs as for ``jobs.prune``; without a choice all are packed. If ``cursor`` is not
    ``null``, call again with it for the rest.
    """
    work = service.pack(_choice(params), dry_run=params.get("dry_run", False), **_page(params))
    return _packed(await in_slices("files", work))


@method(server.JOBS_UNPACK, by_server=True)
async def handle_jobs_unpack(
    service: JobService, params: Annotated[UnpackParams, JobFilter]
) -> answers.PackedJobs:
    """Bring the run directories of packed jobs back to their places.

    Choose the jobs as for ``jobs.pack``; without a choice all are brought back.
    """
    return _packed(await in_slices("files", service.unpack(_choice(params), **_page(params))))


def _packed(packed: Packed) -> answers.PackedJobs:
    left, cursor = _left(packed.left), packed.cursor
    return {"job_ids": packed.job_ids, "left": left, "cursor": cursor, "error": None}


# --- travelling ------------------------------------------------------------------------------


class ArchiveParams(TypedDict, total=False):
    """The parameters of ``jobs.archive``."""

    file: Annotated[
        str, "the absolute path of the archive to write; default: a file for transfers.read"
    ]
    job_ids: Annotated[JobIds, "these jobs"]
    filters: Annotated[
        FiltersDocument, "in place of ids, the filters of jobs.list, for jobs that have ended"
    ]


@method(
    server.JOBS_ARCHIVE,
    repeatable=lambda params: "file" not in params,  # a second time, it would be there already
)
async def handle_jobs_archive(service: JobService, params: ArchiveParams) -> ArchivedJobs:
    """Write jobs that have ended into an archive that another home imports (``jobs.import``).

    It has their records, results and files, and those of the ended steps of flows. It never has
    POTCARs or environments.
    """
    return await in_slices("files", _archived(service, params))


def _archived(service: JobService, params: ArchiveParams) -> Generator[None, None, ArchivedJobs]:
    from crystalmath.archive.writing import write_archive

    transfer = None if "file" in params else secrets.token_hex(16)
    path = _path(service, params.get("file"), transfer)
    job_ids, filters = params.get("job_ids"), params.get("filters")
    if (job_ids is None) == (filters is None):
        raise InvalidJob("choose jobs by either 'job_ids' or 'filters'")
    if job_ids is None:
        matching = (job for page in pages(service, **read_filters(filters or {})) for job in page)
        job_ids = [job.job_id for job in matching if job.state.is_terminal()]
    job_ids = [*job_ids, *_steps_of(service, job_ids)]
    if not job_ids:
        raise InvalidJob("no job that has ended matches the filters; nothing was written")
    written = yield from write_archive(service, path, list(dict.fromkeys(job_ids)))
    return {
        "jobs": len(set(job_ids)),
        "files": written.files,
        "left_out": list(written.left_out),
        "transfer": transfer,
        "error": None,
    }


def _steps_of(service: JobService, job_ids: list[str]) -> Iterator[str]:
    """Yield the ended steps of those jobs that are flows; a step may be running again."""
    flows = [job.job_id for job in service.some_jobs(job_ids) if job.stage is not None]
    for start in range(0, len(flows), PAGE):
        for page in pages(service, parent=flows[start : start + PAGE]):
            yield from (job.job_id for job in page if job.state.is_terminal())


class ImportParams(TypedDict, total=False):
    """The parameters of ``jobs.import``."""

    file: Annotated[str, "the absolute path of the archive"]
    transfer: Annotated[Transfer, "in place of a path, what was sent by transfers.write"]


@method(server.JOBS_IMPORT)
async def handle_jobs_import(service: JobService, params: ImportParams) -> ImportedJobs:
    """Import the jobs of an archive that another home has written (``jobs.archive``).

    All of them are imported, or none if anything in the archive is wrong.
    """
    return await in_slices("files", _imported(service, params))


def _imported(service: JobService, params: ImportParams) -> Generator[None, None, ImportedJobs]:
    from crystalmath.archive.importing import import_archive

    path = _path(service, params.get("file"), params.get("transfer"))
    imported = yield from import_archive(service, path)
    if "transfer" in params:
        path.unlink(missing_ok=True)
    return {
        "job_ids": list(imported.job_ids),
        "known": list(imported.known),
        "without_key": list(imported.without_key),
        "error": None,
    }


def _path(service: JobService, file: str | None, transfer: str | None) -> Path:
    if service.config.restricted is not None:
        raise InvalidJob("this home is restricted: it reads and writes no archives")
    if (file is None) == (transfer is None):
        raise InvalidJob("name the archive by either 'file' or 'transfer'")
    if transfer is not None:
        return place_of(service.config.home, transfer)
    path = Path(str(file))
    if not path.is_absolute():
        raise InvalidJob(f"{file!r:.200} is no absolute path; write it from the root on")
    return path
