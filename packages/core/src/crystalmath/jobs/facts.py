"""The facts of a job: on record, from its run directory, and from its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import field, frozen

from crystalmath.config import LEASE_S
from crystalmath.models import Capabilities, JobState, Sighting

if TYPE_CHECKING:
    from collections.abc import Mapping

#: If most hosts are silent, their file system is out. Attempts are lost after this many leases.
OUTAGE_LEASES = 3


@frozen
class Absent:
    """The file does not exist, and its directory can be read."""


@frozen
class Damaged:
    """The file exists, and its content is not ours."""

    why: str


@frozen
class Unreadable:
    """A file that cannot be read just now; this says nothing about the job."""

    why: str


@frozen
class Spec:
    """The content of ``spec``."""

    #: The attempt that may be claimed.
    attempt: int
    #: The capabilities of the engine that a process without the engine needs.
    capabilities: Capabilities = field(factory=Capabilities)
    #: Whether another process owns the job.
    foreign: bool = False
    #: The attempt with which the present pass of a flow began.
    pass_from: int | None = None


@frozen(kw_only=True)
class Silence:
    """How long a heart on another host has not been seen to beat, by the reader's clock."""

    for_s: float
    lease_s: float
    #: How many hosts are listened to; 0 if this heart has beaten within half of its lease.
    hosts: int = 0
    #: On how many of them no heart has beaten for half of the lease; 0 likewise.
    silent_hosts: int = 0

    @property
    def is_outage(self) -> bool:
        """Return whether several hosts fell silent at once, and most that are listened to."""
        return self.silent_hosts > 1 and 2 * self.silent_hosts > self.hosts


@frozen
class Claim:
    """The claimant of an attempt, in words, and whether it is alive; ``None`` if that is unknown.

    `silence` is set if only the heart can show whether the process lives. `own` claims are those of
    an owner that ends an attempt unbegun. `boot_id` names the boot of the claimant's host.
    """

    who: str
    alive: bool | None = None
    silence: Silence | None = None
    own: bool = False
    boot_id: str | None = None

    def is_lease_over(self) -> bool:
        """Return whether the claimant has been silent for so long that its attempt is lost.

        The claimant has ended its processes by then: it does so after half of its lease.
        """
        silence = self.silence
        if silence is None:
            return False
        return silence.for_s >= silence.lease_s * (OUTAGE_LEASES if silence.is_outage else 1)

    def waits_for(self) -> str | None:
        """Return what a job waits for if its claimant has been silent for half of its lease."""
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
        """Return words for the claimant's silence, with its name."""
        return f"nothing was heard of its supervisor ({self.who})"


@frozen(kw_only=True)
class Outcome:
    """The head of an outcome; see :class:`~crystalmath.jobs.changes.Change`."""

    state: str
    error: str | None = None
    traceback: str | None = None
    summary: Mapping[str, Any] | None = None
    started: float | None = None
    finished: float | None = None
    #: The file of an earlier attempt from whose geometry it began.
    begun_from: str | None = None
    #: Whether a cancel came in time for a lost attempt, decided once and for all.
    cancelled: bool = False

    @property
    def was_stopped(self) -> bool:
        """Whether the attempt was stopped, and may still be queued, or alive on other hosts."""
        return self.state in {"cancelled", "lost"}


@frozen
class Ended:
    """The engine's report, noted beside the outcome, that nothing is left of a stopped attempt.

    `error` is set if another attempt would end in the same way.
    """

    error: str | None = None


_T = TypeVar("_T")
#: The result of reading a file of the run directory.
Reading: TypeAlias = _T | Absent | Damaged | Unreadable


