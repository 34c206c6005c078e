"""How many jobs came to which state over time, from the event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, cast, func, or_, select

from crystalmath.models import JobState
from crystalmath.store.selection import selected, source
from crystalmath.store.tables import events, listed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement

__all__ = ["count_reached"]


def count_reached(
    connection: Connection,
    states: Collection[JobState],
    *,
    start: float,
    end: float,
    bucket_s: float,
    filters: Mapping[str, Any],
) -> dict[tuple[int, JobState], int]:
    """Count the changes to some states, by the bucket of time in which they were seen.

    Parameters
    ----------
    connection : Connection
        The database.
    states : collection of JobState
        Only changes to these.
    start, end : float
        From when on, and until before when, in seconds since the epoch.
    bucket_s : float
        The length of a bucket in seconds; the first begins at `start` and has the number 0.
    filters : mapping
        Only of these jobs; see :func:`crystalmath.store.selection.selected`.
    """
    number = _whole((events.c.at - start) / bucket_s, connection)
    query = select(number, events.c.to_state, func.count()).where(
        events.c.at >= start,
        events.c.at < end,
        events.c.to_state.in_(sorted(state.value for state in states)),
        # What was only noted changed no state.
        or_(events.c.from_state.is_(None), events.c.from_state != events.c.to_state),
    )
    if filters:
        joined = events.join(source(filters), events.c.number == listed.c.number)
        query = query.select_from(joined).where(selected(of=listed, **filters))
    rows = connection.execute(query.group_by(number, events.c.to_state))
    return {(int(bucket), JobState(state)): int(count) for bucket, state, count in rows}


def _whole(number: Any, connection: Connection) -> ColumnElement[Any]:
    """Leave out what is behind the point of a number that is not negative."""
    # A cast rounds on PostgreSQL; SQLite may have no floor().
    sqlite = connection.dialect.name == "sqlite"
    return cast(number if sqlite else func.floor(number), Integer)
