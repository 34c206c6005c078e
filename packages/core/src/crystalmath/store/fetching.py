"""Read jobs from the database: by id or key, and as a search finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from crystalmath.errors import UnknownJob
from crystalmath.models.fields import declared
from crystalmath.store.ordering import sorted_page
from crystalmath.store.records import JobMetadata
from crystalmath.store.rows import equal, from_row, limited
from crystalmath.store.selection import selected, source
from crystalmath.store.tables import is_storable, jobs, listed, specifications

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import Select
    from sqlalchemy.sql.expression import BindParameter

    from crystalmath.models.filters import StoreSelection

_FIELDS = tuple(one.name for one in declared(JobMetadata) if one.about.stored)
#: Selects all that makes a job.
RECORD = select(*(jobs.c[name] for name in _FIELDS))
# Made once, as those in `rows`.
_WANTED: BindParameter[Any] = bindparam("wanted", expanding=True)
_BY = {name: RECORD.where(jobs.c[name].in_(_WANTED)) for name in ("job_id", "key")}

#: Older SQLite takes no more than 999 parameters in a statement.
CHUNK = 500


def fetch(
    connection: Connection, values: Sequence[object], *, by: str = "job_id"
) -> list[JobMetadata]:
    """Give the jobs with these ids or keys, in no order; what no job has is left out."""
    wanted = list(dict.fromkeys(filter(is_storable, values)))
    chunks = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    return [job for chunk in chunks for job in read_jobs(connection, _BY[by], {"wanted": chunk})]


def fetch_one(connection: Connection, job_id: str) -> JobMetadata:
    """Give one job (`UnknownJob` if there is none)."""
    for job in fetch(connection, [job_id]):
        return job
    raise UnknownJob(job_id)


def asked_row(connection: Connection, job_id: str) -> Any:
    """Give what was recorded of what was asked for (`UnknownJob` if there is no job)."""
    query = select(specifications).join(jobs).where(equal(jobs.c.job_id, job_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
    return row


def number_of(connection: Connection, job_id: str) -> int:
    """Give the number of the job with this id (`UnknownJob` if there is none)."""
    query = select(jobs.c.number).where(equal(jobs.c.job_id, job_id))
    number = connection.execute(query).scalar()
    if number is None:
        raise UnknownJob(job_id)
    return int(number)


def read_jobs(
    connection: Connection, query: Select[Any], given: Mapping[str, Any] | None = None
) -> list[JobMetadata]:
    """Give the jobs that a query of :data:`RECORD` selects."""
    return [JobMetadata(**from_row(row)) for row in connection.execute(query, given).mappings()]


def searched(
    connection: Connection,
    sort: str | None,
    before: str | None,
    limit: int | None,
    filters: StoreSelection,
) -> list[JobMetadata]:
    """Find the numbers of jobs in their short rows, and read only what was found."""
    query = select(listed.c.number).select_from(source(filters))
    query = query.where(selected(of=listed, **filters))
    query = limited(sorted_page(connection, query, sort, before), limit)
    numbers = [int(number) for number in connection.execute(query).scalars()]
    rows: dict[int, Mapping[Any, Any]] = {}
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK]
        wanted = RECORD.add_columns(jobs.c.number).where(jobs.c.number.in_(chunk))
        rows |= {row["number"]: row for row in connection.execute(wanted).mappings()}
    return [_from_numbered(rows[number]) for number in numbers]


def _from_numbered(row: Mapping[Any, Any]) -> JobMetadata:
    return JobMetadata(**from_row({name: row[name] for name in _FIELDS}))
