"""Events of jobs: the selection of a subscriber, and new events in order and without a gap."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.models.filters import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence

    from crystalmath.models import Job, JobState
    from crystalmath.quacc.store import Event, JobMetadata, JobStore
    from crystalmath.reading.home_jobs import HomeJobs

#: The filters that select events by their jobs, by their names in a `Selection`.
_HOLDS: Mapping[str, Callable[[Job, Any], bool]] = {
    "engine": lambda job, engine: job.engine == engine,
    "cluster": lambda job, cluster: job.cluster == cluster,
    "recipe": lambda job, recipe: _is_of(job.recipe, recipe),
    "name": lambda job, text: text.casefold() in (job.name or "").casefold(),
    "label": lambda job, labels: labels.items() <= job.labels.items(),
    "error": lambda job, text: text.casefold() in (job.error or "").casefold(),
    "prefix": lambda job, prefix: job.job_id.startswith(prefix),
}


def _is_of(recipe: str, wanted: str) -> bool:
    """Return whether a recipe is the wanted one, or in the wanted group."""
    names = (wanted, f"quacc.recipes.{wanted}")
    return any(f"{recipe}.".startswith(f"{name}.") for name in names)


@frozen
class JobEvent:
    """An event, and its job as it was read afterwards, if that was wanted."""

    event: Event
    job: Job | None = None


@frozen(kw_only=True)
class Wanted:
    """A selection of events: of some jobs, and of changes to some states.

    The job must also match `filters`. `with_job` adds the job to each event.
    """

    job_ids: frozenset[str] | None = None
    state: Collection[JobState] | None = None
    filters: Selection = field(factory=Selection)
    with_job: bool = False

    @property
    def needs_jobs(self) -> bool:
        """Whether the selection needs the jobs of events."""
        return self.with_job or bool(self.filters)

    def holds(self, one: JobEvent) -> bool:
        """Return whether an event is selected."""
        event, job = one.event, one.job
        if self.job_ids is not None and event.job_id not in self.job_ids:
            return False
        if self.state is not None:
            reached = event.from_state is not event.to_state and event.to_state in self.state
            if not reached:
                return False
        if not self.filters:
            return True
        return job is not None and all(
            _HOLDS[name](job, value) for name, value in self.filters.items()
        )


_LOG = logging.getLogger("crystalmath.service")

#: The time between two reads of events that other processes wrote, in seconds.
POLL_S = 0.5
#: The number of newest events in memory, for all listeners; with its job each takes about 3 kB.
KEPT = 2000


class Feed:
    """Read new events while there are listeners.

    `store_of` returns the store, or ``None`` while there is no database. `jobs_of` returns the
    present jobs of events, by id.
    """

    def __init__(
        self,
        store_of: Callable[[], JobStore | None],
        jobs_of: Callable[[Sequence[Event]], Mapping[str, JobMetadata]],
    ) -> None:
        self._store_of = store_of
        self._jobs_of = jobs_of
        # Held from reading events until the listeners have them: a listener that subscribed in
        # between would get events from before its position.
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._closed = False
        self._with_jobs = False
        self._position = 0
        # All events after `_kept_after`; under the lock.
        self._kept: deque[JobEvent] = deque()
        self._kept_after = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, listener: Callable[[Sequence[Event]], None], *, jobs: bool = False) -> int:
        """Call a function with each batch of new events; it must return quickly.

        With `jobs`, :meth:`since` has their jobs, too, as long as there are listeners. Return the
        ``seq`` after which the function gets every event; the store has the earlier ones.
        """
        with self._reading:
            if self._thread is None:
                store = self._store_of()
                self._position = 0 if store is None else store.last_event()
                self._kept_after = self._position  # before `since` sees a thread
                self._thread = threading.Thread(
                    target=self._follow, name="crystalmath-feed", daemon=True
                )
                self._thread.start()
            return self._add(listener, jobs=jobs)

    def listen_now(
        self, listener: Callable[[Sequence[Event]], None], *, jobs: bool = False
    ) -> int | None:
        """Do the same without waiting for the store; return ``None`` if it would have to wait."""
        if not self._reading.acquire(blocking=False):
            return None
        try:
            return None if self._thread is None else self._add(listener, jobs=jobs)
        finally:
            self._reading.release()

    def _add(self, listener: Callable[[Sequence[Event]], None], *, jobs: bool) -> int:
        with self._lock:
            if not self._closed:  # else the thread would go on, and `close` wait for it for ever
                self._listeners.append(listener)
            self._with_jobs = self._with_jobs or jobs
        return self._position

    def since(self, after: int, *, jobs: bool) -> tuple[list[JobEvent], int] | None:
        """Return the events after a ``seq`` from memory, and the last ``seq`` that was read.

        Return ``None`` if some of them are only in the store.
        """
        with self._lock:
            if self._thread is None or not self._kept_after <= after <= self._position:
                return None
            newest_first = takewhile(lambda one: one.event.seq > after, reversed(self._kept))
            events = list(newest_first)[::-1]
            if jobs and any(one.job is None for one in events):
                return None
            return events, self._position

    def forget(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Stop calling a function, without waiting for the store."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def look(self) -> None:
        """Announce the events of this thread, which is cheaper than waking another thread."""
        if not self._reading.acquire(blocking=False):
            self._wake.set()  # the other thread may have read before these events
            return
        try:
            if self._thread is not None and self._listeners:
                self._announce(self._new_events())
        finally:
            self._reading.release()

    def close(self) -> None:
        """Stop reading; no listener is called any more."""
        with self._lock:
            self._closed = True
            self._listeners.clear()
        thread = self._thread
        if thread is not None:
            self._wake.set()
            thread.join()

    def _follow(self) -> None:
        while True:
            self._wake.wait(POLL_S)
            self._wake.clear()
            with self._reading:
                if not self._listeners:
                    with self._lock:
                        self._thread = None
                        self._with_jobs = False
                        self._kept.clear()
                    return
                self._announce(self._new_events())

    def _new_events(self) -> Sequence[Event]:
        try:
            store = self._store_of()
            if store is None:
                return ()
            events, position = store.follow(self._position)
            jobs = self._jobs_of(events) if self._with_jobs and events else {}
        except Exception as error:  # noqa: BLE001 - this thread must go on
            _LOG.warning("cannot read the events, trying again: %s", error)
            return ()
        with self._lock:
            self._position = position
            self._kept.extend(JobEvent(event, jobs.get(event.job_id)) for event in events)
            while len(self._kept) > KEPT:
                self._kept_after = self._kept.popleft().event.seq
        return events

    def _announce(self, events: Sequence[Event]) -> None:
        with self._lock:
            listeners = list(self._listeners) if events else []
        for listener in listeners:
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - one listener must not end the others
                _LOG.exception("a listener failed")


# --- selected events -------------------------------------------------------------------------

#: The number of events in one read of the store.
EVENTS_AT_ONCE = 500
#: The most events that are filtered on the event loop, without a thread.
FEW = 50


def few_events(
    feed: Feed, after: int, limit: int, wanted: Wanted
) -> tuple[list[JobEvent], int] | None:
    """Return the same as `wanted_events` from memory, or ``None`` if that is too much work."""
    read = None if wanted.needs_jobs else feed.since(after, jobs=False)
    if read is None or len(read[0]) > FEW:
        return None
    events = [one for one in read[0] if wanted.holds(one)]
    return (
        (events[:limit], events[limit - 1].event.seq) if len(events) > limit else (events, read[1])
    )


def wanted_events(
    home: HomeJobs, feed: Feed, after: int, limit: int, wanted: Wanted
) -> Generator[None, None, tuple[list[JobEvent], int]]:
    """Return the selected events after a ``seq``, the oldest first, and the last ``seq`` read.

    While there are listeners, new events come from memory. Older ones are read from the store in
    parts, with a yield after each. There are at most `limit` events.
    """
    events: list[JobEvent] = []
    while True:
        read = feed.since(after, jobs=wanted.needs_jobs) or _stored_events(home, after, wanted)
        for one in read[0]:
            if len(events) == limit:
                return events, after
            after = one.event.seq
            if wanted.holds(one):
                events.append(one)
        if len(events) == limit:
            return events, after
        if len(read[0]) < EVENTS_AT_ONCE:
            return events, read[1]
        yield


def _stored_events(home: HomeJobs, after: int, wanted: Wanted) -> tuple[list[JobEvent], int]:
    events, last = home.events(after, wanted.job_ids, EVENTS_AT_ONCE)
    if not wanted.needs_jobs:
        return [JobEvent(event) for event in events], last
    jobs = {job.job_id: job for job in home.some_jobs([event.job_id for event in events])}
    return [JobEvent(event, jobs.get(event.job_id)) for event in events], last
