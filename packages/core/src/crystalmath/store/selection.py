"""Which jobs: the filters that people ask with, as SQL."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, false, func, not_, or_, select, true

from crystalmath.models import JobState
from crystalmath.recipes.formulas import read_elements, read_formula
from crystalmath.store.grouping import group_errors
from crystalmath.store.rows import equal, labelled
from crystalmath.store.tables import is_storable, jobs, listed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Column, Table
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement, FromClause, Select

    from crystalmath.models.filters import Selection, StoreSelection
    from crystalmath.store.records import ErrorCount


def selected(
    *,
    of: Table = jobs,
    state: JobState | Collection[JobState] | None = None,
    seen: Mapping[str, JobState] | None = None,
    engine: str | None = None,
    cluster: str | None = None,
    label: Mapping[str, str] | None = None,
    recipe: str | None = None,
    name: str | None = None,
    formula: str | None = None,
    elements: Collection[str] | None = None,
    energy_min: float | None = None,
    energy_max: float | None = None,
    since: float | None = None,
    until: float | None = None,
    error: str | None = None,
    prefix: str | None = None,
    owner: str | None = None,
    exclude: Selection | None = None,
    among: Select[Any] | None = None,
) -> ColumnElement[bool]:
    """Make the condition that all of this holds.

    Parameters
    ----------
    of : Table
        ``jobs``, or ``listed``, which has the columns of most filters in shorter rows; the others
        (`is_wide`) need it joined with ``jobs``.
    state : JobState or collection of JobState, optional
        One of these states.
    seen : mapping of str to JobState, optional
        The states of some jobs, by id, where more is known than the row says.
    engine, cluster : str, optional
        Exactly this engine, cluster.
    label : mapping of str to str, optional
        All of these labels.
    recipe : str, optional
        This recipe, or this group of recipes; ``quacc.recipes.`` may be left out.
    name, error : str, optional
        A text that its name, its error contains, in upper or lower case.
    formula : str, optional
        This formula, however written; one that cannot be reduced stands for its multiples.
    elements : collection of str, optional
        All of these elements.
    energy_min, energy_max : float, optional
        An energy in this range (eV).
    since, until : float, optional
        Submitted in this time, in seconds since the epoch.
    prefix : str, optional
        How its id begins.
    owner : str, optional
        Exactly this owner, as the row has it.
    exclude : mapping, optional
        Filters none of which may hold.
    among : Select, optional
        Gives the numbers of the few jobs that come into question: their labels alone are read.

    Raises
    ------
    InvalidJob
        A formula or an element is none.
    """
    conditions = _named(of, among, label=label, recipe=recipe, name=name, error=error)
    texts = {of.c.engine: engine, of.c.cluster: cluster, jobs.c.owner: owner}
    conditions += [equal(where, text) for where, text in texts.items() if text is not None]
    conditions += _made_of(formula, elements)
    conditions += _between(listed.c.energy_ev, energy_min, energy_max)
    if since is not None:
        conditions.append(of.c.created_at >= float(since))
    if until is not None:
        conditions.append(of.c.created_at < float(until))
    if state is not None:
        states = [state] if isinstance(state, str) else state
        conditions.append(_is_in(of, {JobState(one) for one in states}, seen or {}))
    if prefix:
        conditions.append(begins_with(prefix))
    # What is not known of a job does not hold.
    conditions += [each.is_not(true()) for each in _each(of, exclude or {}, seen, among)]
    return and_(true(), *conditions)


#: Filters whose columns only ``listed`` has, or has in shorter rows.
_SHORT = {
    *("cluster", "recipe", "name", "formula", "elements", "energy_min", "energy_max"),
    *("since", "until", "exclude"),
}


def is_short(filters: StoreSelection) -> bool:
    """Tell whether these filters are better looked for in ``listed``."""
    return any(filters.get(name) is not None for name in _SHORT)


def is_wide(filters: StoreSelection) -> bool:
    """Tell whether these filters need ``jobs``."""
    excluded = filters.get("exclude") or {}
    return any(filters.get(name) for name in ("seen", "prefix", "owner")) or any(
        given.get("error") is not None for given in (filters, excluded)
    )


def _each(
    of: Table,
    exclude: Selection,
    seen: Mapping[str, JobState] | None,
    among: Select[Any] | None,
) -> list[ColumnElement[bool]]:
    """Make a condition of each filter, of each label, and of each element."""
    given: Mapping[str, Any] = exclude
    single: list[dict[str, Any]] = [
        {name: part}
        for name, value in given.items()
        for part in (
            [{key: text} for key, text in value.items()]
            if name == "label"
            else [[one] for one in value]
            if name == "elements"
            else [value]
        )
    ]
    return [
        selected(of=of, seen=seen if "state" in one else None, among=among, **one) for one in single
    ]


def _named(
    of: Table,
    among: Select[Any] | None,
    *,
    label: Mapping[str, str] | None,
    recipe: str | None,
    name: str | None,
    error: str | None,
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        of.c.number.in_(labelled(key, value, among)) for key, value in (label or {}).items()
    ]
    if recipe is not None:
        conditions.append(_of_recipe(of.c.recipe, recipe))
    if name is not None:
        conditions.append(_contains(of.c.name, name))
    if error is not None:
        conditions.append(_contains(jobs.c.error, error))
    return conditions


def _of_recipe(where: Column[Any], recipe: str) -> ColumnElement[bool]:
    names = {recipe, f"quacc.recipes.{recipe}"}
    return or_(
        *(equal(where, name) for name in sorted(names)),
        *(starts_with(where, f"{name}.") for name in sorted(names)),
    )


def _made_of(formula: str | None, elements: Collection[str] | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if formula is not None:
        asked = read_formula(formula)
        column = listed.c.reduced_formula if asked.formula == asked.reduced else listed.c.formula
        conditions.append(equal(column, asked.formula))
    symbols = () if elements is None else read_elements(elements)
    return conditions + [listed.c.elements.contains(f" {symbol} ") for symbol in symbols]


def _between(
    where: Column[Any], least: float | None, most: float | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [] if least is None else [where >= float(least)]
    return conditions if most is None else [*conditions, where <= float(most)]


def _is_in(of: Table, states: set[JobState], seen: Mapping[str, JobState]) -> ColumnElement[bool]:
    on_record = of.c.state.in_(sorted(state.value for state in states))
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
    return starts_with(jobs.c.job_id, prefix)


def starts_with(where: Column[Any], text: str) -> ColumnElement[bool]:
    """Make the condition that a column's text begins so."""
    # A range uses the index, which LIKE does not, and knows no wildcards.
    if not is_storable(text):
        return false()
    return and_(where >= text, where < text + "\U0010ffff")


