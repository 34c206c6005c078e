"""Slurm's report on all jobs of this user, from one query.

Slurm counts its ids from 1 again once its controller has lost its state. So an allocation is named
here by its id and its name, ``ID NAME``; its id alone is never enough.
"""

from __future__ import annotations

import time

from crystalmath.engines import schedulers

#: How long an answer is used again, in seconds.
FRESH_S = 2.0
#: States of jobs that have ended; a job in the state ``COMPLETING`` has not.
_OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    ]
)


def short(allocation: str) -> str:
    """Return Slurm's id of an allocation, for messages."""
    return allocation.partition(" ")[0]


def name_of(allocation: str) -> str:
    """Return the name of an allocation."""
    return allocation.partition(" ")[2]


class SlurmQueue:
    """The live allocations of this user; each thread needs an object of its own."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}
        self._at = float("-inf")
        self._ended: dict[str, str] = {}
        self._reboots = schedulers.SlurmReboots()

    def active(self) -> dict[str, tuple[str, str]]:
        """Return state and reason of each allocation that has not ended.

        `EngineUnavailable` is raised if Slurm does not answer, or its answer cannot be read.
        """
        if time.monotonic() - self._at >= FRESH_S:
            rows = {
                f"{job.native_id} {job.name}": (job.state, job.reason)
                for job in schedulers.slurm_jobs()
            }
            self._seen = {job: seen for job, seen in rows.items() if seen[0] not in _OVER}
            self._ended |= {job: state for job, (state, _) in rows.items() if state in _OVER}
            self._at = time.monotonic()
        return self._seen

    def saw_end(self, allocation: str) -> bool:
        """Return whether Slurm vouches that no process of an ended allocation is alive."""
        if self._ended.get(allocation, "NODE_FAIL") != "NODE_FAIL":
            return True
        # A node that Slurm has lost may go on until it reboots.
        return self._reboots.ended(short(allocation), name_of(allocation))

    def boot_of(self, allocation: str) -> str | None:
        """Return the present boot id of the host of an allocation whose end Slurm did not see."""
        return self._reboots.boot_id(short(allocation), name_of(allocation))

    def end_of(self, allocation: str) -> str | None:
        """Return the state in which Slurm saw an allocation end, or ``None``."""
        return self._ended.get(allocation)

    def cancel(self, allocations: list[str], *, pending_only: bool = False) -> None:
        """Cancel allocations, or only the waiting ones.

        `EngineUnavailable` is raised if Slurm does not answer.
        """
        for allocation in allocations:
            schedulers.cancel_slurm_job(
                short(allocation), name_of(allocation), pending_only=pending_only
            )
        self.forget()

    def forget(self) -> None:
        """Query Slurm anew next time, because something has changed."""
        self._at = float("-inf")
