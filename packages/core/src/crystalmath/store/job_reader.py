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
_Attempts: TypeAlias = list[tuple[str, int]]
_Errors: TypeAlias = list[ErrorCount]
_Failures: TypeAlias = list[Failure]

_UNFINISHED = tuple(state.value for state in UNFINISHED)
_LINEAGE = "FROM lineage JOIN jobs ON jobs.number = lineage.number"
#: `failures` considers only so many failed jobs, those that were submitted last.
_NEWEST_FAILED = 1000


class JobReader:
    """The records of jobs in an open database."""

    def __init__(self, database: Readable) -> None:
        self._readable = database
        self._totals = Totals()
        #: When another program was last seen to hold a lock, by the monotonic clock.
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
            by_id = {job.job_id: job for job in fetch(snapshot, ids)}
        return [by_id[name] for name in filter(is_storable, ids) if name in by_id]

    @patient
    def by_key(self, keys: Sequence[str]) -> dict[str, JobMetadata]:
        """Return the jobs that have these keys, by key, without keys that no job has."""
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
        files: _Rows = [] if potcars is None else json.loads(potcars)
        return files

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
        """Return the jobs for which all filters hold.

        Parameters
        ----------
        limit : int, optional
            No more than this many.
        newest_first : bool
            Whether the newest come first; else the oldest do, and there is no `sort`.
        before : str, optional
            Begin after this job, the last one of the previous page.
        skip : int
            Pass over so many of the first jobs; only for the newest first, or with `sort`.
        sort : str, optional
            Another order; see :func:`crystalmath.store.selection.sorted_page`.
        **filters
            See :class:`crystalmath.store.selection.Condition`.

        Raises
        ------
        UnknownJob
            No job has the id `before`.
        InvalidJob
            `sort` is no column to sort by, or a formula or an element is none.
        """
        with self._readable.reading() as snapshot:
            is_searched = sort is not None or skip or filters.get("label") or is_short(filters)
            if newest_first and is_searched:
                return searched(snapshot, sort, before, limit, filters, skip=skip)
            parameters = Parameters()
            where = Condition(snapshot, parameters, "jobs")(**filters)
            if before is not None:
                where += f" AND jobs.number < {parameters.add(number_of(snapshot, before))}"
            short = " JOIN listed ON listed.number = jobs.number" if is_short(filters) else ""
            order = "DESC" if newest_first else "ASC"
            query = f"{RECORD}{short} WHERE {where} ORDER BY jobs.number {order}{limited(limit)}"
            return read_jobs(snapshot.rows(query, parameters))

    @patient
    def retries(self, ids: Sequence[str]) -> dict[str, _Ids]:
        """Return the ids of each job's retries and rereads, the oldest first."""
        by_parent: dict[str, _Ids] = {}
        with self._readable.reading() as snapshot:
            for parent, job_id, _ in fetch_retries(snapshot, ids):
                by_parent.setdefault(parent, []).append(job_id)
        return by_parent

    @patient
    def successors(self, ids: Sequence[str]) -> _Ids:
        """Return the pending jobs that refer to these, or to jobs that these retry or reread."""
        waiting: dict[str, None] = {}
        with self._readable.reading() as snapshot:
            wanted, known = list(ids), set(ids)
            while wanted:
                parameters = Parameters()
                where = parameters.among("jobs.job_id", wanted[:CHUNK])
                query = f"SELECT lineage.parent {_LINEAGE} WHERE {where} AND lineage.role IN "
                rows = snapshot.rows(f"{query}('retry', 'reread')", parameters)
                more = {str(row["parent"]) for row in rows} - known
                parameters = Parameters()
                where = parameters.among("lineage.parent", wanted[:CHUNK])
                query = f"SELECT jobs.job_id, jobs.state {_LINEAGE} WHERE {where} "
                query += "AND lineage.role IN ('structure', 'value', 'after', 'flow') "
                query += "ORDER BY jobs.number"
                # Not in the query: SQLite would use the state's index, and read all pending jobs.
                pending = (
                    row for row in snapshot.rows(query, parameters) if row["state"] == "pending"
                )
                waiting |= {str(row["job_id"]): None for row in pending}
                known |= more
                wanted = [*wanted[CHUNK:], *more]
        return list(waiting)

    @patient
    def ancestors(self, ids: Sequence[str], *, limit: int) -> dict[str, bool]:
        """Return jobs with the jobs that they wait for, directly or not, and whether each waits.

        The nearest come first; there are at most `limit`.
        """
        waits_by_id: dict[str, bool] = {}
        for start in range(0, len(ids), CHUNK):
            parameters = Parameters()
            own = parameters.among("job_id", ids[start : start + CHUNK])
            is_awaited = parameters.add('%"awaited"%')
            waits = f"state = 'pending' AND stage IS NULL AND parents LIKE {is_awaited}"
            query = (
                "WITH RECURSIVE reached(number, job_id, waits) AS ("
                f"SELECT number, job_id, {waits} FROM jobs WHERE {own} UNION "
                f"SELECT jobs.number, jobs.job_id, {waits} FROM reached JOIN lineage "
                "ON lineage.number = reached.number AND lineage.role IN ('structure', 'value', "
                "'after') JOIN jobs ON jobs.job_id = lineage.parent WHERE reached.waits) "
                f"SELECT job_id, waits FROM reached{limited(limit - len(waits_by_id))}"
            )
            with self._readable.reading() as snapshot:
                rows = snapshot.rows(query, parameters)
                waits_by_id |= {str(row["job_id"]): bool(row["waits"]) for row in rows}
        return waits_by_id

    @patient
    def steps(self, ids: Sequence[str]) -> dict[str, dict[JobState, int]]:
        """Count the steps of each flow among some jobs, by the flow's id and the steps' state.

        If a step was run again, or replaced, its newest job counts.
        """
        counts: dict[str, dict[JobState, int]] = {}
        wanted = list(filter(is_storable, ids))
        with self._readable.reading() as snapshot:
            for start in range(0, len(wanted), CHUNK):
                counts |= count_steps(snapshot, wanted[start : start + CHUNK])
        return counts

    @patient
    def step_states(self, flow: str) -> dict[str, JobState]:
        """Return the states of the jobs that are, or were, steps of a flow, the oldest first."""
        parameters = Parameters()
        query = "SELECT jobs.job_id, jobs.state FROM listed JOIN jobs "
        query += "ON jobs.number = listed.number "
        query += f"WHERE {parameters.equal('listed.flow', flow)} ORDER BY listed.number"
        with self._readable.reading() as snapshot:
            rows = snapshot.rows(query, parameters)
            return {str(row["job_id"]): JobState(row["state"]) for row in rows}

    @patient
    def flows_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the flow of each job that is a step of one, by the job's id."""
        flow_by_step: dict[str, str] = {}
        with self._readable.reading() as snapshot:
            for start in range(0, len(ids), CHUNK):
                parameters = Parameters()
                query = "SELECT jobs.job_id, listed.flow FROM listed JOIN jobs ON jobs.number = "
                query += "listed.number WHERE listed.flow IS NOT NULL AND "
                query += parameters.among("jobs.job_id", ids[start : start + CHUNK])
                rows = snapshot.rows(query, parameters)
                flow_by_step |= {str(row["job_id"]): str(row["flow"]) for row in rows}
        return flow_by_step

    @patient
    def children(self, job_id: str, *, limit: int | None = None) -> _Rows:
        """Return the ids and roles of the jobs that name this one as a parent, the oldest first."""
        parameters = Parameters()
        where = parameters.equal("lineage.parent", job_id)
        query = f"SELECT jobs.job_id, lineage.role {_LINEAGE} WHERE {where}"
        query += " ORDER BY jobs.number, lineage.role DESC"
        with self._readable.reading() as snapshot:
            return [dict(row) for row in snapshot.rows(query + limited(limit), parameters)]

    @patient
    def owners(self, *, after: int | None = None) -> _Ids:
        """Return the owners of unfinished jobs, each once, in the form that `list` takes.

        With `after`, only jobs with an event behind this ``seq`` count: others are not read.
        """
        parameters = Parameters()
        query = "SELECT DISTINCT jobs.owner FROM jobs WHERE "
        if after is not None:
            # SQLite keeps the order of a cross join: the few events find their jobs.
            query = "SELECT DISTINCT jobs.owner FROM events CROSS JOIN jobs WHERE "
            query += f"events.number = jobs.number AND events.seq > {parameters.add(after)} AND "
        query += parameters.among("jobs.state", _UNFINISHED)
        with self._readable.reading() as snapshot:
            return [str(row["owner"]) for row in snapshot.rows(query, parameters)]

    def unfinished(self, *, engine: str | None = None, owner: str | None = None) -> _Jobs:
        """Return the jobs that are not terminal, the oldest first."""
        chosen: StoreSelection = {"state": UNFINISHED}
        if engine is not None:
            chosen["engine"] = engine
        if owner is not None:
            chosen["owner"] = owner
        return self.list(newest_first=False, **chosen)

    @patient
    def pending_attempts(self, owner: str) -> _Attempts:
        """Return the id and the attempt of each pending job of an owner, the oldest first."""
        parameters = Parameters()
        query = "SELECT job_id, attempt FROM jobs WHERE state = 'pending' AND "
        query += f"{parameters.equal('owner', owner)} ORDER BY number"
        with self._readable.reading() as snapshot:
            rows = snapshot.rows(query, parameters)
            return [(str(row["job_id"]), int(row["attempt"])) for row in rows]

    @patient
    def find(self, prefix: str, *, limit: int = 20) -> _Ids:
        """Return ids that begin with a text, in alphabetical order, at most `limit` of them."""
        parameters = Parameters()
        with self._readable.reading() as snapshot:
            where = Condition(snapshot, parameters).starts_with("job_id", prefix)
            query = f"SELECT job_id FROM jobs WHERE {where} ORDER BY job_id{limited(limit)}"
            return [str(row["job_id"]) for row in snapshot.rows(query, parameters)]

    def mentioning(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield id and specification of each unfinished job whose specification contains a text."""
        parameters = Parameters()
        where = parameters.among("state", _UNFINISHED)
        where += f" AND specification LIKE {parameters.add(like(text))}"
        query = "SELECT job_id, specification FROM specifications JOIN jobs USING (number) WHERE "
        with self._readable.reading() as snapshot:
            for row in snapshot.rows(f"{query}{where} ESCAPE '/'", parameters):
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
            return self._totals.count(snapshot, filters), count_errors(snapshot, filters)

    @patient
    def facets(self, **filters: Unpack[StoreSelection]) -> FacetCounts:
        """Count the jobs by their values of some filters, and of each label.

        The keys of the result are a filter and, for labels, the label's name.
        """
        with self._readable.reading() as snapshot:
            return self._totals.facets(snapshot, filters)

    @patient
    def totals(self, **filters: Unpack[StoreSelection]) -> dict[JobState, int]:
        """Count the jobs by their state.

        If the same filters were counted before, only later changes are counted: clients that watch
        a list, or turn its pages, repeat their filters.
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

        The keys of the result are the number of the bucket and the state; counts of 0 are left
        out. Bucket 0 begins at `start`.
        """
        with self._readable.reading() as snapshot:
            return count_reached(
                snapshot, states, start=start, end=end, bucket_s=bucket_s, filters=filters
            )

    @patient
    def failures(self, limit: int) -> _Failures:
        """Return the last jobs to fail, the newest first, without superseded ones."""
        with self._readable.reading() as snapshot:
            rows = snapshot.rows(
                "SELECT jobs.job_id, jobs.name, jobs.recipe, jobs.finished_at, jobs.error "
                # In the order of an index. An index over the times would slow down every change.
                "FROM jobs JOIN (SELECT number FROM jobs WHERE state = 'failed' "
                f"AND superseded_by IS NULL ORDER BY number DESC{limited(_NEWEST_FAILED)}) "
                "AS newest ON newest.number = jobs.number "
                f"ORDER BY jobs.finished_at DESC, jobs.number DESC{limited(limit)}"
            )
            return [Failure(**dict(row)) for row in rows]
