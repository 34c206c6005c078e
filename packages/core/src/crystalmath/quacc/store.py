"""The record of all jobs: what was asked for, what state it is in, and how it got there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from attrs import evolve
from sqlalchemy import bindparam, func, insert, select

from crystalmath.errors import InvalidJob, KeyConflict, UnknownJob
from crystalmath.models import NewJob
from crystalmath.models.fields import declared
from crystalmath.quacc.runner import JobState
from crystalmath.store import database
from crystalmath.store.event_counts import count_reached
from crystalmath.store.eventlog import last_event, read_events
from crystalmath.store.failures import newest_failures
from crystalmath.store.ordering import sorted_page
from crystalmath.store.postgresql import patient
from crystalmath.store.records import ErrorCount, Event, Failure, JobMetadata
from crystalmath.store.rows import (
    check,
    equal,
    from_row,
    insert_for_jobs,
    limited,
    save,
    to_listed,
    to_row,
)
from crystalmath.store.selection import (
    begins_with,
    count_errors,
    count_states,
    is_short,
    selected,
    source,
)
from crystalmath.store.tables import (
    events,
    is_storable,
    jobs,
    labels,
    lineage,
    listed,
    specifications,
)
from crystalmath.store.transitions import event_row, follow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import Select
    from sqlalchemy.sql.expression import BindParameter

    from crystalmath.jobs.changes import Change

__all__ = ["ErrorCount", "Event", "JobMetadata", "JobStore", "NewJob"]


# The store has a method called list, which hides the type inside its class.
_Jobs: TypeAlias = list[JobMetadata]
_Events: TypeAlias = list[Event]
_Ids: TypeAlias = list[str]
_Errors: TypeAlias = list[ErrorCount]
_Failures: TypeAlias = list[Failure]
_Row: TypeAlias = dict[str, Any]
_Rows: TypeAlias = list[_Row]
_Fresh: TypeAlias = tuple[NewJob, JobMetadata]
_Answers: TypeAlias = list[JobMetadata | InvalidJob]

_FIELDS = tuple(one.name for one in declared(JobMetadata) if one.about.stored)
_RECORD = select(*(jobs.c[name] for name in _FIELDS))
# Made once, as those in `rows`.
_WANTED: BindParameter[Any] = bindparam("wanted", expanding=True)
_BY = {name: _RECORD.where(jobs.c[name].in_(_WANTED)) for name in ("job_id", "key")}
_INSERT = insert(jobs)
_UNFINISHED = tuple(state for state in JobState if not state.is_terminal())

# Older SQLite takes no more than 999 parameters in a statement.
_CHUNK = 500


class JobStore:
    """The job database. Threads may share a store; each process opens its own.

    Parameters
    ----------
    url : str
        An SQLAlchemy URL, ``sqlite:///PATH`` or ``postgresql://...``.
    create : bool
        Whether to make a database that does not exist.
    network : bool, optional
        Whether other hosts may write to a SQLite file; default: as its file system's kind tells.

    Raises
    ------
    StoreError
        The database cannot be opened, is missing and not to be created, or is newer than this
        release. Every method raises it when the database fails.
    """

    def __init__(self, url: str, *, create: bool = True, network: bool | None = None) -> None:
        self._database = database.open_database(url, create=create, network=network)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.place!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def exists(url: str) -> bool:
        """Tell whether there is a database, without making one.

        Raises
        ------
        StoreError
            The URL names no database that can be used, or a server that cannot be reached.
        """
        return database.exists(url)

    @patient
    def insert(self, jobs: Sequence[NewJob]) -> _Jobs:
        """Record jobs as pending, all of them in one durable transaction, or none.

        Returns
        -------
        list of JobMetadata
            One for each of `jobs`, in their order. A key that is known with the same ``spec_hash``
            gives the job that has it, and records nothing.

        Raises
        ------
        KeyConflict
            A key belongs to a job with another ``spec_hash``.
        InvalidJob
            An id is taken, or a text cannot be stored.
        """
        recorded: _Jobs = []
        with self._database.writing() as connection:
            for answer in _insert_each(connection, jobs):
                if isinstance(answer, InvalidJob):
                    raise answer
                recorded.append(answer)
        return recorded

    @patient
    def insert_each(self, jobs: Sequence[NewJob]) -> _Answers:
        """Record jobs as :meth:`insert` does, each accepted or refused on its own.

        Returns
        -------
        list of (JobMetadata or InvalidJob)
            For each of `jobs`, in their order, what :meth:`insert` would give or raise for it.
        """
        with self._database.writing() as connection:
            return _insert_each(connection, jobs)

    @patient
    def apply(self, changes: Sequence[Change]) -> _Jobs:
        """Record changes of state, in their order and in one durable transaction.

        What is no step of a job's life is passed over: a change of a terminal state, a state it
        has already, an unknown id. A reason for the state that it has already is noted.

        Returns
        -------
        list of JobMetadata
            The jobs that changed, each once, as they are now.
        """
        if not changes:
            return []
        ids = list(dict.fromkeys(change.job_id for change in changes))
        with self._database.writing() as connection:
            before = {job.job_id: job for job in _fetch(connection, ids)}
            after, log = dict(before), []
            for change in changes:
                if change.job_id in after:
                    after[change.job_id], steps = follow(after[change.job_id], change)
                    log += steps
            pairs = [(before[name], after[name]) for name in ids if name in before]
            changed = [(old.revision, job) for old, job in pairs if job is not old]
            save(connection, changed, log)
        return [job for _, job in changed]

    @patient
    def note_cancel(self, job_id: str, at: float) -> JobMetadata:
        """Record that somebody asked for a job to be stopped; the first request counts.

        Returns
        -------
        JobMetadata
            The job as it is now; nothing has changed if it was terminal.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        with self._database.writing() as connection:
            job = _fetch_one(connection, job_id)
            if job.state.is_terminal() or job.cancel_requested_at is not None:
                return job
            noted = evolve(job, cancel_requested_at=at, revision=job.revision + 1)
            log = event_row(job, job.state, at, "cancel requested")
            save(connection, [(job.revision, noted)], [log])
        return noted

    @patient
    def set_owner(
        self, job_ids: Sequence[str], owner: Mapping[str, Any], reason: str, at: float
    ) -> None:
        """Record whose unfinished jobs these are from now on; an empty owner is nobody."""
        with self._database.writing() as connection:
            found = [job for job in _fetch(connection, job_ids) if not job.state.is_terminal()]
            owned = [evolve(job, owner=owner, revision=job.revision + 1) for job in found]
            changed = [(job.revision, now) for job, now in zip(found, owned, strict=True)]
            save(connection, changed, [event_row(job, job.state, at, reason) for job in found])

    @patient
    def note_removed(self, job_ids: Sequence[str], removed: str, reason: str, at: float) -> _Jobs:
        """Record what was removed of the files of ended jobs, in one durable transaction.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs; those that do not exist, have not ended, or have lost as much before, stay as
            they are.
        removed : str
            ``"heavy"`` or ``"all"``.
        reason : str
            What the event log says of it.
        at : float
            When, in seconds since the epoch.

        Returns
        -------
        list of JobMetadata
            The jobs that changed, as they are now.
        """
        with self._database.writing() as connection:
            found = [
                job
                for job in _fetch(connection, job_ids)
                if job.state.is_terminal() and job.removed not in {removed, "all"}
            ]
            noted = [
                evolve(job, removed=removed, removed_at=at, revision=job.revision + 1)
                for job in found
            ]
            changed = [(job.revision, now) for job, now in zip(found, noted, strict=True)]
            save(connection, changed, [event_row(job, job.state, at, reason) for job in found])
        return noted

    def mentioning(self, text: str) -> Iterator[tuple[str, str]]:
        """Give the unfinished jobs, by id, in whose specification a text stands, with that."""
        query = select(jobs.c.job_id, specifications.c.specification).join(jobs)
        query = query.where(
            jobs.c.state.in_([state.value for state in _UNFINISHED]),
            specifications.c.specification.contains(text, autoescape=True),
        )
        with self._database.reading() as connection:
            yield from ((str(job_id), str(text)) for job_id, text in connection.execute(query))

    @patient
    def get(self, job_id: str) -> JobMetadata:
        """Give one job.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        with self._database.reading() as connection:
            return _fetch_one(connection, job_id)

    @patient
    def get_many(self, ids: Sequence[str]) -> _Jobs:
        """Give jobs in the order of their ids; those that do not exist are left out."""
        with self._database.reading() as connection:
            found = {job.job_id: job for job in _fetch(connection, ids)}
        return [found[name] for name in filter(is_storable, ids) if name in found]

    @patient
    def by_key(self, keys: Sequence[str]) -> dict[str, JobMetadata]:
        """Give the jobs that have these keys, by key; what no job has is left out."""
        with self._database.reading() as connection:
            return {str(job.key): job for job in _fetch(connection, keys, by="key")}

    @patient
    def specification(self, job_id: str) -> str:
        """Give the text that was recorded as a job's specification.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        with self._database.reading() as connection:
            return str(_asked(connection, job_id).specification)

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
            potcars = _asked(connection, job_id).potcars
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
        **filters: Any,
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
                return _searched(connection, sort, before, limit, filters)
        query = _RECORD.order_by(jobs.c.number.desc() if newest_first else jobs.c.number)
        if is_short(filters):
            query = query.join(listed, listed.c.number == jobs.c.number)
        query = query.where(selected(**filters))
        with self._database.reading() as connection:
            if before is not None:
                query = query.where(jobs.c.number < _number(connection, before))
            return _read(connection, limited(query, limit))

    @patient
    def summary(self, **filters: Any) -> tuple[dict[JobState, int], _Errors]:
        """Count the jobs by their state, and those that failed by their error.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        with self._database.reading() as connection:
            return count_states(connection, filters), count_errors(connection, filters)

    @patient
    def totals(self, **filters: Any) -> dict[JobState, int]:
        """Count the jobs by their state.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        with self._database.reading() as connection:
            return count_states(connection, filters)

    @patient
    def counts(
        self,
        states: Collection[JobState],
        *,
        start: float,
        end: float,
        bucket_s: float,
        **filters: Any,
    ) -> dict[tuple[int, JobState], int]:
        """Count the changes of jobs to some states over time.

        Parameters
        ----------
        states : collection of JobState
            Only changes to these.
        start, end : float
            From when on, and until before when, in seconds since the epoch.
        bucket_s : float
            The length of a bucket in seconds; the first begins at `start` and has the number 0.
        **filters
            Only of these jobs; see :func:`crystalmath.store.selection.selected`.

        Returns
        -------
        dict
            By the number of the bucket and the state; what there was none of is left out.
        """
        with self._database.reading() as connection:
            return count_reached(
                connection, states, start=start, end=end, bucket_s=bucket_s, filters=filters
            )

    @patient
    def failures(self, limit: int) -> _Failures:
        """Give the jobs that failed last, the newest failure first, at most `limit` of them."""
        with self._database.reading() as connection:
            return newest_failures(connection, limit)

    @patient
    def retries(self, ids: Sequence[str]) -> dict[str, _Ids]:
        """Give the ids of those that run, or read, these jobs again, by theirs, oldest first."""
        found: dict[str, _Ids] = {}
        query = select(lineage.c.parent, jobs.c.job_id).join_from(lineage, jobs)
        query = query.where(lineage.c.role.in_(["retry", "reread"])).order_by(jobs.c.number)
        with self._database.reading() as connection:
            for start in range(0, len(ids), _CHUNK):
                some = list(filter(is_storable, ids[start : start + _CHUNK]))
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
        return self.list(state=_UNFINISHED, engine=engine, owner=owner, newest_first=False)

    @patient
    def find(self, prefix: str, *, limit: int = 20) -> _Ids:
        """Give ids that begin with a text, in alphabetical order, at most `limit` of them."""
        query = select(jobs.c.job_id).where(begins_with(prefix))
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(jobs.c.job_id).limit(limit))
            return [str(name) for name in found.scalars()]

    def events(
        self,
        after: int = 0,
        job_id: str | Collection[str] | None = None,
        limit: int | None = None,
    ) -> _Events:
        """Give the event log, the oldest first.

        Events appear in the order of their ``seq``: who has seen one has missed none before it.

        Parameters
        ----------
        after : int
            Only events whose ``seq`` is larger.
        job_id : str or collection of str, optional
            Only this job's, or these jobs'.
        limit : int, optional
            No more than this many.
        """
        return self.follow(after, job_id, limit)[0]

    @patient
    def follow(
        self,
        after: int = 0,
        job_id: str | Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[_Events, int]:
        """Give what :meth:`events` gives, and the ``seq`` up to which that is all there is."""
        with self._database.reading() as connection:
            return read_events(connection, after, job_id, limit)

    @patient
    def last_event(self) -> int:
        """Give the ``seq`` of the newest event, 0 before the first."""
        with self._database.reading() as connection:
            return last_event(connection)

    def is_replaced(self) -> bool:
        """Tell whether the SQLite file was removed, or another put in its place, since."""
        return self._database.is_replaced()

    def close(self) -> None:
        """Close the database. Closing twice does no harm."""
        self._database.close()


def _insert_each(connection: Connection, new: Sequence[NewJob]) -> _Answers:
    by_id = {job.job_id: job for job in _fetch(connection, [job.job_id for job in new])}
    keys = [job.key for job in new if job.key is not None]
    by_key = {job.key: job for job in _fetch(connection, keys, by="key")}
    answers: _Answers = []
    fresh: list[_Fresh] = []
    for job in new:
        try:
            known = _known(job, by_id, by_key)
        except InvalidJob as error:
            answers.append(error)
            continue
        if known is None:
            known = by_id[job.job_id] = by_key[job.key] = _pending(job)
            fresh.append((job, known))
        answers.append(known)
    if fresh:
        _record(connection, fresh)
    return answers


def _known(
    job: NewJob, by_id: Mapping[str, JobMetadata], by_key: Mapping[str | None, JobMetadata]
) -> JobMetadata | None:
    """Give the job that a key belongs to already; `InvalidJob` where it cannot be recorded."""
    check(job)
    known = by_key.get(job.key) if job.key is not None else None
    if known is None:
        if job.job_id in by_id:
            raise InvalidJob(f"a job with the id {job.job_id!r} exists; make a new id")
    elif known.spec_hash != job.spec_hash:
        raise KeyConflict(
            f"the key {job.key!r} belongs to job {known.job_id}, which has another "
            "specification; submit the same again, or this job with another key"
        )
    return known


def _record(connection: Connection, fresh: Sequence[_Fresh]) -> None:
    tagged = [
        {"job_id": job.job_id, "name": name, "value": value}
        for job, _ in fresh
        for name, value in job.labels.items()
    ]
    parents = [
        {"job_id": job.job_id, "parent": parent["job_id"], "role": parent["role"]}
        for job, _ in fresh
        for parent in job.parents
    ]
    asked = [
        {
            "job_id": job.job_id,
            "specification": job.specification,
            "potcars": json.dumps(list(job.pseudopotentials)) if job.pseudopotentials else None,
        }
        for job, _ in fresh
    ]
    log = [event_row(job, job.state, job.created_at, "submitted", new=True) for _, job in fresh]
    short = [{"job_id": job.job_id, **to_listed(job)} for _, job in fresh]
    connection.execute(_INSERT, [to_row(job) for _, job in fresh])
    insert_for_jobs(connection, listed, short)
    insert_for_jobs(connection, specifications, asked)
    insert_for_jobs(connection, labels, tagged)
    insert_for_jobs(connection, lineage, parents)
    insert_for_jobs(connection, events, log)


def _fetch(connection: Connection, values: Sequence[object], *, by: str = "job_id") -> _Jobs:
    wanted = list(dict.fromkeys(filter(is_storable, values)))
    chunks = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
    return [job for chunk in chunks for job in _read(connection, _BY[by], {"wanted": chunk})]


def _fetch_one(connection: Connection, job_id: str) -> JobMetadata:
    for job in _fetch(connection, [job_id]):
        return job
    raise UnknownJob(job_id)


def _asked(connection: Connection, job_id: str) -> Any:
    query = select(specifications).join(jobs).where(equal(jobs.c.job_id, job_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
    return row


def _number(connection: Connection, job_id: str) -> int:
    query = select(jobs.c.number).where(equal(jobs.c.job_id, job_id))
    number = connection.execute(query).scalar()
    if number is None:
        raise UnknownJob(job_id)
    return int(number)


def _read(
    connection: Connection, query: Select[Any], given: Mapping[str, Any] | None = None
) -> _Jobs:
    return [JobMetadata(**from_row(row)) for row in connection.execute(query, given).mappings()]


def _searched(
    connection: Connection,
    sort: str | None,
    before: str | None,
    limit: int | None,
    filters: Mapping[str, Any],
) -> _Jobs:
    """Find the numbers of jobs in their short rows, and read only what was found."""
    query = select(listed.c.number).select_from(source(filters))
    query = query.where(selected(of=listed, **filters))
    query = limited(sorted_page(connection, query, sort, before), limit)
    numbers = [int(number) for number in connection.execute(query).scalars()]
    rows: dict[int, Mapping[Any, Any]] = {}
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        wanted = _RECORD.add_columns(jobs.c.number).where(jobs.c.number.in_(chunk))
        rows |= {row["number"]: row for row in connection.execute(wanted).mappings()}
    return [_from_numbered(rows[number]) for number in numbers]


def _from_numbered(row: Mapping[Any, Any]) -> JobMetadata:
    return JobMetadata(**from_row({name: row[name] for name in _FIELDS}))


def _pending(job: NewJob) -> JobMetadata:
    # Through the form in the database, so that it equals what is read later.
    return JobMetadata(**from_row(to_row(job)))
