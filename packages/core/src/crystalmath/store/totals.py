"""How many jobs there are of each state: counted once, then kept up with the event log."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from crystalmath.models import JobState
from crystalmath.store.event_counts import of_jobs
from crystalmath.store.eventlog import last_event
from crystalmath.store.selection import count_states
from crystalmath.store.tables import events

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection

__all__ = ["Totals"]

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

    def count(self, connection: Connection, filters: Mapping[str, Any]) -> dict[JobState, int]:
        """Count the jobs that are selected by their state; states that none has are left out.

        Parameters
        ----------
        connection : Connection
            It sees one state of the database.
        filters : mapping
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


def _of_all_states(filters: Mapping[str, Any]) -> tuple[dict[str, Any], set[JobState]]:
    """Give the filters but for the states, and the states that they let through."""
    given = {name: value for name, value in filters.items() if value not in (None, {})}
    if "seen" in given:  # a job may be in another state there
        return given, set(JobState)
    excluded = dict(given.pop("exclude", {}))
    states = _states(given.pop("state", set(JobState))) - _states(excluded.pop("state", ()))
    return given | ({"exclude": excluded} if excluded else {}), states


def _states(given: str | Collection[str]) -> set[JobState]:
    return {JobState(state) for state in ([given] if isinstance(given, str) else given)}


def _is_steady(filters: Mapping[str, Any]) -> bool:
    return _STEADY.issuperset(filters.get("exclude", {})) and (
        _STEADY_ALONE | {"exclude"}
    ).issuperset(filters)


def _moved(
    connection: Connection, after: int, last: int, filters: Mapping[str, Any]
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
