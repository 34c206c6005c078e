"""What an engine runner remembers of each job while it lives, and how it reads its files."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from crystalmath import processes
from crystalmath.errors import BadFile
from crystalmath.jobs.changes import Change
from crystalmath.jobs.containment import end_contained
from crystalmath.jobs.identities import is_alive, own_identity
from crystalmath.jobs.outcomes import ATTEMPTS
from crystalmath.jobs.rundir import ADOPTION_LOCK, RunDirectory, attempt_id
from crystalmath.models import Attempt, JobState
from crystalmath.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models import JobSpec

__all__ = [
    "Sight",
    "Tracked",
    "is_orphan",
    "orphan_changes",
    "spec_header",
    "take_over",
]

#: How often the claim of a running job is checked against the process table, in seconds.
LIVENESS_S = 1.0
#: How long it is tried at a time to end what a lost attempt left alive, in seconds.
SWEEP_S = 5.0
#: How long another process may take over jobs before we leave it to it, in seconds.
ADOPTION_S = 1.0


def spec_header(spec: JobSpec, engine: str, owner: Identity) -> dict[str, Any]:
    """Give what stands above a specification that its owner hands to an engine."""
    return {
        "job_id": spec.job_id,
        "attempt": 1,
        "engine": engine,
        "owner": owner.as_dict(),
        "recipe": spec.recipe,
        "cluster": spec.cluster,
        "walltime_s": spec.walltime_s,
        "environment": dict(spec.environment),
        "files": dict(spec.files),
    }


@frozen
class Sight:
    """What the files of a job said at one moment."""

    claimed: bool = False
    outcome: dict[str, Any] | None = None
    removed: bool = False


@define(eq=False)
class Tracked:
    """One unfinished job that this process follows.

    Parameters
    ----------
    header, body : dict, str
        The specification.
    directory : RunDirectory
        Its files.
    state : JobState
        As last told.
    launched : bool
        Whether the engine has the present attempt.
    inherited : bool
        Whether another process launched it, if anybody did.
    adopted : bool
        Whether another process submitted the job.
    owned : bool
        Whether a new attempt may be made.
    """

    header: dict[str, Any]
    body: str
    directory: RunDirectory
    state: JobState = JobState.PENDING
    launched: bool = False
    cancelled: bool = False
    handle: str | None = None
    relaunches: int = 0
    since: float = field(factory=time.monotonic)
    checked: float = 0.0
    inherited: bool = False
    adopted: bool = False
    owned: bool = True
    heard: str | None = None  # what the engine said last

    @property
    def job_id(self) -> str:
        """The job's id."""
        job_id: str = self.header["job_id"]
        return job_id

    @property
    def number(self) -> int:
        """The number of the present attempt."""
        number: int = self.header["attempt"]
        return number

    def attempt(self) -> Attempt:
        """Give the present attempt, as the engine sees it."""
        return Attempt(
            id=attempt_id(self.job_id, self.number),
            job_id=self.job_id,
            directory=Path(self.directory.path),
            cluster=self.header["cluster"],
            walltime_s=self.header["walltime_s"],
            handle=self.handle,
        )

    def look(self) -> list[Change]:
        """Read the files; give what has changed since the last look."""
        return self.settle(self.see())

    def catch_up(self, attempt: int) -> list[Change]:
        """Tell of a new attempt that the last owner had no time to tell of."""
        if self.number <= attempt:
            return []
        return [self._to(JobState.PENDING, reason=f"attempt {self.number - 1} was lost")]

    def see(self) -> Sight:
        """Read the files, and end what a lost attempt left alive, which may take a second."""
        due = self._is_due()
        if self.state is JobState.PENDING and not self.directory.claimed(self.number):
            return Sight(removed=due and not self.directory.exists())
        outcome = self.directory.outcome(self.number)
        if outcome is None and due:
            if not self.directory.exists():
                return Sight(claimed=True, removed=True)
            outcome = self._declare_lost_if_dead()
        # A lost one must be gone before anything else is said or started; it is looked at again.
        if outcome is not None and outcome["state"] == "lost" and not self._end_leftovers():
            return Sight(claimed=True)
        return Sight(claimed=True, outcome=outcome)

    def settle(self, sight: Sight) -> list[Change]:
        """Take the steps that follow from what was seen."""
        changes = []
        # What its owner ended before anybody ran it was never running; and that an attempt was
        # lost may have been told before the job was taken over.
        outcome = sight.outcome
        ran = outcome is None or (
            outcome["started"] is not None and not (self.adopted and outcome["state"] == "lost")
        )
        if self.state is JobState.PENDING and sight.claimed and ran:
            changes.append(self._to(JobState.RUNNING))
        if sight.removed:
            error = f"its run directory {self.directory.path} was removed"
            changes.append(self._to(JobState.FAILED, error=error))
        elif sight.outcome is not None:
            changes.append(self._decide(sight.outcome))
        return changes

    def hear(self, reason: str | None) -> list[Change]:
        """Take note of the engine's own word for what an attempt waits for."""
        if reason is None or reason == self.heard:
            return []
        self.heard = reason
        return [Change(job_id=self.job_id, state=self.state, at=time.time(), reason=reason)]

    def let_go(self) -> None:
        """Leave the job to whoever asks for it next."""
        self.header = {**self.header, "owner": None}
        self.directory.write_spec(self.header, self.body)

    def _is_due(self) -> bool:
        """Tell whether it is time again for what need not be looked at each time."""
        now = time.monotonic()
        if self.checked == 0.0:
            self.checked = now
        if now - self.checked < LIVENESS_S:
            return False
        self.checked = now
        return True

    def _end_leftovers(self) -> bool:
        """End what a lost attempt left alive on this host; tell whether nothing is."""
        claimant = self.directory.claimant(self.number)
        # A supervisor that lives has seen to it, and has other jobs to run in the same place.
        died_here = claimant is not None and claimant.is_here() and claimant.is_dead()
        if died_here and not end_contained(self.directory.containment(self.number), SWEEP_S):
            return False
        mark = attempt_id(self.job_id, self.number)
        return processes.end_processes(
            lambda: processes.marked("CRYSTALMATH_ATTEMPT", mark), limit_s=SWEEP_S
        )

    def _declare_lost_if_dead(self) -> dict[str, Any] | None:
        """Publish `lost` for an attempt whose supervisor has died on this host."""
        claimant = self.directory.claimant(self.number)
        if claimant is None or self.directory.is_claimant_alive(self.number) is not False:
            return None
        now = time.time()
        self.directory.publish(
            self.number,
            {
                "state": "lost",
                "error": f"the supervisor (pid {claimant.pid} on {claimant.host}) died",
                "started": now,
                "finished": now,
                "summary": None,
                "cancelled": self.directory.cancel_requested(),
            },
        )
        return self.directory.outcome(self.number)

    def _decide(self, outcome: dict[str, Any]) -> Change:
        if outcome["state"] != "lost":
            return self._to(
                JobState(outcome["state"]),
                error=outcome["error"],
                traceback=outcome.get("traceback"),
                summary=outcome["summary"],
                started_at=outcome["started"],
            )
        reason = f"attempt {self.number} was lost: {outcome['error']}"
        if outcome.get("cancelled"):
            return self._to(JobState.CANCELLED, error="cancelled", reason=reason)
        if self.number >= ATTEMPTS:
            return self._to(JobState.FAILED, error=f"lost: {outcome['error']}", reason=reason)
        if self.owned:
            header = {**self.header, "attempt": self.number + 1}
            self.directory.write_spec(header, self.body)
            self.header = header
        self.launched, self.handle, self.inherited, self.heard = False, None, False, None
        return self._to(JobState.PENDING, reason=reason)

    def _to(self, state: JobState, **more: Any) -> Change:
        self.state = state
        self.since = time.monotonic()
        self.checked = 0.0
        return Change(job_id=self.job_id, state=state, at=time.time(), attempt=self.number, **more)


