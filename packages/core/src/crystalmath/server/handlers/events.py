"""The handlers that wait for jobs, and those that report changes. Waiting ones hold no thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, cast

from crystalmath import server
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.models.fields import Limits
from crystalmath.models.filters import (
    EventFilter,
    JobFilter,
    all_filters,
    choosing,
    read_filters,
)
from crystalmath.models.job_notes import JobState
from crystalmath.reading.event_feed import Wanted, few_events, wanted_events
from crystalmath.reading.job_answers import (
    PAGE,
    event_document,
    in_full,
    job_document,
    progress,
)
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc import large
from crystalmath.server.rpc.declare import NoParams, method
from crystalmath.wire.answers import (
    MOST_JOBS,
    Answer,
    Bytes,
    Change,
    EventList,
    JobDocument,
    JobId,
    JobIds,
    JobProgress,
    Subscribed,
    Timeout,
    WaitedJobs,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Generator, Iterator, Sequence

    from crystalmath.models.filters import Selection
    from crystalmath.quacc.store import Event, JobMetadata
    from crystalmath.reading.predecessors import Outlook
    from crystalmath.server.rpc.session import Session
    from crystalmath.service import JobService
    from crystalmath.wire import answers


#: How often a waiting request looks for jobs whose owner has died, in seconds.
_RECONCILE_S = 2.0
#: How soon a job is read again whose end was in an event, but not yet in its record, in seconds.
_AGAIN_S = 0.1
_MOST_EVENTS = 10_000
#: How many jobs are read from memory without a thread.
_FEW_JOBS = 20


class Subscriber:
    """Wakes a coroutine at events of some jobs, or of all, with a ``seq`` above `began_after`."""

    began_after = 0

    def __init__(self, job_ids: Collection[str] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._job_ids = None if job_ids is None else frozenset(job_ids)
        self._happened = asyncio.Event()
        self._ended: set[str] = set()

    def notify(self, events: Sequence[Event]) -> None:
        """Take new events; a thread of the service calls this."""
        ended: list[str] = []
        if self._job_ids is not None:  # nobody waits for the end of all jobs
            events = [event for event in events if event.job_id in self._job_ids]
            ended = [event.job_id for event in events if event.to_state.is_terminal()]
        if events:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._note, ended)

    def _note(self, ended: Sequence[str]) -> None:
        self._ended.update(ended)
        self._happened.set()

    async def wait(self, most_s: float) -> set[str]:
        """Wait for an event; return the named jobs that have ended since the last call."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._happened.wait()
        self._happened.clear()
        ended, self._ended = self._ended, set()
        return ended


@contextlib.asynccontextmanager
async def listening(
    service: JobService, job_ids: Collection[str] | None, *, jobs: bool = False
) -> AsyncIterator[Subscriber]:
    """Yield a subscriber to all events of some jobs, or of all.

    Meanwhile, named jobs are adopted when their owner dies. With `jobs` the feed reads the jobs of
    its events as well.
    """
    subscriber = Subscriber(job_ids)
    adopting = None
    async with contextlib.AsyncExitStack() as stack:
        began_after = service.feed.listen_now(subscriber.notify, jobs=jobs)
        if began_after is None:
            listen = functools.partial(service.feed.listen, subscriber.notify, jobs=jobs)
            beginning = asyncio.create_task(in_pool("asking", listen))
            # A request that is cancelled may still be about to listen.
            stack.callback(
                beginning.add_done_callback, functools.partial(_forget, service, subscriber)
            )
            began_after = await asyncio.shield(beginning)
        else:
            stack.callback(service.feed.forget, subscriber.notify)
        subscriber.began_after = began_after
        if job_ids:
            adopting = asyncio.create_task(_adopt_orphans(service, job_ids))
            stack.callback(adopting.cancel)
        yield subscriber


def _forget(service: JobService, subscriber: Subscriber, beginning: asyncio.Task[int]) -> None:
    service.feed.forget(subscriber.notify)
    if not beginning.cancelled():
        beginning.exception()  # else asyncio would log it


