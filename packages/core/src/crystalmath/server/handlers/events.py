"""The handlers that wait, and those that tell of changes. They hold no thread meanwhile."""

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


#: How often it is looked whether the owner of a job that is waited for has died, in seconds.
_RECONCILE_S = 2.0
#: How soon a job is looked at again whose end was told before it could be read, in seconds.
_AGAIN_S = 0.1
_MOST_EVENTS = 10_000
#: So many jobs are looked for in memory without a thread.
_FEW_JOBS = 20


class Subscriber:
    """Wakes a coroutine at events of some jobs, or of any, with a ``seq`` above `told_after`."""

    told_after = 0

    def __init__(self, job_ids: Collection[str] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._job_ids = None if job_ids is None else frozenset(job_ids)
        self._happened = asyncio.Event()
        self._ended: set[str] = set()

    def notify(self, events: Sequence[Event]) -> None:
        """Take new events; called by a thread of the service."""
        ended: list[str] = []
        if self._job_ids is not None:  # of all jobs there is no end
            events = [event for event in events if event.job_id in self._job_ids]
            ended = [event.job_id for event in events if event.to_state.is_terminal()]
        if events:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._note, ended)

    def _note(self, ended: Sequence[str]) -> None:
        self._ended.update(ended)
        self._happened.set()

    async def wait(self, most_s: float) -> set[str]:
        """Wait at most so long for something to happen; return the named jobs that ended since."""
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

    Named jobs whose owner has died are taken over meanwhile. With `jobs` the jobs of events are
    asked for.
    """
    subscriber = Subscriber(job_ids)
    adopting = None
    async with contextlib.AsyncExitStack() as stack:
        told_after = service.feed.listen_now(subscriber.notify, jobs=jobs)
        if told_after is None:
            listen = functools.partial(service.feed.listen, subscriber.notify, jobs=jobs)
            beginning = asyncio.create_task(in_pool("asking", listen))
            # A request that is cancelled may still be about to listen.
            stack.callback(
                beginning.add_done_callback, functools.partial(_forget, service, subscriber)
            )
            told_after = await asyncio.shield(beginning)
        else:
            stack.callback(service.feed.forget, subscriber.notify)
        subscriber.told_after = told_after
        if job_ids:
            adopting = asyncio.create_task(_adopt_orphans(service, job_ids))
            stack.callback(adopting.cancel)
        yield subscriber


def _forget(service: JobService, subscriber: Subscriber, beginning: asyncio.Task[int]) -> None:
    service.feed.forget(subscriber.notify)
    if not beginning.cancelled():
        beginning.exception()  # it was raised, or nobody is there any more


async def _adopt_orphans(service: JobService, job_ids: Collection[str]) -> None:
    """See to it that somebody follows the jobs that are waited for; an engine may be slow."""
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
    """Wait until all of some jobs have ended, or the time is over.

    The answer has their states at that moment, in the order of the ids; ``done`` tells whether all
    have ended. A job whose owner has died is taken over. In place of ``job_ids`` filters choose, as
    in jobs.list, among the jobs that there are now.
    """
    end = time.monotonic() + params.pop("timeout_s", 30)
    named = params.pop("job_ids", None)
    given = params if named is not None else choosing(params)
    if (named is None) == (not given):
        raise InvalidJob("say which jobs to wait for: either 'job_ids' or filters")
    job_ids = (
        await in_pool("asking", _chosen, service, read_filters(params))
        if named is None
        else list(dict.fromkeys(named))
    )
    async with listening(service, job_ids) as subscriber:
        unfinished = looked = set(job_ids)
        told: set[str] = set()  # by events, which may come before the end can be read
        while True:
            those = [job_id for job_id in job_ids if job_id in looked]
            ended = _ended_of_few(service, those)
            if ended is None:
                ended = await in_slices("computing", _ended(service, those))
            unfinished, told = unfinished - ended, told - ended
            left = end - time.monotonic()
            if not unfinished or left <= 0:
                break
            told |= unfinished & await subscriber.wait(min(left, _AGAIN_S) if told else left)
            looked = told
    await large.turn()
    documents, done = await in_slices("computing", _told_of(service, job_ids))
    return {"jobs": documents, "done": done, "error": None}


def _chosen(service: JobService, filters: Selection) -> list[str]:
    found = service.jobs(limit=MOST_JOBS + 1, **filters)
    if not found:
        raise InvalidJob("there is no job that fits the filters")
    if len(found) > MOST_JOBS:
        raise InvalidJob(f"more than {MOST_JOBS} jobs fit the filters; wait for fewer at once")
    return [job.job_id for job in found]


def _ended_of_few(service: JobService, job_ids: list[str]) -> set[str] | None:
    """Return those of a few jobs that have ended, where all are in memory."""
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


def _told_of(
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
    """What a request says of the events that are wanted, beside filters."""

    job: Annotated[bool, "tell with each the job, as jobs.list does; default: false"]


class EventsParams(WantedParams, total=False):
    """The parameters of ``jobs.events``."""

    after: Annotated[Bytes, "only events whose seq is larger; default: 0, from the beginning"]
    limit: Annotated[
        int, Limits(minimum=1, maximum=_MOST_EVENTS), "no more than so many; default: 1000"
    ]
    timeout_s: Timeout
    job_ids: Annotated[JobIds, "only events of these jobs"]


@method(server.JOBS_EVENTS)
async def handle_jobs_events(
    service: JobService, params: Annotated[EventsParams, EventFilter]
) -> EventList:
    """Return what has happened to jobs since an event, the oldest first.

    Where there is nothing to tell, wait up to ``timeout_s`` for something. Called again with
    ``last``, it misses nothing and tells nothing twice, whatever happened in between to the
    connection or the server. Where ``last`` is below ``after``, the job database was replaced: ask
    jobs.list again. All filters must agree; ``state`` is what a job came to, and those of labels
    and the like are asked of the job as it is by then, which is the job that ``job`` asks for.
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
    """Read from the parameters of a request, all others taken out, which events are wanted."""
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
    """Describe the events after another that are wanted, and tell up to which one."""
    found, last = yield from wanted_events(service, service.feed, after, limit, wanted)
    documents = []
    for number, one in enumerate(found):
        job = one.job if wanted.with_job else None
        documents.append(event_document(service, one.event, job))
        if job is not None and number % PAGE == 0:
            yield
    return documents, last


