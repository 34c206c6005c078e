"""A job on record is taken along the steps of its life (:func:`crystalmath.jobs.life.steps`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.jobs.documents import cleaned
from crystalmath.jobs.life import steps
from crystalmath.models import JobState

if TYPE_CHECKING:
    from crystalmath.jobs.changes import Change
    from crystalmath.store.records import JobMetadata


def follow(job: JobMetadata, change: Change) -> tuple[JobMetadata, list[dict[str, Any]]]:
    """Take a job along the steps of a change; return the job and one row of the event log for each.

    The job is the very same object where the change is no step of its life.
    """
    log = []
    if change.waits and (job.waits or (change.attempt or 0) < job.attempt):
        return job, []  # that is known
    if change.waits and not job.state.is_terminal():
        log = [event_row(job, job.state, change.at, f"pass {change.attempt} has ended")]
        attempt = change.attempt or job.attempt
        return evolve(job, attempt=attempt, stage="steps", revision=job.revision + 1), log
    if _is_note(job, change):
        noted = evolve(job, revision=job.revision + 1, reason=cleaned(change.reason))
        return noted, [event_row(job, job.state, change.at, change.reason)]
    if change.state is JobState.PENDING and change.attempt is None and change.reason is not None:
        return job, []  # a note on a waiting attempt, which was overtaken by its beginning
    for state in steps(job.state, change.state):
        last = state is change.state
        at = change.at if last or change.started_at is None else change.started_at
        log.append(event_row(job, state, at, change.reason if last else None))
        told = {**_given(change), "reason": cleaned(change.reason)} if last else {}
        job = evolve(
            job, state=state, revision=job.revision + 1, **_times(job, change, state), **told
        )
    return job, log


def _is_note(job: JobMetadata, change: Change) -> bool:
    same = change.state is job.state and change.attempt is None
    return same and change.reason is not None and not job.state.is_terminal()


def event_row(
    job: JobMetadata, to: JobState, at: float, reason: str | None, *, new: bool = False
) -> dict[str, Any]:
    """Make the row of the event log for a job that goes from its present state to another."""
    return {
        "job_id": job.job_id,
        "at": at,
        "from_state": None if new else job.state.value,
        "to_state": to.value,
        "reason": cleaned(reason),
    }


def _times(job: JobMetadata, change: Change, state: JobState) -> dict[str, Any]:
    # Of an attempt that was lost the change only says when that was found out, and a flow began
    # with its first pass, whichever one this is.
    known = [at for at in (job.started_at, change.started_at) if at is not None]
    began = min(known, default=None)
    if job.stage is None or job.started_at is None:
        if state is JobState.PENDING:
            return {"started_at": None}  # the next attempt starts at a time of its own
        if state is JobState.RUNNING and began is None:
            began = change.at
    if not state.is_terminal():
        return {"started_at": began}
    ended = change.at
    if change.finished_at is not None:
        ended = max(change.finished_at, job.created_at if began is None else began)
    return {"started_at": began, "finished_at": ended}


def _given(change: Change) -> dict[str, Any]:
    named = {
        "attempt": change.attempt,
        "error": cleaned(change.error),
        "traceback": cleaned(change.traceback),
        "summary": cleaned(change.summary),
    }
    return {name: value for name, value in named.items() if value is not None}
