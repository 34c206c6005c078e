"""How many jobs there are of each state: counted once, then kept up with the event log."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, cast

from sqlalchemy import func, select

from crystalmath.models import JobState
from crystalmath.models.filters import Selection
from crystalmath.store.event_counts import of_jobs
from crystalmath.store.eventlog import last_event
from crystalmath.store.selection import count_states
from crystalmath.store.tables import events

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.engine import Connection

    from crystalmath.models.filters import StoreSelection

#: The totals of so many filters are kept.
_KEPT = 64
#: After more events than this, all jobs are counted again.
_MANY = 2000
#: What these ask of a job never changes: it is among those that are counted for good.
_STEADY = frozenset({"engine", "cluster", "label", "recipe", "name", "formula", "elements"})
_STEADY_ALONE = _STEADY | {"since", "until", "prefix"}


class Totals:
    """The totals of the filters that were asked for last. Threads may share it."""

    def __init__(self) -> None:
        # By the filters: up to which event they were counted, and what there was.
        self._known: dict[str, tuple[int, Counter[JobState]]] = {}
        self._lock = threading.Lock()

    def count(self, connection: Connection, filters: StoreSelection) -> dict[JobState, int]:
        """Count the jobs that are selected by their state; states that none has are left out.

        Parameters
        ----------
        connection : Connection
            It sees one state of the database.
        filters : StoreSelection
            See :func:`crystalmath.store.selection.selected`.
        """
        counted, states = _of_all_states(filters)
        asked = repr(counted)
        last = last_event(connection)
        with self._lock:
            before, counts = self._known.get(asked, (None, Counter()))
        if before is not None and last - _MANY <= before < last and _is_steady(counted):
            counts = counts.copy()
            counts.update(_moved(connection, before, last, counted))
        elif before != last:
            counts = Counter(count_states(connection, counted))
        with self._lock:
            self._known.pop(asked, None)
            self._known[asked] = last, counts
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return {state: counts[state] for state in JobState if counts[state] and state in states}


def _of_all_states(filters: StoreSelection) -> tuple[StoreSelection, set[JobState]]:
    """Give the filters but for the states, and the states that they let through."""
    given = cast("StoreSelection", {n: v for n, v in filters.items() if v not in (None, {})})
    if "seen" in given:  # a job may be in another state there
        return given, set(JobState)
    excluded = given.pop("exclude", Selection()).copy()
    states = _states(given.pop("state", set(JobState))) - _states(excluded.pop("state", ()))
    if excluded:
        given["exclude"] = excluded
    return given, states


def _states(given: str | Collection[str]) -> set[JobState]:
    return {JobState(state) for state in ([given] if isinstance(given, str) else given)}


def _is_steady(filters: StoreSelection) -> bool:
    return _STEADY.issuperset(filters.get("exclude", {})) and (
        _STEADY_ALONE | {"exclude"}
    ).issuperset(filters)


def _moved(
    connection: Connection, after: int, last: int, filters: StoreSelection
) -> Counter[JobState]:
    """Count by how much each state has more jobs, or fewer, than it had before some events.

    What was only noted left the state that it reached, and counts for nothing.
    """
    new = (events.c.seq > after, events.c.seq <= last)
    query = select(events.c.from_state, events.c.to_state, func.count()).where(*new)
    query = of_jobs(query, filters, among=select(events.c.number).where(*new))
    moved: Counter[JobState] = Counter()
    rows = connection.execute(query.group_by(events.c.from_state, events.c.to_state))
    for left, reached, count in rows:
        moved[JobState(reached)] += count
        if left is not None:
            moved[JobState(left)] -= count
    return moved
