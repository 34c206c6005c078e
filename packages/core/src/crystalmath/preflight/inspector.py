"""Ask recipes which files they would read, in warm children, and remember the reports.

A few children stay warm, each for one environment. The first question waits until the child has
imported quacc. Questions to the same child wait for each other.
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

#: The most seconds for a question. A flow cuts slabs before its first calculation: 3 s for eight
#: atoms. Waiting for a core does not count.
LIMIT_S = 30.0
#: The number of children that stay warm, and of those that are asked at once; each takes 250 MB.
WARM = 2
#: A failure is remembered for so many seconds.
FAILED_S = 2.0
#: After so many failures in a row a recipe is not asked for `PAUSE_S` seconds: a batch of thousands
#: would take hours.
FAILURES = 3
PAUSE_S = 30.0


class CannotAsk(CrystalMathError):  # noqa: N818 - a public name
    """A recipe could not be asked, or did not answer: its files are unknown."""

    code = "recipe_unchecked"


class Inspector:
    """Asks recipes, and remembers their reports. Safe for threads."""

    def __init__(self, *, limit_s: float = LIMIT_S, warm: int = WARM) -> None:
        self._limit_s = limit_s
        self._warm = warm
        self._begin()

    def _begin(self) -> None:
        # A child that newer ones have replaced still finishes its question.
        self._turn = threading.Semaphore(self._warm)
        self._lock = threading.Lock()
        self._children: OrderedDict[Hashable, SupervisorClient] = OrderedDict()
        self._reports = ReportCache()
        self._failed: tuple[Hashable, float, str] = (None, 0.0, "")
        self._in_a_row: dict[Hashable, tuple[int, float]] = {}
        #: The number of times that the children were ended.
        self._term = 0
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
        """Return the report on a recipe, which a child calls up to its calculations.

        Raises
        ------
        CannotAsk
            The recipe took too long, or the child ended meanwhile.
        InvalidJob
            The structure or the parameters cannot be part of a job.
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
                # Another thread may have asked the same question while this one waited.
                if report := self._reports.find(question):
                    return report
                with self._turn:
                    return self._ask(child, question, config.admitted(environment))
        raise CannotAsk(f"{recipe} could not be checked: this program is about to end")

    def close(self, *, for_good: bool = False) -> None:
        """End all children, and return when none is left.

        Later questions start new children; `for_good`, they raise `CannotAsk`.
        """
        with self._lock:
            self._term += 1
            self._is_over = self._is_over or for_good
            children = list(self._children.values())
            self._children.clear()
        for child in children:
            child.end()

    def _ask(self, child: SupervisorClient, question: Question, allow: tuple[str, ...]) -> Report:
        # A submission asks twice, but should wait only once for a recipe that hangs. A batch should
        # wait only once for settings that quacc does not start with.
        settings = _settings(question)
        key, when, before = self._failed
        if time.monotonic() - when < FAILED_S and key in {question.exact, settings}:
            raise _failure(question, before)
        subject = question.recipe, settings
        failures, last = self._in_a_row.get(subject, (0, 0.0))
        if failures >= FAILURES and time.monotonic() - last < PAUSE_S:
            why = f"it failed {failures} times in a row; the next try is after {PAUSE_S:g} s"
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
            self._in_a_row = {**recent, subject: (failures + 1, now)}
            raise _failure(question, answer["failed"])
        self._in_a_row.pop(subject, None)
        report = Report.from_json(answer["report"])
        self._reports.keep(question, report, answer["watched"])
        return report

    def _child(self, environment: Mapping[str, str], term: int) -> SupervisorClient | None:
        """Return the child of an environment, and retire the one longest unused if too many live.

        Return ``None`` if the children were ended since `term`: then no other is asked.
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
        """Start empty in a forked process: the children and held locks are the parent's."""
        for child in self._children.values():
            child.forget()
        self._begin()


def _settings(question: Question) -> Hashable:
    files = settings_files(dict(question.environment))
    return question.environment, tuple(map(signature, files))


def _failure(question: Question, why: str) -> CannotAsk:
    return CannotAsk(f"the files of {question.recipe} could not be checked: {why}")


_default = Inspector()
#: Ask this process's children, and end them; see :class:`Inspector`.
ask, close = _default.ask, _default.close
os.register_at_fork(after_in_child=_default.forget)
# Without this the children would outlive this process for a moment.
atexit.register(close, for_good=True)


#: The most seconds in which a supervisor ends its processes.
_END_S = 10.0
#: The most seconds in which a living supervisor is silent; a stopped one is silent for longer.
_SILENT_S = RENEWALS * (WARM_UP_S + STARVED_S)


class SupervisorClient:
    """A supervised child for one environment; it starts at the first question."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        #: Held while a question is asked.
        self.lock = threading.Lock()
        self._ended = threading.Event()
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._buffer = b""
        # Both processes remove it, so that it goes if either of them is killed.
        self._scratch = ""

    @property
    def ended(self) -> bool:
        """Whether it answers no more questions."""
        return self._ended.is_set()

    def ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Return the child's answer, or ``{"failed": why}``; the caller holds the lock."""
        line = json.dumps({**question, "limit_s": limit_s}).encode() + b"\n"
        fresh = taken = False
        # An idle supervisor may end at this very moment; then a new one is asked.
        while not (fresh or taken or self._ended.is_set()):
            fresh = self._socket is None
            link = self._socket or self._start()
            if self._ended.is_set():  # by another thread, before there was a socket to shut down
                self._stop()
                break
            try:
                link.sendall(line)
                taken = bool(self._read_line(link))
                answer: dict[str, Any] = json.loads(self._read_line(link))
            except (OSError, ValueError):  # it is gone, or it was stopped
                self._stop()
            else:
                return answer
        return {"failed": "its supervisor was ended" if self.ended else "its supervisor died"}

    def end(self) -> None:
        """End it at once, and return when no process of it is left."""
        self._ended.set()
        if (link := self._socket) is not None:
            # The thread that waits for an answer gets an error, and releases the lock.
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self._stop()

    def retire(self) -> None:
        """End it after its present answer."""
        with self.lock:
            self._ended.set()
            self._stop()

    def forget(self) -> None:
        """Close the connection without ending it: in a forked process it is the parent's."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.returncode = 0  # it is no child of this process: Popen must not warn

    def _start(self) -> socket.socket:
        self._scratch = os.path.abspath(tempfile.mkdtemp(prefix="crystalmath-asks-"))
        supervisor = "crystalmath.preflight.child_supervisor"
        self._process, ours = start_tied(supervisor, stdout=subprocess.DEVNULL)
        ours.settimeout(_SILENT_S)
        self._socket, self._buffer = ours, b""
        first = {"environment": self._environment, "scratch": self._scratch}
        with contextlib.suppress(OSError):  # it died at once; the question will fail
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
