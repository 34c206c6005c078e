"""How Parsl is set up on a cluster with a batch system: pilot jobs of Slurm."""

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
from crystalmath_engine_parsl.executor import WithoutWorkingDirectory, escaped, tethered_interchange

if TYPE_CHECKING:
    from crystalmath.models import Cluster


class PilotExecutor(HighThroughputExecutor, WithoutWorkingDirectory):  # type: ignore[misc]
    """Parsl's executor for jobs on one node each."""


class PilotMPIExecutor(MPIExecutor, WithoutWorkingDirectory):  # type: ignore[misc]
    """Parsl's executor for jobs over several nodes."""


class PilotProvider(SlurmProvider):  # type: ignore[misc]  # untyped
    """Parsl's provider for Slurm, whose ids are `SlurmQueue`'s; it is asked for no states."""

    #: Why the last one was not taken.
    trouble: Exception | None = None

    def record(self, name: str) -> None:
        """Note the name of a script before Slurm is given it; a pool puts its own in this place."""

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
        """Run `sbatch` as the other commands; whether `sacct` works makes no difference."""
        del timeout
        program, *script = shlex.split(cmd)
        if program != "sbatch":
            return 1, "", ""
        name = Path(script[0]).name
        self.record(name)
        # By its name the job is known: SBATCH_JOB_NAME goes before what the script says.
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
        # Without one the nodes try all addresses of this host.
        "address": cluster.engine_options.get("address"),
        # A busy network delays. A pool cut off for longer takes no more work; its jobs go on.
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
            # Where their number is given, it alone decides; else each has a core.
            cores_per_worker=1e-6 if workers else 1,
            **common,
        )
    # The constructor of the one for MPI takes no list.
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
    # What a node that fails leaves is started again as another attempt, in another pilot job.
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
        # Id and name reach the claims, so that who reads them can ask Slurm. Slurm's clock runs
        # while the cluster's commands do; it is read on the first node.
        worker_init=(
            'export CRYSTALMATH_ALLOCATION="$SLURM_JOB_ID $SLURM_JOB_NAME" '
            f"{ENDS}=$(($(date +%s) + {block_s(cluster):.0f}))\n"
            f"{init_script(cluster.worker_init)}"
        ),
        # In MPI mode one pool, on the first node, hands out the nodes of all.
        launcher=SimpleLauncher() if nodes == 1 or mpi else SrunLauncher(),
    )


def _clock(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
