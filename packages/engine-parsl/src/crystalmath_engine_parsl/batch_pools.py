"""The pool of a cluster: workers in pilot jobs of Slurm, which grow with what waits."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import EngineUnavailable
from crystalmath.models import Sighting
from crystalmath_engine_parsl import batch_executor, config
from crystalmath_engine_parsl.idle_blocks import IdleBlocks
from crystalmath_engine_parsl.ownership import BLOCKS
from crystalmath_engine_parsl.pool import Pool
from crystalmath_engine_parsl.pools import PAUSE_S, Pools
from crystalmath_engine_parsl.slurm_queue import SlurmQueue
from crystalmath_engine_parsl.task import BlockEndsTooSoon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from parsl.executors import HighThroughputExecutor

    from crystalmath.models import Attempt, Cluster
    from crystalmath.quacc.engine import EngineRunner

__all__ = ["BatchPools"]

#: How long a pilot job that was given tasks may run none of them, in seconds: a node may be slow to
#: start the first, and a shared file system to show that here.
STUCK_S = 300.0
#: The longest pause before another pilot job is asked for, after several that had not time enough
#: for a job, in seconds.
LATE_S = 300.0


class BatchPools(Pools):
    """Hand tasks to workers in pilot jobs.

    Slurm says which of them are over, and vouches that nothing of them is alive: so is told what
    became of an attempt on a host that nobody here sees.

    Parameters
    ----------
    runner : EngineRunner
        Whose tasks they are.
    cluster : Cluster
        What a pilot job asks for.
    """

    _pool: BatchPool | None

    def __init__(self, runner: EngineRunner, cluster: Cluster) -> None:
        super().__init__(runner, workers=1)
        self._cluster = cluster
        self._most = cluster.count("max_blocks", 1, least=1)
        self._queue = SlurmQueue()
        self._given: dict[str, Attempt] = {}  # those of this process that had not ended
        self._stuck: dict[str, float] = {}  # pilot jobs that run none of their tasks, since when
        self._refusals = 0  # in a row, of another pilot job
        self._refused: str | None = None
        self._ask_at = 0.0
        self._late: set[str] = set()  # pilot jobs without time for a task since one ran

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """Submit a task for each attempt; the first brings a pilot job."""
        pool = self._working_pool()
        # First: what Slurm refuses leaves no task behind, and all of them come again.
        if isinstance(pool, BatchPool) and not pool.states():
            self._ask(pool)  # all were ended for having nothing to do
        # Some may begin though Parsl does not take all.
        self._given.update({attempt.id: attempt for attempt in attempts})
        super().launch(attempts)

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Tell what Slurm and Parsl know of attempts; another pilot job may be asked for."""
        seen = super().probe(attempts)
        if self._pool is not None:
            with contextlib.suppress(EngineUnavailable):  # it is told as the reason
                self._grow(self._pool)
        return seen

    def _make(self, directory: Path) -> Pool:
        try:
            configured = batch_executor.batch_executor(
                self._cluster, self._ownership.temporary, self._mark
            )
        except subprocess.TimeoutExpired as error:  # Parsl asks `sacct` first
            # Nothing else is done for any cluster meanwhile.
            self._retry_at = time.monotonic() + PAUSE_S
            self._trouble = f"Slurm does not answer: {error}; it is asked again after {PAUSE_S:g} s"
            raise EngineUnavailable(self._trouble) from error
        self._refusals, self._refused, self._ask_at = 0, None, 0.0
        idle_s = self._cluster.timespan("max_idletime", config.IDLE_S)
        idle = IdleBlocks(configured, idle_s, self._going_on, self._runner.log)
        return BatchPool(configured, directory, self._cluster, self._queue, idle)

    def _mend(self) -> None:
        pool = self._working_pool()  # first: one that does not answer is replaced
        if isinstance(pool, BatchPool):
            for block in self._too_soon():
                self._put_off(block)
                pool.hold(block)
        super()._mend()
        if self._pool is not None:
            self._end_stuck(self._pool)

    def _too_soon(self) -> set[str]:
        """Name the pilot jobs that gave tasks back for want of time."""
        tasks = self._tasks.copy().values()
        errors = [task.future.exception() for task in tasks if task.future.done()]
        return {error.block for error in errors if isinstance(error, BlockEndsTooSoon)}

    def _is_unbegun(self, error: BaseException | None) -> bool:
        return isinstance(error, BlockEndsTooSoon) or super()._is_unbegun(error)

    def _grow(self, pool: BatchPool) -> None:
        """Ask for one more pilot job where tasks wait for which those that run have no worker."""
        states = pool.states()
        waiting = any(
            not self._runner.has_begun(task.attempt) for task in self._tasks.copy().values()
        )
        may_ask = len(states) < self._most and set(states.values()) <= {"RUNNING"}
        if waiting and may_ask and pool.lacks_workers():
            self._ask(pool)

    def _ask(self, pool: BatchPool) -> None:
        """Ask for one more pilot job; where that was refused, later and later."""
        if time.monotonic() < self._ask_at:
            raise EngineUnavailable(str(self._refused))
        try:
            pool.scale_out()
        except EngineUnavailable as error:
            self._refusals += 1
            self._ask_later(f"{error}; it", min(2.0**self._refusals, PAUSE_S))
            raise EngineUnavailable(str(self._refused)) from error
        self._refusals, self._refused = 0, None

    def _put_off(self, block: str) -> None:
        """Ask for no pilot jobs without end that begin too late for a job: each costs its time."""
        if block in self._late:
            return
        self._late.add(block)
        if again := len(self._late) - 1:  # the first may just have been old
            why = f"{len(self._late)} pilot jobs, the last {block}, had not time enough for a job"
            self._ask_later(f"{why}; one", min(2.0**again, LATE_S))

    def _ask_later(self, what: str, pause: float) -> None:
        self._ask_at = time.monotonic() + pause
        self._refused = f"{what} is asked for again after {pause:g} s"
        self._runner.log.warning("%s", self._refused)

    def _done(self, pool: Pool, task: Any, future: Future[Any]) -> None:
        if future.exception() is None:
            self._late.clear()
        super()._done(pool, task, future)

    def _end(self, pool: Pool) -> None:
        super()._end(pool)
        if not isinstance(pool, BatchPool):
            return
        # What is let go runs on, and its pilot job ends after it. Not asked before: a worker may
        # begin something until its pool is ended.
        try:
            going_on = self._going_on()
        except EngineUnavailable as error:
            self._runner.log.warning("pilot jobs are left to end by themselves: %s", error)
            pool.cancel_blocks(but=None)
            return
        if None in going_on:  # it may just begin, in one that was given tasks
            going_on |= pool.busy()
        pool.cancel_blocks(but=going_on)

    def _going_on(self) -> set[str | None]:
        """Name the pilot jobs in which attempts run; two threads ask.

        Raises
        ------
        EngineUnavailable
            Nobody knows: their files cannot be read just now.
        """
        for attempt in list(self._given.values()):
            if self._runner.has_ended(attempt):
                self._given.pop(attempt.id, None)
        return {self._runner.allocation_of(attempt) for attempt in list(self._given.values())}

    def _is_idle(self, pool: Pool) -> bool:
        # Whether its workers are there at all is Slurm's matter; of the others see `_end_stuck`.
        del pool
        return False

    def _end_stuck(self, pool: BatchPool) -> None:
        """End pilot jobs that were given tasks and run none.

        There, too, a worker that was killed at the wrong moment holds the lock of the queue for
        ever. The others, and their tasks, have nothing to do with that: Parsl misses the one's
        manager, and gives back what it had.
        """
        now = time.monotonic()
        busy = pool.busy()
        try:
            stuck = busy - self._going_on() if busy else busy
        except EngineUnavailable:
            stuck = frozenset()  # what was seen until now may have begun since
        self._stuck = {job: self._stuck.get(job, now) for job in stuck}
        patience = STUCK_S * self._later()
        for job in [job for job, since in self._stuck.items() if now - since >= patience]:
            told = "pilot job %s began none of its tasks in %g s, and is ended"
            self._runner.log.warning(told, job, patience)
            self._queue.cancel([job])
            del self._stuck[job]

    def _see(self, attempt: Attempt) -> Sighting:
        if self._runner.has_ended(attempt):
            return Sighting("gone")
        if not self._runner.has_begun(attempt):
            return self._see_waiting(attempt)
        try:
            allocation = self._runner.allocation_of(attempt)
        except EngineUnavailable:
            allocation = None
        if allocation is None:
            return Sighting("unknown")
        if allocation in self._queue.active():
            return Sighting("running")
        why = f"Slurm's job {allocation}, in which it ran, is over"
        return Sighting("gone", why, unseen=not self._queue.saw_end(allocation))

    def _see_waiting(self, attempt: Attempt) -> Sighting:
        seen = super()._see(attempt)
        if seen.state != "queued" or seen.reason or self._pool is None:
            return seen
        with contextlib.suppress(EngineUnavailable):
            reasons = self._pool.reasons()
            return Sighting("queued", f"Slurm: {', '.join(reasons)}" if reasons else self._refused)
        return seen


