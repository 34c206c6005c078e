"""What came of jobs: their results, and the exceptions that their recipes raised."""

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

#: Results of one request; the server gives as many of them as fit into 1 MiB.
MOST = 256

#: So many answers are kept for those who have not asked yet.
KEPT = 4


class Results:
    """Fetches the results of completed jobs, of several at once; threads may share it.

    Each request is for twice as many as the one before: one result costs one, a thousand ten.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._most = MOST
        self._many = 1
        self._fetched: deque[dict[str, Any]] = deque(maxlen=KEPT)
        #: Those whose results nobody has asked for, in the order in which they completed.
        self._completed: weakref.WeakValueDictionary[str, object] = weakref.WeakValueDictionary()
        self.begin_in_fork()
        _all.add(self)

    def begin_in_fork(self) -> None:
        """Begin anew in a process that was forked: another thread may have held the lock."""
        self._lock = threading.Lock()
        #: Those who are asked for at this moment, and what is set when the answer is there.
        self._under_way: dict[str, threading.Event] = {}

    def note(self, job_id: str, future: object) -> None:
        """Take note that a job has completed, whose result may be asked for while this lives."""
        with self._lock:
            self._completed[job_id] = future

    def value(self, job_id: str) -> Any:
        """Return what the recipe of a completed job returned."""
        from crystalmath.recipes import codec

        fetched = self._take(job_id)
        if fetched is not None:
            return codec.decode_result_document(fetched["result"])
        text = self._caller.result_text(job_id)
        if text is None:
            raise InvalidJob(f"the job {job_id} has not completed")
        return codec.decode_result_json(text)

    def traceback(self, job_id: str) -> str | None:
        """Return the traceback of a job that failed, if its recipe raised."""
        return self._caller.ask(server.JOBS_RESULT, job_id=job_id).get("traceback")

    def _take(self, job_id: str) -> Mapping[str, Any] | None:
        """Return what ``jobs.result`` says of a job that completed, once; ``None``: ask for it."""
        while True:
            with self._lock:
                self._completed.pop(job_id, None)
                for answer in self._fetched:
                    if job_id in answer:
                        return answer.pop(job_id)  # type: ignore[no-any-return]
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
            found = self._fetch([job_id, *others])
            with self._lock:
                if not found:
                    self._many = 1  # they are large
                # The first that did not fit is asked for alone, lest it stop every request.
                left = [name for name in others if name not in found][1:]
                self._completed.update({name: others[name] for name in left})
                mine: Mapping[str, Any] | None = found.pop(job_id, None)
                self._fetched.append(found)
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
            self._most = self._many = 1  # whoever asks for one alone is told
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
    """Make what a recipe raised, with its message alone.

    ``None`` if its type is not imported here: then nobody here waits for it.
    """
    told = _RAISED.fullmatch(_last(traceback))
    kind = _type(told[1]) if told else None
    if told is None or kind is None:
        return None
    message = told[2]
    try:
        # Past its own __init__, which builds a message that is there already.
        error = kind.__new__(kind)
        error.args = () if message is None else (_argument(kind, message),)
    except Exception:  # noqa: BLE001 - whatever a type says that wants more to be made
        return None
    return error


def _last(traceback: str) -> str:
    """Return the line that names the exception, and what follows it of a longer message."""
    lines = traceback.rstrip("\n").split("\n")
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    begin = frames[-1] + 1 if frames else 0
    while begin < len(lines) and lines[begin].startswith("    "):  # its source
        begin += 1
    return "\n".join(lines[begin:])


def _type(name: str) -> type[Exception] | None:
    module, _, last = name.rpartition(".")
    found = getattr(sys.modules.get(module) if module else builtins, last, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _argument(kind: type[Exception], message: str) -> object:
    # A KeyError shows the key as Python writes it.
    if issubclass(kind, KeyError) and kind.__str__ is KeyError.__str__:
        try:
            return ast.literal_eval(message)
        except (ValueError, SyntaxError):
            return message
    return message
