"""The event log: what happened to jobs, in one order for all of them."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select, text

from crystalmath.models import JobState
from crystalmath.store.records import Event
from crystalmath.store.rows import limited
from crystalmath.store.tables import events, is_storable, jobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

_EVENT = select(
    events.c.seq,
    jobs.c.job_id,
    events.c.at,
    events.c.from_state,
    events.c.to_state,
    events.c.reason,
).join(jobs)
# Made once, as those in `rows`: who follows asks again and again.
_SINCE = _EVENT.where(
    events.c.seq > bindparam("after"), events.c.seq <= bindparam("last")
).order_by(events.c.seq)
_LAST = select(func.max(events.c.seq))

_RAISE = "UPDATE sqlite_sequence SET seq = max(seq, :seq) WHERE name = :name"
_SET = "SELECT setval(pg_get_serial_sequence(:name, 'seq'), :seq)"

#: The events of more jobs than this are picked out of all; older SQLite takes 999 parameters.
_NAMED = 500


def read_events(
    connection: Connection, after: int, job_id: str | Collection[str] | None, limit: int | None
) -> tuple[list[Event], int]:
    """Read the log behind a ``seq``, and tell up to which ``seq`` it was read.

    One transaction writes at a time (:class:`~crystalmath.store.database.Database`), so no event
    appears behind another with a larger ``seq``.
    """
    wanted = _wanted(job_id)
    query = _SINCE
    if wanted is None or len(wanted) <= _NAMED:
        if wanted is not None:
            query = query.where(jobs.c.job_id.in_(list(wanted)))
        query = limited(query, limit)
    last = last_event(connection)
    # What came since the line before this one is for the next time.
    rows = connection.execute(query, {"after": after, "last": last}).mappings()
    named = (row for row in rows if wanted is None or row["job_id"] in wanted)
    log = [_to_event(row) for row in islice(named, limit)]
    return log, last if limit is None or len(log) < limit else log[-1].seq if log else after


def last_event(connection: Connection) -> int:
    """Give the ``seq`` of the newest event, 0 before the first."""
    return int(connection.execute(_LAST).scalar() or 0)


def number_from(connection: Connection, seq: int) -> None:
    """Give the events that come a larger ``seq`` than this, and than all that are there."""
    if connection.dialect.name == "sqlite":
        told = {"seq": seq, "name": events.name}
        raised = connection.execute(text(_RAISE), told).rowcount
        if not raised:  # there was none yet
            connection.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :seq)"), told)
    else:
        above = max(seq, last_event(connection))
        connection.execute(text(_SET), {"seq": above, "name": events.name})


def _wanted(job_id: object) -> set[str] | None:
    if job_id is None:
        return None
    if isinstance(job_id, str) or not isinstance(job_id, Collection):
        job_id = [job_id]
    return set(filter(is_storable, job_id))


def _to_event(row: Mapping[Any, Any]) -> Event:
    before = row["from_state"]
    states = {
        "from_state": None if before is None else JobState(before),
        "to_state": JobState(row["to_state"]),
    }
    return Event(**(dict(row) | states))
