"""End pilot jobs that have nothing to do, because allocations are paid for by the hour."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from crystalmath.errors import EngineUnavailable
from crystalmath_engine_parsl.slurm_queue import SlurmQueue, short

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection

    from parsl.executors import HighThroughputExecutor

    from crystalmath_engine_parsl.sent_blocks import SentBlocks

#: The longest pause between two looks, in seconds.
LOOK_S = 15.0
#: How long the interchange may take to answer, in seconds.
ANSWER_S = 10


class IdleBlocks:
    """A thread that ends the pilot jobs of one pool that had nothing to do for `idle_s` seconds.

    Core does not call an engine without jobs, so this needs a thread. `going_on` returns the
    allocations in which jobs run; Parsl forgets a job whose worker died.
    """

    def __init__(
        self,
        executor: HighThroughputExecutor,
        sent: SentBlocks,
        idle_s: float,
        going_on: Callable[[], Collection[str | None]],
        log: logging.Logger,
    ) -> None:
        self._executor = executor
        self._sent = sent
        self._idle_s = idle_s
        self._going_on = going_on
        self._log = log
        self._queue = SlurmQueue()
        self._held: set[str] = set()
        self._stopping = threading.Event()
        # If Parsl waits long for its own lock, it then waits without limit for the answer.
        self._one_at_a_time = threading.Lock()
        #: The allocations that were ended.
        self.ended: set[str] = set()
        #: The allocations that had tasks at the last look.
        self.busy: frozenset[str] = frozenset()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._watch, name="idle blocks", daemon=True).start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()

    @property
    def is_answered(self) -> bool:
        """Whether Parsl still queries the interchange, which it never does after a late answer."""
        return bool(self._executor.command_client.ok)

    def hold(self, allocation: str) -> None:
        """Hand a pilot job no more work: it ends after its present tasks."""
        block = self._executor.job_ids_to_block.get(allocation)
        if block is None:
            return
        # Managers that came after the last hold are held now. An error leaves the block unmarked.
        self._hold([each for each in self._managers().get(block, []) if each["active"]])
        self._held.add(block)

    def managers(self) -> dict[str | None, list[dict[str, Any]]]:
        """Return the interchange's report on the managers of workers, by allocation."""
        by_allocation: dict[str | None, list[dict[str, Any]]] = {}
        for block, managers in self._managers().items():
            by_allocation.setdefault(self._job(block), []).extend(managers)
        return by_allocation

    def _watch(self) -> None:
        while not self._stopping.wait(min(self._idle_s / 4, LOOK_S)):
            try:
                if self.is_answered:
                    self._end_idle()
                else:
                    self._end_unanswered()
            except EngineUnavailable as error:  # Slurm, or the run directories
                self._log.warning("idle pilot jobs are not ended: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever Parsl raises
                self.busy = frozenset()
                self._log.warning("idle pilot jobs are not ended: %r", error)

    def _end_unanswered(self) -> None:
        """End idle pilot jobs of a pool that does not answer and is replaced at the next job."""
        going_on = self._going_on()
        if None not in going_on:  # otherwise the pool is replaced now
            idle = self._sent.active(self._queue).keys() - going_on
            self._queue.cancel(sorted(idle))
            self.ended |= idle

    def _end_idle(self) -> None:
        seen = self._managers()
        if not all(map(self._job, seen)):  # a block that `sbatch` did not confirm has workers
            self._sent.active(self._queue)
        self.busy = frozenset(
            job
            for block, managers in seen.items()
            if (job := self._job(block)) and any(manager["tasks"] for manager in managers)
        )
        idle = {
            block: managers for block, managers in seen.items() if self._is_idle(block, managers)
        }
        if idle:
            going_on = self._going_on()
            for block in [block for block in idle if self._job(block) in going_on]:
                del idle[block]
        if not idle:
            return
        for managers in idle.values():
            self._hold(managers)
        # A task may have reached one of them before it was held.
        for block, managers in self._managers().items():
            job = self._job(block)
            if job and block in idle and not any(manager["tasks"] for manager in managers):
                self._log.info("pilot job %s had nothing to do, and is ended", short(job))
                self._queue.cancel([job])
                self.ended.add(job)
        self._held.update(idle)

    def _is_idle(self, block: str, managers: list[dict[str, Any]]) -> bool:
        job = self._job(block)
        if job is None or job in self.ended:
            return False
        enough = 0.0 if block in self._held else self._idle_s
        return all(
            not manager["tasks"] and manager["idle_duration"] >= enough for manager in managers
        )

    def _job(self, block: str) -> str | None:
        """Return the allocation of a block, or ``None`` if `sbatch` has not confirmed it yet."""
        job = self._executor.blocks_to_job_id.get(block)
        return None if job is None else str(job)

    def _managers(self) -> dict[str, list[dict[str, Any]]]:
        by_block: dict[str, list[dict[str, Any]]] = {}
        for manager in self._query("MANAGERS"):
            by_block.setdefault(manager["block_id"], []).append(manager)
        return by_block

    def _hold(self, managers: list[dict[str, Any]]) -> None:
        for manager in managers:
            self._query(["HOLD_MANAGER", manager["manager"]])

    def _query(self, command: str | list[str]) -> Any:
        with self._one_at_a_time:
            return self._executor.command_client.run(command, timeout_s=ANSWER_S)
