"""A pool: Parsl's HighThroughputExecutor with its interchange, its manager and its workers.

The executor is used without Parsl's DataFlowKernel. That one does not replace a pool after a
failure, and its clean-up waits without limit for a dead interchange.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from crystalmath.errors import EngineUnavailable
from crystalmath_engine_parsl import task

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from parsl.executors import HighThroughputExecutor

    from crystalmath.models import Attempt

#: How long the interchange may take to start, in seconds.
START_S = 120.0
#: How long sending a task may take, in milliseconds: it never ends if the interchange is dead.
SEND_MS = 2000
#: How long to wait for the end of an interchange whose pipe is broken, in seconds.
DEATH_S = 1.0
#: How long Parsl may take to clean up after itself, in seconds.
CLEANUP_S = 10.0


class Pool:
    """A pool, which is started once, ended once, and used by one thread.

    Parsl writes its files into `directory`, under the path `alias`. It is removed at the end.
    """

    def __init__(
        self, executor: HighThroughputExecutor, directory: Path, alias: Path | None = None
    ) -> None:
        self._executor = executor
        self._directory = directory
        self._alias = alias or directory
        self._beginning = threading.Thread(target=self._begin, daemon=True)
        self._failure: Exception | None = None
        self._ending = False
        self._own_launcher = False
        self._block_s = math.inf
        #: Whether it has run a task.
        self.proved = False

    def start(self) -> None:
        """Start the pool; raise :class:`EngineUnavailable` if it dies meanwhile."""
        (self._directory / "submit_scripts").mkdir(mode=0o700, parents=True)
        self._executor.run_id = str(uuid.uuid4())
        self._executor.run_dir = str(self._alias)
        self._executor.provider.script_dir = str(self._alias / "submit_scripts")
        self._beginning.start()
        deadline = time.monotonic() + START_S
        while self._beginning.is_alive() and time.monotonic() < deadline:
            # Parsl would wait two minutes for the answer of an interchange that has died.
            if self._interchange_trouble():
                break
            self._beginning.join(0.02)
        if trouble := self.trouble():
            raise EngineUnavailable(trouble)

    def _begin(self) -> None:
        try:
            self._executor.start()
            for pipe in (self._executor.outgoing_q, self._executor.command_client):
                # Otherwise closing waits until a dead interchange has taken all messages.
                pipe.zmq_socket.linger = 0
                pipe.zmq_socket.sndtimeo = SEND_MS
            if not self._ending:
                self._populate()
        except Exception as error:  # noqa: BLE001 - whatever Parsl raises
            self._settle_interchange()
            self._failure = error

    def _settle_interchange(self) -> None:
        """Note the death of an interchange that Parsl met as a broken pipe, and close that pipe."""
        process = self._executor.interchange_proc
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(DEATH_S)

    def _populate(self) -> None:
        """Start a block of workers."""
        self._executor.scale_out_facade(1)

    def submit(self, attempt: Attempt) -> Future[Any]:
        """Queue a task for an attempt; raise :class:`EngineUnavailable` if Parsl refuses it."""
        specification = self._specification(attempt)
        try:
            future: Future[Any] = self._executor.submit(
                task.run,
                specification,
                str(attempt.directory),
                attempt.walltime_s,
                block_s=self._block_s,
                own_launcher=self._own_launcher,
            )
        except Exception as error:
            raise EngineUnavailable(f"Parsl takes no task: {_described(error)}") from error
        return future

    def _specification(self, attempt: Attempt) -> dict[str, Any]:
        """Return Parsl's resource specification of an attempt."""
        del attempt
        return {}

    def trouble(self) -> str | None:
        """Return why the pool is dead, or ``None`` if it seems alive."""
        if self._failure is not None:
            if ended := self._interchange_trouble():
                return ended
            return f"Parsl could not start: {_described(self._failure)}"
        if self._beginning.is_alive():
            return self._interchange_trouble() or f"Parsl did not start in {START_S:g} s"
        if self._executor.bad_state_is_set:
            return f"Parsl gave up: {_described(self._executor.executor_exception)}"
        return self._interchange_trouble() or self._block_trouble()

    def _interchange_trouble(self) -> str | None:
        # Futures stay unresolved for minutes after the interchange dies, so look at its process.
        process = self._executor.interchange_proc
        if process is None or process.poll() is None:
            return None
        return f"Parsl's interchange ended ({process.returncode})"

    def _block_trouble(self) -> str | None:
        """Return how the workers ended, or ``None`` if some are left."""
        jobs = list(self._executor.blocks_to_job_id.values())
        try:
            statuses = self._executor.provider.status(jobs)
        except Exception as error:  # noqa: BLE001 - whatever a provider raises
            return f"nothing is known of Parsl's workers: {_described(error)}"
        if not statuses:
            statuses = list(self._executor.status_facade.values())
        ended = [status for status in statuses if status.terminal]
        if len(ended) < len(statuses):
            return None
        return "; ".join(map(_ended, ended)) or "Parsl's workers were not started"

    def end(self) -> None:
        """Clean up after the pool, whose processes have been ended."""
        self._ending = True
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        # A pool that is still starting ends when Parsl gives up its start.
        if not self._beginning.is_alive():
            closing.join(CLEANUP_S)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _close(self) -> None:
        self._beginning.join()
        with contextlib.suppress(Exception):  # it may have died while it started
            if self._executor.interchange_proc is None:
                # Only this ends its thread.
                self._executor.set_bad_state_and_fail_all(EngineUnavailable("not started"))
            self._executor.shutdown()


def _described(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def _ended(status: Any) -> str:
    """Return how a block ended, and its last message."""
    message = status.message or (status.stderr_summary or "").strip().rpartition("\n")[2]
    how = f"Parsl's workers ended ({status.exit_code})"
    return f"{how}: {message}" if message else how
