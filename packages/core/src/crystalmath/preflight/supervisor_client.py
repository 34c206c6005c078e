"""The owner's side of a supervisor: start it, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from crystalmath._starting import start_tied
from crystalmath.preflight.child_supervisor import RENEWALS, STARVED_S, WARM_UP_S, remove

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long a supervisor may take to end what it runs, in seconds.
_END_S = 10.0
#: How long a supervisor that is alive may be silent, in seconds: it may have been stopped.
_SILENT_S = RENEWALS * (WARM_UP_S + STARVED_S)


class SupervisorClient:
    """A supervised child for one environment; it starts at the first question.

    Parameters
    ----------
    environment : mapping of str to str
        The variables that a job would see.

    Attributes
    ----------
    lock : threading.Lock
        To be held by whoever asks.
    ended : bool
        It is not to be asked any more.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.lock = threading.Lock()
        self.ended = False
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._buffer = b""
        # Made and removed here as well as there, so that it goes whichever of us is killed.
        self._scratch = ""

    def ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask; the lock is held.

        Returns
        -------
        dict
            The child's answer, or ``{"failed": why}``.
        """
        line = json.dumps({**question, "limit_s": limit_s}).encode() + b"\n"
        fresh = taken = False
        # An idle one may end at the very moment it is asked; then a fresh one is.
        while not (fresh or taken or self.ended):
            fresh = self._socket is None
            link = self._socket or self._start()
            try:
                link.sendall(line)
                taken = bool(self._read_line(link))
                answer: dict[str, Any] = json.loads(self._read_line(link))
            except (OSError, ValueError):  # it is gone, or somebody has stopped it
                self._stop()
            else:
                return answer
        return {"failed": "its supervisor was told to end" if self.ended else "its supervisor died"}

    def end(self) -> None:
        """End it at once, and return when nothing of it is left."""
        self.ended = True
        with contextlib.suppress(OSError, AttributeError):
            # Who waits for an answer is told of it, and lets go of the lock.
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        with self.lock:
            self._stop()

    def retire(self) -> None:
        """End it once it has answered what it is asked just now."""
        with self.lock:
            self.ended = True
            self._stop()

    def forget(self) -> None:
        """Let go without a word: in a forked process it is the parent's."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.returncode = 0  # no child of ours, so nothing to complain of

    def _start(self) -> socket.socket:
        self._scratch = os.path.abspath(tempfile.mkdtemp(prefix="crystalmath-asks-"))
        supervisor = "crystalmath.preflight.child_supervisor"
        self._process, ours = start_tied(supervisor, stdout=subprocess.DEVNULL)
        ours.settimeout(_SILENT_S)
        self._socket, self._buffer = ours, b""
        first = {"environment": self._environment, "scratch": self._scratch}
        with contextlib.suppress(OSError):  # it died at once; the question will show it
            ours.sendall(json.dumps(first).encode() + b"\n")
        return ours

    def _read_line(self, link: socket.socket) -> bytes:
        while b"\n" not in self._buffer:
            if not (data := link.recv(1 << 18)):
                raise ConnectionResetError
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _stop(self) -> None:
        process, self._process = self._process, None
        link, self._socket = self._socket, None
        if process is None or link is None:
            return
        link.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its child dies with it
            process.wait()
        with contextlib.suppress(OSError, RecursionError):
            remove(self._scratch)
