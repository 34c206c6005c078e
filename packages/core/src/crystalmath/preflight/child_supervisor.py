"""The supervisor of the warm child: it survives anything that a recipe does there.

Like the worker's supervisor it is a child subreaper in a session of its own. It ends the processes
that a recipe leaves running, removes the files in the recipe's directory, and stops a recipe that
takes too long. It imports nothing heavy and runs no code of a recipe.

It is started as ``python -P -m crystalmath.preflight.child_supervisor FD``. FD is a socket to its
owner, with one line of JSON each way. ``{"environment", "scratch"}`` comes first. Then come
questions, ``{"recipe", "allow", "spec", "limit_s"}``. The answer is the word ``taken``, and then
the child's answer or ``{"failed": why}``, with ``"cold": true`` if no question can be asked at all.
The supervisor ends when its owner is gone, or has asked nothing for `IDLE_S`.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath.errors import one_line
from crystalmath.worker.child import Runner, become_subreaper, end_descendants, start

if TYPE_CHECKING:
    from types import FrameType

#: An idle supervisor ends after this time, in seconds.
IDLE_S = 600.0
#: The longest time until the child can be asked, in seconds.
WARM_UP_S = 120.0
#: The time that a child waits for a core does not count, up to so many seconds.
STARVED_S = 60.0
#: A question is asked so many times if the child finds itself out of date.
RENEWALS = 3
#: The interval of looks whether the owner is still there, in seconds.
LOOK_S = 0.2
#: The end of the child's output that goes into the message of a failure, in bytes and in lines.
TAIL = 1000
TAIL_LINES = 3

_CHILD = "crystalmath.preflight.recipe_child"


def main() -> None:
    """Serve one owner until it closes the connection."""
    become_subreaper()
    signal.signal(signal.SIGTERM, _end)
    with socket.socket(fileno=processes.inherited(int(sys.argv[1]))) as owner:
        Supervisor(owner).serve()


def _end(*_: int | FrameType | None) -> None:
    raise SystemExit(0)


class _OwnerGoneError(Exception):
    pass


class Supervisor:
    """Puts its owner's questions to the child, one at a time."""

    def __init__(self, owner: socket.socket) -> None:
        self._owner = owner
        self._environment: dict[str, str] = {}
        self._scratch = ""
        self._child: Runner | None = None
        self._tail = b""

    def serve(self) -> None:
        """Answer questions until the owner is gone or has asked nothing for a while."""
        buffer = b""
        try:
            while select.select([self._owner], [], [], IDLE_S)[0]:
                if not (data := self._owner.recv(1 << 20)):
                    return
                buffer += data
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    self._serve_one(json.loads(line))
        except (ConnectionError, _OwnerGoneError):
            return
        finally:
            # From here on no signal may interrupt the clean-up.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_descendants()
            if self._scratch:
                remove(self._scratch)

    def _serve_one(self, message: dict[str, Any]) -> None:
        if "environment" in message:
            self._environment, self._scratch = message["environment"], message["scratch"]
            # Temporary files of the child and its libraries are removed with it.
            os.environ["TMPDIR"] = os.path.join(self._scratch, "tmp")
            return
        self._owner.sendall(b"taken\n")
        answer = self._answer(message)
        self._owner.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        limit_s = question.pop("limit_s")
        for _ in range(RENEWALS):
            if self._child is not None and processes.start_time(self._child.pid) is None:
                self._end_child()  # it died between two questions, perhaps for lack of memory
            child = self._child or self._start()
            # Its first message says that it is ready; on later calls this returns at once.
            if failure := self._wait(child, WARM_UP_S, "while quacc was being imported"):
                return {"failed": failure, "cold": True}
            if answer := self._ask(child, question, limit_s):
                return answer
            self._end_child()
        return {"failed": "the files that it is made of change all the time"}

    def _start(self) -> Runner:
        os.makedirs(os.environ["TMPDIR"], mode=0o700, exist_ok=True)
        self._child = Runner(functools.partial(start, _CHILD, self._environment))
        return self._child

    def _ask(self, child: Runner, question: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask once; empty if the child is out of date."""
        directory = tempfile.mkdtemp(dir=self._scratch)
        try:
            child.give({**question, "directory": directory})
            if failure := self._wait(child, limit_s, "while it was asked"):
                return {"failed": failure}
            answer = child.message or {}
            # A thread that is still running counts like a process.
            if child.leavings() or not answer.pop("keep", True):
                self._end_child()
            return answer
        finally:
            remove(directory)

    def _wait(self, child: Runner, limit_s: float, when: str) -> str | None:
        """Wait for the child's message; without one, end the child and return the reason."""
        self._tail = b""
        begun, starved_s = time.monotonic(), processes.starved_s(child.pid)
        while not child.ended and child.message is None:
            took_s = time.monotonic() - begun
            left = limit_s - took_s
            if left <= 0:
                left += min(processes.starved_s(child.pid) - starved_s, STARVED_S)
            if left <= 0:
                self._end_child()
                return f"it took longer than {limit_s:g} s {when}{self._last_output()}"
            child.pump(self._write_log, min(LOOK_S, left))
            self._look_at_owner()
        if child.message is not None:
            return None
        how = child.end().how
        self._end_child()
        return f"it {how} {when}{self._last_output()}"

    def _look_at_owner(self) -> None:
        # The owner sends nothing before it has its answer: readable means closed.
        if select.select([self._owner], [], [], 0)[0] and not self._owner.recv(1, socket.MSG_PEEK):
            raise _OwnerGoneError

    def _end_child(self) -> None:
        child, self._child = self._child, None
        end_descendants()
        if child is not None:
            child.drain(self._write_log)
        remove(os.environ["TMPDIR"])

    def _write_log(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL:]

    def _last_output(self) -> str:
        lines = self._tail.decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        output = " | ".join(one_line(line.strip()) for line in lines)
        return f"; its last output: {output}" if output else ""


def remove(path: str) -> None:
    """Remove a directory that a recipe may have filled with anything."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path):
        # Entries of a directory without permissions cannot be removed before it has some.
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for inner in (os.path.join(folder, name) for name in names):
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
