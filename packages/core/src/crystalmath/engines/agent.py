"""A process for an engine's library, which ends with its owner.

Most libraries live in the process that uses them, with their threads, handlers and children. An
engine's owner is a user's script, or a server. If it is killed, everything that the library has
started must end, and run no job without an owner. So the library gets a process of its own, and the
engine calls functions in it::

    agent = Agent(settings.directory / "log")
    agent.start(60.0, pool.start, workers)  # a function of a module of yours, called there
    agent.ask(5.0, pool.submit, directories)
    agent.stop()
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from crystalmath import processes
from crystalmath._permissions import make_own
from crystalmath.engines.agent_process import LENGTH, unpickled
from crystalmath.errors import EngineUnavailable
from crystalmath.processes import start_tied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Agent", "AgentEnded", "AgentSilent"]

#: How long an agent, with all its processes, may take to end, in seconds.
STOP_S = 10.0
_CHUNK = 1 << 16
#: The last line is searched in so much of a log's end, in bytes.
_TAIL = 4096

P = ParamSpec("P")
T = TypeVar("T")


class AgentEnded(EngineUnavailable):
    """The agent's process has ended, or was not started; the message says how and where its log is.

    It can be started again.
    """


class AgentSilent(EngineUnavailable):
    """The agent has not answered in time. It may still carry out the call."""


class Agent:
    """A process that belongs to this one; threads that call it wait for each other.

    It has a session of its own, so that Ctrl-C reaches its owner alone. Its working directory is
    ``/``, and its output goes to its log. Functions are called on its main thread. When its owner
    ends, for any reason, the agent is killed at once, with all that it has started; jobs go on.

    Parameters
    ----------
    log : pathlib.Path
        The file for what it prints; made with its folder.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._received = b""
        self._owes = False  # the answer to a call whose time was over
        self._ending = "was not started"

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        if os.getpid() != self._owner:
            return False  # a forked process: it is the parent's
        return self._process is not None and self._process.poll() is None

    @property
    def ending(self) -> str | None:
        """How it ended, in words that follow a subject; ``None`` while it is alive."""
        if self.alive:
            return None
        if self._process is None:
            return self._ending
        if os.getpid() != self._owner:
            return "belongs to the process that this one was forked from"
        return _ending(self._process.returncode)

    def start(
        self, limit_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Start the process, and call a first function in it; if that fails, end it again.

        A process that was started before is ended first.

        Parameters
        ----------
        limit_s : float
            How long both may take, in seconds.
        function, *args, **kwargs
            As of :meth:`ask`.

        Returns
        -------
        object
            What the function returned.

        Raises
        ------
        AgentEnded, AgentSilent, Exception
            As of :meth:`ask`.
        """
        deadline = time.monotonic() + limit_s
        question = _message(function, args, kwargs)
        self.stop()
        with self._held(limit_s):
            try:
                self._spawn()
                return self._call(question, function, deadline, limit_s)
            except BaseException:
                self._end("could not be started")
                raise

    def ask(self, limit_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the process.

        Parameters
        ----------
        limit_s : float
            How long it may take, in seconds.
        function : callable
            An importable one: pickle passes it by its name.
        *args, **kwargs
            Its arguments; they are pickled, and so is its result.

        Returns
        -------
        object
            What the function returned.

        Raises
        ------
        AgentEnded
            There is no process, or it ended before it had answered.
        AgentSilent
            The time is over. The call goes on, and its answer is dropped; until then, no other
            call begins.
        Exception
            The function's error, with its traceback there as a note. An error that cannot be
            pickled becomes a `RuntimeError` that names it.
        """
        deadline = time.monotonic() + limit_s
        question = _message(function, args, kwargs)
        with self._held(limit_s):
            return self._call(question, function, deadline, limit_s)

    def stop(self) -> None:
        """End the process at once, and all that it has started.

        A library that has to tidy up does so in a function, which the engine calls before.
        """
        with self._lock:
            if os.getpid() == self._owner:
                self._end("was stopped")

    @contextlib.contextmanager
    def _held(self, limit_s: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=limit_s):
            raise AgentSilent(f"the agent has been busy for {limit_s:g} s with another question")
        try:
            yield
        finally:
            self._lock.release()

    def _spawn(self) -> None:
        make_own(self._log.parent)
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        me = os.getpid()
        owner = str(me), str(processes.start_time(me))
        try:
            module = "crystalmath.engines.agent_process"
            self._process, ours = start_tied(module, *owner, stdout=log, stderr=log)
        finally:
            os.close(log)
        self._owner, self._line, self._received, self._owes = me, ours, b"", False

    def _call(
        self, question: bytes, function: Callable[..., T], deadline: float, limit_s: float
    ) -> T:
        line = self._line
        if line is None or not self.alive:
            raise self._ended()
        name = getattr(function, "__qualname__", repr(function))
        try:
            while self._owes:
                self._receive(line, deadline)
            self._send(line, question, deadline)
            self._owes = True
            returned, answer = self._receive(line, deadline)
        except TimeoutError:
            raise AgentSilent(
                f"the agent (pid {self._process and self._process.pid}) has not answered "
                f"{name} in {limit_s:g} s; its log is {self._log}"
            ) from None
        except OSError:
            self._end()
            raise self._ended() from None
        if not returned:
            raise answer
        value: T = answer
        return value

    def _send(self, line: socket.socket, question: bytes, deadline: float) -> None:
        left = memoryview(question)
        try:
            while left:
                line.settimeout(_left(deadline))
                left = left[line.send(left) :]
        except TimeoutError:
            if len(left) < len(question):
                # Half a message makes the line useless.
                self._end("was stopped: it took no question in time")
            raise

    def _receive(self, line: socket.socket, deadline: float) -> tuple[bool, Any]:
        """Read the next answer from the line; its first part is kept if the time is over."""
        head = LENGTH.size
        while len(self._received) < head or len(self._received) < head + self._length():
            line.settimeout(_left(deadline))
            data = line.recv(_CHUNK)
            if not data:
                raise ConnectionResetError
            self._received += data
        end = head + self._length()
        body, self._received = self._received[head:end], self._received[end:]
        self._owes = False
        answer: tuple[bool, Any] = unpickled(body)
        return answer

    def _length(self) -> int:
        length: int = LENGTH.unpack(self._received[: LENGTH.size])[0]
        return length

    def _end(self, ending: str | None = None) -> None:
        """End the agent and all below it; note how it ended by itself, else `ending`."""
        process, line = self._process, self._line
        self._process = self._line = None
        # Before the line is closed, at which it ends by itself.
        if process is not None and process.poll() is not None:
            ending = None
        if line is not None:
            if os.getpid() == self._owner:
                # Processes forked from this one have the line, too, and keep it open.
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
            line.close()
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # it may have been suspended
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # and so the kernel kills the agent
            process.wait()
        self._ending = ending or _ending(process.returncode)

    def _ended(self) -> AgentEnded:
        last = self._last_line()
        ending = f"; its log {self._log} ends with: {last}" if last else ""
        return AgentEnded(f"the agent {self.ending or 'is not to be reached'}{ending}")

    def _last_line(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1].strip() if lines else ""
        return ""


def _message(function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
    body = pickle.dumps((function, args, kwargs))
    return LENGTH.pack(len(body)) + body


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"
