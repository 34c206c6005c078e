"""What an engine runner tells the job service, and the service the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models import JobState


@frozen(kw_only=True)
class Change:
    """One change of a job's state.

    Parameters
    ----------
    job_id : str
        The job.
    state : JobState
        The new state.
    at : float
        When it was seen, in seconds since the epoch.
    reason : str, optional
        Why, in words; it goes into the event log.
    attempt : int, optional
        The number of the attempt.
    error, traceback : str, optional
        Of a job that failed.
    summary : mapping, optional
        Of a job that completed (``energy_ev`` in eV, ``max_force_ev_ang`` in eV/Å, ...).
    started_at : float, optional
        When the recipe began, in seconds since the epoch.
    """

    job_id: str
    state: JobState
    at: float
    reason: str | None = None
    attempt: int | None = None
    error: str | None = None
    traceback: str | None = None
    summary: Mapping[str, Any] | None = None
    started_at: float | None = None


#: What is told of each batch of changes; it must return quickly.
Listener: TypeAlias = "Callable[[Sequence[Change]], None]"
