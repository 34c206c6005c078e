"""Records jobs that have ended in another home."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.jobs.changes import Change
from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import Job, NewJob
    from crystalmath.service.recorder import Recorder


def record_rows(recorder: Recorder, ended: Sequence[tuple[Job, NewJob, str | None]]) -> None:
    """Record jobs that have ended elsewhere, with when and how they did: all, or none.

    Parameters
    ----------
    recorder : Recorder
        The record of this home.
    ended : sequence of tuple
        Each job as it was on record there, its row, and its traceback.
    """
    recorder.insert_ended([(_row(job, row), _end(job, trace)) for job, row, trace in ended])


def _row(job: Job, row: NewJob) -> NewJob:
    # Whether a directory is "gone" is looked for, and never on record.
    if job.removed not in {"heavy", "all"} or job.removed_at is None:
        return row
    return evolve(row, removed=job.removed, removed_at=job.removed_at)


def _end(job: Job, trace: str | None) -> Change:
    return Change(
        job_id=job.job_id,
        state=job.state,
        at=_ended_at(job),
        reason=job.reason,
        attempt=job.attempt,
        error=job.error,
        traceback=trace,
        summary=job.summary,
        started_at=job.started_at,
    )


def _ended_at(job: Job) -> float:
    return job.created_at if job.finished_at is None else job.finished_at


def complete_directory(directory: RunDirectory, job: Job, row: NewJob, trace: str | None) -> None:
    """Make the run directory of a job that has ended elsewhere say what is on record.

    Rows are made again from run directories, and a job without an outcome is one to be run. The
    outcome of a job that has completed is the same already.

    Parameters
    ----------
    directory : RunDirectory
        What has come of its files.
    job, row, trace : Job, NewJob, str
        As for :func:`record_rows`.
    """
    if job.state is not JobState.COMPLETED:
        end = {
            "state": job.state.value,
            "error": job.error,
            "traceback": trace,
            "started": job.started_at,
            "finished": _ended_at(job),
            "summary": None,
        }
        directory.replace_outcome(job.attempt, end)
    header, _, body = row.specification.partition("\n")
    more = {"attempt": job.attempt, "owner": {}, "created_at": job.created_at}
    spec = {**json.loads(header), **more}
    directory.write_spec(spec, body)
