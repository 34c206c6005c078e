"""The handlers of ``jobs.*``: they translate between JSON and the job service, and nothing else.

``controller`` is the :class:`~crystalmath.service.JobService`; ``None`` means this process's own.
What a caller did wrong comes back in the answer; only a fault of ours raises.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, cast

from crystalmath.errors import UnknownJob
from crystalmath.models import Job, JobFilter
from crystalmath.models.answers import (
    MOST_JOBS,
    CancelledJob,
    Counted,
    JobDocument,
    JobList,
    JobStates,
    Specification,
    SubmittedJob,
)
from crystalmath.models.fields import Limits, declared
from crystalmath.models.filters import SORTED_BY, FilterParams
from crystalmath.models.submission import SubmitParams
from crystalmath.recipes.structures import parse_structure as _parse_structure
from crystalmath.recipes.summary import summarize as _summarize_result
from crystalmath.server.handlers.submission import read_submission, submitted, submitting_pool
from crystalmath.server.pools import in_pool, in_slices, is_wanted
from crystalmath.server.rpc.declare import (
    METHODS,
    JobIdParams,
    JobIdsParams,
    has_key,
    method,
    trouble,
)
from crystalmath.service import job_answers
from crystalmath.service.job_answers import PAGE, job_document

if TYPE_CHECKING:
    from collections.abc import Generator

    from crystalmath.service import JobService

__all__ = [
    "FILTERS",
    "METHODS",
    "_parse_structure",
    "_summarize_result",
    "filters_in",
    "handle_jobs_cancel",
    "handle_jobs_list",
    "handle_jobs_specification",
    "handle_jobs_status",
    "handle_jobs_status_many",
    "handle_jobs_submit",
    "handle_jobs_summary",
]

#: How often is looked whether an answer of the database is to be had in memory, in seconds.
_LOOK_S = 0.5
#: Which jobs, for ``jobs.list`` and all others that choose among them.
FILTERS = frozenset(one.name for one in declared(JobFilter))


@method(
    "jobs.submit",
    refused={"job_id": None},
    pool=submitting_pool,
    by_server=True,
    repeatable=has_key,
)
def handle_jobs_submit(service: JobService, params: SubmitParams) -> SubmittedJob:
    """Submit a job.

    It is on record, durably, when the answer comes; the engine is told of it afterwards. A job that
    is refused has no id and ``status: "error"``, with a ``code`` and, from the preflight,
    ``findings``. Nothing of it is left behind.
    """
    return submitted(service.submit(read_submission(params), wanted=is_wanted))


@method(
    "jobs.status",
    refused={"result": None},
)
async def handle_jobs_status(service: JobService, params: JobIdParams) -> JobDocument:
    """Tell a job's state, and all that is recorded of it.

    ``result`` is the summary once the job has completed, ``null`` in it for what the result does
    not have; ``reason`` tells what a job waits for, where that is known.
    """
    job = service.remembered(params["job_id"])
    if job is None:
        job = await _asked(service, params["job_id"])
    elif job.state.is_terminal():
        # Not in the threads that read files for others, which wait for the database, too.
        (job,) = await in_pool("looking", service.as_found, [job])
    return job_document(service, job)


async def _asked(service: JobService, job_id: str) -> Job:
    """Ask the database for a job; take it from memory where that turns out to be locked."""
    asking = asyncio.ensure_future(in_pool("asking", service.job, job_id))
    try:
        while not (await asyncio.wait([asking], timeout=_LOOK_S))[0]:
            if (job := service.remembered(job_id)) is not None:
                return job
        return asking.result()
    finally:
        asking.cancel()


@method(
    "jobs.status_many",
    refused={"jobs": []},
    bulk=True,
)
async def handle_jobs_status_many(service: JobService, params: JobIdsParams) -> JobStates:
    """Return the states of many jobs, in the order of their ids.

    An unknown id is answered in its place by ``{"job_id", "status": "error", "error", "code":
    "unknown_job"}``.
    """
    remembered = all(service.remembered(job_id) for job_id in params["job_ids"])
    kind = "computing" if remembered else "asking"
    documents = await in_slices(kind, _documents(service, params["job_ids"]))
    return {"jobs": documents, "error": None}


def _documents(service: JobService, job_ids: list[str]) -> Generator[None, None, list[JobDocument]]:
    answers: list[JobDocument] = []
    for start in range(0, len(job_ids), PAGE):
        page = job_ids[start : start + PAGE]
        found = {job.job_id: job for job in service.some_jobs(page)}
        for job_id in page:
            if job_id in found:
                answers.append(job_document(service, found[job_id]))
            else:
                told = trouble(UnknownJob(job_id))
                answers.append({"job_id": job_id, "status": "error", **told, "result": None})
        yield
    return answers


@method(
    "jobs.cancel",
    refused={"cancelled": False},
    pool="cancelling",
    by_server=True,
)
def handle_jobs_cancel(service: JobService, params: JobIdParams) -> CancelledJob:
    """Request that a job be stopped.

    ``cancelled`` tells whether that was requested; it is false for a job that had ended. The job
    reads ``cancelled`` once none of its processes is alive.
    """
    job_id = params["job_id"]
    return {"job_id": job_id, "cancelled": service.cancel(job_id), "error": None}


class ListParams(FilterParams, total=False):
    """The parameters of ``jobs.list``."""

    limit: Annotated[
        int, Limits(minimum=0, maximum=MOST_JOBS), "no more than so many; default: 100"
    ]
    cursor: Annotated[str, "the `cursor` of the page before"]
    sort: Annotated[
        str,
        Limits(enum=[f"{minus}{name}" for name in SORTED_BY for minus in ("", "-")]),
        "by this from the smallest, with a minus from the largest; jobs without it come last; "
        "default: -created_at",
    ]
    totals: Annotated[bool, "count all that match, also on other pages; default: false"]


@method(
    "jobs.list",
    refused={"jobs": [], "cursor": None, "totals": None},
    bulk=True,
)
async def handle_jobs_list(service: JobService, params: ListParams) -> JobList:
    """List jobs, newest first.

    All filters must agree. There is another page where ``cursor`` is not ``null``; it is asked for
    with the same filters and ``sort``.
    """
    return await in_slices("computing", job_answers.listed(service, params))


@method(
    "jobs.summary",
    refused={"states": {}, "errors": []},
)
def handle_jobs_summary(service: JobService, params: FilterParams) -> Counted:
    """Count jobs by state, and failures by their error.

    Errors that differ in paths and ids only are one. Of each error the newest few jobs are named.
    The most frequent errors come first.
    """
    return job_answers.summary(service, params)


class SpecificationParams(JobIdParams, total=False):
    """The parameters of ``jobs.specification``."""

    job: Annotated[bool, "give the job itself, too; default: false"]
    progress: Annotated[bool, "tell how far a job that runs or failed has come; default: false"]
    prefix: Annotated[bool, "`job_id` is how the id of one job begins; default: false"]


@method(
    "jobs.specification",
    refused={
        **dict.fromkeys(job_answers.SPECIFIED),
        "potcars": [],
        "parents": [],
    },
    bulk=True,
)
async def handle_jobs_specification(
    service: JobService, params: SpecificationParams
) -> Specification:
    """Return what a job was asked to do.

    ``jobs.submit`` takes it again, without ``potcars`` and ``parents``. The environment is left
    out, and so is the key, which would give the same job.
    """
    job_id = params["job_id"]
    if params.get("prefix"):
        job_id = await in_pool("asking", service.find, job_id)
    told = job_answers.specification(
        service, job_id, job=params.get("job", False), progress=params.get("progress", False)
    )
    return await in_slices("files", told)


def filters_in(params: FilterParams) -> FilterParams:
    """Return the filters among parameters; an empty filter chooses no job, never all."""
    items = params.items()
    found = {name: value for name, value in items if name in FILTERS and value not in ("", [], {})}
    return cast("FilterParams", found)
