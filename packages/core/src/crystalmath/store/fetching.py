"""Read jobs from the database by id, by key, or by filters."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crystalmath.errors import UnknownJob
from crystalmath.models.fields import declared
from crystalmath.models.job_notes import JobState
from crystalmath.store.plain_sql import Parameters, is_storable
from crystalmath.store.records import JobMetadata
from crystalmath.store.selection import Condition, labelled, rarest, sorted_page, source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crystalmath.models.filters import StoreSelection
    from crystalmath.store.plain_sql import Row, Snapshot

_FIELDS = tuple(one.name for one in declared(JobMetadata) if one.about.stored)
#: Selects all that makes a job.
RECORD = f"SELECT {', '.join(f'jobs.{name}' for name in _FIELDS)} FROM jobs"
#: Columns that hold JSON.
JSON = ("labels", "owner", "parents", "resources", "summary", "warnings")

#: The orders that an index has.
_INDEXED = (None, "created_at", "-created_at")
#: Filters that select few jobs, by an index.
_FEW = ("key", "parent", "prefix")
#: For this transaction. PostgreSQL expects few jobs of several filters: it would read all of them
#: and sort, where an index has them in their order and the first ones fill the page.
_READ_IN_ORDER = (
    "SELECT set_config('enable_sort', 'off', true), "
    "set_config('max_parallel_workers_per_gather', '0', true)"
)
#: Older SQLite takes no more than 999 parameters in a statement.
CHUNK = 500


def from_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the arguments of :class:`~crystalmath.quacc.store.JobMetadata` for a row."""
    values = {name: row[name] for name in _FIELDS}
    for name in JSON:
        values[name] = None if values[name] is None else _decoded(values[name])
    if values["continue_lost"] is not None:  # SQLite has no truth values
        values["continue_lost"] = bool(values["continue_lost"])
    values["state"] = JobState(values["state"])
    return values


# Records share equal values: most jobs have the same owner, labels and resources.
@lru_cache(maxsize=64)
def _decoded(text: str) -> Any:
    return json.loads(text)


def read_jobs(rows: Iterable[Row]) -> list[JobMetadata]:
    """Return the jobs of rows that :data:`RECORD` selects."""
    return [JobMetadata(**from_row(row)) for row in rows]


def fetch(snapshot: Snapshot, values: Sequence[object], *, by: str = "job_id") -> list[JobMetadata]:
    """Return the jobs with these ids or keys, in no order; unknown ones are left out."""
    wanted = list(dict.fromkeys(filter(is_storable, values)))
    matches: list[JobMetadata] = []
    for start in range(0, len(wanted), CHUNK):
        parameters = Parameters()
        where = parameters.among(f"jobs.{by}", wanted[start : start + CHUNK])
        matches += read_jobs(snapshot.rows(f"{RECORD} WHERE {where}", parameters))
    return matches


def fetch_retries(snapshot: Snapshot, job_ids: Sequence[object]) -> Iterator[tuple[str, str, str]]:
    """Yield each retry or reread of some jobs, the oldest first: the job's id, its id and state."""
    wanted = list(filter(is_storable, job_ids))
    for start in range(0, len(wanted), CHUNK):
        parameters = Parameters()
        for row in snapshot.rows(
            "SELECT lineage.parent, jobs.job_id, jobs.state FROM lineage JOIN jobs "
            "ON jobs.number = lineage.number WHERE lineage.role IN ('retry', 'reread') "
            f"AND {parameters.among('lineage.parent', wanted[start : start + CHUNK])} "
            "ORDER BY jobs.number",
            parameters,
        ):
            yield str(row["parent"]), str(row["job_id"]), str(row["state"])


def fetch_one(snapshot: Snapshot, job_id: str) -> JobMetadata:
    """Return one job (`UnknownJob` if there is none)."""
    for job in fetch(snapshot, [job_id]):
        return job
    raise UnknownJob(job_id)


def value_of(snapshot: Snapshot, job_id: str, value: str) -> Any:
    """Return a value that is recorded beside a job's row (`UnknownJob` if there is none)."""
    parameters = Parameters()
    where = parameters.equal("jobs.job_id", job_id)
    joined = "jobs JOIN specifications ON specifications.number = jobs.number"
    row = snapshot.row(f"SELECT {value} AS value FROM {joined} WHERE {where}", parameters)
    if row is None:
        raise UnknownJob(job_id)
    return row["value"]


def number_of(snapshot: Snapshot, job_id: str) -> int:
    """Return the number of the job with this id (`UnknownJob` if there is none)."""
    parameters = Parameters()
    number = snapshot.value(
        f"SELECT number AS value FROM jobs WHERE {parameters.equal('job_id', job_id)}", parameters
    )
    if number is None:
        raise UnknownJob(job_id)
    return int(number)


def searched(
    snapshot: Snapshot,
    sort: str | None,
    before: str | None,
    limit: int | None,
    filters: StoreSelection,
    *,
    skip: int,
) -> list[JobMetadata]:
    """Select jobs by their short rows, and read the whole rows of this page only."""
    parameters, tables = Parameters(), source(filters)
    others, conditions = filters.copy(), []
    label = filters.get("label")
    are_few = any(filters.get(name) for name in _FEW)
    if sort is None and label and not are_few:
        # The index of labels has the jobs of each in their order. SQLite keeps the order of tables
        # in a cross join, and so reads no more of the index than the page needs.
        name = rarest(snapshot, label)
        others["label"] = {key: value for key, value in label.items() if key != name}
        tables = f"labels CROSS JOIN {tables}"
        conditions.append("listed.number = labels.number")
        conditions.append(labelled(parameters, "labels", name, label[name]))
    in_order = limit is not None and sort in _INDEXED
    condition = Condition(snapshot, parameters, one_by_one=in_order)
    further, order = sorted_page(snapshot, parameters, sort, before)
    conditions += [condition(**others), further]
    if "labels" in tables:
        order = "labels.number DESC"
    query = f"SELECT listed.number FROM {tables} WHERE {' AND '.join(conditions)}"
    if in_order and not (are_few or condition.selects_few or snapshot.is_sqlite):
        snapshot.row(_READ_IN_ORDER)
    those = f"{limited(2**53 if limit is None else limit)} OFFSET {int(skip)}"
    rows = snapshot.rows(f"{query} ORDER BY {order}{those}", parameters)
    numbers = [int(row["number"]) for row in rows]
    rows_by_number: dict[int, Row] = {}
    for start in range(0, len(numbers), CHUNK):
        parameters = Parameters()
        where = parameters.among("jobs.number", numbers[start : start + CHUNK])
        record = RECORD.replace(" FROM ", ", jobs.number FROM ")
        rows_by_number |= {
            row["number"]: row for row in snapshot.rows(f"{record} WHERE {where}", parameters)
        }
    return read_jobs(rows_by_number[number] for number in numbers)


def limited(limit: int | None) -> str:
    """Return the clause that limits a query to `limit` rows; empty if that is ``None``."""
    return "" if limit is None else f" LIMIT {max(int(limit), 0)}"
