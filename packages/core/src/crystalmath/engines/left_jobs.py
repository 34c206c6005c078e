"""The jobs of a runner that it has let go: what of them goes on here must be spared."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from crystalmath import processes
from crystalmath.errors import BadFile

if TYPE_CHECKING:
    from crystalmath.jobs.reconcile import Job


class LeftJobs:
    """Those that were let go; they are for whoever takes them over."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Note a job that nobody follows any more."""
        self._jobs.append(job)

    def attempts(self) -> frozenset[str]:
        """Return the ids of the attempts."""
        return frozenset(job.attempt().id for job in self._jobs)

    def processes(self) -> set[int]:
        """Return the pids of those that run on this host."""
        found: set[int] = set()
        for job in self._jobs:
            claimant, guardian = None, []
            with contextlib.suppress(BadFile, OSError):
                claimant = job.directory.claimant(job.record.attempt)
                containment = job.directory.containment(job.record.attempt)
                guardian = containment.get("guardian", [])[:1]
            if claimant and claimant.is_here():
                found |= {claimant.pid, *guardian, *processes.descendants(claimant.pid)}
        return found
