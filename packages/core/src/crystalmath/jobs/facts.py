"""What is known of a job: on record, from its run directory, and from its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import field, frozen

from crystalmath.config import LEASE_S
from crystalmath.models import Capabilities, JobState, Sighting

if TYPE_CHECKING:
    from collections.abc import Mapping

#: While most hosts are silent, it is the file system that is out: so many leases are waited for.
OUTAGE_LEASES = 3


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

    @property
    def is_outage(self) -> bool:
        """Return whether several hosts fell silent at once, and most that are listened to."""
        return self.silent_hosts > 1 and 2 * self.silent_hosts > self.hosts


@frozen
class Claim:
    """Who claimed an attempt, in words, and whether it is alive; ``None`` if nobody can tell.

    `silence` is there of a process that only its heart tells of for sure.
    """

    who: str
    alive: bool | None = None
    silence: Silence | None = None

    def is_lease_over(self) -> bool:
        """Return whether nothing was heard of the claimant for so long that it is lost.

        By then it has ended what it ran: it does that after half of its lease.
        """
        silence = self.silence
        if silence is None:
            return False
        return silence.for_s >= silence.lease_s * (OUTAGE_LEASES if silence.is_outage else 1)

    def waits_for(self) -> str | None:
        """Return what is waited for where nothing was heard of it for half of its lease."""
        silence = self.silence
        if silence is None or silence.for_s < silence.lease_s / 2 or self.is_lease_over():
            return None
        lease = f"{silence.lease_s:g} s"
        if silence.is_outage:
            return (
                "nothing is heard of most hosts at once, as if their file system were out: waiting "
                f"for up to {OUTAGE_LEASES} leases of {lease}"
            )
        return f"{self.unheard()}; it is lost when its lease of {lease} is over"

    def unheard(self) -> str:
        """Say of whom nothing is heard."""
        return f"nothing was heard of its supervisor ({self.who})"


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

    @property
    def is_gone(self) -> bool:
        """Whether the engine will not start the attempt any more."""
        return self.sighting is not None and self.sighting.state == "gone"

    @property
    def is_over(self) -> bool:
        """Whether the engine vouches that nothing of the attempt is alive."""
        seen = self.sighting is not None and not self.sighting.unseen
        return self.is_gone and seen and self.capabilities.gone_means_dead

    @property
    def is_fatal(self) -> bool:
        """Whether the attempt is over in a way that another one would meet, too."""
        return self.is_over and self.sighting is not None and self.sighting.fatal

    def told(self) -> str:
        """Return why the engine has ended the attempt."""
        reason = (self.sighting.reason if self.sighting else None) or "it is gone"
        return f"the engine ended it: {reason}"

    @property
    def vouches_for_end(self) -> bool:
        """Whether an attempt without claim, and without processes on this host, has none at all.

        There is no heart to wait for where the engine has lost sight of a host.
        """
        can = self.capabilities
        return (can.workers_here and self.asked) or (can.gone_means_dead and self.is_gone)
