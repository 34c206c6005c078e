"""What the owner of a job is told to do; see :mod:`crystalmath.jobs.life`."""

from __future__ import annotations

from attrs import frozen


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
