"""Fetches results of jobs, and rebuilds the exceptions that their recipes raised."""

from __future__ import annotations

import ast
import builtins
import os
import re
import sys
import threading
import weakref
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from crystalmath import server
from crystalmath.errors import CrystalMathError, InvalidJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.client.transport import Caller

#: Results of one request; the server returns as many as fit into 1 MiB.
MOST = 256

#: Answers that are kept for later calls.
KEPT = 4


class Results:
    """Fetches the results of completed jobs, of several at once; threads may share it.

    Each request is for twice as many as the one before. One result needs one request, a thousand
    need ten.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._most = MOST
        self._many = 1
        self._fetched: deque[dict[str, Any]] = deque(maxlen=KEPT)
        #: Completed jobs whose results were not fetched yet, in the order of their ends.
        self._completed: weakref.WeakValueDictionary[str, object] = weakref.WeakValueDictionary()
        self.begin_in_fork()
        _all.add(self)

    def begin_in_fork(self) -> None:
        """Reset in a forked process: another thread may have held the lock."""
        self._lock = threading.Lock()
        #: Results being fetched, each with the event that is set once the answer is there.
        self._under_way: dict[str, threading.Event] = {}

    def note(self, job_id: str, future: object) -> None:
        """Note a completed job, whose result may be fetched while its future lives."""
        with self._lock:
            self._completed[job_id] = future

    def value(self, job_id: str) -> Any:
        """Return the result of a completed job, decoded."""
        from crystalmath.recipes import codec

        fetched = self._take(job_id)
        if fetched is not None:
            return codec.decode_result_document(fetched["result"])
        text = self._caller.result_text(job_id)
        if text is None:
            raise InvalidJob(f"the job {job_id} has not completed")
        return codec.decode_result_json(text)

    def traceback(self, job_id: str) -> str | None:
        """Return the traceback of a failed job, if its recipe raised."""
        return self._caller.ask(server.JOBS_RESULT, job_id=job_id).get("traceback")

    def _take(self, job_id: str) -> Mapping[str, Any] | None:
        """Return a job's entry of a fetched answer, once; ``None``: fetch this result alone."""
        while True:
            with self._lock:
                self._completed.pop(job_id, None)
                for answer in self._fetched:
                    if job_id in answer:
                        entry: Mapping[str, Any] = answer.pop(job_id)
                        return entry
                by_another = self._under_way.get(job_id)
                if by_another is None:
                    others = dict(islice(self._completed.items(), self._many - 1))
                    self._many = min(2 * self._many, self._most)
                    answered = threading.Event()
                    self._under_way |= dict.fromkeys(others, answered)
                    for other in others:
                        del self._completed[other]
                    break
            by_another.wait()
        if not others:
            return None
        try:
            results = self._fetch([job_id, *others])
            with self._lock:
                if not results:
                    self._many = 1  # they are large
                # The first that did not fit is fetched alone, or it would block every request.
                left = [name for name in others if name not in results][1:]
                self._completed.update({name: others[name] for name in left})
                mine: Mapping[str, Any] | None = results.pop(job_id, None)
                self._fetched.append(results)
        finally:
            with self._lock:
                for other in others:
                    if self._under_way.get(other) is answered:
                        del self._under_way[other]
            answered.set()
        return mine

    def _fetch(self, job_ids: list[str]) -> dict[str, Any]:
        try:
            answer = self._caller.ask(server.JOBS_RESULTS, job_ids=job_ids)
        except CrystalMathError:
            self._most = self._many = 1  # a request for one result raises the error
            return {}
        return {each["job_id"]: each for each in answer["results"] if "code" not in each}


_all: weakref.WeakSet[Results] = weakref.WeakSet()


def _forked() -> None:
    for fetcher in list(_all):
        fetcher.begin_in_fork()


os.register_at_fork(after_in_child=_forked)


# --- exceptions of recipes -------------------------------------------------------------------

_RAISED = re.compile(r"([A-Za-z_]\w*(?:\.(?:[A-Za-z_]\w*|<locals>))*)(?:: (.*))?", re.DOTALL)


def raised(traceback: str) -> Exception | None:
    """Return the exception of a recipe, with its message alone.

    ``None`` if its type is not imported here: then no code here can catch it.
    """
    match = _RAISED.fullmatch(_last(traceback))
    kind = _type(match[1]) if match else None
    if match is None or kind is None:
        return None
    message = match[2]
    try:
        # The message is complete; an __init__ of the type would build it again.
        error = kind.__new__(kind)
        error.args = () if message is None else (_argument(kind, message),)
    except Exception:  # noqa: BLE001 - a type that needs arguments may raise anything
        return None
    return error


def _last(traceback: str) -> str:
    """Return the line that names the exception, and further lines of its message."""
    lines = traceback.rstrip("\n").split("\n")
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    begin = frames[-1] + 1 if frames else 0
    while begin < len(lines) and lines[begin].startswith("    "):  # its source
        begin += 1
    return "\n".join(lines[begin:])


def _type(name: str) -> type[Exception] | None:
    module, _, last = name.rpartition(".")
    kind = getattr(sys.modules.get(module) if module else builtins, last, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _argument(kind: type[Exception], message: str) -> object:
    # A KeyError shows the key as Python writes it.
    if issubclass(kind, KeyError) and kind.__str__ is KeyError.__str__:
        try:
            return ast.literal_eval(message)
        except (ValueError, SyntaxError):
            return message
    return message
