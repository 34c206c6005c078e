"""The supervisor's side of its runner: start it, feed it, hear what it says."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.worker.marking import PLACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Runner"]

_CHUNK = 1 << 16


class Runner:
    """A warm process that runs recipes, one after another.

    Its standard output and error come back through a pipe, so that a log file is made only for a
    job that prints, and what its children print is heard too.

    Parameters
    ----------
    environment : mapping of str to str
        The variables that were forwarded for the job.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.message: dict[str, Any] | None = None
        self.ended = False
        self._control, theirs = socket.socketpair()
        self._log, log = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._log, False)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    *(sys.executable, "-P", "-m", "crystalmath.worker.runner"),
                    *(str(theirs.fileno()), str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(environment),
            )
        os.close(log)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._buffer = b""
        self._silent: set[Any] = set()

    def __del__(self) -> None:
        self._control.close()
        os.close(self._log)
        os.close(self._pidfd)

    def give(self, request: dict[str, Any]) -> None:
        """Hand over a job."""
        self.message = None
        with contextlib.suppress(OSError):  # it has ended; pump() will notice
            self._control.sendall(json.dumps(request).encode() + b"\n")

    def pump(self, write_log: Callable[[bytes], None], timeout: float) -> None:
        """Pass on what the runner prints, and take its message, for at most so many seconds."""
        # A recipe may close descriptors that are not its own; one at its end is always ready.
        watched: list[Any] = [self._control, self._log, self._pidfd]
        watched = [each for each in watched if each not in self._silent]
        ready, _, _ = select.select(watched, [], [], timeout)
        if self._log in ready:
            if data := self._read_log():
                write_log(data)
            else:
                self._silent.add(self._log)
        if self._control in ready and (data := self._receive()):
            self._buffer += data
            if b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                self.message = json.loads(line)
        elif self._pidfd in ready:
            self.ended = True
        elif self._control in ready:
            self._silent.add(self._control)

    def drain_into(self, job: Any) -> None:
        """Pass on all that was printed and not yet read."""
        while data := self._read_log():
            job.write_log(data)

    def wait(self) -> int:
        """Wait for the runner's end; its exit code, negative for a signal."""
        return self._process.wait()

    def _receive(self) -> bytes:
        try:
            return self._control.recv(_CHUNK)
        except ConnectionError:
            return b""

    def _read_log(self) -> bytes:
        try:
            return os.read(self._log, _CHUNK)
        except BlockingIOError:
            return b""


def _environment(forwarded: Mapping[str, str]) -> dict[str, str]:
    """Build the runner's environment: the worker's own, and exactly what was forwarded.

    A variable of the forwarded families that the submitter had not set must not leak in from the
    worker; without a ``PATH`` of the submitter's, the worker's is the only usable one.
    """
    own = dict(os.environ)
    if forwarded:
        for name in config.forwarded(config.DEFAULT_FORWARD[1:], own):
            del own[name]
    own.update(forwarded)
    # One thread for each process unless the user says otherwise: an engine runs as many jobs at
    # once as there are cores.
    own.setdefault("OMP_NUM_THREADS", "1")
    # Room for the mark that the runner writes over it (worker.marking).
    own["CRYSTALMATH_ATTEMPT"] = PLACE
    # Recipes are plain functions here; the decorators read this when quacc is imported.
    own["QUACC_WORKFLOW_ENGINE"] = "None"
    return own
