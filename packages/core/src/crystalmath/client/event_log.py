"""Changes of jobs, from the event log.

A sequence number says up to where the log was read, so nothing is missed when a connection or a
server is replaced.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from crystalmath.client.client_errors import ConnectionLost, answered_error, raise_answered
from crystalmath.errors import CrystalMathError, ServerNotRunning
from crystalmath.models import Job, JobChange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from crystalmath.client.transport import Transport

#: How long one request waits for events, in seconds.
POLL_S = 10.0

#: How often a server that has gone is looked for, in seconds.
AGAIN_S = 0.5

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
        answer = transport.call(
            "jobs.status_many", {"job_ids": list(job_ids[start : start + MANY])}
        )
        raise_answered(answer)
        for document in answer["jobs"]:
            yield answered_error(document) if document.get("code") else Job.read(document)


class EventLog:
    """A place in the event log, from which it is read on.

    Parameters
    ----------
    transport : Transport
        Whom to ask.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._read_to = 0
        self._read({"after": _NEWEST, "limit": 1})

    def changed(self, job_ids: Collection[str], wait_s: float) -> dict[str, str]:
        """Wait for events of any job; give those that have changed since, with their last state.

        Parameters
        ----------
        job_ids : collection of str
            The jobs that are waited for.
        wait_s : float
            How long to wait at most, in seconds.
        """
        self._transport.adopt_orphans(job_ids)
        # Not of these jobs alone: where others are followed meanwhile, their events count too.
        return self._read({"after": self._read_to, "limit": MANY, "timeout_s": wait_s})

    def _read(self, params: Mapping[str, Any]) -> dict[str, str]:
        answer = _events(self._transport, params)
        self._read_to = answer["last"]
        return {event["job_id"]: event["to"] for event in answer["events"]}


def changes(transport: Transport, job_ids: Sequence[str], timeout: float | None) -> Iterator[Job]:
    """Yield the present state of each job and then each change, until all have ended."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    seen: dict[str, int] = {}
    remaining = dict.fromkeys(job_ids)
    log = EventLog(transport)
    batch = list(remaining)
    backoff = Backoff()
    while True:
        try:
            now = list(statuses(transport, batch))
            batch = []
            backoff.reset()
        except (ServerNotRunning, ConnectionLost) as error:
            now = []
            backoff.wait(error)
        for job in now:
            if isinstance(job, CrystalMathError):
                raise job
            # Rows of a database that was made anew are counted anew; an end is one all the same.
            if job.revision > seen.get(job.job_id, -1) or job.state.is_terminal():
                seen[job.job_id] = job.revision
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
            changed = log.changed(remaining, min(POLL_S, left))
            batch = [job_id for job_id in changed if job_id in remaining]
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


def _events(transport: Transport, params: Mapping[str, Any]) -> dict[str, Any]:
    answer = transport.call("jobs.events", params)
    raise_answered(answer)
    return answer