def _contains(where: Column[Any], text: str) -> ColumnElement[bool]:
    if not is_storable(text):
        return equal(where, text)
    found = func.lower(where)
    # SQLite knows upper and lower case of ASCII only, PostgreSQL of all letters.
    ways = {text.lower(), "".join(c.lower() if c.isascii() else c for c in text)}
    return or_(*(found.contains(way, autoescape=True) for way in sorted(ways)))


def count_states(connection: Connection, filters: StoreSelection) -> dict[JobState, int]:
    """Count the jobs that are selected by their state; states that none has are left out."""
    if all(value is None or value == {} for value in filters.values()):
        # All jobs: an index has them in this order.
        every = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        found = {JobState(state): int(count) for state, count in connection.execute(every)}
        return {state: found[state] for state in JobState if state in found}
    where, seen = selected(of=listed, **filters), filters.get("seen") or {}
    # One pass; to group 100,000 rows, SQLite sorts them.
    counted = [func.count(case((listed.c.state == state.value, 1))) for state in JobState]
    query = select(*counted).select_from(source(filters)).where(where)
    sums = connection.execute(query).one()
    counts = Counter({state: int(count) for state, count in zip(JobState, sums, strict=True)})
    if seen:
        joined = listed.join(jobs, listed.c.number == jobs.c.number)
        more = select(jobs.c.job_id, jobs.c.state).select_from(joined).where(where, has_id(seen))
        for job_id, state in connection.execute(more):
            counts[JobState(state)] -= 1
            counts[seen[job_id]] += 1
    return {state: counts[state] for state in JobState if counts[state]}


def source(filters: StoreSelection) -> FromClause:
    """Give what is to be selected from: ``listed``, with ``jobs`` where that is needed."""
    if is_wide(filters):
        return listed.join(jobs, listed.c.number == jobs.c.number)
    return listed


def count_errors(connection: Connection, filters: StoreSelection) -> list[ErrorCount]:
    """Count the failed jobs by what their errors have in common, the most frequent first."""
    where = selected(of=listed, **filters)
    failed = and_(where, listed.c.state == JobState.FAILED.value, jobs.c.error.is_not(None))
    joined = listed.join(jobs, listed.c.number == jobs.c.number)
    query = select(jobs.c.error, jobs.c.job_id).select_from(joined).where(failed)
    query = query.order_by(listed.c.number.desc())
    # Row by row: 100,000 errors would fill the memory.
    rows = connection.execution_options(yield_per=1000).execute(query)
    return group_errors((str(error), str(job_id)) for error, job_id in rows)
