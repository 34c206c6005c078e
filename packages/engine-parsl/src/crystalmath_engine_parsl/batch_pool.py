"""A pool whose workers are in pilot jobs of Slurm."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.engines import schedulers
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath_engine_parsl import config
from crystalmath_engine_parsl.pool import Pool
from crystalmath_engine_parsl.slurm_queue import name_of, short

if TYPE_CHECKING:
    from parsl.executors import HighThroughputExecutor

    from crystalmath.models import Attempt, Cluster
    from crystalmath_engine_parsl.idle_blocks import IdleBlocks
    from crystalmath_engine_parsl.sent_blocks import SentBlocks
    from crystalmath_engine_parsl.slurm_queue import SlurmQueue

#: How many bytes of a pilot job's output are read, and how many of its lines are quoted.
READ_BYTES, QUOTED_LINES = 500, 3
NO_OUTPUT = "it wrote nothing; does its node see CRYSTALMATH_HOME, where its output goes?"


class BatchPool(Pool):
    """A pool whose workers are in pilot jobs; see :class:`Pool`.

    `sent` are the pilot jobs that were requested; `idle` ends those without work.
    """

    def __init__(
        self,
        executor: HighThroughputExecutor,
        directory: Path,
        cluster: Cluster,
        queue: SlurmQueue,
        *,
        sent: SentBlocks,
        idle: IdleBlocks,
    ) -> None:
        super().__init__(executor, directory)
        self._cluster = cluster
        self._own_launcher = cluster.launcher is not None
        self._block_s = config.block_s(cluster)
        # In MPI mode one manager serves all nodes.
        is_mpi = "mpi" in cluster.engine_options
        self._each = 1 if is_mpi else cluster.resources.nodes or 1  # managers of a pilot job
        self._queue = queue
        self._sent = sent
        self._idle = idle
        self._running: dict[str, float] = {}  # when each pilot job was first seen running

    def start(self) -> None:
        """Start the pool; see :meth:`Pool.start`."""
        super().start()
        self._idle.start()

    def end(self) -> None:
        """Clean up after the pool; see :meth:`Pool.end`."""
        self._idle.stop()
        super().end()

    def hold(self, allocation: str) -> None:
        """Hand a pilot job no more work."""
        try:
            self._idle.hold(allocation)
        except Exception as error:
            raise EngineUnavailable(f"Parsl does not answer: {error!r}") from error

    def _populate(self) -> None:
        """Start nothing: a refusal by Slurm is no failure of the pool, and is tried again."""

    def scale_out(self) -> None:
        """Request one more pilot job, and record its name for later owners.

        `EngineUnavailable` is raised if Slurm takes none at the moment, `ConfigError` if it will
        never take one like this.
        """
        if self._was_taken():  # the previous one
            return
        if self._executor.scale_out_facade(1):
            self._queue.forget()
            return
        with contextlib.suppress(EngineUnavailable):  # the next call checks it first
            if self._was_taken():
                return
        error = self._executor.provider.trouble
        is_answer = isinstance(error, subprocess.CalledProcessError)
        message = str(error.output) if is_answer else str(error)
        is_final = isinstance(error, ConfigError) or (is_answer and schedulers.is_final(message))
        refusal = ConfigError if is_final else EngineUnavailable
        raise refusal(f"Slurm takes no pilot job: {' '.join(message.split())}")

    def _was_taken(self) -> bool:
        """Return whether Slurm has a pilot job whose submission it did not confirm."""
        known = set(self._blocks())
        self._queue.forget()
        return bool(self.states().keys() - known)

    def states(self) -> dict[str, str]:
        """Return the states of all pilot jobs that have not ended, unconfirmed ones included."""
        return {job: state for job, (state, _) in self._sent.active(self._queue).items()}

    def lacks_workers(self) -> bool:
        """Return whether tasks wait while all workers are busy; new pilot jobs bring workers."""
        try:
            managers = self._idle.managers()
        except Exception:  # noqa: BLE001 - whatever Parsl raises
            return True  # unknown: a pilot job too many is better than none
        now = time.monotonic()
        self._running = {job: self._running.get(job, now) for job in self.states()}
        for job, since in self._running.items():
            if len(managers.get(job, [])) < self._each and now - since < config.BEGIN_S:
                return False
        present = [manager for some in managers.values() for manager in some]
        if any(each["active"] and each["tasks"] < each["worker_count"] for each in present):
            return False
        taken: int = sum(each["tasks"] for each in present)
        return len(self._executor.tasks) > taken

    def busy(self) -> frozenset[str]:
        """Return the pilot jobs that have tasks."""
        return self._idle.busy

    def reasons(self) -> list[str]:
        """Return why pilot jobs do not run."""
        active = self._sent.active(self._queue).values()
        return sorted(
            {
                reason if state == "PENDING" and reason != "None" else state
                for state, reason in active
                if state != "RUNNING"
            }
        )

    def over(self) -> list[str]:
        """Return the pilot jobs that have ended, apart from those that were idle."""
        active = self.states()
        return [job for job in self._blocks() if job not in active and job not in self._idle.ended]

    def last_words(self, allocation: str) -> str:
        """Return how a pilot job ended, and the last lines of its output."""
        output = Path(self._executor.provider.script_dir, name_of(allocation))
        lines: list[str] = []
        for ending in (".stdout", ".stderr"):
            with contextlib.suppress(OSError):
                text = Path(f"{output}{ending}").read_bytes()[-READ_BYTES:]
                lines += filter(None, map(str.strip, text.decode(errors="replace").splitlines()))
        ended = self._queue.end_of(allocation) or "it is over"
        return f"{short(allocation)} ({ended}): {'; '.join(lines[-QUOTED_LINES:]) or NO_OUTPUT}"

    def cancel_blocks(self, but: set[str | None] | None) -> None:
        """End all pilot jobs but some; if `but` is unknown (``None``), only waiting ones."""
        with contextlib.suppress(EngineUnavailable):  # a later owner finds them in the record
            jobs = [job for job in self.states() if but is None or job not in but]
            self._queue.cancel(jobs, pending_only=but is None)

    def _specification(self, attempt: Attempt) -> dict[str, Any]:
        if "mpi" not in self._cluster.engine_options:
            return {}
        resources = attempt.resources
        each = -(-resources.total_ranks // resources.total_nodes)
        cores = resources.cores_per_rank
        return {
            "num_nodes": resources.total_nodes,
            "num_ranks": resources.total_ranks,
            "ranks_per_node": each,
            # The option of other launchers differs from one MPI to the next.
            "launcher_options": f"--cpus-per-task={cores}"
            if cores and self._cluster.engine_options["mpi"] == "srun"
            else "",
        }

    def _block_trouble(self) -> str | None:
        if not self._idle.is_answered:
            return "Parsl's interchange does not answer"
        try:
            states = self.states()
        except EngineUnavailable:
            return None  # unknown
        if states or self._idle.ended.issuperset(self._blocks()):
            return None
        return f"Parsl's workers ended with Slurm's job {self.last_words(self._blocks()[-1])}"

    def _blocks(self) -> list[str]:
        return list(self._executor.blocks_to_job_id.values())
