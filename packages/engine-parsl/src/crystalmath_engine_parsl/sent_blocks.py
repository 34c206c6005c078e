"""Pilot jobs that Slurm was asked for, those included that it took without saying so.

A busy Slurm may take a job after `sbatch` has given up ("Socket timed out"). What a pilot job runs
is a script of its own, whose name is the job's: by that it is known again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parsl.executors import HighThroughputExecutor

    from crystalmath_engine_parsl.slurm_queue import SlurmQueue


class SentBlocks:
    """The pilot jobs of one pool.

    Parameters
    ----------
    executor : HighThroughputExecutor
        The pool's.
    file : pathlib.Path
        Where their ids are recorded, one a line, for whoever comes after us.
    """

    def __init__(self, executor: HighThroughputExecutor, file: Path) -> None:
        self._executor = executor
        self._file = file

    def record(self, job: str) -> None:
        """Write down Slurm's id of one."""
        with self._file.open("a", encoding="ascii") as file:
            file.write(f"{job}\n")

    def adopt(self, queue: SlurmQueue) -> list[str]:
        """Take on what Slurm has and Parsl was not told of, and name it by Slurm's ids.

        Raises
        ------
        EngineUnavailable
            Slurm does not answer.
        """
        executor = self._executor
        scripts = Path(executor.provider.script_dir)
        begins = f"parsl.{executor.label}.block-"  # Parsl adds the block and the time
        adopted = []
        for job, name in queue.names().items():
            if (
                job in executor.job_ids_to_block
                or not name.startswith(begins)
                or not (scripts / name).is_file()
            ):
                continue
            block = name.removeprefix(begins).partition(".")[0]
            self.record(job)
            executor.blocks_to_job_id[block] = job
            executor.job_ids_to_block[job] = block
            adopted.append(job)
        return adopted
