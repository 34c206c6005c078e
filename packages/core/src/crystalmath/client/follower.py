"""Follows jobs: what the event log says of them, and their futures, which it keeps up to date.

Whoever waits asks again where a server has gone: nothing is missed when a connection or a
server is replaced.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from attrs import define, field

from crystalmath import server
from crystalmath.client.client_errors import (
    ClientClosed,
    ConnectionLost,
    ProtocolMismatch,
    answered_error,
)
from crystalmath.client.transport import Caller
from crystalmath.errors import CrystalMathError, ServerNotRunning
from crystalmath.models import Job, JobChange, JobState
from crystalmath.models.job_notes import awaited

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from crystalmath.client.future import JobFuture
    from crystalmath.client.transport import Transport
    from crystalmath.wire.answers import EventList

#: How long one request waits for events, in seconds.
POLL_S = 10.0

#: How often a server that has gone is looked for, in seconds.
AGAIN_S = 0.5

#: How often it is looked at least and at most whether jobs that wait for others are held up, in
#: seconds.
_LOOK_S = 1.0
_LATER_S = 30.0

#: Jobs in one request.
MANY = 1000

#: After any event there can be.
_NEWEST = 2**53 - 1


class Backoff:
    """A pause after a request that had no answer: the server may come back."""

    def __init__(self) -> None:
        self._told: str | None = None

    @property
    def is_tried(self) -> bool:
        """Whether the last request had no answer."""
        return self._told is not None

    def wait(self, error: Exception) -> None:
        """Say what is wrong, unless that was said, and wait a moment."""
        if str(error) != self._told:
            import logging

            log = logging.getLogger("crystalmath.client")
            log.warning("%s; what waits for jobs here goes on once it can", error)
        self._told = str(error)
        time.sleep(AGAIN_S)

    def reset(self) -> None:
        """Begin anew: there was an answer."""
        self._told = None


def statuses(transport: Transport, job_ids: Sequence[str]) -> Iterator[Job | CrystalMathError]:
    """Yield the present state of jobs, in their order."""
    for start in range(0, len(job_ids), MANY):
        asked = list(job_ids[start : start + MANY])
        answer = Caller(transport).ask(server.JOBS_STATUS_MANY, job_ids=asked)
        for document in answer["jobs"]:
            yield answered_error(document) if document.get("code") else Job.read(document)


class EventLog:
    """A place in the event log, from which it is read on."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._read_to = 0
        self._read({"after": _NEWEST, "limit": 1})

    def changed(self, job_ids: Collection[str], wait_s: float) -> dict[str, str]:
        """Wait for events of any job; give those that have changed since, with their last state.

        It waits `wait_s` seconds at most. The owners of `job_ids` are looked after meanwhile.
        """
        self._transport.adopt_orphans(job_ids)
        # Not of these jobs alone: where others are followed meanwhile, their events count too.
        return self._read({"after": self._read_to, "limit": MANY, "timeout_s": wait_s})

    def _read(self, params: Mapping[str, Any]) -> dict[str, str]:
        answer = _events(self._transport, params)
        self._read_to = answer["last"]
        return {event["job_id"]: event["to"] for event in answer["events"]}


@define(eq=False)
class _Waiting:
    """Jobs that wait for others: no event tells that what one waits for has become held up."""

    _begun: float = field(factory=time.monotonic)
    _jobs: dict[str, str] = field(factory=dict)
    _look_at: float = 0.0

    @property
    def rest_s(self) -> float:
        """Until when they need not be asked for, in seconds from now."""
        return max(0.0, self._look_at - time.monotonic()) if self._jobs else math.inf

    def note(self, job: Job) -> None:
        """Keep a job in mind as long as it waits."""
        self._jobs.pop(job.job_id, None)
        if awaited(job.parents) and not job.state.is_terminal():
            self._jobs[job.job_id] = job.state.value

    def due(self) -> dict[str, str]:
        """Return those that are to be asked for now."""
        return {} if self.rest_s else self._jobs

    def rest(self, asked: float, job_ids: Collection[str]) -> None:
        """Ask again the later, the longer it lasts and the more the answer has cost the server."""
        if self._jobs.keys() <= set(job_ids):
            now = time.monotonic()
            pause = max(_LOOK_S, (now - self._begun) / 20, 10 * (now - asked))
            self._look_at = now + min(pause, _LATER_S)