async def _adopt_orphans(service: JobService, job_ids: Collection[str]) -> None:
    """Adopt jobs without an owner again and again; loading their engines may be slow."""
    while True:
        await in_pool("adopting", service.adopt_orphans, job_ids)
        await asyncio.sleep(_RECONCILE_S)


class WaitParams(TypedDict, total=False):
    """The parameters of ``jobs.wait`` beside filters."""

    job_ids: Annotated[JobIds, "exactly these jobs"]
    timeout_s: Annotated[Timeout, "in seconds; default: 30"]


@method(server.JOBS_WAIT)
async def handle_jobs_wait(
    service: JobService, params: Annotated[WaitParams, JobFilter]
) -> WaitedJobs:
    """Wait until all of some jobs have ended, or until the timeout.

    The answer has their states at that moment, in the order of the ids. ``done`` says whether all
    have ended. A job whose owner has died is adopted. In place of ``job_ids``, filters as in
    jobs.list choose among the present jobs.
    """
    end = time.monotonic() + params.pop("timeout_s", 30)
    named = params.pop("job_ids", None)
    filters = params if named is not None else choosing(params)
    if (named is None) == (not filters):
        raise InvalidJob("choose the jobs to wait for by either 'job_ids' or filters")
    job_ids = (
        await in_pool("asking", _chosen, service, read_filters(params))
        if named is None
        else list(dict.fromkeys(named))
    )
    async with listening(service, job_ids) as subscriber:
        unfinished = unread = set(job_ids)
        reported: set[str] = set()  # events may report an end before it can be read
        while True:
            to_read = [job_id for job_id in job_ids if job_id in unread]
            ended = _ended_of_few(service, to_read)
            if ended is None:
                ended = await in_slices("computing", _ended(service, to_read))
            unfinished, reported = unfinished - ended, reported - ended
            left = end - time.monotonic()
            if not unfinished or left <= 0:
                break
            wait_s = min(left, _AGAIN_S) if reported else left
            reported |= unfinished & await subscriber.wait(wait_s)
            unread = reported
    await large.turn()
    documents, done = await in_slices("computing", _described(service, job_ids))
    return {"jobs": documents, "done": done, "error": None}


def _chosen(service: JobService, filters: Selection) -> list[str]:
    jobs = service.jobs(limit=MOST_JOBS + 1, **filters)
    if not jobs:
        raise InvalidJob("no job matches the filters")
    if len(jobs) > MOST_JOBS:
        raise InvalidJob(f"more than {MOST_JOBS} jobs match the filters; wait for fewer at once")
    return [job.job_id for job in jobs]


def _ended_of_few(service: JobService, job_ids: list[str]) -> set[str] | None:
    """Return which of a few jobs have ended; ``None`` if they are many, or not all in memory."""
    if len(job_ids) > _FEW_JOBS:
        return None
    jobs = [service.remembered(job_id) for job_id in job_ids]
    return {job.job_id for job in jobs if job and job.state.is_terminal()} if all(jobs) else None


def _ended(service: JobService, job_ids: list[str]) -> Generator[None, None, set[str]]:
    ended: set[str] = set()
    for page in _pages(job_ids):
        ended |= {job.job_id for job in _all_of(service, page) if job.state.is_terminal()}
        yield
    return ended


def _described(
    service: JobService, job_ids: list[str]
) -> Generator[None, None, tuple[list[JobDocument], bool]]:
    documents, done = [], True
    known: dict[str, Outlook | None] = {}
    for page in _pages(job_ids):
        jobs = _all_of(service, page)
        documents += [job_document(service, job) for job in in_full(service, jobs, known)]
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


class WantedParams(TypedDict, total=False):
    """The parameters that choose and describe events, beside filters."""

    job: Annotated[bool, "include the job of each, as jobs.list describes it; default: false"]


