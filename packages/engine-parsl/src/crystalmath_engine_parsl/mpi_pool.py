"""Run Parsl's worker pool in MPI mode, with two faults of its scheduler of nodes corrected.

Started as ``python mpi_pool.py SCRIPT [ARGUMENT ...]``; SCRIPT is Parsl's script of the pool.
"""

from __future__ import annotations

import queue
import runpy
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parsl.executors.high_throughput import mpi_resource_management

if TYPE_CHECKING:
    from multiprocessing import Queue


class NodeScheduler(mpi_resource_management.MPITaskScheduler):  # type: ignore[misc]  # untyped
    """A scheduler that assigns nodes to tasks, and keeps tasks for which nodes are missing.

    Parsl (2026.10.26) retries a kept task that still does not fit without end. The `RecursionError`
    loses that task and the result of the one that has just ended. Parsl also forgets a task that is
    put aside while the last nodes come back: no later end retries it.
    """

    def __init__(self, pending_task_q: Queue[Any], pending_result_q: Queue[Any]) -> None:
        super().__init__(pending_task_q, pending_result_q)
        # Tasks come on one thread, and results on another.
        self._placing = threading.RLock()
        self._is_retrying = False

    def put_task(self, task_package: dict[str, Any]) -> None:
        """Assign nodes to a task, or keep it."""
        with self._placing:
            kept = self._backlog_queue.qsize()
            super().put_task(task_package)
            if self._is_retrying and self._backlog_queue.qsize() > kept:
                # The first task needs the fewest nodes, so no other one fits. This stops Parsl.
                raise queue.Empty

    def _schedule_backlog_tasks(self) -> None:
        with self._placing:
            self._is_retrying = True
            try:
                super()._schedule_backlog_tasks()
            finally:
                self._is_retrying = False


def main() -> None:
    """Run the script, which reads the class of the scheduler from Parsl's module."""
    mpi_resource_management.MPITaskScheduler = NodeScheduler
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
