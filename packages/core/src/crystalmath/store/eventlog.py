"""The event log, in which the changes of all jobs have one order, and counts of its events."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from crystalmath.models.filters import Selection
from crystalmath.models.job_notes import UNFINISHED, JobState
from crystalmath.store.fetching import limited
from crystalmath.store.plain_sql import Parameters, is_storable
from crystalmath.store.records import Event
from crystalmath.store.selection import OPEN, Condition, count_facets, count_states, source

if TYPE_CHECKING:
    from crystalmath.models.filters import StoreSelection
    from crystalmath.store.plain_sql import Row, Snapshot
    from crystalmath.store.selection import FacetCounts

_EVENT = (
    "SELECT events.seq, jobs.job_id, events.at, events.from_state, events.to_state, events.reason "
    "FROM events JOIN jobs ON jobs.number = events.number"
)

#: For more jobs than this, all events are read and filtered here: older SQLite takes at most 999
#: parameters.
_NAMED = 500


def read_events(
    snapshot: Snapshot, after: int, job_id: str | Collection[str] | None, limit: int | None
) -> tuple[list[Event], int]:
    """Read the log behind a ``seq``, and return the ``seq`` up to which it was read.

    One transaction writes at a time (:class:`~crystalmath.store.database.Database`), so no event
    appears behind another with a larger ``seq``.
    """
    wanted = _wanted(job_id)
    last = last_event(snapshot)
    # Events that are written after this line are read the next time.
    parameters = Parameters(after=after, last=last)
    query = f"{_EVENT} WHERE events.seq > :after AND events.seq <= :last"
    is_short = wanted is None or len(wanted) <= _NAMED
    if wanted is not None and is_short:
        query += f" AND {parameters.among('jobs.job_id', wanted)}"
    query += f" ORDER BY events.seq{limited(limit if is_short else None)}"
    rows = snapshot.rows(query, parameters, many=not is_short)
    named = (row for row in rows if wanted is None or row["job_id"] in wanted)
    log = [_to_event(row) for row in islice(named, limit)]
    return log, last if limit is None or len(log) < limit else log[-1].seq if log else after


def last_event(snapshot: Snapshot) -> int:
    """Return the ``seq`` of the newest event, 0 before the first."""
    return int(snapshot.value("SELECT max(seq) AS value FROM events") or 0)


def _wanted(job_id: object) -> set[str] | None:
    if job_id is None:
        return None
    if isinstance(job_id, str) or not isinstance(job_id, Collection):
        job_id = [job_id]
    return set(filter(is_storable, job_id))


def _to_event(row: Row) -> Event:
    before = row["from_state"]
    return Event(
        seq=row["seq"],
        job_id=row["job_id"],
        at=row["at"],
        from_state=None if before is None else JobState(before),
        to_state=JobState(row["to_state"]),
        reason=row["reason"],
    )


def count_reached(
    snapshot: Snapshot,
    states: Collection[JobState],
    *,
    start: float,
    end: float,
    bucket_s: float,
    filters: StoreSelection,
) -> dict[tuple[int, JobState], int]:
    """Count the changes to some states, by the interval of time in which they were recorded.

    Times are in seconds since the epoch, from `start` to before `end`. The first bucket begins at
    `start` and has the number 0; each lasts `bucket_s` seconds.
    """
    parameters = Parameters(first=float(start), ends=float(end), bucket=float(bucket_s))
    number = "(events.at - :first) / :bucket"
    # A cast rounds on PostgreSQL; SQLite may have no floor().
    number = f"CAST({number if snapshot.is_sqlite else f'floor({number})'} AS INTEGER)"
    tables, jobs = of_jobs(snapshot, parameters, filters, one_by_one=True)
    reached = parameters.among("events.to_state", sorted(state.value for state in states))
    # A note is an event that does not change the state.
    rows = snapshot.rows(
        f"SELECT {number} AS bucket, events.to_state, count(*) AS count FROM {tables} "
        f"WHERE events.at >= :first AND events.at < :ends AND {reached} "
        "AND (events.from_state IS NULL OR events.from_state <> events.to_state) "
        f"AND {jobs} GROUP BY 1, 2",
        parameters,
    )
    return {(int(row["bucket"]), JobState(row["to_state"])): int(row["count"]) for row in rows}


def of_jobs(
    snapshot: Snapshot,
    parameters: Parameters,
    filters: StoreSelection,
    *,
    among: str | None = None,
    one_by_one: bool = False,
) -> tuple[str, str]:
    """Return the tables, and the condition, that select the events of the jobs in a filter."""
    if not filters:
        return "events", "1 = 1"
    condition: Any = Condition(snapshot, parameters, among=among, one_by_one=one_by_one)
    # SQLite keeps the order of a cross join: the few events of a period find their jobs.
    tables = f"events CROSS JOIN {source(filters)}"
    return tables, f"listed.number = events.number AND {condition(**filters)}"


#: The number of different filters whose totals are kept.
_KEPT = 64
#: Facets with more values than this are not kept.
_VALUES = 5000
#: After more events than this, and than this part of all events, all jobs are counted again.
_MANY, _PART = 2000, 50
#: Filters whose answer for a job never changes. (A flow takes over steps of others, for example.)
_STEADY = frozenset({"engine", "cluster", "label", "recipe", "name", "steps"})
_STEADY_ALONE = _STEADY | {"since", "until", "prefix"}
#: Filters whose answer is final once a job has ended. (A waiting job gets its formula later.)
_FINAL = _STEADY | {"formula", "elements", "error"}
_FINAL_ALONE = _FINAL | _STEADY_ALONE | {"energy_min", "energy_max"}


class Totals:
    """The totals of the filters that were counted last. Threads may share it."""

    def __init__(self) -> None:
        # By the filters: the last event that was counted, and the totals then.
        self._known: dict[str, tuple[int, Counter[JobState]]] = {}
        # By the filters: the last event, and the values of the jobs that had ended then.
        self._facets: dict[str, tuple[int, FacetCounts]] = {}
        self._lock = threading.Lock()

    def count(self, snapshot: Snapshot, filters: StoreSelection) -> dict[JobState, int]:
        """Count the selected jobs by their state, without states that no job has."""
        if filters.get("superseded") is not False:
            return self._count(snapshot, filters)
        # No change of state marks a superseded job, so these are counted apart, by an index.
        all_tries = filters.copy()
        del all_tries["superseded"]
        every = self._count(snapshot, all_tries)
        superseded = count_states(snapshot, {**filters, "superseded": True})
        left = {state: every[state] - superseded.get(state, 0) for state in every}
        return {state: count for state, count in left.items() if count}

    def facets(self, snapshot: Snapshot, filters: StoreSelection) -> FacetCounts:
        """Count the selected jobs by their values; see :func:`count_facets`.

        If the same filters were counted before, only jobs that have ended since, or have not, are
        counted.
        """
        every = _set_only(filters)
        superseded = every.pop("superseded", None)
        state, last = {"state"}, last_event(snapshot)
        if superseded or not _holds(every, _FINAL | state, _FINAL_ALONE | state):
            return count_facets(snapshot, filters)
        key = repr(every)
        with self._lock:
            before, ended = self._facets.get(key, (None, {}))
        unfinished = count_facets(snapshot, every, among=OPEN)
        if before is None or not _is_near(before, last):
            facets = count_facets(snapshot, every)
            ended = _sum(facets, unfinished, -1)
        else:
            if before < last:
                ended = _sum(ended, count_facets(snapshot, every, among=_ended(before, last)))
            facets = _sum(ended, unfinished)
        with self._lock:
            self._facets.pop(key, None)
            if sum(map(len, ended.values())) <= _VALUES:
                self._facets[key] = last, ended
            if len(self._facets) > _KEPT:
                del self._facets[next(iter(self._facets))]
        if superseded is False:
            facets = _sum(facets, count_facets(snapshot, {**every, "superseded": True}), -1)
        return facets

    def _count(self, snapshot: Snapshot, filters: StoreSelection) -> dict[JobState, int]:
        counted, states = _of_all_states(filters)
        key = repr(counted)
        last = last_event(snapshot)
        with self._lock:
            before, counts = self._known.get(key, (None, Counter()))
        if (
            before is not None
            and before != last
            and _is_near(before, last)
            and _holds(counted, _FINAL, _FINAL_ALONE)
        ):
            counts = counts.copy()
            counts.update(_moved(snapshot, before, last, counted))
            if not _holds(counted, _STEADY, _STEADY_ALONE):
                present = count_states(snapshot, counted, among=OPEN)
                counts.update(
                    {state: present.get(state, 0) - counts[state] for state in UNFINISHED}
                )
        elif before != last:
            counts = Counter(count_states(snapshot, counted))
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = last, counts
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return {state: counts[state] for state in JobState if counts[state] and state in states}


def _is_near(before: int, last: int) -> bool:
    # A recount reads all jobs, and each of them has three events or so.
    return last - max(_MANY, last // _PART) <= before <= last


def _ended(after: int, last: int) -> str:
    """Return the query of the numbers of the jobs that ended through some events."""
    is_open = "', '".join(UNFINISHED)
    return (
        f"SELECT number FROM events WHERE seq > {after} AND seq <= {last} AND "
        f"to_state NOT IN ('{is_open}') AND from_state IN ('{is_open}')"
    )


def _sum(facets: FacetCounts, more: FacetCounts, sign: int = 1) -> FacetCounts:
    """Add counts to others, or subtract them; values of no job are left out."""
    total = {key: facets[key].copy() for key in facets}
    for key, counts in more.items():
        present = total.setdefault(key, Counter())
        for value, count in counts.items():
            present[value] += sign * count
            if not present[value]:
                del present[value]
    return {key: counts for key, counts in total.items() if counts or key[1] is None}


def _of_all_states(filters: StoreSelection) -> tuple[StoreSelection, set[JobState]]:
    """Return the filters without those for the state, and the states that they select."""
    stateless = _set_only(filters)
    if "seen" in stateless:  # a job may be in another state there
        return stateless, set(JobState)
    excluded = stateless.pop("exclude", Selection()).copy()
    states = _states(stateless.pop("state", set(JobState))) - _states(excluded.pop("state", ()))
    if excluded:
        stateless["exclude"] = excluded
    return stateless, states


def _set_only(filters: StoreSelection) -> StoreSelection:
    """Return the filters without those that select all jobs."""
    return cast("StoreSelection", {n: v for n, v in filters.items() if v not in (None, {})})


def _states(states: str | Collection[str]) -> set[JobState]:
    return {JobState(state) for state in ([states] if isinstance(states, str) else states)}


def _holds(filters: StoreSelection, each: frozenset[str], alone: frozenset[str]) -> bool:
    return each.issuperset(filters.get("exclude", {})) and (alone | {"exclude"}).issuperset(filters)


def _moved(snapshot: Snapshot, after: int, last: int, filters: StoreSelection) -> Counter[JobState]:
    """Count by how many jobs each state has grown, or shrunk, through some events.

    A note leaves and enters the same state, and so counts as 0.
    """
    parameters = Parameters(after=after, last=last)
    new = "events.seq > :after AND events.seq <= :last"
    changed = f"SELECT events.number FROM events WHERE {new}"
    tables, jobs = of_jobs(snapshot, parameters, filters, among=changed)
    moved: Counter[JobState] = Counter()
    for row in snapshot.rows(
        f"SELECT events.from_state, events.to_state, count(*) AS count FROM {tables} "
        f"WHERE {new} AND {jobs} GROUP BY events.from_state, events.to_state",
        parameters,
    ):
        moved[JobState(row["to_state"])] += row["count"]
        if row["from_state"] is not None:
            moved[JobState(row["from_state"])] -= row["count"]
    return moved
