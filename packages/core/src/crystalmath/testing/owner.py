"""A process that owns jobs; a test sends it messages of JSON, and kills it.

It and its children carry a mark, by which they are found. A child that drops the mark is found
below a parent that no descendant can leave (:mod:`.keeper_process`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, ClassVar, Self

from crystalmath.testing import keeper_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO

    import psutil


_LOADER = ("LD_LIBRARY_PATH",)


class Kept:
    """A process below a keeper, like a `subprocess.Popen`; its descriptors keep their numbers."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        **options: Any,
    ) -> None:
        self._line, theirs = socket.socketpair()
        numbers = [theirs.fileno(), *descriptors]
        # The keeper itself carries no mark.
        with theirs:
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper_process.__file__, *map(str, numbers)],
                # Some Pythons need these to find their own libraries.
                env={name: environment[name] for name in _LOADER if name in environment},
                pass_fds=numbers,
                start_new_session=True,
                **options,
            )
        self._keeper = keeper.pid
        self._end = weakref.finalize(self, _end, keeper, self._line)
        # Unbuffered, because `select` does not see data that was read ahead.
        self._answers = self._line.makefile("rb", buffering=0)
        self._line.sendall(json.dumps([list(command), dict(environment)]).encode() + b"\n")
        pid = self._answers.readline()
        if not pid:
            raise OSError(f"{sys.executable} did not start; see its standard error")
        self.pid = int(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code; ``None`` while it has not ended."""
        return self._code(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code; raise `subprocess.TimeoutExpired` if late."""
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def kill(self) -> None:
        """Kill it (SIGKILL), and nothing else."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that this one has started, also those that it has left behind."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._keeper).children(recursive=True)
            return [each for each in children if each.pid != self.pid]
        return []

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], timeout)[0]:
            # A killed keeper sends no exit code.
            self.returncode = int(self._answers.readline() or -signal.SIGKILL)
        return self.returncode


def _end(keeper: subprocess.Popen[bytes], line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
    keeper.wait()


#: The variable that marks the process.
MARK = "CRYSTALMATH_KIT"
#: The variable that names a file, which is made if a worker runs the owner's script again.
NOTE = "CRYSTALMATH_KIT_NOTE"
RECIPES = "crystalmath.testing.recipes"
#: The module that the process runs.
SCRIPT = "crystalmath.testing.owner_process"
#: The exit code of the child that the process starts for itself.
CHILD_EXITS_WITH = 7
#: How often it is checked whether a process that does not answer is alive, in seconds.
_TICK = 0.5
#: The limit of Python's start, its imports and the engine's constructor, in seconds, for a very
#: busy machine.
_BIRTH_S = 600.0
#: How many characters of its output are quoted.
_TAIL = 5000


class OwnerError(AssertionError):
    """An error of the process: it raised (with its traceback), ended, or did not answer."""


class AwayError(OwnerError):
    """An `EngineUnavailable` of the engine, after which core tries again."""


class Owner:
    """A process that owns jobs, as a test sees it, with exactly the given environment.

    Its standard input (`typed`) has some kilobytes at most. It is killed after `timeout_s` seconds
    without an answer, which count once it has imported its modules.
    """

    #: All owners of this process that are still referred to.
    made: ClassVar[weakref.WeakSet[Owner]] = weakref.WeakSet()

    def __init__(
        self,
        engine: str,
        environment: dict[str, str],
        errors: Path | None = None,
        cluster: str = "local",
        folder: Path | None = None,
        typed: bytes = b"",
    ) -> None:
        self.timeout_s = 120.0
        self._mark = environment.get(MARK, "") + secrets.token_hex(8)
        # Files, because a full pipe would stop the engine.
        self._output, self._errors = _opened(None), _opened(errors)
        self._read = dict.fromkeys((self._output, self._errors), 0)
        for file in self._read:
            weakref.finalize(self, file.close)
        self._line, theirs = Pipe()
        keyboard = _holding(typed)
        try:
            self.process = Kept(
                [sys.executable, "-P", "-m", SCRIPT, engine, cluster, str(theirs.fileno())],
                {**environment, MARK: self._mark},
                [theirs.fileno()],
                cwd=folder,
                stdin=keyboard,
                stdout=self._output,
                stderr=self._errors,
            )
        finally:
            os.close(keyboard)
            theirs.close()
        self._is_born = False
        Owner.made.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def closed(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of `OwnerProcess` (:mod:`.owner_process`) in the process."""
        self.tell(method, *arguments, **keywords)
        return self.receive(method)

    def tell(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Send a call without waiting for its answer, which :meth:`receive` returns."""
        try:
            self._line.send_bytes(json.dumps([method, arguments, keywords]).encode())
        except OSError:
            code = self.process.wait()
            raise OwnerError(f"the process ended with {code} before {method!r}") from None

    def receive(self, method: str) -> Any:
        """Wait for the answer to the last call."""
        if not self._is_born:
            self._message(method, max(self.timeout_s, _BIRTH_S))
            self._is_born = True
        answer = json.loads(self._message(method, self.timeout_s))
        if "error" in answer:
            kind = AwayError if answer["error"].startswith("EngineUnavailable") else OwnerError
            raise kind(f"{answer['error']}\n\n{answer['traceback']}".rstrip())
        return answer["answer"]

    def _message(self, method: str, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while not self._line.poll(_TICK):
            # A forked child may keep the line open, so the process itself is checked, too.
            has_ended, is_late = self.closed, time.monotonic() > deadline
            # This process may have had no core, and the answer may be there by now.
            if not (has_ended or is_late) or self._line.poll():
                continue
            if has_ended:
                break
            self.kill()
            raise OwnerError(f"{method!r} gave no answer in {timeout_s:g} s")
        else:
            with contextlib.suppress(EOFError, OSError):
                return self._line.recv_bytes()
        raise OwnerError(f"the process ended with {self.process.wait()} during {method!r}")

    @property
    def output(self) -> str:
        """The process's standard output."""
        return _text(self._output, 0)

    def new_output(self) -> tuple[str, str]:
        """Return its standard output and error since the last call."""
        texts = tuple(_text(file, self._read[file]) for file in (self._output, self._errors))
        self._read = {file: os.fstat(file.fileno()).st_size for file in self._read}
        return texts[0], texts[1]

    def excerpts(self) -> list[str]:
        """Return its output since the last call of this or :meth:`new_output`, for a message."""
        output, errors = (text.strip() for text in self.new_output())
        notes = [f"your engine wrote `{output[-_TAIL:]}` to standard output"] if output else []
        if errors:
            notes.append(f"standard error of the process {self.process.pid}:\n{errors[-_TAIL:]}")
        return notes

    def kill(self) -> None:
        """Kill it (SIGKILL), and nothing else."""
        self.process.kill()
        self._line.close()
        self.process.wait()

    def others(self) -> list[psutil.Process]:
        """Return the live processes that it has started, whether it is alive itself or not."""
        from crystalmath.testing.oracle import alive, living

        running = living(MARK, self._mark) + self.process.descendants()
        left = {process.pid: process for process in running}
        left.pop(self.process.pid, None)
        return alive(left.values())

    def leave(self, timeout: float = 90.0) -> int:
        """Let it end as a script ends; return its exit code."""
        self._line.close()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise OwnerError(
                f"the script did not end in {timeout:g} s: does a thread of the engine that is no "
                "daemon keep it alive?"
            ) from None
        finally:
            self.kill()


def _opened(path: Path | None) -> IO[bytes]:
    return tempfile.TemporaryFile() if path is None else path.open("w+b")


def _holding(typed: bytes) -> int:
    """Return a descriptor that reads a text and then its end."""
    if not typed:
        return os.open(os.devnull, os.O_RDONLY)
    read, write = os.pipe()
    os.write(write, typed)
    os.close(write)
    return read


def _text(file: IO[bytes], start: int) -> str:
    # The file's position is shared with the process, which goes on writing.
    size = os.fstat(file.fileno()).st_size - start
    return os.pread(file.fileno(), size, start).decode(errors="replace")
