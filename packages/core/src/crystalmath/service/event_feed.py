"""Tells those who listen of each new event of the store, in order and without a gap."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystalmath.quacc.store import Event, JobStore

__all__ = ["Feed"]

_LOG = logging.getLogger("crystalmath.service")

#: How often the store is asked for what other processes wrote, in seconds.
POLL_S = 0.5


class Feed:
    """Read new events while somebody listens.

    Parameters
    ----------
    store_of : callable
        Gives the store, or ``None`` while there is no database.
    """

    def __init__(self, store_of: Callable[[], JobStore | None]) -> None:
        self._store_of = store_of
        # Held from a reading to the end of its telling: who begins to listen in between would hear
        # of events that his position says he knows.
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._position = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, listener: Callable[[Sequence[Event]], None]) -> int:
        """Have a function called with each batch of events from now on; it must return quickly.

        Returns
        -------
        int
            The ``seq`` after which it hears of every event. What came before stands in the store.
        """
        with self._reading:
            if self._thread is None:
                store = self._store_of()
                self._position = 0 if store is None else store.last_event()
                self._thread = threading.Thread(
                    target=self._follow, name="crystalmath-feed", daemon=True
                )
                self._thread.start()
            with self._lock:
                self._listeners.append(listener)
            return self._position

    def forget(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call this function no more. Never waits for the store."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    @property
    def listened_to(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def wake(self) -> None:
        """Look at once: something was written."""
        self._wake.set()

    def close(self) -> None:
        """End the reading; nobody hears of anything any more."""
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
                    self._thread = None
                    return
                self._tell(self._news())

    def _news(self) -> Sequence[Event]:
        try:
            store = self._store_of()
            if store is None:
                return ()
            events, self._position = store.follow(self._position)
        except Exception as error:  # noqa: BLE001 - without this thread nobody would hear any more
            _LOG.warning("cannot read the events, trying again: %s", error)
            return ()
        return events

    def _tell(self, events: Sequence[Event]) -> None:
        with self._lock:
            listeners = list(self._listeners) if events else []
        for listener in listeners:
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - one listener must not end the others
                _LOG.exception("a listener failed")
