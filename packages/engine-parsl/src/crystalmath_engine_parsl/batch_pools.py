"""The pool of a cluster: workers in pilot jobs of Slurm, which grow with what waits."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.models import Sighting
from crystalmath_engine_parsl import batch_executor, config
from crystalmath_engine_parsl.batch_pool import BatchPool
from crystalmath_engine_parsl.idle_blocks import IdleBlocks
from crystalmath_engine_parsl.ownership import BLOCKS
from crystalmath_engine_parsl.pools import PAUSE_S, Pools
from crystalmath_engine_parsl.sent_blocks import SentBlocks
from crystalmath_engine_parsl.slurm_queue import SlurmQueue, short
from crystalmath_engine_parsl.task import BlockEndsTooSoon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from crystalmath.models import Attempt, Cluster
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath_engine_parsl.pool import Pool

#: How long a pilot job that was given tasks may run none of them, in seconds. A node may be slow to
#: start the first, and a shared file system to show that here.
STUCK_S = 300.0
#: The longest pause before another pilot job is asked for, after several that had not time enough
#: for a job, in seconds.
LATE_S = 300.0
#: So many pilot jobs in a row that ended before a job began are the cluster's own fault.
MOST_FAILED = 3
#: Ends that come from outside, and say nothing about what a pilot job would have done.
_NOT_ITS_OWN = frozenset(["BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED"])


class BatchPools(Pools):
    """Hand tasks to workers in pilot jobs.

    Slurm says which of them are over, and vouches that nothing of them is alive. So the end of an
    attempt on a host that nobody here sees becomes known.
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
        self._began: set[str | None] = set()  # pilot jobs in which a job has begun
        self._counted: set[str] = set()  # those that were seen to be over
        self._failed = 0  # so many of these in a row ended before a job began
        self._words = ""  # the last ones of the last of them
        self._given_up: dict[str, str] = {}  # why attempts are not tried again, by their ids

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Submit a task for each attempt; the first brings a pilot job."""
        self._count_failed()
        pool = self._working_pool()
        # First: what Slurm refuses leaves no task behind, and all of them come again.
        if isinstance(pool, BatchPool) and not pool.states():
            self._ask(pool)
        # Some may begin though Parsl does not take all.
        self._given.update({attempt.id: attempt for attempt in attempts})
        return super().launch(attempts)

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return what Slurm and Parsl know of attempts; another pilot job may be asked for."""
        self._count_failed()
        seen = super().probe(attempts)
        if self._pool is not None:
            with contextlib.suppress(EngineUnavailable):  # it is reported as the reason
                self._grow(self._pool)
        return seen

    def _count_failed(self) -> None:
        """Ask for no more pilot jobs once several in a row have ended before a job began."""
        pool = self._pool
        with contextlib.suppress(EngineUnavailable):  # Slurm, or the files: it is counted later
            if pool is not None:
                self._count_over(pool)
            if self._failed >= MOST_FAILED and not (pool and pool.states()):
                self._give_up_asking(pool, self._why_failed())

    def _count_over(self, pool: BatchPool) -> None:
        over = [each for each in pool.over() if each not in self._counted]
        if over:
            self._going_on()
        for allocation in over:
            self._counted.add(allocation)
            if allocation in self._began:
                self._failed = 0
            elif self._queue.end_of(allocation) not in _NOT_ITS_OWN:
                self._failed += 1
                self._words = pool.last_words(allocation)

    def _give_up(self, pool: Pool, trouble: str) -> None:
        if isinstance(pool, BatchPool):
            # Its last pilot job may have ended since they were counted; the next pool has others.
            with contextlib.suppress(EngineUnavailable):
                self._count_over(pool)
        super()._give_up(pool, trouble)

    def _why_failed(self) -> str:
        return (
            f"{self._failed} pilot jobs ended before a job began in them, the last, {self._words}"
        )

    def _give_up_asking(self, pool: BatchPool | None, why: str) -> None:
        """Fail the attempts that wait."""
        waiting = [task.attempt.id for task in self._unclaimed()]
        self._given_up |= dict.fromkeys(waiting, why)
        for attempt in waiting:
            self._given.pop(attempt, None)
            del self._tasks[attempt]
        # Whoever submits a job again has mended something, perhaps: that is one more try.
        self._failed, self._trouble = MOST_FAILED - 1, None
        self._runner.log.warning("%s", why)
        if pool is not None:
            self._end(pool)

    def _make(self, directory: Path) -> Pool:
        # What Slurm took for an earlier pool without saying so may have come to light by now.
        self._ownership.cancel_waiting()
        configured = batch_executor.batch_executor(
            self._cluster, self._ownership.temporary, self._mark
        )
        self._refusals, self._refused, self._ask_at = 0, None, 0.0
        idle_s = self._cluster.timespan("max_idletime", config.IDLE_S)
        sent = SentBlocks(configured, directory.parent / BLOCKS)
        configured.provider.record = sent.record
        idle = IdleBlocks(configured, sent, idle_s, self._going_on, self._runner.log)
        return BatchPool(configured, directory, self._cluster, self._queue, sent=sent, idle=idle)

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
        # One that still ends, perhaps on a node that answers no more, takes no jobs.
        states = {job: state for job, state in pool.states().items() if state != "COMPLETING"}
        waiting = any(
            not self._runner.has_begun(task.attempt) for task in self._tasks.copy().values()
        )
        may_ask = len(states) < self._most and set(states.values()) <= {"RUNNING"}
        if waiting and may_ask and self._failed >= MOST_FAILED:
            self._refused = self._why_failed()
        elif waiting and may_ask and pool.lacks_workers():
            try:
                self._ask(pool)
            except ConfigError as error:
                if states:
                    self._ask_later(f"{error}; it", PAUSE_S)
                else:
                    self._give_up_asking(pool, str(error))

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
            last = short(block)
            why = f"{len(self._late)} pilot jobs, the last {last}, had not time enough for a job"
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
        """Name the pilot jobs in which attempts run; two threads call it.

        `EngineUnavailable` is raised if the files of attempts cannot be read just now.
        """
        for attempt in list(self._given.values()):
            if self._runner.has_ended(attempt):
                self._given.pop(attempt.id, None)
                with contextlib.suppress(EngineUnavailable):
                    self._began.add(self._runner.allocation_of(attempt))
        going_on = {self._runner.allocation_of(attempt) for attempt in list(self._given.values())}
        self._began |= going_on
        return going_on

    def _is_idle(self, pool: Pool) -> bool:
        # Whether its workers are there at all is Slurm's matter; of the others see `_end_stuck`.
        del pool
        return False

    def _end_stuck(self, pool: BatchPool) -> None:
        """End pilot jobs that were given tasks and run none.

        A worker there that was killed at the wrong moment may hold the lock of its queue for ever.
        Other pilot jobs, and their tasks, are not affected: Parsl misses this one's manager, and
        returns its tasks.
        """
        now = time.monotonic()
        busy = pool.busy()
        try:
            stuck = busy - self._going_on() if busy else busy
        except EngineUnavailable:
            stuck = frozenset()  # what was seen until now may have begun since
        self._stuck = {job: self._stuck.get(job, now) for job in stuck}
        timeout_s = STUCK_S * self._later()
        for job in [job for job, since in self._stuck.items() if now - since >= timeout_s]:
            told = "pilot job %s began none of its tasks in %g s, and is ended"
            self._runner.log.warning(told, short(job), timeout_s)
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
        if seen := self._queue.active().get(allocation):
            return Sighting("running", None if seen[0] == "RUNNING" else f"Slurm: {seen[0]}")
        why = f"Slurm's job {short(allocation)}, in which it ran, is over"
        if self._queue.saw_end(allocation):
            return Sighting("gone", why)
        return Sighting("gone", why, unseen=True, boot_id=self._queue.boot_of(allocation))

    def _see_waiting(self, attempt: Attempt) -> Sighting:
        if why := self._given_up.get(attempt.id):
            return Sighting("gone", why, fatal=True)
        seen = super()._see(attempt)
        if seen.state != "queued" or self._pool is None:
            return seen
        reasons: list[str] = []
        with contextlib.suppress(EngineUnavailable):
            reasons = self._pool.reasons()
        if reasons:
            return Sighting("queued", f"Slurm: {', '.join(reasons)}")
        return Sighting("queued", self._refused or seen.reason)