class EventsParams(WantedParams, total=False):
    """The parameters of ``jobs.events``."""

    after: Annotated[Bytes, "only events whose seq is larger; default: 0, from the beginning"]
    limit: Annotated[
        int, Limits(minimum=1, maximum=_MOST_EVENTS), "how many events at most; default: 1000"
    ]
    timeout_s: Timeout
    job_ids: Annotated[JobIds, "only events of these jobs"]


@method(server.JOBS_EVENTS)
async def handle_jobs_events(
    service: JobService, params: Annotated[EventsParams, EventFilter]
) -> EventList:
    """Return the events after a given one, the oldest first.

    If there are none, wait up to ``timeout_s`` for one. A client that sends ``last`` as the next
    ``after`` gets each event once, even if the connection or the server was replaced in between. If
    ``last`` is smaller than ``after``, the job database was replaced: call jobs.list again.

    All filters must match. ``state`` is the state that a job came to. Other filters, of labels and
    the like, look at the job as it is when the event is read; ``job`` includes that job.
    """
    after, limit = params.pop("after", 0), params.pop("limit", 1000)
    most_s, job_ids = params.pop("timeout_s", 0), params.pop("job_ids", None)
    wanted = read_wanted(params, job_ids)
    if most_s:
        after = await _first_after(after, service, wanted, most_s)
    await large.turn()
    documents, last = await _documents(service, after, limit, wanted)
    return {"events": documents, "last": last, "error": None}


def read_wanted(params: WantedParams, job_ids: list[str] | None = None) -> Wanted:
    """Read which events a request wants, from its parameters without all others."""
    with_job = params.pop("job", False)
    filters = all_filters(params)
    return Wanted(
        job_ids=None if job_ids is None else frozenset(job_ids),
        state=filters.pop("state", None),
        filters=filters,
        with_job=with_job,
    )


async def _documents(
    service: JobService, after: int, limit: int, wanted: Wanted
) -> tuple[list[answers.Event], int]:
    """Describe events, in threads unless they are few and in memory."""
    few = few_events(service.feed, after, limit, wanted)
    if few is None:
        return await in_slices("computing", event_documents(service, after, limit, wanted))
    return [event_document(service, one.event) for one in few[0]], few[1]


def event_documents(
    service: JobService, after: int, limit: int, wanted: Wanted
) -> Generator[None, None, tuple[list[answers.Event], int]]:
    """Describe the wanted events after another; return also the ``seq`` of the last one read."""
    events, last = yield from wanted_events(service, service.feed, after, limit, wanted)
    documents = []
    for number, one in enumerate(events):
        job = one.job if wanted.with_job else None
        documents.append(event_document(service, one.event, job))
        if job is not None and number % PAGE == 0:
            yield
    return documents, last


async def _first_after(after: int, service: JobService, wanted: Wanted, most_s: float) -> int:
    """Wait for a wanted event after another; return the ``seq`` after which to read on."""
    end = time.monotonic() + most_s
    async with listening(service, wanted.job_ids, jobs=wanted.needs_jobs) as subscriber:
        if after >= subscriber.began_after:  # the log has no later event yet
            await subscriber.wait(most_s)
        while True:
            page = few_events(service.feed, after, 1, wanted)
            if page is None:
                work = wanted_events(service, service.feed, after, 1, wanted)
                page = await in_slices("computing", work)
            events, last = page
            left = end - time.monotonic()
            if events or left <= 0:
                return after
            after = max(after, last)
            await subscriber.wait(left)


# --- subscriptions ---------------------------------------------------------------------------

#: The names of the notifications.
_CHANGED = "jobs.changed"
_PROGRESSED = "jobs.progressed"

#: How many jobs of a subscription have progress, and how often at most, in seconds.
_MOST_WATCHED = 100
_PROGRESS_S = 1.0

#: How many events are read from the log at once.
_AT_ONCE = 200

#: How long a subscription waits for an event before it reads the log again, in seconds.
_WAIT_S = 600

#: A number above that of any event.
_NEVER = 2**53


