"""Set up Parsl on a cluster with a batch system, for workers in pilot jobs of Slurm."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parsl.executors import HighThroughputExecutor, MPIExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.launchers import SimpleLauncher, SrunLauncher
from parsl.providers import SlurmProvider

from crystalmath.engines import schedulers
from crystalmath.worker import ENDS, init_script
from crystalmath_engine_parsl.config import block_s
from crystalmath_engine_parsl.executor import (
    escaped,
    tethered_interchange,
    without_working_directory,
)

if TYPE_CHECKING:
    from crystalmath.models import Cluster


#: Parsl's executors for jobs on one node each, and for jobs over several nodes.
PilotExecutor = without_working_directory(HighThroughputExecutor)
PilotMPIExecutor = without_working_directory(MPIExecutor)


class PilotProvider(SlurmProvider):  # type: ignore[misc]  # Parsl is untyped
    """Parsl's provider for Slurm, with the ids of `SlurmQueue`, which has the states as well."""

    #: The error of the last submission that failed.
    trouble: Exception | None = None

    def record(self, name: str) -> None:
        """Note the name of a script before it is submitted; a pool replaces this method."""

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl.slurm") -> str:
        """Submit a pilot job, and return its id and name."""
        try:
            job = super().submit(command, tasks_per_node, job_name)
        except Exception as error:
            self.trouble = error  # Parsl keeps its text alone
            raise
        script = self.resources.pop(job)["job_stdout_path"].removesuffix(".stdout")
        return f"{job} {Path(script).name}"

    def execute_wait(self, cmd: str, timeout: float | None = None) -> tuple[int, str, str]:
        """Run `sbatch` as our other commands, and no other command: `sacct` is not needed."""
        del timeout
        program, *script = shlex.split(cmd)
        if program != "sbatch":
            return 1, "", ""
        name = Path(script[0]).name
        self.record(name)
        # The job is recognized by its name, and SBATCH_JOB_NAME would override the script's.
        return 0, schedulers.run([program, f"--job-name={name}", *script]), ""


def batch_executor(cluster: Cluster, temporary: str, mark: str) -> HighThroughputExecutor:
    """Describe one HighThroughputExecutor whose workers are in pilot jobs.

    `temporary` is a folder of this host for sockets; its path must be short. `mark` is a shell
    assignment that the interchange carries in its environment.
    """
    mpi = cluster.engine_options.get("mpi")
    workers = cluster.engine_options.get("workers_per_node")
    script = Path(sys.executable).with_name("process_worker_pool.py")
    here = Path(__file__)
    own = here.with_name("mpi_pool.py" if mpi else "node_pool.py")
    pool = shlex.join(map(str, [sys.executable, here.with_name("block.py"), own, script]))
    common: dict[str, Any] = {
        "label": cluster.name,
        # Without an address the nodes try all those of this host.
        "address": cluster.engine_options.get("address"),
        # A busy network delays messages. A pool that is cut off for longer takes no more work,
        # and its jobs go on.
        "heartbeat_period": 5,
        "heartbeat_threshold": 30,
        "poll_period": 100,
        "launch_cmd": DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", escaped(pool), 1),
        "provider": _provider(cluster),
    }
    executor: HighThroughputExecutor
    if mpi:
        jobs = cluster.count("jobs_per_block", cluster.resources.nodes or 1, least=1)
        executor = PilotMPIExecutor(mpi_launcher=mpi, max_workers_per_block=jobs, **common)
    else:
        executor = PilotExecutor(
            max_workers_per_node=workers,
            # The number of workers decides alone, if there is one; else each worker has a core.
            cores_per_worker=1e-6 if workers else 1,
            **common,
        )
    # The constructor of MPIExecutor takes no list.
    executor.interchange_launch_cmd = tethered_interchange(temporary, mark)
    return executor


def _provider(cluster: Cluster) -> PilotProvider:
    resources = cluster.resources
    nodes = resources.nodes or 1
    mpi = cluster.engine_options.get("mpi")
    cores = cluster.engine_options.get("cores_per_node")
    options = [
        f"--{key}={shlex.quote(value)}" if value else f"--{key}"
        for key, value in resources.options.items()
    ]
    if resources.memory_mb:
        options.append(f"--mem={math.ceil(resources.memory_mb / nodes)}M")
    if resources.reservation:
        options.append(f"--reservation={resources.reservation}")
    # Jobs of a failed node start again as other attempts, in another pilot job.
    options.append("--no-requeue")
    return PilotProvider(
        partition=resources.queue,
        account=resources.account,
        nodes_per_block=nodes,
        cores_per_node=cores,
        exclusive=cores is None,
        init_blocks=0,
        min_blocks=0,
        max_blocks=cluster.count("max_blocks", 1, least=1),
        walltime=_clock(block_s(cluster)),
        scheduler_options="\n".join(f"#SBATCH {option}" for option in options),
        # Id and name reach the claims, so that any later owner can ask Slurm. The end is computed
        # before the cluster's commands, which take time of the allocation.
        worker_init=(
            'export CRYSTALMATH_ALLOCATION="$SLURM_JOB_ID $SLURM_JOB_NAME" '
            f"{ENDS}=$(($(date +%s) + {block_s(cluster):.0f}))\n"
            f"{init_script(cluster.worker_init)}"
        ),
        # In MPI mode one pool on the first node hands out all nodes.
        launcher=SimpleLauncher() if nodes == 1 or mpi else SrunLauncher(),
    )


def _clock(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
