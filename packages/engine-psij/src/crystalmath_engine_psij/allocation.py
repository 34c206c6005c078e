"""The program of an allocation, which runs the job of one run directory and ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from crystalmath import worker

#: Variables with the allocation's id. Our scripts set the first one for Flux, which may run inside
#: an allocation of another batch system.
_IDS = ("CRYSTALMATH_FLUX_JOB", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")


def command(directory: Path, attempt: str) -> list[str]:
    """Return the command that runs an attempt; the id in it makes the process recognizable."""
    # -P: a file of the working directory must never stand in for a library.
    return [sys.executable, "-P", "-m", __name__, str(directory), attempt]


def _allocation() -> str | None:
    """Return the batch system's id of the allocation that this process is in."""
    return next(filter(None, map(os.environ.get, _IDS)), None)


if __name__ == "__main__":
    # The claim records it. If a runner in an allocation is killed, its supervisor waits a moment
    # for a signal of its own: the scheduler may be ending all of them.
    if allocation := _allocation():
        os.environ["CRYSTALMATH_ALLOCATION"] = allocation
    worker.run(Path(sys.argv[1]))