class SubscribeParams(WantedParams, total=False):
    """The parameters of ``jobs.subscribe``."""

    after: Annotated[
        int,
        Limits(minimum=0, maximum=_NEVER),
        "only events whose seq is larger; default: the events from now on",
    ]
    progress: Annotated[
        list[JobId],
        Limits(maxItems=_MOST_WATCHED),
        "also report the progress of these jobs until they have ended; default: of none",
    ]


@method(server.JOBS_SUBSCRIBE, of_session=True)
async def handle_jobs_subscribe(
    session: Session, params: Annotated[SubscribeParams, EventFilter]
) -> Subscribed:
    """Subscribe to changes of jobs, of all or of those that match, until the connection ends.

    The subscription begins after the event ``seq`` of the answer. Each later event arrives as a
    notification ``jobs.changed`` with ``{seq, job_id, at, from, status, reason}``, in the order of
    ``seq``. With ``job`` each includes the job as jobs.list describes it then. All filters must
    match. After a reconnect, a client subscribes again with the last ``seq`` as ``after``, and gets
    each event once. An ``after`` beyond the log is refused. A second subscription replaces the
    first.

    For the jobs of ``progress``, notifications ``jobs.progressed`` have the answers of
    jobs.progress: at once, and after each change, at most once a second.
    """
    after, watched = params.pop("after", None), params.pop("progress", [])
    wanted = read_wanted(params)
    if watched:
        await in_pool("asking", _all_of, session.controller, watched)
    _, last = await in_pool("asking", session.controller.events, _NEVER, None, 1)
    after = last if after is None else after
    if after > last:  # the next events would be skipped
        raise InvalidJob(
            f"'after' is {after}, and the last event has the seq {last}: that place is of another "
            "home, or of a job database that was replaced; subscribe without 'after', and call "
            "jobs.list again"
        )
    progresses: dict[str, JobProgress | None] = dict.fromkeys(watched)
    session.in_background(_report(session, after, wanted, progresses, asyncio.current_task()))
    return {"seq": after, "error": None}


@method(server.JOBS_UNSUBSCRIBE, of_session=True)
async def handle_jobs_unsubscribe(session: Session, params: NoParams) -> Answer:
    """End the subscription; without one nothing happens."""
    del params
    session.in_background(None)
    return {"error": None}


async def _report(
    session: Session,
    after: int,
    wanted: Wanted,
    progresses: dict[str, JobProgress | None],
    request: asyncio.Task[Any] | None,
) -> None:
    """Send the notifications of a subscription: events, and the progress of some jobs."""
    if request is not None:  # its answer goes first
        await asyncio.wait([request])
    # Progress is read from files, which may hang; the events of the database go on meanwhile.
    work = _report_changes(session, after, wanted), _report_progress(session, progresses)
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _report_changes(session: Session, after: int, wanted: Wanted) -> None:
    service = session.controller
    async with listening(service, None, jobs=wanted.needs_jobs) as subscriber:
        while True:
            documents, last = await _documents(service, after, _AT_ONCE, wanted)
            for document in documents:
                await session.notify(_CHANGED, _change(document))
            if last <= after:  # there is no more
                await subscriber.wait(_WAIT_S)
            after = max(after, last)


async def _report_progress(session: Session, sent: dict[str, JobProgress | None]) -> None:
    """Send the progress of jobs, if it differs from what was `sent` last, until all have ended."""
    while sent:
        for document in await in_slices("files", progress(session.controller, list(sent))):
            job_id = document["job_id"]
            if document != sent[job_id]:
                await session.notify(_PROGRESSED, document)
            sent[job_id] = document
            if document["status"] == "error" or JobState(document["status"]).is_terminal():
                del sent[job_id]
        await asyncio.sleep(_PROGRESS_S)


def _change(event: answers.Event) -> Change:
    """Return the event with its key ``to`` named ``status``, as states of jobs are."""
    change = {"status" if name == "to" else name: value for name, value in event.items()}
    return cast("Change", change)
