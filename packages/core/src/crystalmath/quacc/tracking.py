"""What an engine runner remembers of each job while it lives, and how it reads its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from crystalmath import processes
from crystalmath.models import Attempt
from crystalmath.quacc.changes import Change
from crystalmath.quacc.runner import JobState
from crystalmath.rundir import RunDirectory, attempt_id

if TYPE_CHECKING:
    from crystalmath.models import JobSpec

__all__ = ["ATTEMPTS", "Tracked", "orphan_changes", "read_state", "spec_header"]

#: So many attempts a job has in all; only lost ones are repeated.
ATTEMPTS = 2
#: How often the claim of a running job is checked against the process table, in seconds.
LIVENESS_S = 1.0


def spec_header(spec: JobSpec, engine: str) -> dict[str, Any]:
    """Give what stands above a specification that this process hands to an engine."""
    return {
        "job_id": spec.job_id,
        "attempt": 1,
        "engine": engine,
        "owner": processes.own_identity().as_dict(),
        "recipe": spec.recipe,
        "cluster": spec.cluster,
        "walltime_s": spec.walltime_s,
        "environment": dict(spec.environment),
    }


@define(eq=False)
class Tracked:
    """One unfinished job of this process."""

    header: dict[str, Any]
    body: str
    directory: RunDirectory
    state: JobState = JobState.pending
    launched: bool = False
    cancelled: bool = False
    handle: str | None = None
    relaunches: int = 0
    since: float = field(factory=time.monotonic)
    checked: float = 0.0
    last: bool = False

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
        if self.state is JobState.pending and not self.directory.claimed(self.number):
            return [self._removed()] if self._is_due() and not self.directory.exists() else []
        changes = []
        outcome = self.directory.outcome(self.number)
        # What its owner ended before anybody ran it was never running.
        ran = outcome is None or outcome["started"] is not None
        if self.state is JobState.pending and ran:
            changes.append(self._to(JobState.running))
        if outcome is None and self._is_due():
            if not self.directory.exists():
                return [*changes, self._removed()]
            outcome = self._declare_lost_if_dead()
        if outcome is not None:
            changes.append(self._decide(outcome))
        return changes

    def _is_due(self) -> bool:
        """Tell whether it is time again for what need not be looked at each time."""
        now = time.monotonic()
        if self.checked == 0.0:
            self.checked = now
        if now - self.checked < LIVENESS_S:
            return False
        self.checked = now
        return True

    def _removed(self) -> Change:
        error = f"its run directory {self.directory.path} was removed"
        return self._to(JobState.failed, error=error)

    def _declare_lost_if_dead(self) -> dict[str, Any] | None:
        """Publish `lost` for an attempt whose supervisor has died on this host."""
        claimant = self.directory.claimant(self.number)
        if claimant is None or not claimant.is_dead():
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
        # Whatever the attempt left alive must be gone before anything else is said or started.
        mark = attempt_id(self.job_id, self.number)
        processes.end_processes(lambda: processes.marked("CRYSTALMATH_ATTEMPT", mark))
        reason = f"attempt {self.number} was lost: {outcome['error']}"
        if self.cancelled:
            return self._to(JobState.cancelled, error="cancelled", reason=reason)
        if self.last or self.number >= ATTEMPTS:
            return self._to(JobState.failed, error=f"lost: {outcome['error']}", reason=reason)
        header = {**self.header, "attempt": self.number + 1}
        self.directory.write_spec(header, self.body)
        self.header = header
        self.launched, self.handle = False, None
        return self._to(JobState.pending, reason=reason)

    def _to(self, state: JobState, **more: Any) -> Change:
        self.state = state
        self.since = time.monotonic()
        self.checked = 0.0
        return Change(job_id=self.job_id, state=state, at=time.time(), attempt=self.number, **more)


def read_state(directory: RunDirectory) -> JobState:
    """Tell the state of a job that another process submitted, from its files alone."""
    number = directory.read_header()["attempt"]
    outcome = directory.outcome(number)
    if outcome is not None:
        if outcome["state"] != "lost":
            return JobState(outcome["state"])
        if directory.cancel_requested():
            return JobState.cancelled
        return JobState.failed if number >= ATTEMPTS else JobState.pending
    return JobState.running if directory.claimed(number) else JobState.pending


def orphan_changes(directory: RunDirectory, state: JobState) -> list[Change]:
    """Read what became of a job whose owner has died; no new attempt is made."""
    header, body = directory.read_spec()
    return Tracked(header, body, directory, state=state, checked=-LIVENESS_S, last=True).look()
