"""Keeps futures up to date."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING

from attrs import define, field

from crystalmath.client.client_errors import ClientClosed, ProtocolMismatch
from crystalmath.client.event_log import POLL_S, Backoff, EventLog, statuses
from crystalmath.errors import CrystalMathError
from crystalmath.models import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from crystalmath.client.future import JobFuture
    from crystalmath.client.transport import Transport


@define(eq=False)
class Overheard:
    """What the event log said of jobs without a future while a submission was under way.

    Attributes
    ----------
    states : dict of str to str
        Job id -> its last state.
    is_all : bool
        Whether nothing can have been missed.
    log : EventLog, optional
        Begun before the submission, where nobody reads one yet.
    """

    states: dict[str, str] = field(factory=dict)
    is_all: bool = True
    log: EventLog | None = None


class Follower:
    """Keeps futures up to date, in a thread that lives while there is one to follow.

    Parameters
    ----------
    transport : Transport
        Whom to ask.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._closed = False
        self._futures: dict[str, list[JobFuture]] = {}
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._behind = False
        self._submissions: list[Overheard] = []

    @contextlib.contextmanager
    def submitting(self) -> Iterator[Overheard]:
        """Take note of jobs that nobody knows yet: the one being submitted may be among them."""
        overheard = Overheard()
        with self._lock:
            self._submissions.append(overheard)
            is_first = self._thread is None
        if is_first:
            # Else the thread would have to ask for all that it is to follow.
            with contextlib.suppress(CrystalMathError, OSError):
                overheard.log = EventLog(self._transport)
        try:
            yield overheard
        finally:
            with self._lock, contextlib.suppress(ValueError):  # forked meanwhile
                self._submissions.remove(overheard)

    def follow(
        self,
        futures: Iterable[JobFuture],
        *,
        overheard: Overheard | None = None,
        look: bool = False,
    ) -> None:
        """Keep these up to date until they are done.

        Parameters
        ----------
        futures : iterable of JobFuture
            The futures.
        overheard : Overheard, optional
            What was said of them since before there was anything to say; default: ask.
        look : bool
            Bring them up to date before this returns.
        """
        with self._lock:
            new = [future for future in futures if not future.done()]
            for future in new:
                self._futures.setdefault(future.job_id, []).append(future)
            started = bool(new) and self._thread is None
            if started:
                log = None if overheard is None else overheard.log
                for other in self._submissions:
                    # What is said of theirs may stand before the beginning of this log.
                    other.is_all = False
                self._thread = threading.Thread(
                    target=self._run, args=[log], name="crystalmath-follow", daemon=True
                )
                self._thread.start()
            knows = overheard is not None and overheard.is_all and not look
        if new and (look or not started):
            # The thread may have read the events of these already, and knew of no future.
            ids = {future.job_id for future in new}
            try:
                if overheard is not None and knows:
                    said = overheard.states
                    self._observe({name: said[name] for name in ids if name in said})
                else:
                    self._take_in(ids)
            except (CrystalMathError, OSError):
                self._behind = True

    def close(self) -> None:
        """Give up all futures that are not done."""
        with self._lock:
            self._closed = True
        if self._transport.ends_jobs:
            with contextlib.suppress(Exception):
                self._take_in(self._ids())
        with self._lock:
            left = [future for group in self._futures.values() for future in group]
            self._futures.clear()
        for future in left:
            future.end(ClientClosed(f"the client was closed; job {future.job_id} goes on"))

    def abandon_in_fork(self) -> None:
        """Begin anew in a process that was forked: it has not the thread, and perhaps the lock."""
        left, self._futures = self._futures, {}
        self._begin()
        for future in (future for group in left.values() for future in group):
            future.abandon_in_fork()

    def _run(self, log: EventLog | None) -> None:
        backoff = Backoff()
        while self._goes_on():
            try:
                if log is None or self._behind:
                    self._behind = False
                    log = EventLog(self._transport)
                    with self._lock:
                        for overheard in self._submissions:
                            overheard.is_all = False
                    self._take_in(self._ids())
                self._observe(log.changed(self._ids(), POLL_S))
                backoff.reset()
            except (ClientClosed, ProtocolMismatch) as error:
                self._give_up(error)
            except (CrystalMathError, OSError) as error:
                # The jobs go on, whatever becomes of who tells of them.
                backoff.wait(error)
                log = None
            except Exception as error:  # noqa: BLE001 - or those who wait would do so for ever
                self._give_up(error)

    def _goes_on(self) -> bool:
        with self._lock:
            left = {
                job_id: [future for future in group if not future.done()]
                for job_id, group in self._futures.items()
            }
            self._futures = {job_id: group for job_id, group in left.items() if group}
            if not self._futures or self._closed:
                self._thread = None
                return False
            return True

    def _ids(self) -> list[str]:
        with self._lock:
            return list(self._futures)

    def _observe(self, states: Mapping[str, str]) -> None:
        """Tell the futures what the event log says of them."""
        failed = []
        for job_id, state in states.items():
            with self._lock:
                futures = self._futures.get(job_id, [])
                for overheard in self._submissions if not futures else ():
                    overheard.states[job_id] = state
            if state == JobState.FAILED:
                failed.append(job_id)  # the log does not say why
                continue
            for future in futures:
                future.observe(JobState(state))
        self._take_in(failed)

    def _take_in(self, job_ids: Iterable[str]) -> None:
        """Bring the futures of some jobs up to date, where there are any."""
        with self._lock:
            asked = [job_id for job_id in job_ids if job_id in self._futures]
        for job_id, found in zip(asked, statuses(self._transport, asked), strict=True):
            with self._lock:
                futures = self._futures.get(job_id, [])
            for future in futures:
                if isinstance(found, Job):
                    future.update(found)
                else:
                    future.end(found)

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            left = [future for group in self._futures.values() for future in group]
        for future in left:
            future.end(error)


_all: weakref.WeakSet[Follower] = weakref.WeakSet()


def _forked() -> None:
    for follower in list(_all):
        follower.abandon_in_fork()


os.register_at_fork(after_in_child=_forked)
