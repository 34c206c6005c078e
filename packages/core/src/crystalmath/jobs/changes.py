"""What follows from a look at a job: actions for its owner, and changes for service and store."""

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


@frozen
class WriteSpec:
    """Write the specification again, or for the next attempt."""

    attempt: int


@frozen
class WriteCancel:
    """Write down that somebody asked that the job be stopped."""


@frozen(kw_only=True)
class Publish:
    """Publish the end of the attempt.

    Parameters
    ----------
    state, error : str
        The outcome.
    unbegun : bool
        Claim the attempt first, and leave it alone if somebody was quicker.
    cancelled : bool
        Of a lost attempt: a cancel came in time.
    replace : bool
        In the place of an outcome that is damaged.
    """

    state: str
    error: str
    unbegun: bool = False
    cancelled: bool = False
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
    """Hand the attempt to the engine again: it was lost before it began.

    Parameters
    ----------
    ends : int
        How often in a row an allocation of it has ended by now.
    """

    ends: int = 0


@frozen
class Release:
    """Have the engine drop the attempt."""


@frozen
class LetGo:
    """Follow the job no more: another process owns it."""


Action = WriteSpec | WriteCancel | Publish | NoteEnd | EndProcesses | Launch | Release | LetGo
