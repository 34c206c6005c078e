"""In which order jobs are listed, and where a page of them begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, and_, case, cast, func, or_, select

from crystalmath.errors import InvalidJob, UnknownJob, did_you_mean, shown
from crystalmath.models.filters import SORTED_BY
from crystalmath.store.rows import equal
from crystalmath.store.tables import jobs, listed

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement, Select

#: What is smaller counts as nothing, in eV: PostgreSQL fails where a quotient underflows.
_NOTHING_EV = 1e-290
_MADE: dict[str, ColumnElement[Any]] = {
    "runtime_s": listed.c.finished_at - listed.c.started_at,
    "energy_per_atom_ev": case(
        (func.coalesce(listed.c.natoms, 0) == 0, None),
        (func.abs(listed.c.energy_ev) < _NOTHING_EV, 0.0),
        else_=listed.c.energy_ev / cast(listed.c.natoms, Float),
    ),
}


def sorted_page(
    connection: Connection, query: Select[Any], sort: str | None, before: str | None
) -> Select[Any]:
    """Sort a query of ``listed``: jobs without a value come last, of equal ones the newest first.

    Parameters
    ----------
    connection : Connection
        Where the job `before` is looked up.
    query : Select
        What is to be sorted.
    sort : str, optional
        One of ``SORTED_BY``, from the smallest; with a minus before it from the largest.
        Default: the newest first.
    before : str, optional
        Only what comes after this job in that order: the id that ends one page begins the next.

    Raises
    ------
    InvalidJob
        Nothing is sorted by that.
    UnknownJob
        No job has the id `before`.
    """
    if sort is None:
        if before is not None:
            query = query.where(listed.c.number < _place(connection, listed.c.number, before)[1])
        return query.order_by(listed.c.number.desc())
    name, falls = sort.removeprefix("-"), sort.startswith("-")
    if name not in SORTED_BY:
        raise InvalidJob(f"jobs are not sorted by {shown(name)}; {did_you_mean(name, SORTED_BY)}")
    value = _MADE[name] if name in _MADE else listed.c[name]
    if before is not None:
        last, number = _place(connection, value, before)
        query = query.where(_after(value, last, number, falls=falls))
    order = value.desc() if falls else value.asc()
    last = [] if name not in _MADE and not listed.c[name].nullable else [value.is_(None)]
    return query.order_by(*last, order, listed.c.number.desc())


def _place(connection: Connection, value: ColumnElement[Any], job_id: str) -> tuple[object, int]:
    asked = select(value.label("value"), listed.c.number.label("number"))
    asked = asked.join_from(listed, jobs, listed.c.number == jobs.c.number)
    found = connection.execute(asked.where(equal(jobs.c.job_id, job_id))).one_or_none()
    if found is None:
        raise UnknownJob(job_id)
    return found.value, int(found.number)


def _after(
    value: ColumnElement[Any], last: object, number: int, *, falls: bool
) -> ColumnElement[bool]:
    if last is None:
        return and_(value.is_(None), listed.c.number < number)
    further = value < last if falls else value > last
    return or_(further, and_(value == last, listed.c.number < number), value.is_(None))
