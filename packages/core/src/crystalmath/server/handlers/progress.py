"""The handler that tells how far calculations have come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Required, TypedDict

from crystalmath.errors import InvalidJob
from crystalmath.models.answers import JobId, ProgressList
from crystalmath.models.fields import Limits
from crystalmath.progress.search import MOST_STEPS
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method
from crystalmath.service import job_answers

if TYPE_CHECKING:
    from crystalmath.service import JobService

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


@method(
    "jobs.progress",
    refused={"jobs": []},
    bulk=True,
)
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
