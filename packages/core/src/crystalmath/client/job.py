"""A job as its record shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["JobInfo"]


@frozen(kw_only=True)
class JobInfo:
    """A job as it was when the client asked.

    Parameters
    ----------
    job_id : str
        A UUID4 as text.
    state : JobState
        Its state.
    error : str, optional
        Why it failed.
    summary : mapping, optional
        ``energy_ev`` (eV), ``max_force_ev_ang`` (eV/Å), ``formula``, ``work_dir``, once it has
        completed.
    reason : str, optional
        Why it is in its state and what it waits for, in the engine's own words where it has any.
    recipe, engine, cluster : str
        What runs, and where.
    name : str, optional
        The user's name for it.
    labels : mapping of str to str
        The user's labels.
    key : str, optional
        The idempotency key it was submitted with.
    attempt, revision : int
        The number of the present attempt; how often the record has changed.
    formula : str, optional
        Of the structure that goes in.
    walltime_s : float, optional
        How long it may run, in seconds.
    created_at, started_at, finished_at, cancel_requested_at : float, optional
        Seconds since the epoch. ``started_at`` is that of the present attempt.
    warnings : sequence of mapping
        Findings of the preflight.
    work_dir, log : pathlib.Path, optional
        The working directory and the log of the present attempt; they may not exist yet.
    """

    job_id: str
    state: JobState
    error: str | None = None
    summary: Mapping[str, Any] | None = None
    reason: str | None = None
    recipe: str
    engine: str
    cluster: str
    name: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    key: str | None = None
    attempt: int = 1
    revision: int = 0
    formula: str | None = None
    walltime_s: float | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    cancel_requested_at: float | None = None
    warnings: Sequence[Mapping[str, Any]] = ()
    work_dir: Path | None = None
    log: Path | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> JobInfo:
        """Make it of a job as the answers of ``jobs.*`` describe it."""
        given = {name: document[name] for name in _SAME if document.get(name) is not None}
        given |= {name: Path(document[name]) for name in _PATHS if document.get(name)}
        return cls(state=JobState(document["status"]), summary=document.get("result"), **given)

    def document(self) -> dict[str, Any]:
        """Describe it as the answers of ``jobs.*`` do."""
        first = {"job_id": self.job_id, "status": self.state.value, "error": self.error}
        same = {name: getattr(self, name) for name in _SAME}
        paths = {name: str(getattr(self, name)) for name in _PATHS}
        return {**first, "result": self.summary, **same, **paths}


_PATHS = ("work_dir", "log")
_RENAMED = ("state", "summary")
_SAME = tuple(
    attribute.name
    for attribute in JobInfo.__attrs_attrs__
    if attribute.name not in {*_PATHS, *_RENAMED}
)
