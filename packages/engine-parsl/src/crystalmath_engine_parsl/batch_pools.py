"""The pool of a cluster, with workers in pilot jobs of Slurm, as many as the tasks need."""

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
from crystalmath_engine_parsl.task import BlockEndsTooSoonError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from crystalmath.models import Attempt, Cluster
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath_engine_parsl.pool import Pool

#: How long a pilot job with tasks may run none of them, in seconds. A slow node may take long to
#: start the first, and a shared file system to show it here.
STUCK_S = 300.0
#: The longest pause before another pilot job is requested, after several that had not enough time
#: for a job, in seconds.
LATE_S = 300.0
#: After so many pilot jobs in a row that ended before a job began no more are requested.
MOST_FAILED = 3
#: States of pilot jobs that were ended from outside: these do not count as failed.
_ENDED_FROM_OUTSIDE = frozenset(["BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED"])


class BatchPools(Pools):
    """A pool whose workers are in pilot jobs.

    Slurm reports which pilot jobs have ended, and vouches that none of their processes is alive.
    That shows the end of attempts on other hosts, whose processes cannot be seen from here.
    """

    _pool: BatchPool | None

    def __init__(self, runner: EngineRunner, cluster: Cluster) -> None:
        super().__init__(runner, workers=1)
        self._cluster = cluster
        self._most = cluster.count("max_blocks", 1, least=1)
        self._queue = SlurmQueue()
        self._unended: dict[str, Attempt] = {}  # attempts of this process that have not ended
        self._stuck: dict[str, float] = {}  # since when each pilot job runs none of its tasks
        self._refusals = 0  # requests in a row that Slurm refused
        self._refused: str | None = None
        self._request_at = 0.0
        self._late: set[str] = set()  # pilot jobs without time for a task since one ran
        self._began: set[str | None] = set()  # pilot jobs in which a job has begun
        self._counted: set[str] = set()  # ended pilot jobs that were counted
        self._failed = 0  # how many of these in a row ended before a job began
        self._last_words = ""  # of the last failed one
        self._given_up: dict[str, str] = {}  # the reasons of attempts that are not tried again

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Submit a task for each attempt; the first task requests a pilot job."""
        self._count_failed()
        pool = self._working_pool()
        # Before the tasks, so that a refusal leaves none behind. Core launches all of them again.
        if isinstance(pool, BatchPool) and not pool.states():
            self._request(pool)
        # Before Parsl has them: some may begin even if it does not take all.
        self._unended.update({attempt.id: attempt for attempt in attempts})
        return super().launch(attempts)

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return what Slurm and Parsl know of attempts; request another pilot job if needed."""
        self._count_failed()
        seen = super().probe(attempts)
        if self._pool is not None:
            with contextlib.suppress(EngineUnavailable):  # it is reported as the reason
                self._grow(self._pool)
        return seen

    def _count_failed(self) -> None:
        """Request no more pilot jobs once several in a row have ended before a job began."""
        pool = self._pool
        with contextlib.suppress(EngineUnavailable):  # they are counted later
            if pool is not None:
                self._count_over(pool)
            if self._failed >= MOST_FAILED and not (pool and pool.states()):
                self._stop_requesting(pool, self._why_failed())

    def _count_over(self, pool: BatchPool) -> None:
        over = [each for each in pool.over() if each not in self._counted]
        if over:
            self._going_on()
        for allocation in over:
            self._counted.add(allocation)
            if allocation in self._began:
                self._failed = 0
            elif self._queue.end_of(allocation) not in _ENDED_FROM_OUTSIDE:
                self._failed += 1
                self._last_words = pool.last_words(allocation)

    def _give_up(self, pool: Pool, trouble: str) -> None:
        if isinstance(pool, BatchPool):
            # Its last pilot job may have ended since the last count, and the next pool has others.
            with contextlib.suppress(EngineUnavailable):
                self._count_over(pool)
        super()._give_up(pool, trouble)

    def _why_failed(self) -> str:
        return (
            f"{self._failed} pilot jobs ended before a job began in them, the last, "
            f"{self._last_words}"
        )

    def _stop_requesting(self, pool: BatchPool | None, why: str) -> None:
        """Fail the attempts that wait, and request no pilot job for them."""
        waiting = [task.attempt.id for task in self._unclaimed()]
        self._given_up |= dict.fromkeys(waiting, why)
        for attempt in waiting:
            self._unended.pop(attempt, None)
            del self._tasks[attempt]
        # A later submission has one more try: the user may have fixed the cause.
        self._failed, self._trouble = MOST_FAILED - 1, None
        self._runner.log.warning("%s", why)
        if pool is not None:
            self._end(pool)

    def _make(self, directory: Path) -> Pool:
        # Slurm may show by now a pilot job of an earlier pool that it had not confirmed.
        self._ownership.cancel_waiting()
        configured = batch_executor.batch_executor(
            self._cluster, self._ownership.temporary, self._mark
        )
        self._refusals, self._refused, self._request_at = 0, None, 0.0
        idle_s = self._cluster.timespan("max_idletime", config.IDLE_S)
        sent = SentBlocks(configured, directory.parent / BLOCKS)
        configured.provider.record = sent.record
        idle = IdleBlocks(configured, sent, idle_s, self._going_on, self._runner.log)
        return BatchPool(configured, directory, self._cluster, self._queue, sent=sent, idle=idle)

    def _mend(self) -> None:
        pool = self._working_pool()  # this replaces a pool that does not answer
        if isinstance(pool, BatchPool):
            for block in self._too_soon():
                self._put_off(block)
                pool.hold(block)
        super()._mend()
        if self._pool is not None:
            self._end_stuck(self._pool)

    def _too_soon(self) -> set[str]:
        """Return the pilot jobs that returned tasks because too little time was left."""
        tasks = self._tasks.copy().values()
        errors = [task.future.exception() for task in tasks if task.future.done()]
        return {error.block for error in errors if isinstance(error, BlockEndsTooSoonError)}

    def _is_unbegun(self, error: BaseException | None) -> bool:
        return isinstance(error, BlockEndsTooSoonError) or super()._is_unbegun(error)

    def _grow(self, pool: BatchPool) -> None:
        """Request one more pilot job if tasks wait and all workers are busy."""
        # A pilot job that is ending takes no jobs; its node may not answer any more.
        states = {job: state for job, state in pool.states().items() if state != "COMPLETING"}
        waiting = any(
            not self._runner.has_begun(task.attempt) for task in self._tasks.copy().values()
        )
        may_request = len(states) < self._most and set(states.values()) <= {"RUNNING"}
        if waiting and may_request and pool.lacks_workers():
            try:
                self._request(pool)
            except ConfigError as error:
                if states:
                    self._request_later(f"{error}; it", PAUSE_S)
                else:
                    self._stop_requesting(pool, str(error))

    def _request(self, pool: BatchPool) -> None:
        """Request one more pilot job; after each refusal wait longer."""
        self._count_over(pool)  # Slurm may have reported an end since the last count
        if self._failed >= MOST_FAILED:
            self._refused = self._why_failed()
            raise EngineUnavailable(self._refused)
        if time.monotonic() < self._request_at:
            raise EngineUnavailable(str(self._refused))
        try:
            pool.scale_out()
        except EngineUnavailable as error:
            self._refusals += 1
            self._request_later(f"{error}; it", min(2.0**self._refusals, PAUSE_S))
            raise EngineUnavailable(str(self._refused)) from error
        self._refusals, self._refused = 0, None

    def _put_off(self, block: str) -> None:
        """Wait longer and longer for pilot jobs that have too little time: each costs its time."""
        if block in self._late:
            return
        self._late.add(block)
        if again := len(self._late) - 1:  # the first one may have been old
            last = short(block)
            why = f"{len(self._late)} pilot jobs, the last {last}, had not enough time for a job"
            self._request_later(f"{why}; one", min(2.0**again, LATE_S))

    def _request_later(self, what: str, pause: float) -> None:
        self._request_at = time.monotonic() + pause
        self._refused = f"{what} is requested again after {pause:g} s"
        self._runner.log.warning("%s", self._refused)

    def _done(self, pool: Pool, task: Any, future: Future[Any]) -> None:
        if future.exception() is None:
            self._late.clear()
        super()._done(pool, task, future)

    def _end(self, pool: Pool) -> None:
        super()._end(pool)
        if not isinstance(pool, BatchPool):
            return
        # Jobs that were let go run on, and their pilot jobs end after them. This is read only now,
        # because workers may begin jobs until their pool has ended.
        try:
            going_on = self._going_on()
        except EngineUnavailable as error:
            self._runner.log.warning("pilot jobs are left to end by themselves: %s", error)
            pool.cancel_blocks(but=None)
            return
        if None in going_on:  # an attempt may be beginning in a pilot job with tasks
            going_on |= pool.busy()
        pool.cancel_blocks(but=going_on)

    def _going_on(self) -> set[str | None]:
        """Return the pilot jobs in which attempts run; two threads call this.

        `EngineUnavailable` is raised if the files of attempts cannot be read at the moment.
        """
        for attempt in list(self._unended.values()):
            if self._runner.has_ended(attempt):
                self._unended.pop(attempt.id, None)
                with contextlib.suppress(EngineUnavailable):
                    self._began.add(self._runner.allocation_of(attempt))
        going_on = {self._runner.allocation_of(attempt) for attempt in list(self._unended.values())}
        self._began |= going_on
        return going_on

    def _is_idle(self, pool: Pool) -> bool:
        # Slurm decides when the workers come; `_end_stuck` looks after those that are there.
        del pool
        return False

    def _end_stuck(self, pool: BatchPool) -> None:
        """End pilot jobs that have tasks and run none.

        A worker that was killed at the wrong moment may hold the lock of its queue for ever. Other
        pilot jobs go on. Parsl notices that the manager of this one is missing, and returns its
        tasks.
        """
        now = time.monotonic()
        busy = pool.busy()
        try:
            stuck = busy - self._going_on() if busy else busy
        except EngineUnavailable:
            stuck = frozenset()  # unknown: tasks may have begun since
        self._stuck = {job: self._stuck.get(job, now) for job in stuck}
        timeout_s = STUCK_S * self._later()
        for job in [job for job, since in self._stuck.items() if now - since >= timeout_s]:
            message = "pilot job %s began none of its tasks in %g s, and is ended"
            self._runner.log.warning(message, short(job), timeout_s)
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
        if active := self._queue.active().get(allocation):
            state = active[0]
            return Sighting("running", None if state == "RUNNING" else f"Slurm: {state}")
        why = f"Slurm's job {short(allocation)}, in which it ran, has ended"
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
