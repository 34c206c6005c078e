"""Tells those who listen of each new event of the store, in order and without a gap."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING

from crystalmath.service.wanted import JobEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.quacc.store import Event, JobMetadata, JobStore

_LOG = logging.getLogger("crystalmath.service")

#: How often the store is asked for what other processes wrote, in seconds.
POLL_S = 0.5
#: So many of the newest events are kept for all who listen; with its job each takes about 3 kB.
KEPT = 2000


class Feed:
    """Read new events while somebody listens.

    Parameters
    ----------
    store_of : callable
        Gives the store, or ``None`` while there is no database.
    jobs_of : callable
        Gives the jobs of events, by id, as they are since.
    """

    def __init__(
        self,
        store_of: Callable[[], JobStore | None],
        jobs_of: Callable[[Sequence[Event]], Mapping[str, JobMetadata]],
    ) -> None:
        self._store_of = store_of
        self._jobs_of = jobs_of
        # Held from a reading to the end of its telling: who subscribes in between would be
        # told of events that his position says he knows.
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._with_jobs = False
        self._position = 0
        # The newest events, all of those after a `seq`; under the lock.
        self._kept: deque[JobEvent] = deque()
        self._kept_after = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, listener: Callable[[Sequence[Event]], None], *, jobs: bool = False) -> int:
        """Have a function called with each batch of events from now on; it must return quickly.

        Parameters
        ----------
        listener : callable
            Takes the events.
        jobs : bool
            Whether :meth:`since` is to know their jobs, too, until nobody listens any more.

        Returns
        -------
        int
            The ``seq`` after which it is told of every event. What came before stands in the store.
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
            with self._lock:
                self._listeners.append(listener)
                self._with_jobs = self._with_jobs or jobs
            return self._position

    def since(self, after: int, *, jobs: bool) -> tuple[list[JobEvent], int] | None:
        """Return what came after a ``seq`` from memory, and up to which ``seq`` that is.

        Parameters
        ----------
        after : int
            Only events whose ``seq`` is larger.
        jobs : bool
            With their jobs.

        Returns
        -------
        list of JobEvent, int
            ``None`` where not all of it is in memory: the store has it.
        """
        with self._lock:
            if self._thread is None or not self._kept_after <= after <= self._position:
                return None
            newest_first = takewhile(lambda one: one.event.seq > after, reversed(self._kept))
            found = list(newest_first)[::-1]
            if jobs and any(one.job is None for one in found):
                return None
            return found, self._position

    def forget(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call this function no more. Never waits for the store."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def wake(self) -> None:
        """Look at once: something was written."""
        self._wake.set()

    def close(self) -> None:
        """End the reading; nobody is told of anything any more."""
        with self._lock:
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
                self._tell(self._new_events())

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

    def _tell(self, events: Sequence[Event]) -> None:
        with self._lock:
            listeners = list(self._listeners) if events else []
        for listener in listeners:
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - one listener must not end the others
                _LOG.exception("a listener failed")