async def _first_after(after: int, service: JobService, wanted: Wanted, most_s: float) -> int:
    """Wait for an event after another that is wanted; tell after which one to read on."""
    end = time.monotonic() + most_s
    async with listening(service, wanted.job_ids, jobs=wanted.needs_jobs) as subscriber:
        if after >= subscriber.told_after:  # there can be nothing yet
            await subscriber.wait(most_s)
        while True:
            found = few_events(service.feed, after, 1, wanted)
            if found is None:
                work = wanted_events(service, service.feed, after, 1, wanted)
                found = await in_slices("computing", work)
            events, last = found
            left = end - time.monotonic()
            if events or left <= 0:
                return after
            after = max(after, last)
            await subscriber.wait(left)


# --- subscriptions ---------------------------------------------------------------------------

#: The names of the notifications.
_CHANGED = "jobs.changed"
_PROGRESSED = "jobs.progressed"

#: The progress of so many jobs is told, each at most once in so many seconds.
_MOST_WATCHED = 100
_PROGRESS_S = 1.0

#: How many events are read from the log at once.
_AT_ONCE = 200

#: How long is waited for an event before the log is asked again, in seconds.
_WAIT_S = 600

#: No event has so large a number.
_NEVER = 2**53


class SubscribeParams(WantedParams, total=False):
    """The parameters of ``jobs.subscribe``."""

    after: Annotated[
        int,
        Limits(minimum=0, maximum=_NEVER),
        "tell events whose seq is larger; default: what happens from now on",
    ]
    progress: Annotated[
        list[JobId],
        Limits(maxItems=_MOST_WATCHED),
        "also tell how far these jobs have come until they have ended; default: of none",
    ]


