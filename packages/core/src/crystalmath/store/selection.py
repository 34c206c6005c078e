"""Which jobs: the filters that people ask with, as SQL."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, false, func, not_, or_, select, true

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
    seen: Mapping[str, JobState] | None = None,
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
    seen : mapping of str to JobState, optional
        The states of some jobs, by id, where more is known than the row says.
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
        conditions.append(_is_in({JobState(one) for one in states}, seen or {}))
    if error is not None:
        conditions.append(_contains(error))
    if prefix:
        conditions.append(begins_with(prefix))
    return and_(true(), *conditions)


def _is_in(states: set[JobState], seen: Mapping[str, JobState]) -> ColumnElement[bool]:
    on_record = jobs.c.state.in_(sorted(state.value for state in states))
    if not seen:
        return on_record
    found = [job_id for job_id, state in seen.items() if state in states]
    return or_(and_(on_record, not_(has_id(seen))), has_id(found))


def has_id(job_ids: Collection[str]) -> ColumnElement[bool]:
    """Make the condition that a job has one of these ids, however many they are."""
    # Written into the statement: older SQLite takes no more than 999 parameters.
    ids: Any = bindparam(None, list(job_ids), expanding=True, literal_execute=True)
    return jobs.c.job_id.in_(ids)


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


def count_states(
    connection: Connection, where: ColumnElement[bool], seen: Mapping[str, JobState]
) -> dict[JobState, int]:
    """Count jobs by their state; states that none has are left out."""
    query = select(jobs.c.state, func.count()).where(where).group_by(jobs.c.state)
    counts = Counter({JobState(state): int(count) for state, count in connection.execute(query)})
    if seen:
        more = select(jobs.c.job_id, jobs.c.state).where(where, has_id(seen))
        for job_id, state in connection.execute(more):
            counts[JobState(state)] -= 1
            counts[seen[job_id]] += 1
    return {state: counts[state] for state in JobState if counts[state]}


def count_errors(connection: Connection, where: ColumnElement[bool]) -> list[ErrorCount]:
    """Count the failed jobs by what their errors have in common, the most frequent first."""
    failed = and_(where, jobs.c.state == JobState.FAILED.value, jobs.c.error.is_not(None))
    query = select(jobs.c.error, jobs.c.job_id).where(failed).order_by(jobs.c.number.desc())
    # Row by row: 100,000 errors would fill the memory.
    rows = connection.execution_options(yield_per=1000).execute(query)
    return group_errors((str(error), str(job_id)) for error, job_id in rows)