class BatchPool(Pool):
    """One executor whose workers are in pilot jobs; see :class:`Pool`.

    Parameters
    ----------
    executor, directory
        As of a :class:`Pool`.
    cluster : Cluster
        What a pilot job asks for.
    queue : SlurmQueue
        Slurm.
    idle : IdleBlocks
        Ends those that have nothing to do.
    """

    def __init__(
        self,
        executor: HighThroughputExecutor,
        directory: Path,
        cluster: Cluster,
        queue: SlurmQueue,
        idle: IdleBlocks,
    ) -> None:
        super().__init__(executor, directory)
        self._cluster = cluster
        self._own_launcher = cluster.launcher is not None
        # In MPI mode there is one for all nodes.
        is_mpi = "mpi" in cluster.engine_options
        self._each = 1 if is_mpi else cluster.resources.nodes or 1  # managers of a pilot job
        self._queue = queue
        self._record = directory.parent / BLOCKS
        self._idle = idle
        self._running: dict[str, float] = {}  # pilot jobs, since when they were seen to run

    def start(self) -> None:
        """Start it; see :meth:`Pool.start`."""
        super().start()
        self._idle.start()

    def end(self) -> None:
        """Clean up after it; see :meth:`Pool.end`."""
        self._idle.stop()
        super().end()

    def hold(self, allocation: str) -> None:
        """Give a pilot job no more work."""
        try:
            self._idle.hold(allocation)
        except Exception as error:
            raise EngineUnavailable(f"Parsl does not answer: {error!r}") from error

    def scale_out(self) -> None:
        """Ask for one more pilot job, and record it for whoever comes after us.

        Raises
        ------
        EngineUnavailable
            Slurm refuses it.
        """
        blocks = self._executor.scale_out_facade(1)
        if not blocks:
            raise EngineUnavailable(f"Slurm takes no pilot job: {self._refusal()}")
        with self._record.open("a", encoding="ascii") as file:
            file.writelines(f"{self._executor.blocks_to_job_id[block]}\n" for block in blocks)
        self._queue.forget()

    def states(self) -> dict[str, str]:
        """Give the states of the pilot jobs that are not over."""
        active = self._queue.active()
        return {job: active[job][0] for job in self._blocks() if job in active}

    def lacks_workers(self) -> bool:
        """Tell whether tasks wait, and all workers have one; pilot jobs that begin bring theirs."""
        try:
            managers = self._idle.managers()
        except Exception:  # noqa: BLE001 - whatever Parsl raises
            return True  # nobody knows: better one too many than none
        now = time.monotonic()
        self._running = {job: self._running.get(job, now) for job in self.states()}
        for job, since in self._running.items():
            if len(managers.get(job, [])) < self._each and now - since < config.BEGIN_S:
                return False
        there = [manager for those in managers.values() for manager in those]
        if any(each["active"] and each["tasks"] < each["worker_count"] for each in there):
            return False
        taken: int = sum(each["tasks"] for each in there)
        return len(self._executor.tasks) > taken

    def busy(self) -> frozenset[str]:
        """Name the pilot jobs that have been given tasks."""
        return self._idle.busy

    def reasons(self) -> list[str]:
        """Say why pilot jobs wait."""
        active = self._queue.active()
        waiting = {job for job, state in self.states().items() if state == "PENDING"}
        return sorted({active[job][1] for job in waiting})

    def cancel_blocks(self, but: set[str | None] | None) -> None:
        """End the pilot jobs but some; where nobody knows which, those that have not begun."""
        jobs = [job for job in self._blocks() if but is None or job not in but]
        with contextlib.suppress(EngineUnavailable):
            self._queue.cancel(jobs, pending_only=but is None)

    def _asked_for(self, attempt: Attempt) -> dict[str, Any]:
        if "mpi" not in self._cluster.engine_options:
            return {}
        asked = attempt.resources
        each = -(-asked.total_ranks // asked.total_nodes)
        cores = asked.cores_per_rank
        return {
            "num_nodes": asked.total_nodes,
            "num_ranks": asked.total_ranks,
            "ranks_per_node": each,
            # What the others call it differs from one MPI to the next.
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
            return None  # nobody knows
        if states or self._idle.ended.issuperset(self._blocks()):
            return None
        return f"Slurm's job {', '.join(self._blocks()) or '?'} with Parsl's workers is over"

    def _refusal(self) -> str:
        """Give what was said of the newest block, which was not started."""
        said = [status.message or "" for status in self._executor.status_facade.values()][-1:]
        # What sbatch said stands last; the name before it is another each time.
        return " ".join("".join(said).rpartition("stderr=")[2].split())

    def _blocks(self) -> list[str]:
        return list(self._executor.blocks_to_job_id.values())
