"""Reads the event log, and keeps futures up to date with it.

Requests are repeated until a server answers, so that no change is missed when a connection or a
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
from crystalmath.client.client_errors import ClientClosed, ConnectionLost, answered_error
from crystalmath.client.transport import Caller, parts
from crystalmath.errors import CrystalMathError, ProtocolMismatch, ServerNotRunning
from crystalmath.models import Job, JobChange, JobState
from crystalmath.models.job_notes import awaited

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from crystalmath.client.future import JobFuture
    from crystalmath.client.transport import Transport
    from crystalmath.wire.answers import EventList

#: How long one request waits for events, in seconds.
POLL_S = 10.0

#: The pause before a request is repeated, in seconds.
AGAIN_S = 0.5

#: The shortest and longest pause between looks at waiting jobs, in seconds.
_LOOK_S = 1.0
_LATER_S = 30.0

#: Jobs in one request.
MANY = 1000

#: Larger than the number of any event.
_NEWEST = 2**53 - 1


class Backoff:
    """Pauses after requests without an answer: the server may come back."""

    def __init__(self) -> None:
        self._logged: str | None = None

    @property
    def is_tried(self) -> bool:
        """Whether the last request had no answer."""
        return self._logged is not None

    def wait(self, error: Exception) -> None:
        """Log the error, unless it was the last one logged, and pause."""
        if str(error) != self._logged:
            import logging

            log = logging.getLogger("crystalmath.client")
            log.warning("%s; waiting for jobs goes on once a server answers", error)
        self._logged = str(error)
        time.sleep(AGAIN_S)

    def reset(self) -> None:
        """Note that a request was answered."""
        self._logged = None


def statuses(transport: Transport, job_ids: Sequence[str]) -> Iterator[Job | CrystalMathError]:
    """Yield the present state of jobs, in their order."""
    for batch in parts(job_ids, MANY):
        answer = Caller(transport).ask(server.JOBS_STATUS_MANY, job_ids=batch)
        for document in answer["jobs"]:
            yield answered_error(document) if document.get("code") else Job.read(document)


class EventLog:
    """A position in the event log, from which later events are read."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._read_to = 0
        self._read({"after": _NEWEST, "limit": 1})

    def changed(self, job_ids: Collection[str], wait_s: float) -> dict[str, str]:
        """Wait for events of any job; return the last state of each job that has changed.

        The wait ends after `wait_s` seconds. Orphans among `job_ids` are adopted meanwhile.
        """
        self._transport.adopt_orphans(job_ids)
        # Events of all jobs are read, because more jobs may be followed meanwhile.
        return self._read({"after": self._read_to, "limit": MANY, "timeout_s": wait_s})

    def _read(self, params: Mapping[str, Any]) -> dict[str, str]:
        answer = _events(self._transport, params)
        self._read_to = answer["last"]
        return {event["job_id"]: event["to"] for event in answer["events"]}


@define(eq=False)
class _Waiting:
    """Jobs that wait for others. No event says that one is held up, so they are polled."""

    _begun: float = field(factory=time.monotonic)
    _jobs: dict[str, str] = field(factory=dict)
    _look_at: float = 0.0

    @property
    def rest_s(self) -> float:
        """The time until the next poll, in seconds."""
        return max(0.0, self._look_at - time.monotonic()) if self._jobs else math.inf

    def note(self, job: Job) -> None:
        """Add a job if it waits for another one, and drop it once it does not."""
        self._jobs.pop(job.job_id, None)
        if awaited(job.parents) and not job.state.is_terminal():
            self._jobs[job.job_id] = job.state.value

    def due(self) -> dict[str, str]:
        """Return the jobs to poll now."""
        return {} if self.rest_s else self._jobs

    def rest(self, sent_at: float, job_ids: Collection[str]) -> None:
        """Pause the longer, the longer the wait lasts and the slower the server has answered."""
        if self._jobs.keys() <= set(job_ids):
            now = time.monotonic()
            pause = max(_LOOK_S, (now - self._begun) / 20, 10 * (now - sent_at))
            self._look_at = now + min(pause, _LATER_S)


