"""What is known of a job: on record, from its run directory, and from its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import field, frozen

from crystalmath.config import LEASE_S
from crystalmath.models import Capabilities, JobState, Sighting

if TYPE_CHECKING:
    from collections.abc import Mapping


@frozen
class Absent:
    """There is no such file, in a directory that can be read."""


@frozen
class Damaged:
    """The file is there, and its content is none of ours."""

    why: str


@frozen
class Unreadable:
    """It cannot be told just now whether there is such a file. That says nothing about the job."""

    why: str


@frozen
class Spec:
    """What ``spec`` says.

    Parameters
    ----------
    attempt : int
        The attempt that may be claimed.
    capabilities : Capabilities
        What its engine can do, as far as those have to know who cannot ask it.
    foreign : bool
        Whether another process owns the job.
    """

    attempt: int
    capabilities: Capabilities = field(factory=Capabilities)
    foreign: bool = False


@frozen(kw_only=True)
class Silence:
    """For how long a heart on another host has not been seen to beat, by the clock of who looks.

    Parameters
    ----------
    for_s, lease_s : float
        That time, and the lease, in seconds.
    hosts, silent_hosts : int
        How many hosts are listened to, and on how many of them no heart has beaten for half of the
        lease. Both are 0 where this one has.
    """

    for_s: float
    lease_s: float
    hosts: int = 0
    silent_hosts: int = 0


@frozen
class Claim:
    """Who claimed an attempt, in words, and whether it is alive; ``None`` if nobody can tell.

    `silence` is there of a process that only its heart tells of for sure.
    """

    who: str
    alive: bool | None = None
    silence: Silence | None = None


@frozen(kw_only=True)
class Outcome:
    """The head of an outcome; see :class:`~crystalmath.jobs.changes.Change`."""

    state: str
    error: str | None = None
    traceback: str | None = None
    summary: Mapping[str, Any] | None = None
    started: float | None = None
    #: The file of an earlier attempt from whose geometry it began.
    begun_from: str | None = None
    #: Of a lost attempt: whether a cancel came in time, decided once and for all.
    cancelled: bool = False

    @property
    def was_stopped(self) -> bool:
        """Whether it ended something that may be queued still, or alive on other hosts."""
        return self.state in {"cancelled", "lost"}


@frozen
class Ended:
    """The engine's word, noted beside the outcome, that nothing is left of a stopped attempt.

    `error` is there where another attempt would end in the same way.
    """

    error: str | None = None


_T = TypeVar("_T")
#: A file of the run directory, as it was found.
Reading: TypeAlias = _T | Absent | Damaged | Unreadable


@frozen(kw_only=True)
class Files:
    """What the run directory says now. What was not looked at says nothing.

    Parameters
    ----------
    attempt : int
        The attempt whose claim and outcome these are: the one that ``spec`` names, if it was read
        and names a later one than is on record.
    claim, outcome, ended
        The files of the attempt; `ended` is read of one that was stopped.
    spec : optional
        The specification; ``None`` if it was not looked at.
    cancel : bool or Unreadable, optional
        Whether somebody asked that the job be stopped; ``None`` if it was not looked at.
    directory : Absent or Unreadable, optional
        What is the matter with the directory itself, if anything.
    processes : bool, optional
        Whether somebody runs the attempt, where the claim does not tell: its lock is held, or
        processes of the attempt are alive on this host.
    lease_s : float
        So long after its claim was damaged or removed nobody runs an attempt on any host, in
        seconds: a supervisor looks at its claim when its heart beats.
    """

    attempt: int
    claim: Reading[Claim] = field(factory=Absent)
    outcome: Reading[Outcome] = field(factory=Absent)
    ended: Reading[Ended] = field(factory=Absent)
    spec: Reading[Spec] | None = None
    cancel: bool | Unreadable | None = None
    directory: Absent | Unreadable | None = None
    processes: bool | None = None
    lease_s: float = LEASE_S


@frozen
class Moment:
    """A moment: in seconds since the epoch, for people, and by the clock that nobody sets."""

    at: float
    clock: float


@frozen
class Doubt:
    """Something that is believed only once it was seen several times, `since` by that clock."""

    what: str
    since: float
    looks: int = 1


@frozen(kw_only=True)
class Record:
    """What its owner remembers of a job, or what the store has on record of it.

    Parameters
    ----------
    job_id, place : str
        The job and its run directory.
    state, attempt : JobState, int
        As they were told last.
    cancelled : bool
        Somebody asked that it be stopped.
    written : bool
        Its run directory is known to have been there.
    offered : bool
        The engine was asked to take the attempt, and may have done so without saying so.
    launched, inherited : bool
        The engine was given the attempt; by another process, if anybody did.
    released, dropped : bool
        The engine is to drop the attempt; it was told to.
    relaunches, lost_since : int, float, optional
        How often the engine has lost the attempt before it began, and since when by that clock.
    ends : int
        How often in a row an allocation of the attempt has ended without having begun it.
    doubt : Doubt, optional
        What :func:`step` remembered for the next look.
    """

    job_id: str
    place: str
    state: JobState = JobState.PENDING
    attempt: int = 1
    cancelled: bool = False
    written: bool = False
    offered: bool = False
    launched: bool = False
    inherited: bool = False
    released: bool = False
    dropped: bool = False
    relaunches: int = 0
    ends: int = 0
    lost_since: float | None = None
    doubt: Doubt | None = None


@frozen
class Engine:
    """What the engine says of the attempt, and what it can do at all.

    Unless it is `asked`, nobody can ask it here, or tell it anything.
    """

    sighting: Sighting | None = None
    capabilities: Capabilities = field(factory=Capabilities)
    asked: bool = True
