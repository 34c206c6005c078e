"""Fetches results: of several completed jobs at once where one after the other is asked for."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from crystalmath.client.client_errors import raise_answered
from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.client.transport import Transport

#: Results of one request; the server gives as many of them as fit into 1 MiB.
MOST = 256

#: So many answers are kept for those who have not asked yet.
KEPT = 4


class ResultFetcher:
    """Give the results of completed jobs; threads may share it.

    The first request is for one result, each further one for twice as many as that before: who
    wants one pays for one, and who wants a thousand does not ask a thousand times.

    Parameters
    ----------
    transport : Transport
        Whom to ask.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
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

    def take(self, job_id: str) -> Mapping[str, Any] | None:
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
            answer = self._transport.call("jobs.results", {"job_ids": job_ids})
            raise_answered(answer)
        except CrystalMathError:
            self._most = self._many = 1  # whoever asks for one alone is told
            return {}
        return {each["job_id"]: each for each in answer["results"] if "code" not in each}


_all: weakref.WeakSet[ResultFetcher] = weakref.WeakSet()


def _forked() -> None:
    for fetcher in list(_all):
        fetcher.begin_in_fork()


os.register_at_fork(after_in_child=_forked)
