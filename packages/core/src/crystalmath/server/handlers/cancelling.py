"""The handler that stops many jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models.answers import CancelledJob, CancelledJobs, JobIds
from crystalmath.models.filters import FilterParams
from crystalmath.models.job_notes import UNFINISHED
from crystalmath.server.handlers.jobs import filters_in
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method, trouble
from crystalmath.service.job_answers import read_filters
from crystalmath.service.pruning import pages

if TYPE_CHECKING:
    from collections.abc import Generator

    from crystalmath.models.filters import Selection
    from crystalmath.service import JobService


class CancelManyParams(FilterParams, total=False):
    """The parameters of ``jobs.cancel_many``."""

    job_ids: Annotated[JobIds, "exactly these jobs, without filters"]


@method(
    "jobs.cancel_many",
    refused={"jobs": []},
    bulk=True,
    by_server=True,
)
async def handle_jobs_cancel_many(service: JobService, params: CancelManyParams) -> CancelledJobs:
    """Request that jobs be stopped: those that are named, or all unfinished ones that fit filters.

    Something must say which jobs are meant. ``error`` tells of each why it cannot be stopped; what
    is wrong with one hinders no other. A job reads ``cancelled`` once no process of it is alive.
    """
    job_ids = params.pop("job_ids", None)
    filters = filters_in(params)
    if job_ids is None and not filters:
        raise InvalidJob("nothing says which jobs are to be stopped; name them, or give filters")
    if job_ids is not None and filters:
        given = ", ".join(filters)
        raise InvalidJob(f"jobs are named, or chosen by {given}; leave out one of both")
    chosen = read_filters(filters)
    states = chosen.get("state", UNFINISHED)
    if all(state.is_terminal() for state in states):
        ended = " and ".join(state.value for state in states)
        raise InvalidJob(f"{ended} jobs have ended; only pending and running ones can be stopped")
    work = _cancelled(service, job_ids, chosen)
    return {"jobs": await in_slices("cancelling", work), "error": None}


def _cancelled(
    service: JobService, job_ids: list[str] | None, filters: Selection
) -> Generator[None, None, list[CancelledJob]]:
    are_chosen = job_ids is None
    if job_ids is None:
        chosen: Selection = {"state": UNFINISHED, **filters}
        found = pages(service, **chosen)
        job_ids = [job.job_id for page in found for job in page if not job.state.is_terminal()]
    answers: list[CancelledJob] = []
    for job_id in dict.fromkeys(job_ids):
        answer = _cancel(service, job_id)
        # One that was chosen, and has ended since, is not among those that are meant any more.
        if not are_chosen or answer["cancelled"] or "code" in answer:
            answers.append(answer)
        yield
    return answers


def _cancel(service: JobService, job_id: str) -> CancelledJob:
    try:
        requested = service.cancel(job_id)
        error = None
        if not requested:
            # Its outcome may not be on record yet.
            state = service.job(job_id).state
            told = f"{state.ended} before" if state.is_terminal() else "has just ended"
            error = f"the job {told}"
    except CrystalMathError as failure:
        return {"job_id": job_id, "status": "error", "cancelled": False, **trouble(failure)}
    return {"job_id": job_id, "cancelled": requested, "error": error}
