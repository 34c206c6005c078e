"""The results of a look at a job: actions for its owner, and changes for service and store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models import JobState


@frozen(kw_only=True)
class Change:
    """One change of a job's state."""

    job_id: str
    state: JobState
    #: When the change was seen, in seconds since the epoch.
    at: float
    #: Why, in words; the reason goes into the event log.
    reason: str | None = None
    attempt: int | None = None
    error: str | None = None
    traceback: str | None = None
    #: The summary of a completed job (``energy_ev`` in eV, ``max_force_ev_ang`` in eV/Å, ...).
    summary: Mapping[str, Any] | None = None
    #: When the recipe began, in seconds since the epoch.
    started_at: float | None = None
    #: When the attempt ended, in seconds since the epoch; ``None`` if only `at` is known.
    finished_at: float | None = None
    #: Whether a pass of a flow has ended: it waits for its steps, or for its end.
    waits: bool = False


#: Called with each batch of changes; it must return quickly.
Listener: TypeAlias = "Callable[[Sequence[Change]], None]"


@frozen
class WriteSpec:
    """Write the specification again, or for the next attempt."""

    attempt: int


@frozen
class WriteCancel:
    """Write a request to stop the job."""


@frozen(kw_only=True)
class Publish:
    """Publish the end of the attempt."""

    state: str
    error: str
    #: Claim the attempt first, and leave it alone if another process was quicker.
    unbegun: bool = False
    #: Whether a cancel came in time for a lost attempt.
    cancelled: bool = False
    #: Whether the outcome replaces a damaged one.
    replace: bool = False


@frozen
class NoteEnd:
    """Note beside an attempt's outcome that the engine vouches for its end.

    If another attempt would end in the same way, the job fails with `error`.
    """

    attempt: int
    error: str | None = None


@frozen
class EndProcesses:
    """End every process of an attempt; further actions wait until none is left."""

    attempt: int


@frozen
class Launch:
    """Hand the attempt to the engine again: it was lost before it began."""

    #: How often in a row an allocation of the attempt has ended by now.
    ends: int = 0


@frozen
class Release:
    """Have the engine drop the attempt."""


@frozen
class Hold:
    """Stop following a flow whose pass has ended, until the next pass."""


@frozen
class LetGo:
    """Stop following a job that another process owns."""


Action = (
    WriteSpec | WriteCancel | Publish | NoteEnd | EndProcesses | Launch | Release | Hold | LetGo
)
