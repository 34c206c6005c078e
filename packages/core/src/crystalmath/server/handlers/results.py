"""The handlers that read what a job has written: its result, its log and its files."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated, Any, cast

from crystalmath import server
from crystalmath.errors import CrystalMathError, InvalidJob, UnknownJob
from crystalmath.jobs.worktree import as_text, files_below
from crystalmath.models.fields import Limits
from crystalmath.quacc.runner import JobState
from crystalmath.reading import job_answers
from crystalmath.reading.job_answers import PAGE
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc import large
from crystalmath.server.rpc.declare import JobIdParams, JobIdsParams, method, trouble
from crystalmath.wire import messages
from crystalmath.wire.answers import (
    Bytes,
    FilePart,
    JobFiles,
    JobParameters,
    JobResult,
    JobTable,
    ListedResult,
    LogPart,
    Name,
    ParametersList,
    ResultList,
    Timeout,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from crystalmath.jobs.worktree import WorkFile
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.recipes.stored_result import Located
    from crystalmath.service import JobService


#: How much of a file an answer has at most, in bytes.
_MOST = 16 * 2**20

#: How much of several results an answer has at most, in bytes.
_TOGETHER = 2**20


class ResultParams(JobIdParams, total=False):
    """The parameters of ``jobs.result``."""

    field: Annotated[Name, "only this part of the result: results.energy, static.0.atoms"]
    brief: Annotated[
        bool,
        "reduce a result of more than 256 KiB to what a table has of it: the scalars, final "
        "geometry and forces of its last calculation, which is `last` of a flow; default: false",
    ]


@method(server.JOBS_RESULT)
async def handle_jobs_result(service: JobService, params: ResultParams) -> JobResult:
    """Return the whole result of the recipe, as its worker wrote it.

    ``result`` is ``null`` unless the job completed. A failed job has ``error`` and ``traceback``.
    Arrays, structures and the like are in monty's form of JSON.
    """
    remembered = service.remembered(params["job_id"])
    if len(params) == 1 and remembered and remembered.state is JobState.COMPLETED:
        return await in_slices("files", _described_if_there(service, remembered))
    job = await in_pool("asking", service.job, params["job_id"])
    if job.state is JobState.COMPLETED and "field" in params:
        place = await in_pool("files", service.results.locate, job, params["field"])
        await large.turn()
        return await in_pool("files", _part, service, job, place)
    if job.state is JobState.COMPLETED and params.get("brief"):
        return await in_pool("files", _brief, service, job)
    answer = await in_slices("files", _described(service, job))
    if job.traceback:
        answer["traceback"] = job.traceback
    return answer


def _described_if_there(service: JobService, job: JobMetadata) -> Generator[None, None, JobResult]:
    (job,) = service.as_found([job])
    return (yield from _described(service, job))


def _part(service: JobService, job: JobMetadata, place: Located) -> JobResult:
    return _answered(job, messages.Raw(service.results.part(job, place)))


def _brief(service: JobService, job: JobMetadata) -> JobResult:
    text, is_whole = service.results.brief(job)
    answer = _answered(job, messages.Raw(text))
    # Clients cut the result from the end of the answer.
    return answer if is_whole else {"brief": True, **answer}


def _answered(job: JobMetadata, result: messages.Raw | messages.Stream | None) -> JobResult:
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "error": job.error,
        "result": result,
    }


@method(server.JOBS_RESULTS, bulk=True)
async def handle_jobs_results(service: JobService, params: JobIdsParams) -> ResultList:
    """Return the results of many jobs, as many of the first ones as fit together.

    ``results`` has for each id in turn the answer of jobs.result, without a traceback, or an error.
    It ends before more than 1 MiB would be sent; ``more`` counts the rest. Ask again for these. If
    not even the first fits, ask jobs.result for it.
    """
    texts = await in_slices("files", _all_results(service, params["job_ids"]))
    more = len(params["job_ids"]) - len(texts)
    return {
        "results": cast("list[ListedResult]", texts),
        "more": more,
        "error": None,
    }


def _all_results(
    service: JobService, job_ids: list[str]
) -> Generator[None, None, list[messages.Raw]]:
    texts: list[messages.Raw] = []
    left = _TOGETHER
    for start in range(0, len(job_ids), PAGE):
        page = job_ids[start : start + PAGE]
        jobs = {job.job_id: job for job in service.some_jobs(page)}
        for job_id in page:
            text = yield from _written(service, job_id, jobs.get(job_id))
            if text is None or len(text) > left:
                return texts
            left -= len(text)
            texts.append(messages.Raw(text))
            yield
    return texts


@method(server.JOBS_PARAMETERS, bulk=True)
async def handle_jobs_parameters(service: JobService, params: JobIdsParams) -> ParametersList:
    """Return the recipes' parameters of many jobs, as many of the first ones as fit together.

    ``parameters`` has at least one entry, and ends before more than 1 MiB would be sent. Ask again
    for the rest.
    """
    texts = await in_slices("files", _all_parameters(service, params["job_ids"]))
    return {"parameters": cast("list[JobParameters]", texts), "error": None}


def _all_parameters(
    service: JobService, job_ids: list[str]
) -> Generator[None, None, list[messages.Raw]]:
    texts: list[messages.Raw] = []
    left = _TOGETHER
    for job_id in job_ids:
        try:
            encoded = json.loads(service.specification(job_id).partition("\n")[2])
            entry: JobParameters = {
                "job_id": job_id,
                "params": encoded["parameters"],
                "error": None,
            }
        except CrystalMathError as error:
            entry = {"job_id": job_id, "params": None, **trouble(error)}
        text = messages.dumps(entry)
        if texts and len(text) > left:
            return texts
        left -= len(text)
        texts.append(messages.Raw(text))
        yield
    return texts


class TableParams(JobIdsParams, total=False):
    """The parameters of ``jobs.table``."""

    columns: Annotated[
        list[Name], Limits(minItems=1, maxItems=1000), "only these; default: all but geometries"
    ]


@method(server.JOBS_TABLE, bulk=True)
async def handle_jobs_table(service: JobService, params: TableParams) -> JobTable:
    """Return jobs as rows of a table, as ``crystalmath export`` writes it, in the order of ids.

    The columns are those of the record, ``labels_NAME``, ``params.NAME``, the scalars of a result
    by its own names (``results.gibbs_energy``) and ``volume_ang3``. If ``columns`` names them, also
    ``cell_ang``, ``pbc``, ``numbers`` and ``positions_ang``. ``rows`` has at least one row, and
    ends before more than 1 MiB would be sent; ask again for the rest. ``unreadable`` names jobs
    with damaged results.
    """
    from crystalmath.reading.table_rows import table

    job_ids, columns = params["job_ids"], params.get("columns")
    texts, unreadable = await in_slices("computing", table(service, job_ids, columns, _TOGETHER))
    rows = cast("list[Mapping[str, Any]]", [messages.Raw(text) for text in texts])
    more = len(job_ids) - len(texts)
    return {"rows": rows, "more": more, "unreadable": unreadable, "error": None}


def _written(
    service: JobService, job_id: str, job: JobMetadata | None
) -> Generator[None, None, bytes | None]:
    """Encode one of many results; ``None`` if it must be sent alone."""
    try:
        if job is None:
            raise UnknownJob(job_id)
        answer = yield from _described(service, job)
    except CrystalMathError as error:
        why = trouble(error)
        answer = {"job_id": job_id, "status": "error", "error": why["error"], "result": None}
        answer["code"] = why["code"]
    return None if isinstance(answer["result"], messages.Stream) else messages.dumps(answer)


def _described(service: JobService, job: JobMetadata) -> Generator[None, None, JobResult]:
    """Return a result as it is stored: the server does not decode it, nor keep 20 MB in memory."""
    if job.state is not JobState.COMPLETED:
        return _answered(job, None)
    # Most results are small; their files are opened once.
    if (text := service.results.small(job, messages.CHUNK)) is not None:
        return _answered(job, messages.Raw(text))
    size, chunks = (yield from service.results.measured(job)), service.results.chunks(job)
    is_large = size > messages.CHUNK
    return _answered(
        job, messages.Stream(size, chunks) if is_large else messages.Raw(b"".join(chunks))
    )


class LogsParams(JobIdParams, total=False):
    """The parameters of ``jobs.logs``."""

    file: Annotated[
        Name,
        "a file below the work directory, by its name or the end of its path, compressed or not "
        "(OUTCAR finds relax/OUTCAR.gz); default: the job's log",
    ]
    tail: Annotated[Bytes, "how many of the last lines to read"]
    offset: Annotated[Bytes, "the number of bytes to skip; default: 0"]
    max_bytes: Annotated[
        int,
        Limits(minimum=4, maximum=_MOST),
        f"how many bytes at most; default: {job_answers.USUAL_BYTES}",
    ]
    timeout_s: Timeout


@method(server.JOBS_LOGS)
async def handle_jobs_logs(service: JobService, params: LogsParams) -> LogPart:
    """Read a job's log, or another of its files: all of it, its last lines, or its new part.

    If several files have the name, the newest is read; ``others`` names the rest. If there is
    nothing new, wait up to ``timeout_s`` for it. To follow a file, call again with ``offset`` until
    ``finished``. A change of ``file`` means that the job has begun another attempt, with a log that
    begins at 0.
    """
    if "tail" in params and "offset" in params:
        raise InvalidJob("'tail' and 'offset' exclude each other")
    end = time.monotonic() + params.get("timeout_s", 0)
    snapshot = None
    while True:
        before, snapshot = (
            snapshot,
            await in_slices(
                "files", job_answers.look_at_file(service, params, again=snapshot is not None)
            ),
        )
        if snapshot != before:
            await large.turn()
            answer = await in_slices("files", job_answers.read_file(service, snapshot, params))
        left = end - time.monotonic()
        if answer["text"] or answer["finished"] or left <= 0:
            return answer
        large.rest()
        await asyncio.sleep(min(job_answers.LOOK_S, left))


# --- files -----------------------------------------------------------------------------------


class FileParams(JobIdParams, total=False):
    """The parameters of ``jobs.file``."""

    file: Annotated[Name, "as that of jobs.logs; default: the job's log"]
    offset: Annotated[Bytes, "the number of bytes to skip; default: 0"]
    max_bytes: Annotated[
        int,
        Limits(minimum=1, maximum=_MOST),
        f"how many bytes at most; default: {job_answers.USUAL_BYTES}",
    ]
    sha256: Annotated[bool, "also return the checksum of the file up to the end of these bytes"]


@method(server.JOBS_FILE, bulk=True)
async def handle_jobs_file(service: JobService, params: FileParams) -> FilePart:
    """Return bytes of one of a job's files as they are stored, a compressed one compressed.

    The file is found as by ``jobs.logs``, never outside the job's work directory. To read all of
    it, call again with ``offset`` until that is ``size``. With ``sha256`` in the last call, the
    answer has the checksum of all that was read.
    """
    return await in_slices("files", job_answers.file_part(service, params))


#: How many files an answer lists at most.
_MOST_FILES = 10_000


class FilesParams(JobIdParams, total=False):
    """The parameters of ``jobs.files``."""

    attempt: Annotated[int, Limits(minimum=1), "which attempt; default: the present one"]


@method(server.JOBS_FILES, bulk=True)
async def handle_jobs_files(service: JobService, params: FilesParams) -> JobFiles:
    """List the files of a job's work directory by their paths, with sizes and times.

    ``jobs.logs`` reads one. Links are listed, and not followed.
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
    files: list[WorkFile] = []
    count = 0
    with service.files(job_id) as directory:
        work_dir = directory.work(number)
        for count, file in enumerate(files_below(work_dir), 1):
            files.append(file)
            if len(files) == 2 * _MOST_FILES:
                files = _first(files)
            if count % PAGE == 0:
                yield
    return {
        "job_id": job_id,
        "attempt": number,
        "work_dir": work_dir,
        "files": [
            {
                "file": as_text(file.path),
                "size": file.size,
                "modified_at": file.modified_at,
                "is_link": file.is_link,
            }
            for file in _first(files)
        ],
        "more": max(0, count - _MOST_FILES),
        "error": None,
    }


def _first(files: list[WorkFile]) -> list[WorkFile]:
    return sorted(files, key=lambda file: file.path)[:_MOST_FILES]