def changes(transport: Transport, job_ids: Sequence[str], timeout: float | None) -> Iterator[Job]:
    """Yield the present state of each job and then each change, until all have ended."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    seen: dict[str, tuple[int, str]] = {}
    remaining = dict.fromkeys(job_ids)
    waiting = _Waiting()
    batch = list(remaining)
    backoff = Backoff()
    log = _opened(transport, backoff, end)
    while True:
        sent_at = time.monotonic()
        try:
            now = list(statuses(transport, batch))
            waiting.rest(sent_at, batch)
            batch = []
            backoff.reset()
        except (ServerNotRunning, ConnectionLost) as error:
            now = []
            backoff.wait(error)
        for job in now:
            if isinstance(job, CrystalMathError):
                raise job
            waiting.note(job)
            # A rebuilt database counts revisions from the beginning; a terminal state still counts.
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


def _opened(transport: Transport, backoff: Backoff, end: float) -> EventLog:
    """Return the present position in the event log, also after a lost connection."""
    while True:
        try:
            return EventLog(transport)
        except ConnectionLost as error:
            if time.monotonic() >= end:
                raise
            backoff.wait(error)


def change_events(
    transport: Transport, after: int | None, timeout: float | None, filters: Mapping[str, Any]
) -> Iterator[JobChange]:
    """Yield changes of jobs after an event, or from now on, until the timeout."""
    if after is None:
        # Read the position now, not when the caller takes the first change.
        after = _events(transport, {"after": _NEWEST, "limit": 1})["last"]
    return _change_events(transport, after, timeout, filters)


def _change_events(
    transport: Transport, after: int, timeout: float | None, filters: Mapping[str, Any]
) -> Iterator[JobChange]:
    end = math.inf if timeout is None else time.monotonic() + timeout
    backoff = Backoff()
    while True:
        left = max(0.0, end - time.monotonic())
        params = {**filters, "after": after, "limit": MANY, "timeout_s": min(POLL_S, left)}
        try:
            answer = _events(transport, params)
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
    """Events of jobs without a future that were read during a submission.

    `states` has the last state of each job by its id; `is_all` says that no event can be missing.
    `log` is a position from before the submission, unless a thread reads the log already.
    """

    states: dict[str, str] = field(factory=dict)
    is_all: bool = True
    log: EventLog | None = None


class Follower:
    """Keeps futures up to date, in a thread that lives while there are unfinished ones."""

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
        # The last thread's position in the event log, and until when another may go on from it.
        self._left: tuple[EventLog, float] | None = None

    @contextlib.contextmanager
    def submitting(self) -> Iterator[Overheard]:
        """Keep the events of unknown jobs: the jobs being submitted may be among them."""
        overheard = Overheard()
        with self._lock:
            self._submissions.append(overheard)
            is_first = self._thread is None
            if is_first and self._left:
                (log, until), self._left = self._left, None
                overheard.log = log if time.monotonic() < until else None
        if is_first and overheard.log is None:
            # Without a position the thread would have to ask for each job's state.
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
        """Keep futures up to date until they are done.

        Their present states are taken from `overheard`, if it covers their whole life, and else
        are asked for. With `look` the futures are up to date when this method returns.
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
                    # The last thread has ended meanwhile, and has kept the events it read.
                    (log, _), self._left, goes_on = self._left, None, True
                for other in () if goes_on else self._submissions:
                    # Their events may be older than the beginning of this log.
                    other.is_all = False
                self._thread = threading.Thread(
                    target=self._run, args=[log], name="crystalmath-follow", daemon=True
                )
                self._thread.start()
            knows = overheard is not None and overheard.is_all and not look
        if new and (look or goes_on or not started):
            # The thread may have read their events before it knew of these futures.
            ids = {future.job_id for future in new}
            try:
                if overheard is not None and knows:
                    states = overheard.states
                    self._observe({job_id: states[job_id] for job_id in ids & states.keys()})
                else:
                    self._take_in(ids)
            except (CrystalMathError, OSError):
                self._behind = True
        if self._closed:  # another thread has closed the follower meanwhile
            _end_closed(new)

    def close(self) -> None:
        """End all futures that are not done with `ClientClosed`."""
        with self._lock:
            self._closed = True
        if self._transport.ends_jobs:
            with contextlib.suppress(Exception):
                self._take_in(self._ids())
        _end_closed(self._take_all())

    def abandon_in_fork(self) -> None:
        """Reset in a forked process: the thread is gone, and the lock may be held forever."""
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
                    # Answers to other requests may have ended some.
                    self._forget_ended(self._ids())
                backoff.reset()
            except (ClientClosed, ProtocolMismatch) as error:
                self._give_up(error)
            except (CrystalMathError, OSError) as error:
                # The jobs go on without a server.
                backoff.wait(error)
                log = None
            except Exception as error:  # noqa: BLE001 - else waiting threads would hang for ever
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
        """Stop following those of some jobs whose futures are all done."""
        with self._lock:
            for job_id in job_ids:
                if all(future.done() for future in self._futures.get(job_id, ())):
                    self._futures.pop(job_id, None)

    def _observe(self, states: Mapping[str, str]) -> None:
        """Update futures by the states that the event log has."""
        failed = []
        for job_id, state in states.items():
            with self._lock:
                futures = self._futures.get(job_id, [])
                for overheard in self._submissions if not futures else ():
                    overheard.states[job_id] = state
            if state == JobState.FAILED:
                failed.append(job_id)  # only the record has the reason
                continue
            for future in futures:
                future.observe(JobState(state))
        self._take_in(failed)
        self._forget_ended(states)

    def _take_in(self, job_ids: Iterable[str]) -> None:
        """Ask for some jobs that have futures, and bring these up to date."""
        with self._lock:
            followed = [job_id for job_id in job_ids if job_id in self._futures]
        for job_id, job in zip(followed, statuses(self._transport, followed), strict=True):
            with self._lock:
                futures = self._futures.get(job_id, [])
            for future in futures:
                if isinstance(job, Job):
                    future.update(job)
                else:
                    future.end(job)
        self._forget_ended(followed)

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
