"""How many jobs there are of each state: counted once, then kept up with the event log."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, cast

from crystalmath.models.filters import Selection
from crystalmath.models.job_notes import JobState
from crystalmath.store.eventlog import last_event, of_jobs
from crystalmath.store.plain_sql import Parameters
from crystalmath.store.selection import count_states

if TYPE_CHECKING:
    from collections.abc import Collection

    from crystalmath.models.filters import StoreSelection
    from crystalmath.store.plain_sql import Snapshot

#: The totals of so many filters are kept.
_KEPT = 64
#: After more events than this, all jobs are counted again.
_MANY = 2000
#: What these ask of a job never changes: it is among those that are counted for good.
_STEADY = frozenset(
    {"engine", "cluster", "label", "recipe", "name", "formula", "elements", "parent", "steps"}
)
_STEADY_ALONE = _STEADY | {"since", "until", "prefix"}


class Totals:
    """The totals of the filters that were asked for last. Threads may share it."""

    def __init__(self) -> None:
        # By the filters: up to which event they were counted, and what there was.
        self._known: dict[str, tuple[int, Counter[JobState]]] = {}
        self._lock = threading.Lock()

    def count(self, snapshot: Snapshot, filters: StoreSelection) -> dict[JobState, int]:
        """Count the jobs that are selected by their state; states that none has are left out."""
        counted, states = _of_all_states(filters)
        asked = repr(counted)
        last = last_event(snapshot)
        with self._lock:
            before, counts = self._known.get(asked, (None, Counter()))
        if before is not None and last - _MANY <= before < last and _is_steady(counted):
            counts = counts.copy()
            counts.update(_moved(snapshot, before, last, counted))
        elif before != last:
            counts = Counter(count_states(snapshot, counted))
        with self._lock:
            self._known.pop(asked, None)
            self._known[asked] = last, counts
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return {state: counts[state] for state in JobState if counts[state] and state in states}


def _of_all_states(filters: StoreSelection) -> tuple[StoreSelection, set[JobState]]:
    """Return the filters but for the states, and the states that they let through."""
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


def _moved(snapshot: Snapshot, after: int, last: int, filters: StoreSelection) -> Counter[JobState]:
    """Count by how much each state has more jobs, or fewer, than it had before some events.

    What was only noted left the state that it reached, and counts for nothing.
    """
    given = Parameters(after=after, last=last)
    new = "events.seq > :after AND events.seq <= :last"
    changed = f"SELECT events.number FROM events WHERE {new}"
    tables, jobs = of_jobs(snapshot, given, filters, among=changed)
    moved: Counter[JobState] = Counter()
    for row in snapshot.rows(
        f"SELECT events.from_state, events.to_state, count(*) AS count FROM {tables} "
        f"WHERE {new} AND {jobs} GROUP BY events.from_state, events.to_state",
        given,
    ):
        moved[JobState(row["to_state"])] += row["count"]
        if row["from_state"] is not None:
            moved[JobState(row["from_state"])] -= row["count"]
    return moved
