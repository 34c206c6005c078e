"""Find the jobs of a database, read what is recorded of them, and count them."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from crystalmath.models.job_notes import UNFINISHED, JobState
from crystalmath.store.eventlog import Totals, count_reached, last_event, read_events
from crystalmath.store.fetching import (
    CHUNK,
    RECORD,
    fetch,
    fetch_one,
    fetch_retries,
    limited,
    number_of,
    read_jobs,
    searched,
    value_of,
)
from crystalmath.store.plain_sql import LOCK_S, Parameters, is_storable, patient
from crystalmath.store.records import ErrorCount, Event, Failure, JobMetadata
from crystalmath.store.selection import (
    Condition,
    count_errors,
    count_facets,
    count_states,
    count_steps,
    is_short,
    like,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from crystalmath.models.filters import StoreSelection
    from crystalmath.store.plain_sql import Readable
    from crystalmath.store.selection import FacetCounts

# The store has a method called list, which hides the type inside its class.
_Jobs: TypeAlias = list[JobMetadata]
_Ids: TypeAlias = list[str]
_Rows: TypeAlias = list[dict[str, Any]]
_Events: TypeAlias = list[Event]
_Errors: TypeAlias = list[ErrorCount]
_Failures: TypeAlias = list[Failure]

_UNFINISHED = tuple(state.value for state in UNFINISHED)
_LINEAGE = "FROM lineage JOIN jobs ON jobs.number = lineage.number"
#: Only among so many failed jobs, those that were submitted last, is looked for the last to fail.
_LOOKED_THROUGH = 1000


class JobReader:
    """The records of jobs in an open database."""

    def __init__(self, database: Readable) -> None:
        self._readable = database
        self._totals = Totals()
        #: When another program was last found to hold a lock, by a clock that no one sets.
        self.locked_at = -math.inf

    def is_locked(self) -> bool:
        """Return whether a thread waits here for another program's lock just now."""
        return time.monotonic() - self.locked_at < LOCK_S + 1.0

    def close(self) -> None:
        """Close the database. Closing twice does no harm."""
        self._readable.close()

    @patient
    def get(self, job_id: str) -> JobMetadata:
        """Return one job; `UnknownJob` if there is none with this id."""
        with self._readable.reading() as snapshot:
            return fetch_one(snapshot, job_id)

    @patient
    def get_many(self, ids: Sequence[str]) -> _Jobs:
        """Return jobs in the order of their ids; those that do not exist are left out."""
        with self._readable.reading() as snapshot:
            found = {job.job_id: job for job in fetch(snapshot, ids)}
        return [found[name] for name in filter(is_storable, ids) if name in found]

    @patient
    def by_key(self, keys: Sequence[str]) -> dict[str, JobMetadata]:
        """Return the jobs that have these keys, by key; what no job has is left out."""
        with self._readable.reading() as snapshot:
            return {str(job.key): job for job in fetch(snapshot, keys, by="key")}

    @patient
    def specification(self, job_id: str) -> str:
        """Return the text that was recorded as a job's specification; `UnknownJob` as for `get`."""
        with self._readable.reading() as snapshot:
            return str(value_of(snapshot, job_id, "specification"))

    @patient
    def pseudopotentials(self, job_id: str) -> _Rows:
        """Return the record of a job's pseudopotential files; `UnknownJob` as for `get`."""
        with self._readable.reading() as snapshot:
            potcars = value_of(snapshot, job_id, "potcars")
        found: _Rows = [] if potcars is None else json.loads(potcars)
        return found

    @patient
    def list(
        self,
        *,
        limit: int | None = None,
        newest_first: bool = True,
        before: str | None = None,
        skip: int = 0,
        sort: str | None = None,
        **filters: Unpack[StoreSelection],
    ) -> _Jobs:
        """Return the jobs for which everything that is asked for holds.

        Parameters
        ----------
        limit : int, optional
            No more than this many.
        newest_first : bool
            From the newest back, or in the order of their recording (then without `sort`).
        before : str, optional
            Only jobs recorded before this one: the id that ends one page begins the next.
        skip : int
            Pass over so many of the first ones, where they come newest first or sorted.
        sort : str, optional
            Another order, and pages of it; see :func:`crystalmath.store.selection.sorted_page`.
        **filters
            See :class:`crystalmath.store.selection.Condition`.

        Raises
        ------
        UnknownJob
            No job has the id `before`.
        InvalidJob
            Nothing is sorted by `sort`, or a formula or an element is none.
        """
        with self._readable.reading() as snapshot:
            if newest_first and (sort is not None or skip or is_short(filters)):
                return searched(snapshot, sort, before, limit, filters, skip=skip)
            given = Parameters()
            where = Condition(snapshot, given, "jobs")(**filters)
            if before is not None:
                where += f" AND jobs.number < {given.add(number_of(snapshot, before))}"
            short = " JOIN listed ON listed.number = jobs.number" if is_short(filters) else ""
            order = "DESC" if newest_first else "ASC"
            query = f"{RECORD}{short} WHERE {where} ORDER BY jobs.number {order}{limited(limit)}"
            return read_jobs(snapshot.rows(query, given))

    @patient
    def retries(self, ids: Sequence[str]) -> dict[str, _Ids]:
        """Return the ids of those that run, or read, these jobs again, by theirs, oldest first."""
        found: dict[str, _Ids] = {}
        with self._readable.reading() as snapshot:
            for parent, job_id, _ in fetch_retries(snapshot, ids):
                found.setdefault(parent, []).append(job_id)
        return found

    @patient
    def successors(self, ids: Sequence[str]) -> _Ids:
        """Return the pending jobs that refer to these, or to a job of which one is a retry."""
        found: dict[str, None] = {}
        with self._readable.reading() as snapshot:
            wanted, known = list(ids), set(ids)
            while wanted:
                given = Parameters()
                where = given.among("jobs.job_id", wanted[:CHUNK])
                query = f"SELECT lineage.parent {_LINEAGE} WHERE {where} AND lineage.role IN "
                rows = snapshot.rows(f"{query}('retry', 'reread')", given)
                more = {str(row["parent"]) for row in rows} - known
                given = Parameters()
                where = given.among("lineage.parent", wanted[:CHUNK])
                query = f"SELECT jobs.job_id, jobs.state {_LINEAGE} WHERE {where} "
                query += "AND lineage.role IN ('structure', 'value', 'after', 'flow') "
                query += "ORDER BY jobs.number"
                # The state here: by its index SQLite would go through all that are pending.
                pending = (row for row in snapshot.rows(query, given) if row["state"] == "pending")
                found |= {str(row["job_id"]): None for row in pending}
                known |= more
                wanted = [*wanted[CHUNK:], *more]
        return list(found)

    @patient
    def ancestors(self, ids: Sequence[str], *, limit: int) -> dict[str, bool]:
        """Return jobs, and through those that wait what these wait for; and of each if it waits.

        The nearest come first, and beyond `limit` none follow.
        """
        found: dict[str, bool] = {}
        for start in range(0, len(ids), CHUNK):
            given = Parameters()
            own = given.among("job_id", ids[start : start + CHUNK])
            is_awaited = given.add('%"awaited"%')
            waits = f"state = 'pending' AND stage IS NULL AND parents LIKE {is_awaited}"
            query = (
                "WITH RECURSIVE found(number, job_id, waits) AS ("
                f"SELECT number, job_id, {waits} FROM jobs WHERE {own} UNION "
                f"SELECT jobs.number, jobs.job_id, {waits} FROM found JOIN lineage "
                "ON lineage.number = found.number AND lineage.role IN ('structure', 'value', "
                "'after') JOIN jobs ON jobs.job_id = lineage.parent WHERE found.waits) "
                f"SELECT job_id, waits FROM found{limited(limit - len(found))}"
            )
            with self._readable.reading() as snapshot:
                rows = snapshot.rows(query, given)
                found |= {str(row["job_id"]): bool(row["waits"]) for row in rows}
        return found

    @patient
    def steps(self, ids: Sequence[str]) -> dict[str, dict[JobState, int]]:
        """Count the steps of those of some jobs that are flows, by their state, by the flow's id.

        Of a step that was run again, or replaced, the newest job counts.
        """
        found: dict[str, dict[JobState, int]] = {}
        wanted = list(filter(is_storable, ids))
        with self._readable.reading() as snapshot:
            for start in range(0, len(wanted), CHUNK):
                found |= count_steps(snapshot, wanted[start : start + CHUNK])
        return found

    @patient
    def step_states(self, flow: str) -> dict[str, JobState]:
        """Return the states of the jobs that are, or were, steps of a flow, the oldest first."""
        given = Parameters()
        query = "SELECT jobs.job_id, jobs.state FROM listed JOIN jobs "
        query += "ON jobs.number = listed.number "
        query += f"WHERE {given.equal('listed.flow', flow)} ORDER BY listed.number"
        with self._readable.reading() as snapshot:
            rows = snapshot.rows(query, given)
            return {str(row["job_id"]): JobState(row["state"]) for row in rows}

    @patient
    def flows_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Return of which flow each of some jobs is a step, those left out that are of none."""
        found: dict[str, str] = {}
        with self._readable.reading() as snapshot:
            for start in range(0, len(ids), CHUNK):
                given = Parameters()
                query = "SELECT jobs.job_id, listed.flow FROM listed JOIN jobs ON jobs.number = "
                query += "listed.number WHERE listed.flow IS NOT NULL AND "
                query += given.among("jobs.job_id", ids[start : start + CHUNK])
                rows = snapshot.rows(query, given)
                found |= {str(row["job_id"]): str(row["flow"]) for row in rows}
        return found

    @patient
    def children(self, job_id: str, *, limit: int | None = None) -> _Rows:
        """Return the ids and roles of the jobs that came of a job, the oldest first."""
        given = Parameters()
        where = given.equal("lineage.parent", job_id)
        query = f"SELECT jobs.job_id, lineage.role {_LINEAGE} WHERE {where}"
        query += " ORDER BY jobs.number, lineage.role DESC"
        with self._readable.reading() as snapshot:
            return [dict(row) for row in snapshot.rows(query + limited(limit), given)]

    @patient
    def owners(self) -> _Ids:
        """Return the owners that unfinished jobs have, each once, as `list` takes them."""
        given = Parameters()
        query = f"SELECT DISTINCT owner FROM jobs WHERE {given.among('state', _UNFINISHED)}"
        with self._readable.reading() as snapshot:
            return [str(row["owner"]) for row in snapshot.rows(query, given)]

    def unfinished(self, *, engine: str | None = None, owner: str | None = None) -> _Jobs:
        """Return the jobs that are not terminal, the oldest first."""
        chosen: StoreSelection = {"state": UNFINISHED}
        if engine is not None:
            chosen["engine"] = engine
        if owner is not None:
            chosen["owner"] = owner
        return self.list(newest_first=False, **chosen)

    @patient
    def find(self, prefix: str, *, limit: int = 20) -> _Ids:
        """Return ids that begin with a text, in alphabetical order, at most `limit` of them."""
        given = Parameters()
        with self._readable.reading() as snapshot:
            where = Condition(snapshot, given).starts_with("job_id", prefix)
            query = f"SELECT job_id FROM jobs WHERE {where} ORDER BY job_id{limited(limit)}"
            return [str(row["job_id"]) for row in snapshot.rows(query, given)]

    def mentioning(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield the unfinished jobs, by id, in whose specification a text stands, with that."""
        given = Parameters()
        where = (
            f"{given.among('state', _UNFINISHED)} AND specification LIKE {given.add(like(text))}"
        )
        query = "SELECT job_id, specification FROM specifications JOIN jobs USING (number) WHERE "
        with self._readable.reading() as snapshot:
            for row in snapshot.rows(f"{query}{where} ESCAPE '/'", given):
                yield str(row["job_id"]), str(row["specification"])

    def events(
        self,
        after: int = 0,
        job_id: str | Collection[str] | None = None,
        limit: int | None = None,
    ) -> _Events:
        """Return the event log, the oldest first.

        Events appear in the order of their ``seq``: a reader that has seen one has missed none
        before it.

        Parameters
        ----------
        after : int
            Only events whose ``seq`` is larger.
        job_id : str or collection of str, optional
            Only this job's, or these jobs'.
        limit : int, optional
            No more than this many.
        """
        return self.follow(after, job_id, limit)[0]

    @patient
    def follow(
        self,
        after: int = 0,
        job_id: str | Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[_Events, int]:
        """Return what :meth:`events` returns, and the ``seq`` up to which the log was read."""
        with self._readable.reading() as snapshot:
            return read_events(snapshot, after, job_id, limit)

    @patient
    def last_event(self) -> int:
        """Return the ``seq`` of the newest event, 0 before the first."""
        with self._readable.reading() as snapshot:
            return last_event(snapshot)

    @patient
    def summary(self, **filters: Unpack[StoreSelection]) -> tuple[dict[JobState, int], _Errors]:
        """Count the jobs by their state, and those that failed by their error; see `list`."""
        with self._readable.reading() as snapshot:
            return count_states(snapshot, filters), count_errors(snapshot, filters)

    @patient
    def facets(self, **filters: Unpack[StoreSelection]) -> FacetCounts:
        """Count the jobs by the values that they have of some filters, and of each label.

        Return by the filter and, of labels, the label how many jobs have each value.
        """
        with self._readable.reading() as snapshot:
            return count_facets(snapshot, filters)

    @patient
    def totals(self, **filters: Unpack[StoreSelection]) -> dict[JobState, int]:
        """Count the jobs by their state.

        The same filters are counted once, and then only later changes: clients that watch a list,
        or turn its pages, repeat them.
        """
        with self._readable.reading() as snapshot:
            return self._totals.count(snapshot, filters)

    @patient
    def counts(
        self,
        states: Collection[JobState],
        *,
        start: float,
        end: float,
        bucket_s: float,
        **filters: Unpack[StoreSelection],
    ) -> dict[tuple[int, JobState], int]:
        """Count the changes of jobs to some states from `start` on, until before `end`.

        Return the counts by the number of the bucket, of which the first begins at `start` and has
        the number 0, and the state; what there was none of is left out.
        """
        with self._readable.reading() as snapshot:
            return count_reached(
                snapshot, states, start=start, end=end, bucket_s=bucket_s, filters=filters
            )

    @patient
    def failures(self, limit: int) -> _Failures:
        """Return the failed jobs that failed last, the newest first, without superseded ones."""
        with self._readable.reading() as snapshot:
            rows = snapshot.rows(
                "SELECT jobs.job_id, jobs.name, jobs.recipe, jobs.finished_at, jobs.error "
                # The index has them in this order; one over the times would slow every change.
                "FROM jobs JOIN (SELECT number FROM jobs WHERE state = 'failed' "
                f"AND superseded_by IS NULL ORDER BY number DESC{limited(_LOOKED_THROUGH)}) "
                "AS newest ON newest.number = jobs.number "
                f"ORDER BY jobs.finished_at DESC, jobs.number DESC{limited(limit)}"
            )
            return [Failure(**dict(row)) for row in rows]
