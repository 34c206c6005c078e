"""The handlers that wait: ``jobs.wait`` and ``jobs.events``. They hold no thread meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import UnknownJob
from crystalmath.models.fields import array, reference
from crystalmath.server.handlers.documents import (
    EVENT_SIZE,
    JOB_SIZE,
    PAGE,
    event_document,
    job_document,
)
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc.budget import room
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import (
    ERROR,
    JOB,
    JOB_IDS,
    TIMEOUT,
    record,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Generator, Iterator, Mapping, Sequence

    from crystalmath.quacc.store import Event, JobMetadata
    from crystalmath.service import JobService

__all__ = ["Subscriber", "handle_jobs_events", "handle_jobs_wait"]

#: How often it is looked whether the owner of a job that is waited for has died, in seconds.
_TEND_S = 2.0
_MOST_EVENTS = 10_000


class Subscriber:
    """Wakes a coroutine when there are events of some jobs.

    Parameters
    ----------
    job_ids : collection of str, optional
        The jobs; default: all.

    Attributes
    ----------
    hears_after : int
        The ``seq`` after which it hears of every event.
    """

    hears_after = 0

    def __init__(self, job_ids: Collection[str] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._job_ids = None if job_ids is None else frozenset(job_ids)
        self._happened = asyncio.Event()

    def notify(self, events: Sequence[Event]) -> None:
        """Take new events; called by a thread of the service."""
        if self._job_ids is None or any(event.job_id in self._job_ids for event in events):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._happened.set)

    async def wait(self, most_s: float) -> None:
        """Wait until something has happened since the last time, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._happened.wait()
        self._happened.clear()


@contextlib.asynccontextmanager
async def _listening(
    service: JobService, job_ids: Collection[str] | None
) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(job_ids)
    listening = asyncio.create_task(in_pool("asking", service.feed.listen, subscriber.notify))
    adopting = None
    try:
        subscriber.hears_after = await asyncio.shield(listening)
        adopting = asyncio.create_task(_adopt_orphans(service, job_ids or ()))
        yield subscriber
    finally:
        if adopting is not None:
            adopting.cancel()
        # A request that is cancelled may still be about to listen.
        listening.add_done_callback(functools.partial(_forget, service, subscriber))


def _forget(service: JobService, subscriber: Subscriber, listening: asyncio.Task[int]) -> None:
    service.feed.forget(subscriber.notify)
    if not listening.cancelled():
        listening.exception()  # it was raised, or nobody is there any more


async def _adopt_orphans(service: JobService, job_ids: Collection[str]) -> None:
    """See to it that somebody follows the jobs that are waited for; an engine may be slow."""
    while job_ids:
        await in_pool("adopting", service.adopt_orphans, job_ids)
        await asyncio.sleep(_TEND_S)


@method(
    "jobs.wait",
    params={"job_ids": JOB_IDS, "timeout_s": {**TIMEOUT, "description": "in seconds; default: 30"}},
    required=("job_ids",),
    result=record({"jobs": array(JOB), "done": {"type": "boolean"}, "error": ERROR}),
    refused={"jobs": [], "done": False},
)
async def handle_jobs_wait(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Wait until all of some jobs have ended, or the time is over.

    The answer has their states at that moment, in the order of the ids; ``done`` tells whether all
    have ended. A job whose owner has died is taken over.
    """
    job_ids = list(dict.fromkeys(params["job_ids"]))
    end = time.monotonic() + params.get("timeout_s", 30)
    async with _listening(service, job_ids) as subscriber:
        while True:
            done = await in_slices("computing", _have_ended(service, job_ids))
            left = end - time.monotonic()
            if done or left <= 0:
                break
            await subscriber.wait(left)
    await room(JOB_SIZE * len(job_ids))
    documents, done = await in_slices("computing", _told_of(service, job_ids))
    return {"jobs": documents, "done": done, "error": None}


def _have_ended(service: JobService, job_ids: list[str]) -> Generator[None, None, bool]:
    done = True
    for page in _pages(job_ids):
        done &= all(job.state.is_terminal() for job in _all_of(service, page))
        yield
    return done


def _told_of(
    service: JobService, job_ids: list[str]
) -> Generator[None, None, tuple[list[dict[str, Any]], bool]]:
    documents, done = [], True
    for page in _pages(job_ids):
        jobs = _all_of(service, page)
        documents += [job_document(service, job) for job in jobs]
        done &= all(job.state.is_terminal() for job in jobs)
        yield
    return documents, done


def _pages(job_ids: list[str]) -> Iterator[list[str]]:
    return (job_ids[start : start + PAGE] for start in range(0, len(job_ids), PAGE))


def _all_of(service: JobService, job_ids: list[str]) -> list[JobMetadata]:
    jobs = {job.job_id: job for job in service.some_jobs(job_ids)}
    for job_id in job_ids:
        if job_id not in jobs:
            raise UnknownJob(job_id)
    return [jobs[job_id] for job_id in job_ids]


@method(
    "jobs.events",
    params={
        "after": {
            "type": "integer",
            "minimum": 0,
            "maximum": 2**53,
            "description": "only events whose seq is larger; default: 0, from the beginning",
        },
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": _MOST_EVENTS,
            "description": "no more than so many; default: 1000",
        },
        "timeout_s": TIMEOUT,
        "job_ids": {**JOB_IDS, "description": "only events of these jobs"},
    },
    result=record(
        {
            "events": array(reference("Event")),
            "last": {"type": "integer", "description": "the `after` of the next call"},
            "error": ERROR,
        }
    ),
    refused={"events": [], "last": 0},
)
async def handle_jobs_events(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Tell what has happened to jobs since an event, the oldest first.

    Where there is nothing to tell, wait up to ``timeout_s`` for something. Called again with
    ``last``, it misses nothing and tells nothing twice, whatever happened in between to the
    connection or the server.
    """
    after, limit, job_ids = params.get("after", 0), params.get("limit", 1000), params.get("job_ids")
    if params.get("timeout_s"):
        after = await _first_after(after, service, job_ids, params["timeout_s"])
    await room(EVENT_SIZE * limit)
    return _told(*await in_pool("asking", service.events, after, job_ids, limit))


async def _first_after(
    after: int, service: JobService, job_ids: Collection[str] | None, most_s: float
) -> int:
    """Wait for an event after another; tell after which one to read on."""
    end = time.monotonic() + most_s
    async with _listening(service, job_ids) as subscriber:
        if after >= subscriber.hears_after:  # there can be nothing yet
            await subscriber.wait(most_s)
        while True:
            events, last = await in_pool("asking", service.events, after, job_ids, 1)
            left = end - time.monotonic()
            if events or left <= 0:
                return after
            after = max(after, last)
            await subscriber.wait(left)


def _told(events: list[Event], last: int) -> dict[str, Any]:
    return {"events": [event_document(event) for event in events], "last": last, "error": None}
