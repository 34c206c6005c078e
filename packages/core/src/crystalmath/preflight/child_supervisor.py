"""The supervisor of the process that asks recipes: it lives through whatever a recipe does there.

A child subreaper in a session of its own, as the worker's is. Whatever a recipe leaves running is
ended, whatever it writes into its directory is removed, and what goes on for too long is stopped.
It imports nothing heavy and runs no code of a recipe.

Started as ``python -P -m crystalmath.preflight.child_supervisor FD``; FD is a socket to its owner,
one line of JSON each way. ``{"environment", "scratch"}`` comes first. Then come questions,
``{"recipe", "allow", "spec", "limit_s"}``; the answer is the word ``taken``, and then the child's,
or ``{"failed": why}``, with ``"cold": true`` where no question at all can be asked. It ends when
its owner is gone, or has asked nothing for a while.
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
#: How long the child may take until it can be asked, in seconds.
WARM_UP_S = 120.0
#: What a child waits for a core does not count, up to so many seconds: somebody waits for it.
STARVED_S = 60.0
#: How often a question is asked again because the child had found itself out of date.
RENEWALS = 3
#: How often it looks whether the owner is still there, in seconds.
LOOK_S = 0.2
#: How much of the end of what was printed goes into a failure, in bytes and in lines.
TAIL = 1000
TAIL_LINES = 3

_CHILD = "crystalmath.preflight.recipe_child"


def main() -> None:
    """Serve one owner until it lets go."""
    become_subreaper()
    signal.signal(signal.SIGTERM, _end)
    with socket.socket(fileno=processes.inherited(int(sys.argv[1]))) as owner:
        Supervisor(owner).serve()


def _end(*_: int | FrameType | None) -> None:
    raise SystemExit(0)


class _OwnerGone(Exception):  # noqa: N818 - named for what happened
    pass


class Supervisor:
    """Asks one question of its owner at a time."""

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
        except (ConnectionError, _OwnerGone):
            return
        finally:
            # From now on nothing may break into the tidying up.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_descendants()
            if self._scratch:
                remove(self._scratch)

    def _serve_one(self, message: dict[str, Any]) -> None:
        if "environment" in message:
            self._environment, self._scratch = message["environment"], message["scratch"]
            # What the child and its libraries write in passing goes with it.
            os.environ["TMPDIR"] = os.path.join(self._scratch, "tmp")
            return
        self._owner.sendall(b"taken\n")
        answer = self._answer(message)
        self._owner.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        limit_s = question.pop("limit_s")
        for _ in range(RENEWALS):
            if self._child is not None and processes.start_time(self._child.pid) is None:
                self._end_child()  # while nobody asked; memory was short, perhaps
            child = self._child or self._start()
            # It says so once when it can be asked.
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
            # A thread that goes on is as much alive as a process.
            if child.leavings() or not answer.pop("keep", True):
                self._end_child()
            return answer
        finally:
            remove(directory)

    def _wait(self, child: Runner, limit_s: float, when: str) -> str | None:
        """Wait for the child's message; if there is none, say why, with nothing left of it."""
        self._tail = b""
        begun, starved_s = time.monotonic(), processes.starved_s(child.pid)
        while not child.ended and child.message is None:
            took_s = time.monotonic() - begun
            left = limit_s - took_s
            if left <= 0:
                left += min(processes.starved_s(child.pid) - starved_s, STARVED_S)
            if left <= 0:
                self._end_child()
                return f"it took longer than {limit_s:g} s {when}{self._said()}"
            child.pump(self._write_log, min(LOOK_S, left))
            self._look_at_owner()
        if child.message is not None:
            return None
        how = child.end().how
        self._end_child()
        return f"it {how} {when}{self._said()}"

    def _look_at_owner(self) -> None:
        # It owes us nothing before it has its answer: what can be read is its end.
        if select.select([self._owner], [], [], 0)[0] and not self._owner.recv(1, socket.MSG_PEEK):
            raise _OwnerGone

    def _end_child(self) -> None:
        child, self._child = self._child, None
        end_descendants()
        if child is not None:
            child.drain(self._write_log)
        remove(os.environ["TMPDIR"])

    def _write_log(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL:]

    def _said(self) -> str:
        lines = self._tail.decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        said = " | ".join(one_line(line.strip()) for line in lines)
        return f"; the last that it printed: {said}" if said else ""


def remove(path: str) -> None:
    """Remove a directory that a recipe may have filled with anything."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path):
        # Without root, what stands in a directory without permissions cannot be removed.
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for inner in (os.path.join(folder, name) for name in names):
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
