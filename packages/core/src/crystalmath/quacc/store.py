"""The job database: each job's submission, its state, and the changes that led to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from attrs import evolve
from sqlalchemy import text

from crystalmath.errors import UnknownJob
from crystalmath.jobs.life import event_row, follow
from crystalmath.models import NewJob
from crystalmath.models.fields import plain
from crystalmath.store import database
from crystalmath.store.fetching import fetch
from crystalmath.store.insertions import insert_all, insert_each, insert_ended
from crystalmath.store.job_reader import JobReader
from crystalmath.store.plain_sql import Snapshot, patient
from crystalmath.store.records import ErrorCount, Event, JobMetadata
from crystalmath.store.rows import PUT_IN, STRAY_STEPS, number_events_from, put_in, save, take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.errors import InvalidJob
    from crystalmath.jobs.changes import Change

# Not an update to the same value: SQLite does not write that.
_PROBE = (
    text("INSERT INTO alembic_version (version_num) VALUES ('probe')"),
    text("DELETE FROM alembic_version WHERE version_num = 'probe'"),
)

__all__ = ["ErrorCount", "Event", "JobMetadata", "JobStore", "NewJob"]


class JobStore(JobReader):
    """The job database. Threads may share a store; each process opens its own.

    Parameters
    ----------
    url : str
        An SQLAlchemy URL, ``sqlite:///PATH`` or ``postgresql://...``.
    create : bool
        Whether to make a database that does not exist, and to bring an older schema forward.
    network : bool, optional
        Whether other hosts may write to a SQLite file; by default its file system's kind decides.

    Raises
    ------
    StoreError
        The database cannot be opened, is newer than this release, or is missing or older and not
        to be created. Every method raises it when the database fails.
    """

    def __init__(self, url: str, *, create: bool = True, network: bool | None = None) -> None:
        self._database = database.open_database(url, create=create, network=network)
        super().__init__(self._database)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.place!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def exists(url: str) -> bool:
        """Return whether there is a database, without making one.

        Raises
        ------
        StoreError
            The URL names no database that can be used, or a server that cannot be reached.
        """
        return database.exists(url)

    @patient
    def insert(self, jobs: Sequence[NewJob]) -> list[JobMetadata]:
        """Record jobs as pending, all of them in one durable transaction, or none.

        Returns
        -------
        list of JobMetadata
            One for each of `jobs`, in their order. If a key is known with the same ``spec_hash``,
            it is the recorded job, and nothing is written.

        Raises
        ------
        KeyConflict
            A key belongs to a job with another ``spec_hash``.
        InvalidJob
            An id is taken, or a text cannot be stored.
        """
        with self._database.writing() as connection:
            return insert_all(connection, jobs)

    @patient
    def insert_each(self, jobs: Sequence[NewJob]) -> list[JobMetadata | InvalidJob]:
        """Record jobs as :meth:`insert` does, each accepted or refused on its own.

        Returns
        -------
        list of (JobMetadata or InvalidJob)
            For each of `jobs`, in their order, the result or the error of :meth:`insert`.
        """
        with self._database.writing() as connection:
            return insert_each(connection, jobs)

    @patient
    def insert_ended(self, ended: Sequence[tuple[NewJob, Change]]) -> list[JobMetadata]:
        """Record jobs that have ended elsewhere, in one durable transaction: all, or none.

        No reader sees them unfinished, so that none runs them.

        Parameters
        ----------
        ended : sequence of tuple of NewJob and Change
            Each job, and how it has ended.

        Returns
        -------
        list of JobMetadata
            One for each, in their order, as they are now.

        Raises
        ------
        InvalidJob
            An id or a key is taken, or a text cannot be stored.
        """
        with self._database.writing() as connection:
            return insert_ended(connection, ended)

    @patient
    def apply(self, changes: Sequence[Change]) -> list[JobMetadata]:
        """Record changes of state, in their order and in one durable transaction.

        Changes of a terminal state, to the present state, or of an unknown id are ignored. A
        reason for the present state is noted.

        Returns
        -------
        list of JobMetadata
            The jobs that changed, each once, as they are now.
        """
        if not changes:
            return []
        ids = list(dict.fromkeys(change.job_id for change in changes))
        with self._database.writing() as connection:
            before = {job.job_id: job for job in fetch(Snapshot(connection), ids)}
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
    def note_cancel(self, job_ids: Sequence[str], at: float) -> list[JobMetadata]:
        """Record a request to cancel jobs; the first one counts.

        Returns
        -------
        list of JobMetadata
            The jobs as they are now; terminal ones are unchanged.

        Raises
        ------
        UnknownJob
            No job has one of these ids.
        """
        with self._database.writing() as connection:
            jobs = {job.job_id: job for job in fetch(Snapshot(connection), job_ids)}
            for job_id in job_ids:
                if job_id not in jobs:
                    raise UnknownJob(job_id)
            changed, log = [], []
            for job in [*jobs.values()]:
                if not job.state.is_terminal() and job.cancel_requested_at is None:
                    noted = evolve(job, cancel_requested_at=at, revision=job.revision + 1)
                    jobs[job.job_id] = noted
                    changed.append((job.revision, noted))
                    log.append(event_row(job, job.state, at, "cancel requested"))
            save(connection, changed, log)
        return [*jobs.values()]

    @patient
    def put_in(self, ready: Sequence[tuple[JobMetadata, NewJob]], at: float) -> list[JobMetadata]:
        """Record that waiting jobs are ready, with the values they got, in one transaction.

        Parameters
        ----------
        ready : sequence of tuple of JobMetadata and NewJob
            Each job as it was read, and with the values of its predecessors. A job that has
            changed since stays as it is.
        at : float
            When, in seconds since the epoch.

        Returns
        -------
        list of JobMetadata
            The jobs that are ready, as they are now.
        """
        with self._database.writing() as connection:
            seen = {job.job_id: job for job, _ in ready}
            now = fetch(Snapshot(connection), list(seen))
            same = {job.job_id for job in now if job.revision == seen[job.job_id].revision}
            changed, rows, log = [], [], []
            for job, new in ready:
                if job.job_id in same:
                    known = {name: plain(getattr(new, name)) for name in PUT_IN}
                    known |= {"attempt": new.attempt, "stage": new.stage, "reason": new.reason}
                    after = evolve(job, revision=job.revision + 1, **known)
                    changed.append((job.revision, after))
                    rows.append(new)
                    reason = new.reason or "waits for no other job any more"
                    log.append(event_row(job, job.state, at, reason))
            put_in(connection, changed, rows, log)
        return [job for _, job in changed]

    @patient
    def take_over(self, flow: str, steps: Sequence[str]) -> None:
        """Record, once, that a flow has taken over steps of other flows, by their ids."""
        with self._database.writing() as connection:
            take(connection, flow, steps)

    @patient
    def set_owner(
        self, job_ids: Sequence[str], owner: Mapping[str, Any], reason: str, at: float
    ) -> None:
        """Record the new owner of unfinished jobs; an empty owner is nobody."""
        with self._database.writing() as connection:
            jobs = [
                job for job in fetch(Snapshot(connection), job_ids) if not job.state.is_terminal()
            ]
            owned = [evolve(job, owner=owner, revision=job.revision + 1) for job in jobs]
            changed = [(job.revision, now) for job, now in zip(jobs, owned, strict=True)]
            save(connection, changed, [event_row(job, job.state, at, reason) for job in jobs])

    @patient
    def note_removed(
        self, job_ids: Sequence[str], removed: str, reason: str, at: float
    ) -> list[JobMetadata]:
        """Record which files of ended jobs were removed, in one durable transaction.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs; those that do not exist, have not ended, or had these files removed before
            stay as they are.
        removed : str
            ``"heavy"`` or ``"all"``.
        reason : str
            The reason in the event log.
        at : float
            When, in seconds since the epoch.

        Returns
        -------
        list of JobMetadata
            The jobs that changed, as they are now.
        """
        with self._database.writing() as connection:
            jobs = [
                job
                for job in fetch(Snapshot(connection), job_ids)
                if job.state.is_terminal() and job.removed not in {removed, "all"}
            ]
            noted = [
                evolve(job, removed=removed, removed_at=at, revision=job.revision + 1)
                for job in jobs
            ]
            changed = [(job.revision, now) for job, now in zip(jobs, noted, strict=True)]
            save(connection, changed, [event_row(job, job.state, at, reason) for job in jobs])
        return noted

    def require_writable(self) -> None:
        """Write a row and remove it; `StoreError` if the database cannot be written."""
        with self._database.writing() as connection:
            for statement in _PROBE:
                connection.execute(statement)

    @patient
    def list_stray_steps(self) -> None:
        """List steps whose flow is not on record as jobs of their own."""
        with self._database.writing() as connection:
            connection.execute(STRAY_STEPS)

    @patient
    def number_events_from(self, seq: int) -> None:
        """Continue the numbers of events above this ``seq``.

        Followers of a lost log remember their place in it. The new log continues above that place,
        so that they take none of its events for known.
        """
        with self._database.writing() as connection:
            number_events_from(connection, seq)

    def is_replaced(self) -> bool:
        """Return whether the opened SQLite file was removed, or replaced by another."""
        return self._database.is_replaced()

    def of_open_file(self) -> JobReader:
        """Return a reader of the opened SQLite file, which works after its removal, too."""
        return JobReader(database.OpenFile(self._database))
