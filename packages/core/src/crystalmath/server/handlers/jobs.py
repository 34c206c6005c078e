"""The handlers of ``jobs.*``: they translate between JSON and the job service, and nothing else.

``controller`` is the :class:`~crystalmath.service.JobService`; ``None`` means that of this process.
Faults of the caller come back in the answer; only faults of the server raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict, cast, get_type_hints

from crystalmath import server
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Job, JobFilter, Submission
from crystalmath.models.columns import SORTED_BY
from crystalmath.models.fields import Limits, properties
from crystalmath.models.filters import choosing, filters_in, read_filters
from crystalmath.models.job_notes import UNFINISHED
from crystalmath.reading import job_answers
from crystalmath.reading.job_answers import in_full, job_document, job_documents
from crystalmath.recipes.structures import parse_structure as _parse_structure
from crystalmath.recipes.summary import summarize as _summarize_result
from crystalmath.running.pruning import pages
from crystalmath.server.handlers.submission import read_submission, submitted, submitting_pool
from crystalmath.server.pools import in_pool, in_slices, is_wanted
from crystalmath.server.rpc import large
from crystalmath.server.rpc.declare import (
    METHODS,
    JobIdParams,
    JobIdsParams,
    has_key,
    method,
    trouble,
)
from crystalmath.wire import messages
from crystalmath.wire.answers import (
    MOST_JOBS,
    Bytes,
    CancelledJob,
    CancelledJobs,
    Counted,
    CountedOverTime,
    Facets,
    JobDocument,
    JobIds,
    JobList,
    JobStates,
    Specification,
    SubmittedJob,
    Summary,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from crystalmath.models.filters import Selection
    from crystalmath.service import JobService

#: The names that others may import from here.
__all__ = [
    "METHODS",
    "_parse_structure",
    "_summarize_result",
    "handle_jobs_cancel",
    "handle_jobs_list",
    "handle_jobs_status",
    "handle_jobs_submit",
]

#: How often memory is read for a job while the database does not answer, in seconds.
_LOOK_S = 0.5
#: How many waiting jobs are cancelled in one transaction.
_TOGETHER = 250
#: The encoded answers about ended jobs, which clients poll, with the records that they describe.
_WRITTEN: dict[str, tuple[Job, bytes]] = {}
_MOST_WRITTEN = 1000
#: The filters of ``jobs.list`` and of all other methods that choose among jobs.
FiltersDocument: TypeAlias = Annotated[Mapping[str, Any], JobFilter]


@method(server.JOBS_SUBMIT, pool=submitting_pool, by_server=True, repeatable=has_key)
def handle_jobs_submit(
    service: JobService, params: Annotated[Mapping[str, Any], Submission]
) -> SubmittedJob:
    """Submit a job.

    The answer comes once the job is durably on record; then the engine gets it. A refused job has
    no id and ``status: "error"``, with a ``code`` and, from the preflight, ``findings``. It leaves
    nothing behind.
    """
    return submitted(service.submit(read_submission(params), wanted=is_wanted))


@method(server.JOBS_STATUS)
async def handle_jobs_status(service: JobService, params: JobIdParams) -> JobDocument:
    """Return a job's state and its whole record.

    ``result`` is the summary once the job has completed, with ``null`` for values that its result
    does not have. ``reason`` says why the job waits, if that is known.
    """
    job = service.remembered(params["job_id"])
    if job is None:
        job = await _from_database(service, params["job_id"])
    elif not service.is_there(job):
        # Threads of their own: those that read files for others may wait for the database.
        (job,) = await in_pool("looking", service.as_found, [job])
    elif job.state.is_terminal() and job.stage is None:
        return _of_ended(service, job)
    if job.stage is not None or job.waits:
        (job,) = await in_pool("asking", in_full, service, [job])
    return job_document(service, job)


def _of_ended(service: JobService, job: Job) -> JobDocument:
    """Describe an ended job that is in memory; for the wire, as text that is encoded once."""
    if large.present.get() is None:
        return job_document(service, job)
    record, text = _WRITTEN.get(job.job_id, (None, None))
    if text is None or record is not job:
        document = job_document(service, job)
        if (text := messages.short(document)) is None:
            return document
        if len(_WRITTEN) >= _MOST_WRITTEN:
            _WRITTEN.clear()
        _WRITTEN[job.job_id] = job, text
    return cast("JobDocument", messages.Raw(text))


async def _from_database(service: JobService, job_id: str) -> Job:
    """Read a job from the database, or from memory if it appears there while the database hangs."""
    asking = asyncio.ensure_future(in_pool("asking", service.job, job_id))
    try:
        while not (await asyncio.wait([asking], timeout=_LOOK_S))[0]:
            if (job := service.remembered(job_id)) is not None:
                return job
        return asking.result()
    finally:
        asking.cancel()


@method(server.JOBS_STATUS_MANY, bulk=True)
async def handle_jobs_status_many(service: JobService, params: JobIdsParams) -> JobStates:
    """Return the states of many jobs, in the order of their ids.

    An unknown id has ``{"job_id", "status": "error", "error", "code": "unknown_job"}`` in its
    place.
    """
    remembered = all(service.remembered(job_id) for job_id in params["job_ids"])
    kind = "computing" if remembered else "asking"
    documents = await in_slices(kind, job_documents(service, params["job_ids"]))
    return {"jobs": documents, "error": None}


_Successors: TypeAlias = Annotated[
    bool, "stop also all jobs that wait for these, directly or through others; default: false"
]


class CancelParams(JobIdParams, total=False):
    """The parameters of ``jobs.cancel``."""

    with_successors: _Successors


@method(server.JOBS_CANCEL, pool="cancelling", by_server=True)
def handle_jobs_cancel(service: JobService, params: CancelParams) -> CancelledJob:
    """Request that a job be stopped.

    ``cancelled`` says whether a stop was requested; it is false for a job that had ended. The state
    of the job becomes ``cancelled`` once none of its processes is alive.
    """
    job_id = params["job_id"]
    if not params.get("with_successors"):
        return {"job_id": job_id, "cancelled": service.cancel(job_id), "error": None}
    service.job(job_id)
    # Successors first: those with `on_failure` "fail" would fail when this job is cancelled.
    answers = [*_each_cancelled(service, service.successors([job_id]))]
    successors = [answer["job_id"] for answer in answers if answer["cancelled"]]
    cancelled = service.cancel(job_id)
    return {"job_id": job_id, "cancelled": cancelled, "successors": successors, "error": None}


#: The fields of jobs in lists, with those of their summaries.
_FIELDS = [
    *properties(Job),
    *(f"result.{name}" for name in get_type_hints(Summary) if name != "work_dir"),
]


class ListParams(TypedDict, total=False):
    """The parameters of ``jobs.list`` beside filters."""

    limit: Annotated[
        int, Limits(minimum=0, maximum=MOST_JOBS), "how many jobs at most; default: 100"
    ]
    cursor: Annotated[
        str, "the `cursor` of the page before, or the id of a job: list the jobs after it"
    ]
    skip: Annotated[Bytes, "how many jobs to skip after `cursor`; default: 0"]
    fields: Annotated[
        list[Annotated[str, Limits(enum=_FIELDS)]],
        Limits(minItems=1, maxItems=len(_FIELDS)),
        "only these fields of each job, and `job_id`; default: all",
    ]
    sort: Annotated[
        str,
        Limits(enum=[f"{minus}{name}" for name in SORTED_BY for minus in ("", "-")]),
        "the value to sort by, in ascending order; with a minus in descending order; jobs without "
        "it come last; default: -created_at",
    ]
    totals: Annotated[bool, "count the matching jobs of all pages; default: false"]


@method(server.JOBS_LIST, bulk=True)
async def handle_jobs_list(
    service: JobService, params: Annotated[ListParams, JobFilter]
) -> JobList:
    """List jobs, newest first.

    All filters must match. If ``cursor`` is not ``null``, there is another page: send it with the
    same filters and ``sort``. With ``fields`` an answer is much smaller.
    """
    return await in_slices("computing", job_answers.listed(service, params))


@method(server.JOBS_SUMMARY)
def handle_jobs_summary(service: JobService, params: FiltersDocument) -> Counted:
    """Count jobs by state, and failures by their error.

    Errors that differ only in paths and ids count as one. Each error names its newest few jobs. The
    most frequent errors come first.
    """
    return job_answers.summary(service, params)


class FacetsParams(TypedDict, total=False):
    """The parameters of ``jobs.facets`` beside filters."""

    limit: Annotated[
        int,
        Limits(minimum=1, maximum=1000),
        "how many values of each at most, and how many labels at most; default: 50",
    ]


@method(server.JOBS_FACETS, bulk=True)
def handle_jobs_facets(service: JobService, params: Annotated[FacetsParams, JobFilter]) -> Facets:
    """Count jobs by state, recipe, engine, cluster, element and the values of each label.

    All filters must match, as in jobs.list. A job with several elements counts for each of them.
    """
    return job_answers.facets(service, params)


class SpecificationParams(JobIdParams, total=False):
    """The parameters of ``jobs.specification``."""

    job: Annotated[bool, "include the job as jobs.status describes it; default: false"]
    progress: Annotated[
        bool, "include the progress of a job that runs or has failed; default: false"
    ]
    prefix: Annotated[bool, "`job_id` is the beginning of one job's id; default: false"]


@method(server.JOBS_SPECIFICATION, bulk=True)
async def handle_jobs_specification(
    service: JobService, params: SpecificationParams
) -> Specification:
    """Return the specification of a job.

    ``jobs.submit`` accepts it, without ``potcars`` and ``parents``. It does not contain the
    environment, nor the key, with which ``jobs.submit`` would return the same job.
    """
    job_id = params["job_id"]
    if params.get("prefix"):
        job_id = await in_pool("asking", service.find, job_id)
    work = job_answers.specification(
        service, job_id, job=params.get("job", False), progress=params.get("progress", False)
    )
    return await in_slices("files", work)


# --- many at once ----------------------------------------------------------------------------


class CancelManyParams(TypedDict, total=False):
    """The parameters of ``jobs.cancel_many`` beside filters."""

    job_ids: Annotated[JobIds, "exactly these jobs, without filters"]
    with_successors: _Successors


@method(server.JOBS_CANCEL_MANY, by_server=True)
async def handle_jobs_cancel_many(
    service: JobService, params: Annotated[CancelManyParams, JobFilter]
) -> CancelledJobs:
    """Request that jobs be stopped: those of ``job_ids``, or unfinished ones that match filters.

    One of both is required. ``error`` says why a job cannot be stopped; the others are stopped
    nevertheless. The state of a job becomes ``cancelled`` once none of its processes is alive.
    """
    job_ids = params.pop("job_ids", None)
    also = params.pop("with_successors", False)
    filters = filters_in(params)
    if job_ids is None and not choosing(params):
        raise InvalidJob("nothing says which jobs to stop; name them, or give filters")
    if job_ids is not None and filters:
        raise InvalidJob(f"'job_ids' and filters ({', '.join(filters)}) exclude each other")
    chosen = read_filters(filters)
    states = chosen.get("state", UNFINISHED)
    if all(state.is_terminal() for state in states):
        ended = " and ".join(state.value for state in states)
        raise InvalidJob(f"{ended} jobs have ended; only pending and running ones can be stopped")
    work = _cancelled(service, job_ids, chosen, with_successors=also)
    return {"jobs": await in_slices("cancelling", work), "error": None}


def _cancelled(
    service: JobService, job_ids: list[str] | None, filters: Selection, *, with_successors: bool
) -> Generator[None, None, list[CancelledJob]]:
    are_chosen = job_ids is None
    if job_ids is None:
        chosen: Selection = {"state": UNFINISHED, **filters}
        matching = (job for page in pages(service, **chosen) for job in page)
        job_ids = [job.job_id for job in matching if not job.state.is_terminal()]
    named = dict.fromkeys(job_ids)
    waiting = service.successors(job_ids) if with_successors and job_ids else []
    after: list[CancelledJob] = []
    for answer in _each_cancelled(service, [one for one in waiting if one not in named]):
        after.append(answer)
        yield
    answers: list[CancelledJob] = []
    for answer in _each_cancelled(service, [*named]):
        # A job that has ended since the filters chose it does not match them any more.
        if not are_chosen or answer["cancelled"] or "code" in answer:
            answers.append(answer)
        yield
    return answers + after


def _each_cancelled(service: JobService, job_ids: list[str]) -> Iterator[CancelledJob]:
    """Request a stop of each job in turn; waiting jobs are cancelled together."""
    for start in range(0, len(job_ids), _TOGETHER):
        some = job_ids[start : start + _TOGETHER]
        try:
            waited = service.cancel_waiting(some)
        except CrystalMathError:
            waited = set()  # cancelled alone, each raises its own error
        for job_id in some:
            answer: CancelledJob = {"job_id": job_id, "cancelled": True, "error": None}
            yield answer if job_id in waited else _cancel(service, job_id)


def _cancel(service: JobService, job_id: str) -> CancelledJob:
    try:
        requested = service.cancel(job_id)
        error = None
        if not requested:
            # Its outcome may not be on record yet.
            state = service.job(job_id).state
            ended = f"{state.ended} before" if state.is_terminal() else "has just ended"
            error = f"the job {ended}"
    except CrystalMathError as failure:
        why = trouble(failure)
        refused: CancelledJob = {"job_id": job_id, "cancelled": False, "error": why["error"]}
        refused |= {"status": "error", "code": why["code"]}
        return refused
    return {"job_id": job_id, "cancelled": requested, "error": error}


# --- counted over time -----------------------------------------------------------------------

# Later than the time of any clock; whole seconds up to it are exact.
_Time: TypeAlias = Annotated[float, Limits(minimum=0, maximum=2**40)]


class CountsParams(TypedDict, total=False):
    """The parameters of ``jobs.counts`` beside filters."""

    bucket_s: Annotated[
        float,
        Limits(minimum=1, maximum=2**40),
        "the length of a bucket in seconds; default: 3600",
    ]
    start: Annotated[
        _Time, "the earliest time, in seconds since the epoch; default: 24 buckets before `end`"
    ]
    end: Annotated[_Time, "the latest time, in seconds since the epoch; default: now"]


@method(server.JOBS_COUNTS, bulk=True)
def handle_jobs_counts(
    service: JobService, params: Annotated[CountsParams, JobFilter]
) -> CountedOverTime:
    """Count how many jobs ended in which state over time.

    Buckets begin at whole multiples of ``bucket_s`` since the epoch. All are whole, and empty ones
    are included. A job that reached a state several times, such as ``running`` after an
    attempt was lost, counts each time. All filters must match, as in jobs.list. ``state`` is the
    state, or states, that jobs reached; by default those in which a job ends.
    """
    return job_answers.counts(service, params)
