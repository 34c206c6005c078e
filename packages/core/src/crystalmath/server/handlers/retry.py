"""Jobs that are run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from crystalmath.errors import AlreadyRetried, InvalidJob
from crystalmath.models.answers import MOST_JOBS, JobIds, RetriedJob, RetriedJobs, SubmittedJob
from crystalmath.models.fields import from_wire
from crystalmath.models.filters import FilterParams
from crystalmath.models.job_notes import NO_RESULT
from crystalmath.models.retry import ChangeParams, Retry
from crystalmath.server.handlers.submission import answered
from crystalmath.server.pools import is_wanted
from crystalmath.server.rpc.declare import has_key, method
from crystalmath.service.job_answers import read_filters
from crystalmath.service.pruning import pages

if TYPE_CHECKING:
    from crystalmath.errors import CrystalMathError
    from crystalmath.models.filters import Selection
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService


class RetryParams(ChangeParams, total=False):
    """The parameters of ``jobs.retry``."""

    job_ids: Annotated[JobIds, "these jobs"]
    filters: Annotated[
        FilterParams,
        "in place of ids, the filters of jobs.list; those that failed or were cancelled, unless "
        "`state` says otherwise, and have not been run again yet",
    ]
    dry_run: Annotated[bool, "say what would come of it, and submit nothing; default: false"]


@method(
    "jobs.retry",
    refused={"jobs": []},
    pool="retrying",
    bulk=True,
    by_server=True,
    repeatable=lambda params: has_key(params) or params.get("dry_run") is True,
)
def handle_jobs_retry(service: JobService, params: RetryParams) -> RetriedJobs:
    """Run jobs again that have ended, each as a new job that points to the old one.

    All is as it was submitted before, the environment too, but for what is given here. Each is
    accepted or refused on its own, as by jobs.submit. In a dry run ``status`` is ``ok`` where there
    would be a job, and ``job_id`` is ``null``.
    """
    from crystalmath.recipes import codec

    dry_run = params.pop("dry_run", False)
    named, filters = params.pop("job_ids", None), params.pop("filters", None)
    if (named is None) == (filters is None):
        raise InvalidJob("say which jobs: either 'job_ids' or 'filters'")
    given = from_wire(Retry, params)
    changes = Retry(**{**given, "parameters": codec.decode_request(given.get("parameters", {}))})
    once = named is None
    if named is None:
        chosen: Selection = {"state": [*NO_RESULT], **read_filters(filters or {})}
        found = (job for page in pages(service, **chosen) for job in page)
        named = [job.job_id for job in found if not _is_of(changes, job)][::-1]
    named = list(dict.fromkeys(named))
    retried: list[RetriedJob] = []
    for start in range(0, len(named), MOST_JOBS):
        some = named[start : start + MOST_JOBS]
        before = service.retried(some) if once else {}
        # What this request has made itself, and could not tell, its key gives again.
        passed = {
            job_id: answered(AlreadyRetried.of(job.job_id, job.state.value))
            for job_id, job in before.items()
            if not _is_of(changes, job)
        }
        new = [job_id for job_id in some if job_id not in passed]
        told = service.retry(new, changes, dry_run=dry_run, once=once, wanted=is_wanted)
        jobs = {job.job_id: job for job in service.some_jobs(some)}
        for job_id, job in zip(new, told, strict=True):
            passed[job_id] = _rehearsed(job) if dry_run else answered(job)
            if not isinstance(job, Exception):  # its name and labels may be others
                jobs[job_id] = job
        retried += [_retried(job_id, jobs.get(job_id), passed[job_id]) for job_id in some]
    return {"jobs": retried, "error": None}


def _is_of(changes: Retry, job: JobMetadata) -> bool:
    """Return whether an earlier request with this key has made the job."""
    return changes.key is not None and (job.key or "").startswith(f"{changes.key}/")


def _retried(job_id: str, job: JobMetadata | None, answer: SubmittedJob) -> RetriedJob:
    name, labels = (job.name, job.labels) if job is not None else (None, {})
    return {"retry_of": job_id, "name": name, "labels": labels, **answer}


def _rehearsed(job: JobMetadata | CrystalMathError | ImportError) -> SubmittedJob:
    told = answered(job)
    return told if isinstance(job, Exception) else {**told, "job_id": None, "status": "ok"}
