"""The functions that Parsl's workers call; nothing here imports Parsl."""

from __future__ import annotations

import math
import os
import time

from crystalmath import worker
from crystalmath_engine_parsl.config import PREFIX

_MPI = (PREFIX, "PARSL_MPI_NODELIST", "PARSL_NUM_NODES", "PARSL_NUM_RANKS", "PARSL_RANKS_PER_NODE")


#: What is left of a pilot job after a job's walltime, at least, in seconds: a job that is stopped
#: there is still written down. It is part of `config.BEGIN_S`: a job for which that was asked can
#: begin in the rest of it.
MARGIN_S = 15.0


class BlockEndsTooSoon(Exception):  # noqa: N818 - named for what is so
    """A pilot job will be over before a job's walltime is, or before it could do anything.

    `block` is the pilot job: Slurm's id and its name.
    """

    def __init__(self, block: str) -> None:
        super().__init__(block)  # what it is made again of on the other side
        self.block = block

    def __str__(self) -> str:
        """Return the message for this end."""
        return f"the pilot job {self.block.partition(' ')[0]} is over before the job would be"


def run(
    directory: str,
    walltime_s: float | None,
    *,
    block_s: float = math.inf,
    own_launcher: bool = False,
) -> None:
    """Run the job of a run directory, as every engine's worker does.

    Walltime and length of the pilot job (`block_s`) are in seconds. With `own_launcher` the cluster
    says itself what starts ranks; quacc would use Parsl's variables for that. `BlockEndsTooSoon` is
    raised before anything is begun.
    """
    ends = os.environ.get(worker.ENDS)
    if ends and time.time() + _least(directory, walltime_s, block_s) > float(ends):
        raise BlockEndsTooSoon(os.environ["CRYSTALMATH_ALLOCATION"])
    # What Parsl's MPI mode says of this task's nodes: PREFIX, and more.
    known = {name: value for name in _MPI if (value := os.environ.get(name)) is not None}
    if own_launcher:
        # Parsl sets it anew for each task, and what is started here would inherit it.
        os.environ.pop(PREFIX, None)
    worker.run(directory, known, only_filled=(PREFIX,) if own_launcher else (), shared=True)


def _least(directory: str, walltime_s: float | None, block_s: float) -> float:
    """Return how much must be left of a pilot job for a job to begin in it, in seconds."""
    if walltime_s:
        # The time in which a pilot job and its workers begin has passed. To ask for it once more
        # would refuse in each pilot job what just fits into one.
        return walltime_s + MARGIN_S
    # A pilot job that is shorter than that is asked for, too.
    return min(worker.least_left(directory), block_s / 2)
