"""Pilot jobs that have nothing to do are ended: allocations are paid for by the hour."""

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
    """End the pilot jobs of one pool that had nothing to do for `idle_s` seconds.

    It looks from a thread of its own, as an engine without jobs is not called. `going_on` names the
    allocations in which jobs run; Parsl forgets one whose worker died.
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
        # Parsl waits without limit for an answer where it had to wait long for its own lock.
        self._one_at_a_time = threading.Lock()
        #: The allocations that were ended.
        self.ended: set[str] = set()
        #: Those that had been given tasks when it looked last.
        self.busy: frozenset[str] = frozenset()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._watch, name="idle blocks", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    @property
    def is_answered(self) -> bool:
        """Whether the interchange is asked: after one late answer Parsl never does so again."""
        return bool(self._executor.command_client.ok)

    def hold(self, allocation: str) -> None:
        """Hand a pilot job no more work: it ends after its present tasks."""
        block = self._executor.job_ids_to_block.get(allocation)
        if block is None:
            return
        # Those that came since it was held last are not; it is done only where nothing is raised.
        self._hold([each for each in self._managers().get(block, []) if each["active"]])
        self._held.add(block)

    def managers(self) -> dict[str | None, list[dict[str, Any]]]:
        """Return what the interchange says of the workers' managers, by allocation."""
        found: dict[str | None, list[dict[str, Any]]] = {}
        for block, managers in self._managers().items():
            found.setdefault(self._job(block), []).extend(managers)
        return found

    def _watch(self) -> None:
        while not self._stopping.wait(min(self._idle_s / 4, LOOK_S)):
            try:
                if self.is_answered:
                    self._end_idle()
                else:
                    self._end_unanswered()
            except EngineUnavailable as error:  # of Slurm, or of the run directories
                self._log.warning("idle pilot jobs are not ended: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever Parsl raises
                self.busy = frozenset()
                self._log.warning("idle pilot jobs are not ended: %r", error)

    def _end_unanswered(self) -> None:
        """End the pilot jobs in which no job runs, of a pool that is replaced at the next job."""
        going_on = self._going_on()
        if None not in going_on:  # else it is replaced now
            idle = self._sent.active(self._queue).keys() - going_on
            self._queue.cancel(sorted(idle))
            self.ended |= idle

    def _end_idle(self) -> None:
        seen = self._managers()
        if not all(map(self._job, seen)):  # workers of one of which `sbatch` said nothing
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
        # A task may have been given to one meanwhile; now none is any more.
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
        """Return the allocation of a block, which may be here before `sbatch` has said so."""
        return self._executor.blocks_to_job_id.get(block)  # type: ignore[no-any-return]

    def _managers(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for manager in self._ask("MANAGERS"):
            found.setdefault(manager["block_id"], []).append(manager)
        return found

    def _hold(self, managers: list[dict[str, Any]]) -> None:
        for manager in managers:
            self._ask(["HOLD_MANAGER", manager["manager"]])

    def _ask(self, command: str | list[str]) -> Any:
        with self._one_at_a_time:
            return self._executor.command_client.run(command, timeout_s=ANSWER_S)
