"""Ask recipes which files they would read: warm children, and what they have answered.

A few children stay warm, each for one environment. The first question to one waits until quacc
is imported there, and questions to the same one wait for each other.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.errors import CrystalMathError
from crystalmath.plugins.report import Report
from crystalmath.preflight.child_supervisor import RENEWALS, STARVED_S, WARM_UP_S, remove
from crystalmath.preflight.report_cache import Question, ReportCache
from crystalmath.processes import start_tied
from crystalmath.recipes.quacc_settings import settings_files
from crystalmath.worker.imports import signature

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from ase import Atoms

#: How long a recipe may take to be asked, in seconds: a flow cuts slabs from its structure before
#: its first calculation, 3 s of computing for eight atoms. Waiting for a core does not count.
LIMIT_S = 30.0
#: How many children stay warm, and how many more may be asked at once; each takes some 250 MB.
WARM = 2
#: How long the last failure is remembered, in seconds.
FAILED_S = 2.0
#: After so many failures in a row a recipe is not asked for a while, in seconds: a batch of
#: thousands would take hours.
FAILURES = 3
PAUSE_S = 30.0


class CannotAsk(CrystalMathError):  # noqa: N818 - named for what happened
    """A recipe could not be asked, or did not answer: nothing is known of its files."""

    code = "recipe_unchecked"


class Inspector:
    """Asks recipes, and remembers what they said. Safe for threads."""

    def __init__(self, *, limit_s: float = LIMIT_S, warm: int = WARM) -> None:
        self._limit_s = limit_s
        self._warm = warm
        # Those that others have pushed out go on until they have answered.
        self._turn = threading.Semaphore(warm)
        self._lock = threading.Lock()
        self._children: OrderedDict[Hashable, SupervisorClient] = OrderedDict()
        self._reports = ReportCache()
        self._failed: tuple[Hashable, float, str] = (None, 0.0, "")
        self._in_a_row: dict[Hashable, tuple[int, float]] = {}
        self._term = 0  # how often the children were ended
        self._is_over = False

    def ask(
        self,
        recipe: str,
        atoms: Atoms | None,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        document: str | None = None,
        *,
        inputs: bool = False,
        calls: bool = False,
    ) -> Report:
        """Ask a recipe which files it would read. It is called up to its calculations, elsewhere.

        Raises `CannotAsk`: it took too long, or the process ended meanwhile. `InvalidJob`: the
        structure or the parameters cannot be part of a job.
        """
        question = Question(
            recipe, atoms, parameters, environment, document, inputs=inputs, calls=calls
        )
        if report := self._reports.find(question):
            return report
        term = self._term
        while (child := self._child(environment, term)) is not None:
            with child.lock:
                if child.ended:
                    continue
                # Another thread may have asked the same while this one waited.
                if report := self._reports.find(question):
                    return report
                with self._turn:
                    return self._ask(child, question, config.admitted(environment))
        raise CannotAsk(f"{recipe} could not be asked: this program is about to end")

    def close(self, *, for_good: bool = False) -> None:
        """End all children, and return when nothing of them is left.

        What is asked from then on is asked of new ones; `for_good`, it raises `CannotAsk`.
        """
        with self._lock:
            self._term += 1
            self._is_over = self._is_over or for_good
            children = list(self._children.values())
            self._children.clear()
        for child in children:
            child.end()

    def _ask(self, child: SupervisorClient, question: Question, allow: tuple[str, ...]) -> Report:
        # A recipe that hangs shall do so once a submission, which asks twice; settings that quacc
        # does not start with, once for all jobs of a batch.
        settings = _settings(question)
        key, when, before = self._failed
        if time.monotonic() - when < FAILED_S and key in {question.exact, settings}:
            raise _failure(question, before)
        asked = question.recipe, settings
        failures, last = self._in_a_row.get(asked, (0, 0.0))
        if failures >= FAILURES and time.monotonic() - last < PAUSE_S:
            why = f"it has failed to answer {failures} times in a row, and is not asked for a while"
            raise _failure(question, why)
        request = {
            "recipe": question.recipe,
            "allow": allow,
            "spec": question.spec,
            "inputs": question.inputs,
            "calls": question.calls,
        }
        answer = child.ask(request, self._limit_s)
        if "report" not in answer:
            key = settings if answer.get("cold") else question.exact
            now = time.monotonic()
            self._failed = (key, now, answer["failed"])
            recent = {
                key: failed for key, failed in self._in_a_row.items() if now - failed[1] < PAUSE_S
            }
            self._in_a_row = {**recent, asked: (failures + 1, now)}
            raise _failure(question, answer["failed"])
        self._in_a_row.pop(asked, None)
        report = Report.from_json(answer["report"])
        self._reports.keep(question, report, answer["watched"])
        return report

    def _child(self, environment: Mapping[str, str], term: int) -> SupervisorClient | None:
        """Return the child of an environment; of too many, the one longest unused must go.

        ``None`` where the children were ended since `term`, and no other is to be asked.
        """
        key = frozenset(environment.items())
        with self._lock:
            if self._is_over or term != self._term:
                return None
            child = self._children.setdefault(key, SupervisorClient(environment))
            self._children.move_to_end(key)
            extra = len(self._children) > self._warm
            old = self._children.popitem(last=False)[1] if extra else None
        if old is not None:
            threading.Thread(target=old.retire, daemon=True).start()
        return child

    def forget(self) -> None:
        """Begin anew in a forked process: the children and held locks are the parent's."""
        for child in self._children.values():
            child.forget()
        self.__init__(limit_s=self._limit_s, warm=self._warm)  # type: ignore[misc]


def _settings(question: Question) -> Hashable:
    files = settings_files(dict(question.environment))
    return question.environment, tuple(map(signature, files))


def _failure(question: Question, why: str) -> CannotAsk:
    return CannotAsk(f"{question.recipe} could not be asked which files it reads: {why}")


_default = Inspector()
#: Ask with the children of this process, and end these; see :class:`Inspector`.
ask, close = _default.ask, _default.close
os.register_at_fork(after_in_child=_default.forget)
# They would go by themselves, but only after this process.
atexit.register(close, for_good=True)


#: How long a supervisor may take to end what it runs, in seconds.
_END_S = 10.0
#: How long a supervisor that is alive may be silent, in seconds: it may have been stopped.
_SILENT_S = RENEWALS * (WARM_UP_S + STARVED_S)


class SupervisorClient:
    """A supervised child for one environment; it starts at the first question."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        #: Held by who asks.
        self.lock = threading.Lock()
        #: It is not asked any more.
        self.ended = False
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._buffer = b""
        # Made and removed here as well as there, so that it goes whichever of us is killed.
        self._scratch = ""

    def ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Return the child's answer, or ``{"failed": why}``; the caller holds the lock."""
        line = json.dumps({**question, "limit_s": limit_s}).encode() + b"\n"
        fresh = taken = False
        # An idle one may end at the very moment it is asked; then a fresh one is.
        while not (fresh or taken or self.ended):
            fresh = self._socket is None
            link = self._socket or self._start()
            if self.ended:  # by another thread, before there was a socket to shut down
                self._stop()  # type: ignore[unreachable]
                break
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
