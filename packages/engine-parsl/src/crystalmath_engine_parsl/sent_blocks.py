"""The requested pilot jobs, including those whose submission Slurm did not confirm.

A busy Slurm may take a job after `sbatch` has given up ("Socket timed out"). Each pilot job runs a
script of its own and has the script's name, by which it is recognized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath_engine_parsl.slurm_queue import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from parsl.executors import HighThroughputExecutor

    from crystalmath_engine_parsl.slurm_queue import SlurmQueue


class SentBlocks:
    """The pilot jobs of one pool, whose names are recorded in `file` for later owners."""

    def __init__(self, executor: HighThroughputExecutor, file: Path) -> None:
        self._executor = executor
        self._file = file
        self._begins = f"parsl.{executor.label}.block-"  # Parsl adds the block and the time
        self._names: set[str] = set()

    def record(self, name: str) -> None:
        """Write down the name of a pilot job that is about to be submitted."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        self._names.add(name)

    def active(self, queue: SlurmQueue) -> dict[str, tuple[str, str]]:
        """Return the live pilot jobs as `SlurmQueue.active` does, and report new ones to Parsl.

        `EngineUnavailable` is raised if Slurm does not answer.
        """
        executor = self._executor
        active = {job: seen for job, seen in queue.active().items() if name_of(job) in self._names}
        for allocation in active.keys() - executor.job_ids_to_block.keys():
            block = name_of(allocation).removeprefix(self._begins).partition(".")[0]
            executor.blocks_to_job_id[block] = allocation
            executor.job_ids_to_block[allocation] = block
        return active
