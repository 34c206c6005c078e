"""The tasks of one cluster, and their pool, which is replaced when it dies."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath.errors import EngineUnavailable
from crystalmath.models import Sighting
from crystalmath_engine_parsl import executor
from crystalmath_engine_parsl.ownership import MARK, Ownership, pool_processes
from crystalmath_engine_parsl.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from crystalmath.models import Attempt
    from crystalmath.quacc.engine import EngineRunner

#: How long a free worker may leave a waiting task alone, in seconds.
IDLE_S = 10.0
#: The same in a new pool, which takes 3 s to start on an idle machine.
START_S = 20.0
#: The longest pause before the next pool, after several that ran no task, in seconds.
PAUSE_S = 30.0
#: The longest time for which a new pool may run nothing, in seconds.
CREDIT_S = 300.0
#: How long supervisors may take to end by themselves, in seconds.
STOP_S = 3.0


@dataclass(eq=False)
class _Task:
    """An attempt that Parsl has, or had."""

    attempt: Attempt
    future: Future[Any]
    due: float = math.inf  # since when a worker should have taken it


class Pools:
    """The pools of this machine, one after another: when one dies, the next one gets its tasks.

    Attempts that Parsl has not begun stay on a list here for the next pool. A second hand-out of an
    attempt does no harm: its worker finds the claim of the first.
    """

    def __init__(self, runner: EngineRunner, workers: int) -> None:
        self._runner = runner
        self._workers = workers
        self._ownership = Ownership(runner.settings.directory / "runs", runner)
        self._pool: Pool | None = None
        self._pools = 0
        self._looked = False
        # In the order of their submission to Parsl.
        self._tasks: dict[str, _Task] = {}
        self._failures = 0  # pools in a row that ran no task
        self._retry_at = 0.0
        self._trouble: str | None = None

    @property
    def _mark(self) -> str:
        return f"{MARK}={self._ownership.token}"

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Submit a task for each attempt; the first one starts Parsl."""
        pool = self._working_pool()
        for attempt in attempts:
            self._submit(pool, attempt)
        # A task means nothing in another process, so there is no handle to record.
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return which attempts are still Parsl's, after mending a broken pool."""
        if not self._looked:  # a killed server may have left some, and this one may start none
            self._looked = True
            self._ownership.end_dead_pools()
        if self._tasks:
            with contextlib.suppress(EngineUnavailable):  # it is reported as the reason
                self._mend()
        return {attempt.id: self._see(attempt) for attempt in attempts}

    def stop(self) -> None:
        """End Parsl and everything that it started."""
        self._tasks.clear()
        if self._pool is not None:
            self._end(self._pool)
        # Idle supervisors leave by themselves once their worker has gone.
        processes.end_processes(
            lambda: set(processes.marked(MARK, self._ownership.token)) - self._runner.spared(),
            grace_s=STOP_S,
        )
        self._ownership.forget()

    def _mend(self) -> None:
        pool = self._working_pool()
        if self._is_idle(pool):
            self._give_up(pool, f"Parsl's workers left work alone for {self._timeout_s(pool):g} s")
            pool = self._working_pool()
        for task in list(self._tasks.values()):
            if (
                task.future.done()
                and self._is_unbegun(task.future.exception())
                and not self._runner.has_begun(task.attempt)
            ):
                self._submit(pool, task.attempt)

    def _working_pool(self) -> Pool:
        """Return the pool; make a new one with all waiting tasks if it is dead or missing."""
        if self._pool is not None and (trouble := self._pool.trouble()):
            self._give_up(self._pool, trouble)
        if self._pool is None:
            self._pool = self._start()
        return self._pool

    def _start(self) -> Pool:
        if time.monotonic() < self._retry_at:
            raise EngineUnavailable(str(self._trouble))
        waiting = self._unclaimed()
        self._ownership.end_dead_pools()
        self._ownership.record()
        self._pools += 1
        pool = self._make(self._ownership.directory / str(self._pools))
        try:
            pool.start()
            for task in waiting:
                self._submit(pool, task.attempt)
        except EngineUnavailable as error:
            self._give_up(pool, str(error))
            raise EngineUnavailable(str(self._trouble)) from error
        return pool

    def _make(self, directory: Path) -> Pool:
        configured = executor.local_executor(self._workers, self._ownership.temporary, self._mark)
        # Parsl passes its paths to shells unquoted; the alias has no blanks.
        alias = Path(self._ownership.temporary, directory.name)
        alias.symlink_to(directory)
        return Pool(configured, directory, alias)

    def _give_up(self, pool: Pool, trouble: str) -> None:
        """End a pool; running jobs go on in their supervisors."""
        proved = pool.proved or any(
            self._runner.has_begun(task.attempt) for task in list(self._tasks.values())
        )
        self._failures = 0 if proved else self._failures + 1
        pause = min(self._later() / 2, PAUSE_S) if self._failures else 0.0
        self._retry_at = time.monotonic() + pause
        later = f" after {pause:g} s" if pause else ""
        self._trouble = f"{trouble}; a new pool is started{later}"
        self._runner.log.warning("%s", self._trouble)
        self._end(pool)

    def _end(self, pool: Pool) -> None:
        self._pool = None
        self._ownership.end_processes()
        pool.end()

    def _submit(self, pool: Pool, attempt: Attempt) -> None:
        task = _Task(attempt, pool.submit(attempt))
        self._tasks.pop(attempt.id, None)  # it goes to the end of the queue, as in Parsl
        self._tasks[attempt.id] = task
        task.future.add_done_callback(functools.partial(self._done, pool, task))

    def _unclaimed(self) -> list[_Task]:
        """Return the tasks that have not begun, for a new pool; forget those that have."""
        for task in list(self._tasks.values()):
            if self._runner.has_begun(task.attempt):
                self._tasks.pop(task.attempt.id, None)
        return list(self._tasks.values())

    def _is_idle(self, pool: Pool) -> bool:
        """Return whether a free worker leaves a waiting task alone.

        Parsl hands tasks out in order, so the first unfinished ones have workers. A killed worker
        or manager may have taken a task with it, or a lock of the pool's queue. Then Parsl hands
        nothing out any more, and seems to be well.
        """
        now = time.monotonic()
        due = set()
        for task in self._first_unfinished():
            if self._runner.has_begun(task.attempt):
                pool.proved = True
            else:
                due.add(task)
        for task in self._tasks.copy().values():
            task.due = min(task.due, now) if task in due else math.inf
        over_s = max((now - task.due for task in due), default=0.0) - self._timeout_s(pool)
        return over_s >= 0 and over_s >= min(self._starved_s(pool), CREDIT_S)

    def _first_unfinished(self) -> Iterator[_Task]:
        left = self._workers
        for task in list(self._tasks.values()):
            if self._runner.has_ended(task.attempt):
                self._tasks.pop(task.attempt.id, None)
            elif left and not task.future.done():
                left -= 1
                yield task

    def _timeout_s(self, pool: Pool) -> float:
        return IDLE_S if pool.proved else min(START_S * self._later(), CREDIT_S)

    def _starved_s(self, pool: Pool) -> float:
        """Return how long the processes of a new pool have waited for a core, in all."""
        if pool.proved:
            return 0.0
        return sum(map(processes.starved_s, pool_processes(self._ownership.token, os.getsid(0))))

    def _later(self) -> float:
        return 2.0 ** min(self._failures, 16)  # pools may fail for days

    def _see(self, attempt: Attempt) -> Sighting:
        task = self._tasks.get(attempt.id)
        if task is None:
            return Sighting("gone")
        error = task.future.exception() if task.future.done() else None
        if error is None or (self._is_unbegun(error) and not self._runner.has_begun(task.attempt)):
            mended = self._pool is not None and self._pool.proved
            return Sighting("queued", None if mended else self._trouble)
        return Sighting("gone", f"{type(error).__name__}: {error}")

    def _done(self, pool: Pool, task: _Task, future: Future[Any]) -> None:
        attempt = task.attempt.id
        if self._tasks.get(attempt) is not task:
            return  # another pool has it now
        if error := future.exception():
            self._runner.log.warning("the task of %s ended: %s", attempt, error)
        else:
            pool.proved = True
            self._tasks.pop(attempt, None)
        self._runner.notice(attempt)

    def _is_unbegun(self, error: BaseException | None) -> bool:
        """Return whether a task came back unstarted, because its worker or manager died."""
        return type(error).__module__.partition(".")[0] == "parsl"
