"""Jobs as rows of the database, and the pieces of SQL that need to know their form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, false, insert, select, update

from crystalmath.errors import InvalidJob, StoreError
from crystalmath.models import JobState, NewJob
from crystalmath.models.fields import declared, plain
from crystalmath.recipes.formulas import composition
from crystalmath.store.tables import (
    events,
    is_storable,
    jobs,
    labels,
    lineage,
    listed,
    specifications,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Column, Table
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement, Select

    from crystalmath.store.records import JobMetadata

_COLUMNS = tuple(column.name for column in jobs.c if column.name != "number")
_JSON = ("labels", "owner", "parents", "resources", "summary", "warnings")
_INDEXED = ("job_id", "key")
_TEXTS = tuple(
    one.name
    for one in declared(NewJob)
    if one.about.schema.get("type") == "string" and one.about.stored and one.name != "state"
)
_MUTABLE = (
    "state",
    "revision",
    "attempt",
    "owner",
    "started_at",
    "finished_at",
    "cancel_requested_at",
    "error",
    "traceback",
    "summary",
    "reason",
    "removed",
    "removed_at",
)
_COMPARE_AND_SET = update(jobs).where(
    jobs.c.job_id == bindparam("which"), jobs.c.revision == bindparam("seen")
)
# Statements that each submission needs are made once: SQLAlchemy takes 0.05 ms to make one and find
# what it was compiled to, as long as SQLite takes to carry it out.
#
# The number of the job whose id is given.
_NUMBER = select(jobs.c.number).where(jobs.c.job_id == bindparam("job_id")).scalar_subquery()
_INSERTIONS = {
    table.name: insert(table).values(number=_NUMBER)
    for table in (events, labels, lineage, listed, specifications)
}
_LIST = update(listed).where(
    listed.c.number
    == select(jobs.c.number).where(jobs.c.job_id == bindparam("which")).scalar_subquery()
)
#: What of a listed row is the job's own, and what its summary's.
_SAME = tuple(
    column.name for column in listed.c if column.name != "number" and column.name in jobs.c
)
_OF_SUMMARY = ("natoms", "energy_ev", "max_force_ev_ang")
_LISTED_CHANGES = ("state", "started_at", "finished_at", *_OF_SUMMARY)
# Bytes; PostgreSQL refuses longer index entries.
_LONGEST = 1000


def check(job: NewJob) -> None:
    """Raise InvalidJob for a text that some database could not store."""
    indexed = {name: getattr(job, name) for name in _INDEXED}
    for name, value in job.labels.items():
        indexed |= {f"name of the label {name!r}": name, f"value of the label {name!r}": value}
    texts = {name: getattr(job, name) for name in _TEXTS}
    for name, text in (texts | indexed).items():
        if text is not None and not is_storable(text):
            raise InvalidJob(
                f"the {name} must be a text without NUL and half surrogates, not {text!r:.100}"
            )
    for name, text in indexed.items():
        if text is not None and len(text.encode()) > _LONGEST:
            raise InvalidJob(f"the {name} has more than {_LONGEST} bytes; shorten {text[:40]!r}...")


def save(
    connection: Connection,
    changed: Sequence[tuple[int, JobMetadata]],
    log: Sequence[dict[str, Any]],
) -> None:
    """Write jobs over the revisions that were read, and the events that go with it."""
    if not changed:
        return
    rows = [{"which": job.job_id, "seen": seen, **to_row(job, _MUTABLE)} for seen, job in changed]
    result = connection.execute(_COMPARE_AND_SET, rows)
    if result.supports_sane_multi_rowcount() and result.rowcount != len(rows):
        raise StoreError("jobs were changed past the lock of this store; nothing was recorded")
    short = [
        {"which": job.job_id} | {name: row[name] for name in _LISTED_CHANGES}
        for _, job in changed
        for row in [to_listed(job)]
    ]
    connection.execute(_LIST, short)
    insert_for_jobs(connection, events, log)


def insert_for_jobs(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows that name their job by its ``job_id`` into a table that wants its number."""
    if rows:
        connection.execute(_INSERTIONS[table.name], list(rows))


def to_row(job: JobMetadata, names: Collection[str] = _COLUMNS) -> dict[str, Any]:
    """Give a job as a row, or those of its columns that may have changed."""
    row = {name: getattr(job, name) for name in names}
    for name in _JSON:
        if row.get(name) is not None:
            row[name] = json.dumps(plain(row[name]))
    row["state"] = job.state.value
    return row


def to_listed(job: JobMetadata) -> dict[str, Any]:
    """Give what lists are filtered and sorted by, without the number."""
    row = {name: getattr(job, name) for name in _SAME}
    found = composition(job.formula) if job.formula else None
    summary = job.summary or {}
    return {
        **row,
        "state": job.state.value,
        "reduced_formula": found and found.reduced,
        "elements": found and f" {' '.join(found.elements)} ",
        **{name: summary.get(name) for name in _OF_SUMMARY},
    }


def labelled(name: str, value: str, among: Select[Any] | None = None) -> Select[Any]:
    """Select the numbers of the jobs with this label; where given, of some jobs alone."""
    found = select(labels.c.number).where(equal(labels.c.name, name), equal(labels.c.value, value))
    return found if among is None else found.where(labels.c.number.in_(among))


def equal(where: Column[Any], text: str) -> ColumnElement[bool]:
    """Compare with a text; nothing equals what cannot be stored (drivers would raise)."""
    return where == text if is_storable(text) else false()


def limited(query: Select[Any], limit: int | None) -> Select[Any]:
    """Limit a query to so many rows."""
    return query if limit is None else query.limit(max(limit, 0))


def from_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Give what :class:`~crystalmath.quacc.store.JobMetadata` is made from."""
    values = dict(row)
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    values["state"] = JobState(values["state"])
    return values
