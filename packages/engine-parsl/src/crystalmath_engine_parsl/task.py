"""The functions that Parsl's workers call; nothing here imports Parsl."""

from __future__ import annotations

import math
import os
import time

from crystalmath import worker
from crystalmath_engine_parsl.config import PREFIX

_MPI = (PREFIX, "PARSL_MPI_NODELIST", "PARSL_NUM_NODES", "PARSL_NUM_RANKS", "PARSL_RANKS_PER_NODE")


#: The shortest rest of a pilot job after a job's walltime, in seconds, in which the outcome of a
#: stopped job is published. It is part of `config.BEGIN_S`; the job begins in the rest of that.
MARGIN_S = 15.0


class BlockEndsTooSoonError(Exception):
    """A pilot job ends before the walltime of a job, or before the job could do anything.

    `block` is the pilot job: Slurm's id and its name.
    """

    def __init__(self, block: str) -> None:
        super().__init__(block)  # unpickling passes it again
        self.block = block

    def __str__(self) -> str:
        """Return the message."""
        return f"the pilot job {self.block.partition(' ')[0]} ends before the job would"


def run(
    directory: str,
    walltime_s: float | None,
    *,
    block_s: float = math.inf,
    own_launcher: bool = False,
) -> None:
    """Run the job of a run directory, as every engine's worker does.

    Walltime and length of the pilot job (`block_s`) are in seconds. With `own_launcher` the cluster
    names the launcher of ranks itself, in place of Parsl's variables. `BlockEndsTooSoonError` is
    raised before the job begins.
    """
    ends = os.environ.get(worker.ENDS)
    if ends and time.time() + _least(directory, walltime_s, block_s) > float(ends):
        raise BlockEndsTooSoonError(os.environ["CRYSTALMATH_ALLOCATION"])
    # The variables of Parsl's MPI mode about the nodes of this task.
    known = {name: value for name in _MPI if (value := os.environ.get(name)) is not None}
    if own_launcher:
        # Parsl sets it for each task, and child processes would inherit it.
        os.environ.pop(PREFIX, None)
    worker.run(directory, known, only_filled=(PREFIX,) if own_launcher else (), shared=True)


def _least(directory: str, walltime_s: float | None, block_s: float) -> float:
    """Return how many seconds of a pilot job must be left for a job to begin in it."""
    if walltime_s:
        # `BEGIN_S` is not added: the pilot job and its workers have begun. A job that just fits
        # into a pilot job would otherwise never begin.
        return walltime_s + MARGIN_S
    # The pilot job itself may be shorter than a job without walltime needs.
    return min(worker.least_left(directory), block_s / 2)
