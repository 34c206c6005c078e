"""Which jobs: the filters that people ask with, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, false, func, or_, select, true

from crystalmath.models import JobState
from crystalmath.store.grouping import group_errors
from crystalmath.store.rows import equal, labelled
from crystalmath.store.tables import is_storable, jobs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement

    from crystalmath.store.records import ErrorCount

__all__ = ["begins_with", "count_errors", "count_states", "selected"]


def selected(
    *,
    state: JobState | Collection[JobState] | None = None,
    engine: str | None = None,
    label: Mapping[str, str] | None = None,
    recipe: str | None = None,
    name: str | None = None,
    error: str | None = None,
    prefix: str | None = None,
    owner: str | None = None,
) -> ColumnElement[bool]:
    """Make the condition that all of this holds.

    Parameters
    ----------
    state : JobState or collection of JobState, optional
        One of these states.
    engine, recipe, name : str, optional
        Exactly this engine, recipe, name.
    label : mapping of str to str, optional
        All of these labels.
    error : str, optional
        A text that its error contains, in upper or lower case.
    prefix : str, optional
        How its id begins.
    owner : str, optional
        Exactly this owner, as the row has it.
    """
    texts = {jobs.c.engine: engine, jobs.c.recipe: recipe, jobs.c.name: name, jobs.c.owner: owner}
    conditions = [equal(where, text) for where, text in texts.items() if text is not None]
    conditions += [
        jobs.c.number.in_(labelled(named, value)) for named, value in (label or {}).items()
    ]
    if state is not None:
        states = [state] if isinstance(state, str) else state
        conditions.append(jobs.c.state.in_([JobState(one).value for one in states]))
    if error is not None:
        conditions.append(_contains(error))
    if prefix:
        conditions.append(begins_with(prefix))
    return and_(true(), *conditions)


def begins_with(prefix: str) -> ColumnElement[bool]:
    """Make the condition that a job's id begins so."""
    # A range uses the index, which LIKE does not, and knows no wildcards.
    if not is_storable(prefix):
        return false()
    return and_(jobs.c.job_id >= prefix, jobs.c.job_id < prefix + "\U0010ffff")


def _contains(text: str) -> ColumnElement[bool]:
    if not is_storable(text):
        return equal(jobs.c.error, text)
    error = func.lower(jobs.c.error)
    # SQLite knows upper and lower case of ASCII only, PostgreSQL of all letters.
    ways = {text.lower(), "".join(c.lower() if c.isascii() else c for c in text)}
    return or_(*(error.contains(way, autoescape=True) for way in sorted(ways)))


def count_states(connection: Connection, where: ColumnElement[bool]) -> dict[JobState, int]:
    """Count jobs by their state; states that none has are left out."""
    query = select(jobs.c.state, func.count()).where(where).group_by(jobs.c.state)
    counts = {str(state): int(count) for state, count in connection.execute(query)}
    return {state: counts[state.value] for state in JobState if state.value in counts}


def count_errors(connection: Connection, where: ColumnElement[bool]) -> list[ErrorCount]:
    """Count the failed jobs by what their errors have in common, the most frequent first."""
    failed = and_(where, jobs.c.state == JobState.FAILED.value, jobs.c.error.is_not(None))
    query = select(jobs.c.error, jobs.c.job_id).where(failed).order_by(jobs.c.number.desc())
    # Row by row: 100,000 errors would fill the memory.
    rows = connection.execution_options(yield_per=1000).execute(query)
    return group_errors((str(error), str(job_id)) for error, job_id in rows)
