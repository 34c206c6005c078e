"""The Parsl engine: hands run directories to Parsl's workers, and says what it sees."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parsl.app.app import python_app
from parsl.dataflow.dflow import DataFlowKernel

from crystalmath import processes, worker
from crystalmath.errors import EngineUnavailable
from crystalmath.models import Capabilities, Sighting
from crystalmath.quacc.engine import EngineRunner
from crystalmath_engine_parsl import config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from crystalmath.models import Attempt, EngineSettings

__all__ = ["ParslRunner"]

_MARK = "CRYSTALMATH_PARSL"
#: How long Parsl may take to clean up after itself, in seconds.
CLEANUP_S = 10.0
#: The longest folder that the sockets of Parsl's pool may be put in, in bytes.
LONGEST = 55
#: How long supervisors may take to end by themselves, in seconds.
STOP_S = 3.0


def _run(directory: str) -> None:
    worker.run(directory)


class ParslRunner(EngineRunner):
    """Run jobs on Parsl.

    A future says only that its task is over: the run directory tells how. (``exception()`` of a
    Parsl future *returns* the exception of a failed app, and ``cancel()`` is not implemented;
    neither is used.)

    Parameters
    ----------
    settings : EngineSettings
        ``workers`` defaults to the number of cores that this process may use.
    """

    capabilities = Capabilities(max_queued=1000)

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._workers = config.workers(settings)
        self._kernel: DataFlowKernel | None = None
        self._temporary: str | None = None
        self._futures: dict[str, Future[None]] = {}
        self._mark = secrets.token_hex(8)

    def workers(self) -> int:
        """Tell how many jobs run at once."""
        return self._workers

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Submit one app for each attempt; Parsl starts with the first."""
        if self._kernel is None:
            self._kernel = self._start()
            self._app = python_app(_run, data_flow_kernel=self._kernel)
        if self._broken():
            self._give_up()
            raise EngineUnavailable("Parsl's interchange or workers died; they are started again")
        for attempt in attempts:
            future = self._app(str(attempt.directory))
            self._futures[attempt.id] = future
            future.add_done_callback(functools.partial(self._done, attempt.id))
        # The tasks of one process mean nothing in another: there is no handle to record.
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Tell which tasks are still Parsl's; a task that is over does not start again."""
        if self._kernel is not None and self._broken():
            self._give_up()
        return {attempt.id: self._see(attempt.id) for attempt in attempts}

    def stop(self) -> None:
        """End Parsl and everything that it started."""
        if self._kernel is not None:
            self._give_up()
        # Idle supervisors leave by themselves once their worker has gone.
        processes.end_processes(lambda: set(self._marked()) - self.spared(), grace_s=STOP_S)

    def _give_up(self) -> None:
        """End Parsl alone: a job that runs belongs to its supervisor, and goes on."""
        kernel, self._kernel = self._kernel, None
        self._futures.clear()
        if kernel is None:
            return
        executor = kernel.executors[config.EXECUTOR]
        if self._is_broken(executor):
            # Else Parsl would ask a dead interchange for its managers, and wait for ever.
            executor.set_bad_state_and_fail_all(EngineUnavailable("Parsl died"))
        cleanup = threading.Thread(target=self._clean_up, args=[kernel], daemon=True)
        cleanup.start()
        cleanup.join(CLEANUP_S)
        processes.end_processes(self._own_processes, grace_s=0.5)
        if executor.interchange_proc is not None:
            executor.interchange_proc.wait()
        shutil.rmtree(kernel.run_dir, ignore_errors=True)
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _clean_up(self, kernel: DataFlowKernel) -> None:
        with contextlib.suppress(Exception):  # it may have died half way; the sweep is thorough
            kernel.cleanup()

    def _marked(self) -> list[int]:
        return processes.marked(_MARK, self._mark)

    def _own_processes(self) -> list[int]:
        # Whatever belongs to a job has a session of its own.
        session = os.getsid(0)
        return [pid for pid in self._marked() if _session(pid) == session]

    def _start(self) -> DataFlowKernel:
        directory = Path(self.settings.directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = f"{_MARK}={self._mark}"
        # The sockets in it may have 107 bytes in all, and add 33 to its own path.
        short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST
        self._temporary = tempfile.mkdtemp(prefix="parsl-", dir=None if short else "/tmp")  # noqa: S108
        configured = config.local_config(directory, self._workers, self._temporary, mark)
        return DataFlowKernel(configured)

    def _broken(self) -> bool:
        return self._kernel is not None and self._is_broken(self._kernel.executors[config.EXECUTOR])

    def _is_broken(self, executor: Any) -> bool:
        # Futures stay unresolved for minutes when the interchange dies: look at it instead.
        interchange = executor.interchange_proc
        return executor.bad_state_is_set or (
            interchange is not None and interchange.poll() is not None
        )

    def _see(self, attempt: str) -> Sighting:
        future = self._futures.get(attempt)
        if future is None:
            return Sighting("gone")
        if not future.done():
            return Sighting("queued")
        error = future.exception()
        return Sighting("gone", None if error is None else f"{type(error).__name__}: {error}")

    def _done(self, attempt: str, future: Future[None]) -> None:
        error = future.exception()
        if self._futures.get(attempt) is not future:
            return  # it is of a Parsl that was given up
        if error is not None:
            self.log.warning("the task of %s ended: %s", attempt, error)
        else:
            self._futures.pop(attempt, None)
        self.notice(attempt)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
