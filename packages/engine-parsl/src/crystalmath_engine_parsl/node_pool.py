"""Run Parsl's worker pool on a node for jobs that each run on that node alone.

Started as ``python node_pool.py SCRIPT [ARGUMENT ...]``; SCRIPT is Parsl's script of the pool.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def of_node(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that confine a job's `mpirun` to its cores on this node.

    A pilot job requests one process on each node, the pool. Open MPI, Intel MPI and MPICH read from
    Slurm's variables where ranks may run. They would refuse a second rank here, or start it on
    another node.
    """
    node = environ.get("SLURMD_NODENAME")
    if node is None:
        return {}
    cores = environ.get("SLURM_CPUS_ON_NODE") or str(len(os.sched_getaffinity(0)))
    return {
        **dict.fromkeys(["SLURM_JOB_NODELIST", "SLURM_NODELIST"], node),
        **dict.fromkeys(["SLURM_JOB_NUM_NODES", "SLURM_NNODES"], "1"),
        "SLURM_TASKS_PER_NODE": cores,
    }


def main() -> None:
    """Run the script."""
    os.environ.update(of_node(os.environ))
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
