"""Jobs as rows of the database, and the pieces of SQL that need to know their form."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, exists, insert, literal, select, text, update
from sqlalchemy.dialects import sqlite

from crystalmath.errors import InvalidJob, StoreError
from crystalmath.models import NewJob
from crystalmath.models.fields import declared, plain
from crystalmath.models.job_notes import step_of
from crystalmath.recipes.formulas import composition
from crystalmath.store.eventlog import last_event
from crystalmath.store.fetching import JSON
from crystalmath.store.plain_sql import Snapshot, is_storable
from crystalmath.store.tables import (
    events,
    jobs,
    labels,
    lineage,
    listed,
    specifications,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Insert, Table, Update
    from sqlalchemy.engine import Connection

    from crystalmath.store.records import JobMetadata

_COLUMNS = tuple(column.name for column in jobs.c if column.name != "number")
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
    "stage",
    "superseded_by",
)
#: Columns that a waiting job gets once its predecessors have ended.
PUT_IN = ("parents", "formula", "warnings", "walltime_s", "continue_lost")
_PUT_IN_LISTED = ("formula", "reduced_formula", "elements")
_COMPARE_AND_SET = update(jobs).where(
    jobs.c.job_id == bindparam("which"), jobs.c.revision == bindparam("seen")
)
# Statements that each submission needs are made once, and carried out by SQLite's own module:
# SQLAlchemy takes twice as long to hand one over as SQLite takes to carry it out.
#
# The number of the job with the id ``job_id``.
_NUMBER = select(jobs.c.number).where(jobs.c.job_id == bindparam("job_id")).scalar_subquery()
# (`inline`: else SQLAlchemy asks for the number by RETURNING, and the module of Python 3.13 does
# not take the second of many rows.)
_INSERTIONS = {
    table.name: insert(table).values(number=_NUMBER).inline()
    for table in (events, labels, lineage, listed, specifications)
}
_TAKE = insert(lineage).from_select(
    ["number", "parent", "role"],
    select(jobs.c.number, bindparam("flow", type_=Text), literal("taken", Text)).where(
        jobs.c.job_id == bindparam("step"),
        ~exists().where(
            lineage.c.number == jobs.c.number,
            lineage.c.parent == bindparam("flow"),
            lineage.c.role == "taken",
        ),
    ),
)
#: Makes steps whose flow is not on record ordinary jobs: lists hide steps.
STRAY_STEPS = (
    update(listed)
    .where(listed.c.flow.is_not(None), ~exists().where(jobs.c.job_id == listed.c.flow))
    .values(flow=None, step=None)
)
_LIST = update(listed).where(
    listed.c.number
    == select(jobs.c.number).where(jobs.c.job_id == bindparam("which")).scalar_subquery()
)
_PUT_IN_JOB = update(jobs).where(jobs.c.job_id == bindparam("which"))
_SPECIFY = update(specifications).where(
    specifications.c.number
    == select(jobs.c.number).where(jobs.c.job_id == bindparam("which")).scalar_subquery()
)
#: Columns of ``listed`` that repeat the job's row, and those from its summary.
_SAME = tuple(
    column.name for column in listed.c if column.name != "number" and column.name in jobs.c
)
_OF_SUMMARY = ("natoms", "energy_ev", "max_force_ev_ang")
_LISTED_CHANGES = (*(name for name in _SAME if name in _MUTABLE), *_OF_SUMMARY)
_RAISE = "UPDATE sqlite_sequence SET seq = max(seq, :seq) WHERE name = :name"
_SET = "SELECT setval(pg_get_serial_sequence(:name, 'seq'), :seq)"
# Bytes; PostgreSQL refuses longer index entries.
_LONGEST = 1000


def check(job: NewJob) -> None:
    """Raise InvalidJob for a text that some database could not store."""
    indexed = {name: getattr(job, name) for name in _INDEXED}
    for name, value in job.labels.items():
        indexed |= {f"name of the label {name!r}": name, f"value of the label {name!r}": value}
    texts = {name: getattr(job, name) for name in _TEXTS}
    for name, value in (texts | indexed).items():
        if value is not None and not is_storable(value):
            raise InvalidJob(
                f"the {name} must be a text without NUL and half surrogates, not {value!r:.100}"
            )
    for name, value in indexed.items():
        if value is not None and len(value.encode()) > _LONGEST:
            raise InvalidJob(
                f"the {name} has more than {_LONGEST} bytes; shorten {value[:40]!r}..."
            )


def carry_out(
    connection: Connection, statement: Insert | Update, rows: Sequence[dict[str, Any]]
) -> int:
    """Carry out a statement with the values of each row; return how many rows it has changed.

    Return -1 if the driver does not count them.
    """
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        return int(driver.executemany(_sqlite_text(statement, tuple(rows[0])), rows).rowcount)
    result = connection.execute(statement, rows)
    return result.rowcount if result.supports_sane_multi_rowcount() else -1


@cache
def _sqlite_text(statement: Insert | Update, names: tuple[str, ...]) -> str:
    dialect = sqlite.dialect(paramstyle="named")
    return str(statement.compile(dialect=dialect, column_keys=names))


def save(
    connection: Connection,
    changed: Sequence[tuple[int, JobMetadata]],
    log: Sequence[dict[str, Any]],
) -> None:
    """Write jobs over the revisions that were read, and the events that go with it."""
    if not changed:
        return
    rows = [{"which": job.job_id, "seen": seen, **to_row(job, _MUTABLE)} for seen, job in changed]
    if carry_out(connection, _COMPARE_AND_SET, rows) not in {len(rows), -1}:
        raise StoreError("jobs were changed past the lock of this store; nothing was recorded")
    short = [
        {"which": job.job_id} | {name: row[name] for name in _LISTED_CHANGES}
        for _, job in changed
        for row in [to_listed(job)]
    ]
    carry_out(connection, _LIST, short)
    insert_for_jobs(connection, events, log)


def put_in(
    connection: Connection,
    changed: Sequence[tuple[int, JobMetadata]],
    rows: Sequence[NewJob],
    log: Sequence[dict[str, Any]],
) -> None:
    """Write jobs whose predecessors have ended, as :func:`save` does, with the values they got."""
    save(connection, changed, log)
    for (_, job), new in zip(changed, rows, strict=True):
        where = {"which": job.job_id}
        carry_out(connection, _PUT_IN_JOB, [where | _columns(job, PUT_IN)])
        short = to_listed(job)
        carry_out(connection, _LIST, [where | {name: short[name] for name in _PUT_IN_LISTED}])
        potcars = json.dumps(list(new.pseudopotentials)) if new.pseudopotentials else None
        specified = {"specification": new.specification, "potcars": potcars}
        carry_out(connection, _SPECIFY, [where | specified])


def take(connection: Connection, flow: str, steps: Sequence[str]) -> None:
    """Record, once, that a flow has taken over steps of others; unknown ones are left out."""
    if steps:
        connection.execute(_TAKE, [{"flow": flow, "step": step} for step in steps])


def insert_for_jobs(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows that name their job by ``job_id`` into a table that has its number."""
    if rows:
        carry_out(connection, _INSERTIONS[table.name], rows)


