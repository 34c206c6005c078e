"""What the job store keeps of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import JobState

__all__ = ["ErrorCount", "Event", "JobMetadata", "NewJob"]


@frozen(kw_only=True)
class NewJob:
    """What is recorded of a job when it is submitted.

    Parameters
    ----------
    job_id : str
        A UUID4 as text.
    recipe, engine, cluster : str
        What runs, and where.
    spec_hash : str
        Tells two specifications apart.
    specification : str
        The whole encoded specification; a crash can be repaired from it.
    created_at : float
        Seconds since the epoch.
    name : str, optional
        The user's name for it.
    labels : mapping of str to str
        The user's labels.
    key : str, optional
        The caller's idempotency key.
    walltime_s : float, optional
        How long it may run, in seconds.
    formula : str, optional
        Of the structure that goes in.
    attempt : int
        The number of the first attempt.
    owner : mapping
        The process whose job it is: ``host``, ``boot_id``, ``pid``, ``start_time``.
    warnings : sequence of mapping
        Findings of the preflight that travel with the job.
    pseudopotentials : sequence of mapping
        The files that it was found to read (:class:`~crystalmath.models.Pseudopotential`).
    """

    job_id: str
    recipe: str
    engine: str
    cluster: str = "local"
    spec_hash: str
    specification: str = field(repr=False)
    created_at: float
    name: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    key: str | None = None
    walltime_s: float | None = None
    formula: str | None = None
    attempt: int = 1
    owner: Mapping[str, Any] = field(factory=dict)
    warnings: Sequence[Mapping[str, Any]] = ()
    pseudopotentials: Sequence[Mapping[str, Any]] = ()


@frozen(kw_only=True)
class JobMetadata:
    """A job as the store knows it; see :class:`NewJob` for what was given at submission.

    Parameters
    ----------
    state : JobState
        Its present state.
    revision : int
        Grows with each change of the record.
    attempt : int
        The number of the present attempt.
    created_at, started_at, finished_at, cancel_requested_at : float, optional
        Seconds since the epoch. ``started_at`` is that of the present attempt.
    error, traceback : str, optional
        Why it failed.
    summary : mapping, optional
        ``energy_ev`` (eV), ``max_force_ev_ang`` (eV/Å), ``formula``, ``work_dir`` and more.
    warnings : list of dict
        Findings of the preflight.
    reason : str, optional
        Why it is in its state and what it waits for, in the engine's own words where it has any.
    """

    job_id: str
    recipe: str
    engine: str
    cluster: str
    name: str | None
    labels: Mapping[str, str]
    key: str | None
    spec_hash: str
    state: JobState
    revision: int
    attempt: int
    walltime_s: float | None
    formula: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    cancel_requested_at: float | None
    owner: Mapping[str, Any]
    error: str | None
    traceback: str | None = field(repr=False)
    summary: Mapping[str, Any] | None
    warnings: list[dict[str, Any]]
    reason: str | None


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
