"""A process whose descendants can all be found, however they detach themselves.

Its parent is a keeper (:mod:`.keeper_process`), a child subreaper: whoever is orphaned below it
becomes the keeper's child, also a daemon with a session of its own and no environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Any

from crystalmath.testing import keeper_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psutil

_LOADER = ("LD_LIBRARY_PATH",)


class Kept:
    """A process below a keeper, to be used as a `subprocess.Popen`.

    Parameters
    ----------
    command : sequence of str
        What it runs, by its full path; in a session of its own.
    environment : mapping of str to str
        Its whole environment.
    descriptors : sequence of int
        Those of this process that it gets, by the same numbers.
    **options
        As of `subprocess.Popen`.
    """

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
        self._told = self._line.makefile("rb", buffering=0)
        self._line.sendall(json.dumps([list(command), dict(environment)]).encode() + b"\n")
        pid = self._told.readline()
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
            found = psutil.Process(self._keeper).children(recursive=True)
            return [each for each in found if each.pid != self.pid]
        return []

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], timeout)[0]:
            # Who kills a keeper, too, leaves no word.
            self.returncode = int(self._told.readline() or -signal.SIGKILL)
        return self.returncode


def _end(keeper: subprocess.Popen[bytes], line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
    keeper.wait()