def to_row(job: JobMetadata, names: Collection[str] = _COLUMNS) -> dict[str, Any]:
    """Return a job as a row, with the columns `names`."""
    return {**_columns(job, names), "state": job.state.value}


def _columns(job: JobMetadata, names: Collection[str]) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in names}
    for name in JSON:
        if row.get(name) is not None:
            row[name] = json.dumps(plain(row[name]))
    return row


def to_listed(job: JobMetadata) -> dict[str, Any]:
    """Return a job as a row of ``listed``, without its number."""
    row = {name: getattr(job, name) for name in _SAME}
    parsed = composition(job.formula) if job.formula else None
    summary = job.summary or {}
    flow, step = step_of(job.parents) or (None, None)
    return {
        **row,
        "state": job.state.value,
        "reduced_formula": parsed and parsed.reduced,
        "elements": parsed and f" {' '.join(parsed.elements)} ",
        **{name: summary.get(name) for name in _OF_SUMMARY},
        "flow": flow,
        "step": step,
    }


def number_events_from(connection: Connection, seq: int) -> None:
    """Have new events begin above this ``seq``, and above all present events."""
    sequence = {"seq": seq, "name": events.name}
    if connection.dialect.name == "sqlite":
        raised = connection.execute(text(_RAISE), sequence).rowcount
        if not raised:  # there was none yet
            connection.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :seq)"), sequence)
    else:
        sequence["seq"] = max(seq, last_event(Snapshot(connection)))
        connection.execute(text(_SET), sequence)
