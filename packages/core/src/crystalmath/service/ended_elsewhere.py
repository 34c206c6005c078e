"""Records jobs that have ended in another home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob
from crystalmath.jobs.changes import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models import Job, NewJob
    from crystalmath.quacc.store import JobStore

__all__ = ["record_rows"]


def record_rows(store: JobStore, ended: Sequence[tuple[Job, NewJob, str | None]]) -> None:
    """Record jobs that have ended elsewhere, with when and how they did."""
    answers = store.insert_each([row for _, row, _ in ended])
    changes = []
    for (job, _, trace), answer in zip(ended, answers, strict=True):
        if isinstance(answer, InvalidJob):
            raise answer
        changes.append(
            Change(
                job_id=job.job_id,
                state=job.state,
                at=job.finished_at or job.created_at,
                reason=job.reason,
                attempt=job.attempt,
                error=job.error,
                traceback=trace,
                summary=job.summary,
                started_at=job.started_at,
            )
        )
    store.apply(changes)
    for job, _, _ in ended:
        if job.removed in {"heavy", "all"} and job.removed_at is not None:
            told = "removed before it was archived"
            store.note_removed([job.job_id], job.removed, told, job.removed_at)
