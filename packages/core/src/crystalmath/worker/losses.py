"""What an engine's worker does when a supervisor of its own was killed.

It alone sees that there: who owns the job may be on another host, and would wait for the lease.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.errors import BadFile
from crystalmath.jobs.rundir import RunDirectory, attempt_id

if TYPE_CHECKING:
    import os


def declare_lost(path: str | os.PathLike[str], attempt: int) -> None:
    """End what a killed supervisor of this host left, and publish that its attempt was lost.

    What cannot be done is left to the owner of the job.

    Parameters
    ----------
    path : str or path-like
        The run directory.
    attempt : int
        The number of the attempt.
    """
    # Of no use to the many workers whose supervisors live.
    from crystalmath.jobs.actions import Publish
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.reconcile import publish

    directory = RunDirectory(path)
    with contextlib.suppress(BadFile, OSError):
        if directory.decided(attempt) or directory.is_claimant_alive(attempt) is not False:
            return
        host = Host(Path(path).absolute().parent)
        if host.end_processes(attempt_id(Path(path).name, attempt)):
            claimant = directory.claimant(attempt)
            who = f"pid {claimant.pid} on {claimant.host}" if claimant else "of nobody knows where"
            asked = directory.cancel_requested()
            error = f"the supervisor ({who}) died"
            publish(directory, attempt, Publish(state="lost", error=error, cancelled=asked), host)
