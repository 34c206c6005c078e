"""A process of its own that owns jobs: asked in messages of JSON, and killed when a test wants it.

It carries a mark, and so does what it starts: what is left of it can be found. What drops the mark
can, too, for nothing leaves the process above it (:mod:`.keeper_process`).
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
    """A process below a keeper, as a `subprocess.Popen`: its descriptors keep their numbers."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        **options: Any,
    ) -> None:
        self._line, theirs = socket.socketpair()
        numbers = [theirs.fileno(), *descriptors]
        # It carries no mark of those by which processes are found.
        with theirs:
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper_process.__file__, *map(str, numbers)],
                # Without it some Pythons do not find their own libraries.
                env={name: environment[name] for name in _LOADER if name in environment},
                pass_fds=numbers,
                start_new_session=True,
                **options,
            )
        self._keeper = keeper.pid
        self._end = weakref.finalize(self, _end, keeper, self._line)
        # What is read ahead `select` would not see.
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
        """Wait for its end, and give its exit code; `subprocess.TimeoutExpired` if it goes on."""
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
        """List what is below the keeper: of this process, and what it has left behind."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._keeper).children(recursive=True)
            return [each for each in children if each.pid != self.pid]
        return []

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], timeout)[0]:
            # Who kills a keeper, too, leaves no word.
            self.returncode = int(self._answers.readline() or -signal.SIGKILL)
        return self.returncode


def _end(keeper: subprocess.Popen[bytes], line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
    keeper.wait()


#: The environment variable that marks it.
MARK = "CRYSTALMATH_KIT"
#: The environment variable that names a file, which is there once somebody runs its script again.
NOTE = "CRYSTALMATH_KIT_NOTE"
RECIPES = "crystalmath.testing.recipes"
#: What such a process runs.
SCRIPT = "crystalmath.testing.owner_process"
#: The exit code of a child of the user's.
CHILD_EXITS_WITH = 7
#: How often a process that does not answer is looked at, in seconds.
_TICK = 0.5
#: How long Python, its imports and the engine's constructor may take on a machine that is busy with
#: much else, in seconds: a limit on what hangs.
_BIRTH_S = 600.0
#: How much is told of what it wrote, in characters.
_TAIL = 5000


class OwnerError(AssertionError):
    """The process raised, ended, or did not answer; its message, and its traceback below."""


class AwayError(OwnerError):
    """The engine raised `EngineUnavailable`, after which core tries again."""


class Owner:
    """The test's side of such a process, which has all of an environment and no other variables.

    Its standard input has some kilobytes at most (`typed`). After `timeout_s` seconds without an
    answer, once it has imported what it needs, it is killed.
    """

    #: All of this process that are still referred to.
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
        # Files, as a full pipe would stop the engine.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self._errors = tempfile.TemporaryFile() if errors is None else errors.open("w+b")  # noqa: SIM115
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
        """Have a method of `OwnerProcess` (:mod:`.owner_process`) called over there."""
        self.tell(method, *arguments, **keywords)
        return self.receive(method)

    def tell(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Ask without waiting for the answer, which :meth:`receive` gives."""
        try:
            self._line.send_bytes(json.dumps([method, arguments, keywords]).encode())
        except OSError:
            code = self.process.wait()
            raise OwnerError(f"the process ended with {code} before {method!r}") from None

    def receive(self, method: str) -> Any:
        """Wait for the answer to what was asked last."""
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
            # What it forked may hold its end of the line: look at the process, too.
            has_ended, is_late = self.closed, time.monotonic() > deadline
            # This process, too, may have had no core: is an answer there after all?
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
        """What it wrote to standard output."""
        return _text(self._output, 0)

    def new_output(self) -> tuple[str, str]:
        """Return its standard output and error since the last call."""
        texts = tuple(_text(file, self._read[file]) for file in (self._output, self._errors))
        self._read = {file: os.fstat(file.fileno()).st_size for file in self._read}
        return texts[0], texts[1]

    def excerpts(self) -> list[str]:
        """Put into words what it wrote since this or :meth:`new_output` was asked last."""
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
        """List what is alive of that which it has started, whether it is alive itself or not."""
        from crystalmath.testing.oracle import alive, living

        running = living(MARK, self._mark) + self.process.descendants()
        left = {process.pid: process for process in running}
        left.pop(self.process.pid, None)
        return alive(left.values())

    def leave(self, timeout: float = 90.0) -> int:
        """Have it end as a script ends; give its exit code."""
        self._line.close()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise OwnerError(
                f"the script did not end in {timeout:g} s: does a thread of the engine's, which is "
                "no daemon, keep it alive?"
            ) from None
        finally:
            self.kill()


def _holding(typed: bytes) -> int:
    """Return a descriptor from which a text is read, and then its end."""
    if not typed:
        return os.open(os.devnull, os.O_RDONLY)
    read, write = os.pipe()
    os.write(write, typed)
    os.close(write)
    return read


def _text(file: IO[bytes], start: int) -> str:
    # It shares its position with the process, which goes on writing.
    size = os.fstat(file.fileno()).st_size - start
    return os.pread(file.fileno(), size, start).decode(errors="replace")