@method(server.JOBS_SUBSCRIBE, of_session=True)
async def handle_jobs_subscribe(
    session: Session, params: Annotated[SubscribeParams, EventFilter]
) -> Subscribed:
    """Be told of each change of jobs, all or those asked for, until the connection ends.

    The answer's ``seq`` is where the subscription begins. What comes after it arrives as
    notifications ``jobs.changed`` with ``{seq, job_id, at, from, status, reason}``, in the order of
    the growing ``seq``. With ``job`` each has the job as jobs.list tells it, as it is by then. All
    filters must agree. Who subscribes again after a reconnect, ``after`` the last ``seq`` seen,
    misses nothing and is told nothing twice; a place beyond the log is refused. A second
    subscription takes the place of the first.

    How far the jobs of ``progress`` have come arrives as notifications ``jobs.progressed``, with
    what jobs.progress tells of each: at once, and when it has changed, at most once a second.
    """
    after, watched = params.pop("after", None), params.pop("progress", [])
    wanted = read_wanted(params)
    if watched:
        await in_pool("asking", _all_of, session.controller, watched)
    _, last = await in_pool("asking", session.controller.events, _NEVER, None, 1)
    after = last if after is None else after
    if after > last:  # its own next events would be passed over
        raise InvalidJob(
            f"'after' is {after}, and the last event that there is has the seq {last}: that place "
            "is of another home, or of a job database that was replaced; subscribe without "
            "'after', and ask jobs.list again"
        )
    told: dict[str, JobProgress | None] = dict.fromkeys(watched)
    session.in_background(_tell(session, after, wanted, told, asyncio.current_task()))
    return {"seq": after, "error": None}


@method(server.JOBS_UNSUBSCRIBE, of_session=True)
async def handle_jobs_unsubscribe(session: Session, params: NoParams) -> Answer:
    """End the subscription; without one nothing happens."""
    del params
    session.in_background(None)
    return {"error": None}


async def _tell(
    session: Session,
    after: int,
    wanted: Wanted,
    told: dict[str, JobProgress | None],
    request: asyncio.Task[Any] | None,
) -> None:
    """Tell events, and the progress of jobs of which the last one `told` is known."""
    if request is not None:  # its answer goes first
        await asyncio.wait([request])
    # Progress is read from files, which may hang; the events of the database go on meanwhile.
    work = _tell_changes(session, after, wanted), _tell_progress(session, told)
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _tell_changes(session: Session, after: int, wanted: Wanted) -> None:
    service = session.controller
    async with listening(service, None, jobs=wanted.needs_jobs) as subscriber:
        while True:
            documents, last = await _documents(service, after, _AT_ONCE, wanted)
            for document in documents:
                await session.notify(_CHANGED, _change(document))
            if last <= after:  # there is no more
                await subscriber.wait(_WAIT_S)
            after = max(after, last)


async def _tell_progress(session: Session, told: dict[str, JobProgress | None]) -> None:
    """Tell of jobs how far they have come, until all have ended."""
    while told:
        for document in await in_slices("files", progress(session.controller, list(told))):
            job_id = document["job_id"]
            if document != told[job_id]:
                await session.notify(_PROGRESSED, document)
            told[job_id] = document
            if document["status"] == "error" or JobState(document["status"]).is_terminal():
                del told[job_id]
        await asyncio.sleep(_PROGRESS_S)


def _change(event: answers.Event) -> Change:
    """Describe an event by the name that a job's state has."""
    told = {"status" if name == "to" else name: value for name, value in event.items()}
    return cast("Change", told)