def is_orphan(header: Mapping[str, Any], jobs_directory: Path) -> bool:
    """Tell whether nobody follows a job: its owner has died, or has let it go."""
    owner = header.get("owner")
    return owner is None or is_alive(Identity.read(owner), jobs_directory) is False


def take_over(directory: RunDirectory, engine: str) -> Tracked | None:
    """Become the owner of a job that nobody follows; ``None`` where that is not ours to do."""
    from filelock import FileLock, Timeout

    jobs = Path(directory.path).parent
    if not _is_for(directory.read_header(), engine, jobs):
        return None
    try:
        # Of several processes that ask at a time one becomes the owner.
        with FileLock(jobs / ADOPTION_LOCK, timeout=ADOPTION_S):
            header, body = directory.read_spec()
            if not _is_for(header, engine, jobs):
                return None
            # All that may fail comes before the job is ours.
            cancelled, handle = directory.cancel_requested(), _handle(directory, header["attempt"])
            header = {**header, "owner": own_identity(jobs).identity.as_dict()}
            directory.write_spec(header, body)
    except Timeout:
        return None
    return Tracked(
        header,
        body,
        directory,
        # Whether the last owner came so far is the engine's to say.
        launched=True,
        inherited=True,
        adopted=True,
        cancelled=cancelled,
        handle=handle,
        since=-math.inf,
        checked=-LIVENESS_S,
    )


def _is_for(header: Mapping[str, Any], engine: str, jobs_directory: Path) -> bool:
    return header.get("engine") == engine and is_orphan(header, jobs_directory)


def _handle(directory: RunDirectory, number: int) -> str | None:
    try:
        return directory.read_handle(number)
    except BadFile:
        return None  # as if it had never been recorded


def orphan_changes(directory: RunDirectory, state: JobState, attempt: int) -> list[Change]:
    """Read what became of a job that nobody follows; no new attempt is made.

    Parameters
    ----------
    directory : RunDirectory
        Its files.
    state, attempt : JobState, int
        As they are on record.
    """
    header, body = directory.read_spec()
    job = Tracked(header, body, directory, state=state, checked=-LIVENESS_S, owned=False)
    changes = job.catch_up(attempt)
    changes += job.look()
    # A lost attempt that waits for somebody who makes another is told once.
    return changes if job.state is not state or job.number > attempt else []
