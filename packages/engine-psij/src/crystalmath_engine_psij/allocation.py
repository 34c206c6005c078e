"""The program of an allocation: it runs the job of one run directory, and ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from crystalmath import worker

#: Where Slurm, PBS and LSF say it. Our scripts for Flux say it for Flux, which may run inside an
#: allocation of one of those.
_IDS = ("CRYSTALMATH_FLUX_JOB", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")


def command(directory: Path, attempt: str) -> list[str]:
    """Return the command that runs an attempt; its id is there so that it can be found by it."""
    # -P: a file of the working directory must never stand in for a library.
    return [sys.executable, "-P", "-m", __name__, str(directory), attempt]


def _allocation() -> str | None:
    """Return the batch system's id of the allocation that this process is in."""
    return next(filter(None, map(os.environ.get, _IDS)), None)


if __name__ == "__main__":
    # It is recorded with the claim. A supervisor in an allocation whose runner was ended waits a
    # moment for a signal to itself: the scheduler may be ending them all.
    if allocation := _allocation():
        os.environ["CRYSTALMATH_ALLOCATION"] = allocation
    worker.run(Path(sys.argv[1]))
