"""How many jobs came to which state over time, from the event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, cast, func, or_, select

from crystalmath.models import JobState
from crystalmath.store.selection import selected, source
from crystalmath.store.tables import events, listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement, Select

    from crystalmath.models.filters import StoreSelection


def count_reached(
    connection: Connection,
    states: Collection[JobState],
    *,
    start: float,
    end: float,
    bucket_s: float,
    filters: StoreSelection,
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
    filters : StoreSelection
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
    rows = connection.execute(of_jobs(query, filters).group_by(number, events.c.to_state))
    return {(int(bucket), JobState(state)): int(count) for bucket, state, count in rows}


def of_jobs(
    query: Select[Any], filters: StoreSelection, *, among: Select[Any] | None = None
) -> Select[Any]:
    """Restrict a query of events to those of some jobs.

    Parameters
    ----------
    query : Select
        What is asked of ``events``.
    filters : StoreSelection
        Only of these jobs; without any filter, of all.
    among : Select, optional
        See :func:`crystalmath.store.selection.selected`.
    """
    if not filters:
        return query
    joined = events.join(source(filters), events.c.number == listed.c.number)
    return query.select_from(joined).where(selected(of=listed, among=among, **filters))


def _whole(number: Any, connection: Connection) -> ColumnElement[Any]:
    """Leave out what is behind the point of a number that is not negative."""
    # A cast rounds on PostgreSQL; SQLite may have no floor().
    sqlite = connection.dialect.name == "sqlite"
    return cast(number if sqlite else func.floor(number), Integer)
