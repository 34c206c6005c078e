"""The records of the job store beside its jobs (:class:`~crystalmath.models.Job`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.models import Job

if TYPE_CHECKING:
    from crystalmath.models import JobState

#: The promised name (:mod:`crystalmath.quacc.store`) of the one record of a job.
JobMetadata = Job


@frozen(kw_only=True)
class Event:
    """One line of the event log. ``seq`` grows; equal states mark a note, not a change."""

    seq: int
    job_id: str
    at: float
    from_state: JobState | None
    to_state: JobState
    reason: str | None


@frozen(kw_only=True)
class ErrorCount:
    """How many jobs failed with errors that have this in common, and the newest few of them."""

    error: str
    count: int
    job_ids: tuple[str, ...]


@frozen(kw_only=True)
class Failure:
    """A job that failed, when (in seconds since the epoch), and its whole error."""

    job_id: str
    name: str | None
    recipe: str
    finished_at: float | None
    error: str | None