@frozen(kw_only=True)
class Files:
    """The present content of the run directory, as far as it was read."""

    #: The attempt of this claim and outcome: a later one than on record, if ``spec`` names one.
    attempt: int
    claim: Reading[Claim] = field(factory=Absent)
    outcome: Reading[Outcome] = field(factory=Absent)
    #: Read for a stopped attempt.
    ended: Reading[Ended] = field(factory=Absent)
    #: ``None`` if it was not read.
    spec: Reading[Spec] | None = None
    #: Whether a cancel was requested; ``None`` if that was not checked.
    cancel: bool | Unreadable | None = None
    #: The fault of the directory itself, if it has one.
    directory: Absent | Unreadable | None = None
    #: Whether the attempt runs although its claim is unclear: its lock is held, or this host has
    #: processes of it.
    processes: bool | None = None
    #: In seconds. A supervisor checks its claim at each heartbeat, so no host runs the attempt this
    #: long after its claim was damaged or removed.
    lease_s: float = LEASE_S


@frozen
class Moment:
    """A moment in seconds since the epoch, for people, and by the monotonic clock."""

    at: float
    clock: float


@frozen
class Doubt:
    """An observation that counts only after several looks, `since` by the monotonic clock."""

    what: str
    since: float
    looks: int = 1


@frozen(kw_only=True)
class Record:
    """The owner's memory of a job, or the store's record of it."""

    job_id: str
    place: str
    state: JobState = JobState.PENDING
    attempt: int = 1
    #: Whether a cancel was requested.
    cancelled: bool = False
    #: Whether the run directory is known to have existed.
    written: bool = False
    #: Whether the engine was asked to take the attempt; it may have done so without an answer.
    offered: bool = False
    #: Whether the engine has taken the attempt.
    launched: bool = False
    #: Whether a previous owner may have handed the attempt to the engine.
    inherited: bool = False
    #: Whether the engine is to drop the attempt.
    released: bool = False
    #: Whether the engine has agreed to drop the attempt.
    dropped: bool = False
    #: How often the engine has lost the attempt before it began.
    relaunches: int = 0
    #: How often in a row an allocation has ended without having begun the attempt.
    ends: int = 0
    #: Since when the engine has lost the attempt, by `Moment.clock`.
    lost_since: float | None = None
    #: Whether the job is a flow whose steps are jobs; each attempt is a pass of its body.
    is_flow: bool = False
    #: The attempt with which the present pass of a flow began.
    pass_from: int | None = None
    #: The doubt that :func:`crystalmath.jobs.life.step` returned for the next look.
    doubt: Doubt | None = None


@frozen
class Engine:
    """The engine's report of the attempt, and its capabilities.

    Unless `reachable`, no process here can ask the engine.
    """

    sighting: Sighting | None = None
    capabilities: Capabilities = field(factory=Capabilities)
    reachable: bool = True

    @property
    def is_gone(self) -> bool:
        """Whether the engine will not start the attempt any more."""
        return self.sighting is not None and self.sighting.state == "gone"

    @property
    def is_over(self) -> bool:
        """Whether the engine vouches that nothing of the attempt is alive."""
        seen = self.sighting is not None and not self.sighting.unseen
        return self.is_gone and seen and self.capabilities.gone_means_dead

    def has_rebooted(self, claim: Claim) -> bool:
        """Return whether the host of a claimant has booted since, by the engine's word."""
        boot_id = self.sighting.boot_id if self.sighting is not None else None
        other = None not in {boot_id, claim.boot_id} and boot_id != claim.boot_id
        return other and self.is_gone and self.capabilities.gone_means_dead

    @property
    def is_fatal(self) -> bool:
        """Whether the attempt is over for a reason that another attempt would meet, too."""
        return self.is_over and self.sighting is not None and self.sighting.fatal

    def end_reason(self) -> str:
        """Return why the engine has ended the attempt."""
        reason = (self.sighting.reason if self.sighting else None) or "it is gone"
        return f"the engine ended it: {reason}"

    @property
    def vouches_for_end(self) -> bool:
        """Whether an attempt without claim or processes on this host has no process anywhere.

        If the engine has lost sight of a host, there is no heart to wait for.
        """
        can = self.capabilities
        return (can.workers_here and self.reachable) or (can.gone_means_dead and self.is_gone)
