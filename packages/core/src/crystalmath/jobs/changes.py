"""What follows from a look at a job: actions for its owner, and changes for service and store."""

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
    #: Of a completed job (``energy_ev`` in eV, ``max_force_ev_ang`` in eV/Å, ...).
    summary: Mapping[str, Any] | None = None
    #: When the recipe began, in seconds since the epoch.
    started_at: float | None = None
    #: When the attempt ended, in seconds since the epoch; ``None`` where only `at` is known.
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
    """Write a request that the job be stopped."""


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

    `error` is there where another attempt would end in the same way: the job fails with it.
    """

    attempt: int
    error: str | None = None


@frozen
class EndProcesses:
    """End every process of an attempt; what follows waits until none is left."""

    attempt: int


@frozen
class Launch:
    """Hand the attempt to the engine again: it was lost before it began."""

    #: How often in a row an allocation of the attempt has ended by now.
    ends: int = 0


@frozen
class Release:
    """Tell the engine to drop the attempt."""


@frozen
class Hold:
    """Follow a flow no more: its pass has ended, and nothing of it runs until the next one."""


@frozen
class LetGo:
    """Follow the job no more: another process owns it."""


Action = (
    WriteSpec | WriteCancel | Publish | NoteEnd | EndProcesses | Launch | Release | Hold | LetGo
)
