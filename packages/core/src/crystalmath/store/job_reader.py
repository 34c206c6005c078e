"""Find the jobs of a database, and read what is recorded of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from sqlalchemy import func, select

from crystalmath.errors import UnknownJob
from crystalmath.models import JobState
from crystalmath.store.fetching import (
    CHUNK,
    RECORD,
    asked_row,
    fetch,
    fetch_one,
    number_of,
    read_jobs,
    searched,
)
from crystalmath.store.postgresql import patient
from crystalmath.store.records import JobMetadata
from crystalmath.store.rows import equal, limited
from crystalmath.store.selection import begins_with, is_short, selected
from crystalmath.store.tables import is_storable, jobs, lineage, listed, specifications

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.models.filters import StoreSelection
    from crystalmath.store.database import Database

# The store has a method called list, which hides the type inside its class.
_Jobs: TypeAlias = list[JobMetadata]
_Ids: TypeAlias = list[str]
_Rows: TypeAlias = list[dict[str, Any]]

_UNFINISHED = tuple(state for state in JobState if not state.is_terminal())


class JobReader:
    """What the job store tells of single jobs, and which there are."""

    _database: Database

    @patient
    def get(self, job_id: str) -> JobMetadata:
        """Give one job.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        with self._database.reading() as connection:
            return fetch_one(connection, job_id)

    @patient
    def get_many(self, ids: Sequence[str]) -> _Jobs:
        """Give jobs in the order of their ids; those that do not exist are left out."""
        with self._database.reading() as connection:
            found = {job.job_id: job for job in fetch(connection, ids)}
        return [found[name] for name in filter(is_storable, ids) if name in found]

    @patient
    def by_key(self, keys: Sequence[str]) -> dict[str, JobMetadata]:
        """Give the jobs that have these keys, by key; what no job has is left out."""
        with self._database.reading() as connection:
            return {str(job.key): job for job in fetch(connection, keys, by="key")}

    @patient
    def specification(self, job_id: str) -> str:
        """Give the text that was recorded as a job's specification.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        with self._database.reading() as connection:
            return str(asked_row(connection, job_id).specification)

    @patient
    def specification_size(self, job_id: str) -> int:
        """Tell how long that text is, without reading it.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        length = func.length(specifications.c.specification)
        query = select(length).join_from(specifications, jobs).where(equal(jobs.c.job_id, job_id))
        with self._database.reading() as connection:
            size = connection.execute(query).scalar()
        if size is None:
            raise UnknownJob(job_id)
        return int(size)

    @patient
    def pseudopotentials(self, job_id: str) -> _Rows:
        """Give what was recorded of the pseudopotential files that a job reads.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        with self._database.reading() as connection:
            potcars = asked_row(connection, job_id).potcars
        found: _Rows = [] if potcars is None else json.loads(potcars)
        return found

    @patient
    def list(
        self,
        *,
        limit: int | None = None,
        newest_first: bool = True,
        before: str | None = None,
        sort: str | None = None,
        **filters: Unpack[StoreSelection],
    ) -> _Jobs:
        """Give the jobs for which everything that is asked for holds.

        Parameters
        ----------
        limit : int, optional
            No more than this many.
        newest_first : bool
            From the newest back, or in the order of their recording (then without `sort`).
        before : str, optional
            Only jobs recorded before this one: the id that ends one page begins the next.
        sort : str, optional
            Another order, and pages of it; see :func:`crystalmath.store.ordering.sorted_page`.
        **filters
            See :func:`crystalmath.store.selection.selected`.

        Raises
        ------
        UnknownJob
            No job has the id `before`.
        InvalidJob
            Nothing is sorted by `sort`, or a formula or an element is none.
        """
        if newest_first and (sort is not None or is_short(filters)):
            with self._database.reading() as connection:
                return searched(connection, sort, before, limit, filters)
        query = RECORD.order_by(jobs.c.number.desc() if newest_first else jobs.c.number)
        if is_short(filters):
            query = query.join(listed, listed.c.number == jobs.c.number)
        query = query.where(selected(**filters))
        with self._database.reading() as connection:
            if before is not None:
                query = query.where(jobs.c.number < number_of(connection, before))
            return read_jobs(connection, limited(query, limit))

    @patient
    def retries(self, ids: Sequence[str]) -> dict[str, _Ids]:
        """Give the ids of those that run, or read, these jobs again, by theirs, oldest first."""
        found: dict[str, _Ids] = {}
        query = select(lineage.c.parent, jobs.c.job_id).join_from(lineage, jobs)
        query = query.where(lineage.c.role.in_(["retry", "reread"])).order_by(jobs.c.number)
        with self._database.reading() as connection:
            for start in range(0, len(ids), CHUNK):
                some = list(filter(is_storable, ids[start : start + CHUNK]))
                for parent, job_id in connection.execute(query.where(lineage.c.parent.in_(some))):
                    found.setdefault(str(parent), []).append(str(job_id))
        return found

    @patient
    def children(self, job_id: str, *, limit: int | None = None) -> _Rows:
        """Give the ids and roles of the jobs that came of a job, the oldest first."""
        query = select(jobs.c.job_id, lineage.c.role).join_from(lineage, jobs)
        query = query.where(equal(lineage.c.parent, job_id)).order_by(jobs.c.number)
        with self._database.reading() as connection:
            return [dict(row) for row in connection.execute(limited(query, limit)).mappings()]

    @patient
    def owners(self) -> _Ids:
        """Give the owners that unfinished jobs have, each once, as `list` takes them."""
        query = select(jobs.c.owner).where(selected(state=_UNFINISHED)).distinct()
        with self._database.reading() as connection:
            return [str(owner) for owner in connection.execute(query).scalars()]

    def unfinished(self, *, engine: str | None = None, owner: str | None = None) -> _Jobs:
        """Give the jobs that are not terminal, the oldest first."""
        chosen: StoreSelection = {"state": _UNFINISHED}
        if engine is not None:
            chosen["engine"] = engine
        if owner is not None:
            chosen["owner"] = owner
        return self.list(newest_first=False, **chosen)

    @patient
    def find(self, prefix: str, *, limit: int = 20) -> _Ids:
        """Give ids that begin with a text, in alphabetical order, at most `limit` of them."""
        query = select(jobs.c.job_id).where(begins_with(prefix))
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(jobs.c.job_id).limit(limit))
            return [str(name) for name in found.scalars()]

    def mentioning(self, text: str) -> Iterator[tuple[str, str]]:
        """Give the unfinished jobs, by id, in whose specification a text stands, with that."""
        query = select(jobs.c.job_id, specifications.c.specification).join(jobs)
        query = query.where(
            jobs.c.state.in_([state.value for state in _UNFINISHED]),
            specifications.c.specification.contains(text, autoescape=True),
        )
        with self._database.reading() as connection:
            yield from ((str(job_id), str(text)) for job_id, text in connection.execute(query))