def changes(transport: Transport, job_ids: Sequence[str], timeout: float | None) -> Iterator[Job]:
    """Yield the present state of each job and then each change, until all have ended."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    seen: dict[str, tuple[int, str]] = {}
    remaining = dict.fromkeys(job_ids)
    waiting = _Waiting()
    log = EventLog(transport)
    batch = list(remaining)
    backoff = Backoff()
    while True:
        asked = time.monotonic()
        try:
            now = list(statuses(transport, batch))
            waiting.rest(asked, batch)
            batch = []
            backoff.reset()
        except (ServerNotRunning, ConnectionLost) as error:
            now = []
            backoff.wait(error)
        for job in now:
            if isinstance(job, CrystalMathError):
                raise job
            waiting.note(job)
            # Rows of a database that was made anew are counted anew; an end is one all the same.
            known = job.revision, job.held_up_by or ""
            before = seen.get(job.job_id, (-1, ""))
            if (known != before and known[0] >= before[0]) or job.state.is_terminal():
                seen[job.job_id] = known
                if job.state.is_terminal():
                    remaining.pop(job.job_id, None)
                yield job
        left = end - time.monotonic()
        if not remaining or left <= 0:
            return
        if backoff.is_tried:
            batch = list(remaining)
            continue
        try:
            changed = log.changed(remaining, min(POLL_S, left, waiting.rest_s))
            batch = [job_id for job_id in {**changed, **waiting.due()} if job_id in remaining]
        except (ServerNotRunning, ConnectionLost) as error:
            backoff.wait(error)
            batch = list(remaining)


def change_events(
    transport: Transport, after: int | None, timeout: float | None, filters: Mapping[str, Any]
) -> Iterator[JobChange]:
    """Yield what happens to jobs after an event, or from now on, until the time is over."""
    if after is None:
        # Now, not when the first change is asked for.
        after = _events(transport, {"after": _NEWEST, "limit": 1})["last"]
    return _change_events(transport, after, timeout, filters)


def _change_events(
    transport: Transport, after: int, timeout: float | None, filters: Mapping[str, Any]
) -> Iterator[JobChange]:
    end = math.inf if timeout is None else time.monotonic() + timeout
    backoff = Backoff()
    while True:
        left = max(0.0, end - time.monotonic())
        asked = {**filters, "after": after, "limit": MANY, "timeout_s": min(POLL_S, left)}
        try:
            answer = _events(transport, asked)
            backoff.reset()
        except (ServerNotRunning, ConnectionLost) as error:
            if not left:
                return
            backoff.wait(error)
            continue
        yield from map(JobChange.read, answer["events"])
        if not left and answer["last"] == after:
            return
        after = answer["last"]


def _events(transport: Transport, params: Mapping[str, Any]) -> EventList:
    return Caller(transport).ask(server.JOBS_EVENTS, **params)


# --- futures ---------------------------------------------------------------------------------


@define(eq=False)
class Overheard:
    """What the event log said of jobs without a future while a submission was under way.

    The last state of each job, by its id; whether nothing can have been missed; and the log, which
    was begun before the submission where nobody reads one yet.
    """

    states: dict[str, str] = field(factory=dict)
    is_all: bool = True
    log: EventLog | None = None


class Follower:
    """Keeps futures up to date, in a thread that lives while there is one to follow."""

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
        # Where the last thread was in the event log, and until when another may go on from there.
        self._left: tuple[EventLog, float] | None = None

    @contextlib.contextmanager
    def submitting(self) -> Iterator[Overheard]:
        """Take note of jobs that nobody knows yet: the one being submitted may be among them."""
        overheard = Overheard()
        with self._lock:
            self._submissions.append(overheard)
            is_first = self._thread is None
            if is_first and self._left:
                (log, until), self._left = self._left, None
                overheard.log = log if time.monotonic() < until else None
        if is_first and overheard.log is None:
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

        What was overheard since before there was anything to say is believed; by default they are
        asked for. With `look` they are up to date when this returns.
        """
        with self._lock:
            new = [future for future in futures if not future.done()]
            for future in new:
                self._futures.setdefault(future.job_id, []).append(future)
            started = bool(new) and self._thread is None
            goes_on = False
            if started:
                log = None if overheard is None else overheard.log
                if log is None and overheard is not None and overheard.is_all and self._left:
                    # The last thread has ended meanwhile, and overheard what it read.
                    (log, _), self._left, goes_on = self._left, None, True
                for other in () if goes_on else self._submissions:
                    # What is said of theirs may stand before the beginning of this log.
                    other.is_all = False
                self._thread = threading.Thread(
                    target=self._run, args=[log], name="crystalmath-follow", daemon=True
                )
                self._thread.start()
            knows = overheard is not None and overheard.is_all and not look
        if new and (look or goes_on or not started):
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
        if self._closed:  # by another thread meanwhile, which knew nothing of these
            _end_closed(new)

    def close(self) -> None:
        """Give up all futures that are not done."""
        with self._lock:
            self._closed = True
        if self._transport.ends_jobs:
            with contextlib.suppress(Exception):
                self._take_in(self._ids())
        _end_closed(self._take_all())

    def abandon_in_fork(self) -> None:
        """Begin anew in a process that was forked: it has not the thread, and perhaps the lock."""
        left, self._futures = self._futures, {}
        self._begin()
        for future in (future for group in left.values() for future in group):
            future.abandon_in_fork()

    def _run(self, log: EventLog | None) -> None:
        backoff = Backoff()
        while self._goes_on(log):
            try:
                if log is None or self._behind:
                    self._behind = False
                    log = EventLog(self._transport)
                    with self._lock:
                        for overheard in self._submissions:
                            overheard.is_all = False
                    self._take_in(self._ids())
                states = log.changed(self._ids(), POLL_S)
                self._observe(states)
                if not states:
                    # An answer to a request may have ended some.
                    self._forget_ended(self._ids())
                backoff.reset()
            except (ClientClosed, ProtocolMismatch) as error:
                self._give_up(error)
            except (CrystalMathError, OSError) as error:
                # The jobs go on, whatever becomes of who tells of them.
                backoff.wait(error)
                log = None
            except Exception as error:  # noqa: BLE001 - or those who wait would do so for ever
                self._give_up(error)

    def _goes_on(self, log: EventLog | None) -> bool:
        with self._lock:
            if not self._futures or self._closed:
                self._thread = None
                if log is not None and not self._behind:
                    self._left = log, time.monotonic() + POLL_S
                return False
            return True

    def _ids(self) -> list[str]:
        with self._lock:
            return list(self._futures)

    def _take_all(self) -> list[JobFuture]:
        with self._lock:
            groups, self._futures = self._futures.values(), {}
        return [future for group in groups for future in group]

    def _forget_ended(self, job_ids: Iterable[str]) -> None:
        """Follow no more those of some jobs whose futures are done."""
        with self._lock:
            for job_id in job_ids:
                if all(future.done() for future in self._futures.get(job_id, ())):
                    self._futures.pop(job_id, None)

    def _observe(self, states: Mapping[str, str]) -> None:
        """Update the futures by what the event log says of them."""
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
        self._forget_ended(states)

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
        self._forget_ended(asked)

    def _give_up(self, error: Exception) -> None:
        for future in self._take_all():
            future.end(error)


def _end_closed(futures: Iterable[JobFuture]) -> None:
    for future in futures:
        future.end(ClientClosed(f"the client was closed; job {future.job_id} goes on"))


_all: weakref.WeakSet[Follower] = weakref.WeakSet()


def _forked() -> None:
    for follower in list(_all):
        follower.abandon_in_fork()


os.register_at_fork(after_in_child=_forked)
