"""How jobs and events look in JSON: one shape for all methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState

if TYPE_CHECKING:
    from crystalmath.quacc.store import Event, JobMetadata
    from crystalmath.service import JobService

__all__ = ["EVENT_SIZE", "JOB_SIZE", "PAGE", "event_document", "job_document"]

#: What the document of a job, and of an event, takes in memory about, in bytes.
JOB_SIZE = 4000
EVENT_SIZE = 500

#: So many jobs are described before others have a turn.
PAGE = 200

#: What stands in a job's summary, `null` where a result does not have it.
_SUMMARY = ("energy_ev", "max_force_ev_ang", "formula", "work_dir")


def job_document(service: JobService, job: JobMetadata) -> dict[str, Any]:
    """Describe a job.

    Parameters
    ----------
    service : JobService
        Whose job it is; it knows where its files are.
    job : JobMetadata
        The job.
    """
    summary = None
    if job.state is JobState.COMPLETED:
        summary = {**dict.fromkeys(_SUMMARY), **(job.summary or {})}
    directory = RunDirectory(service.config.jobs_directory / job.job_id)
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "error": job.error,
        "result": summary,
        "reason": job.reason,
        "recipe": job.recipe,
        "engine": job.engine,
        "cluster": job.cluster,
        "name": job.name,
        "labels": dict(job.labels),
        "key": job.key,
        "attempt": job.attempt,
        "revision": job.revision,
        "formula": job.formula,
        "walltime_s": job.walltime_s,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "cancel_requested_at": job.cancel_requested_at,
        "warnings": list(job.warnings),
        "work_dir": directory.work(job.attempt),
        "log": directory.log(job.attempt),
    }


def event_document(event: Event) -> dict[str, Any]:
    """Describe one line of the event log."""
    return {
        "seq": event.seq,
        "job_id": event.job_id,
        "at": event.at,
        "from": None if event.from_state is None else event.from_state.value,
        "to": event.to_state.value,
        "reason": event.reason,
    }
