"""How jobs and events look in JSON: one shape for all methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.jobs.moved import move_of
from crystalmath.jobs.rundir import RunDirectory

if TYPE_CHECKING:
    from crystalmath.models import answers
    from crystalmath.models.answers import JobDocument
    from crystalmath.quacc.store import Event, JobMetadata
    from crystalmath.service import JobService

#: What the document of a job, and of an event, takes in memory about, in bytes.
JOB_SIZE = 4000
EVENT_SIZE = 500

#: So many jobs are described before others have a turn.
PAGE = 200


def job_document(service: JobService, job: JobMetadata) -> JobDocument:
    """Describe a job.

    Parameters
    ----------
    service : JobService
        Whose job it is; it knows where its files are.
    job : JobMetadata
        The job.
    """
    directory = RunDirectory(service.config.jobs_directory / job.job_id)
    work_dir, log = Path(directory.work(job.attempt)), Path(directory.log(job.attempt))
    now = service.waiting_for_room(job)
    document = evolve(now, work_dir=work_dir, log=log).document()
    written = job.summary.get("work_dir") if job.summary else None
    if document["result"] and (move := move_of(written, directory.path)):
        document["result"]["work_dir"] = move.path(str(written))
    return document


def event_document(
    service: JobService, event: Event, job: JobMetadata | None = None
) -> answers.Event:
    """Describe one line of the event log, and its job where that is wanted."""
    told: answers.Event = {
        "seq": event.seq,
        "job_id": event.job_id,
        "at": event.at,
        "from": None if event.from_state is None else event.from_state.value,
        "to": event.to_state.value,
        "reason": event.reason,
    }
    if job is not None:
        told["job"] = job_document(service, job)
    return told
