"""The jobs of a home for a process that only looks at them: no engines, and no SQLAlchemy."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, Unpack, cast

from attrs import evolve

from crystalmath.errors import FilesRemoved, StoreError, UnknownJob, the_one
from crystalmath.jobs.documents import PACKS
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models.job_notes import JobState
from crystalmath.reading.current_jobs import (
    DISK_FULL,
    HomeDisk,
    Onlooker,
    Presence,
    Recent,
    directory_names,
)
from crystalmath.reading.job_results import StoredResults
from crystalmath.store.job_reader import JobReader
from crystalmath.store.plain_sql import HEAD, SqliteFile, has_tables, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.models.filters import Selection, StoreSelection
    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.store.records import ErrorCount, Event, Failure, JobMetadata
    from crystalmath.store.selection import FacetCounts
    from crystalmath.wire.answers import Potcar


#: A place in the run directory of a job.
_NAMED = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)


class Records(Protocol):
    """The job database of a home, and the jobs in memory."""

    @property
    def recent(self) -> Recent:
        """The jobs that were written or read last."""

    @property
    def store(self) -> JobReader:
        """The job database."""

    def exists(self) -> bool:
        """Return whether there is a job database, without making one."""

    def is_locked(self) -> bool:
        """Return whether another program holds a lock on the database at the moment."""


class Following(Protocol):
    """The engines of a process, which follow jobs."""

    def following(self, job_id: str) -> EngineRunner | None:
        """Return the runner that follows a job, if one does."""


class HomeJobs:
    """The jobs of a home, for reading.

    For a job that this process does not follow, the files count, not the row.
    """

    def __init__(
        self, configured: Config, records: Records, onlooker: Onlooker, following: Following
    ) -> None:
        self.config = configured
        self.disk = HomeDisk(lambda: self.config.jobs_directory)
        self._records = records
        self._onlooker = onlooker
        self._following = following
        #: Only in a process that lives on, such as a server.
        self._presence: Presence | None = None
        self.results = StoredResults(self.directory)

    @classmethod
    @contextmanager
    def look(cls, configured: Config) -> Iterator[Self]:
        """Open the jobs of a home for reading."""
        records = _Opened(configured)
        try:
            yield cls(configured, records, Onlooker(configured.jobs_directory), _Nobody())
        finally:
            records.close()

    def job(self, job_id: str) -> JobMetadata:
        """Return all that is recorded of a job (`UnknownJob` if there is none)."""
        return self.as_found(self._known([self._existing(job_id).get(job_id)]))[0]

    def some_jobs(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        """Return all that is recorded of some jobs; those that do not exist are left out."""
        jobs = {job_id: self.remembered(job_id) for job_id in job_ids}
        missing = [job_id for job_id, job in jobs.items() if job is None]
        if missing and self._records.exists():
            jobs |= {job.job_id: job for job in self._known(self._store.get_many(missing))}
        return self.as_found([job for job in jobs.values() if job is not None])

    def remembered(self, job_id: str) -> JobMetadata | None:
        """Return a job from memory, if that is up to date; see :meth:`job`."""
        job = self._records.recent.get(job_id, locked=self._records.is_locked())
        return job if job and (job.state.is_terminal() or self._follows(job_id)) else None

    def job_with_files(self, job_id: str) -> JobMetadata:
        """Return the record of a job whose files are wanted, or raise `FilesRemoved`."""
        remembered = self.remembered(job_id)
        job = self.as_found([remembered])[0] if remembered else self.job(job_id)
        if reason := job.without_files():
            raise FilesRemoved(reason)
        return job

    def find(self, prefix: str) -> str:
        """Return the only job id with a prefix (`UnknownJob`: none, `InvalidJob`: several)."""
        return the_one(prefix, self._existing(prefix).find(prefix, limit=5))

    def events(
        self,
        after: int = 0,
        job_ids: Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[list[Event], int]:
        """Return up to `limit` events after a ``seq``, and the last ``seq`` that was read."""
        return self._store.follow(after, job_ids, limit) if self._records.exists() else ([], 0)

    # --- lists and counts --------------------------------------------------------------------

    def jobs(
        self,
        *,
        limit: int | None = None,
        before: str | None = None,
        skip: int = 0,
        sort: str | None = None,
        **filters: Unpack[Selection],
    ) -> list[JobMetadata]:
        """List jobs, newest first or in the order `sort`, after the job `before`; skip some.

        See :func:`crystalmath.store.selection.sorted_page` and
        :class:`~crystalmath.models.JobFilter`.
        """
        if not self._records.exists():
            self._require_no_directories()
            return []
        self.disk.look()
        chosen = cast("StoreSelection", filters)
        if _depend_on_files(filters):
            chosen = _fuller(filters, self._seen_elsewhere())
        rows = self._store.list(limit=limit, before=before, skip=skip, sort=sort, **chosen)
        if not rows and not self._store.list(limit=1):
            self._require_no_directories()
        # The host is imported only for unfinished jobs.
        unfinished = [job for job in rows if not job.state.is_terminal()]
        others = [job for job in unfinished if not self._onlooker.host.is_own(job.owner)]
        seen = {job.job_id: job for job in self._onlooker.seen(others)}
        return self.as_found([seen.get(job.job_id, job) for job in rows])

    def totals(self, **filters: Unpack[Selection]) -> dict[JobState, int]:
        """Count jobs by their state."""
        if not self._records.exists():
            return {}
        return self._store.totals(**_fuller(filters, self._seen_elsewhere()))

    def summary(self, **filters: Unpack[Selection]) -> tuple[dict[JobState, int], list[ErrorCount]]:
        """Count jobs by their state, and those that failed by their error."""
        if not self._records.exists():
            self._require_no_directories()
            return {}, []
        return self._store.summary(**_fuller(filters, self._seen_elsewhere()))

    def facets(self, **filters: Unpack[Selection]) -> FacetCounts:
        """Count jobs by their values of some filters; see :meth:`JobStore.facets`."""
        if not self._records.exists():
            self._require_no_directories()
            return {}
        return self._store.facets(**_fuller(filters, self._seen_elsewhere()))

    def counts(
        self,
        states: Collection[JobState],
        *,
        start: float,
        end: float,
        bucket_s: float,
        **filters: Unpack[Selection],
    ) -> dict[tuple[int, JobState], int]:
        """Count the changes of jobs to some states over time; see :meth:`JobStore.counts`."""
        if not self._records.exists():
            self._require_no_directories()
            return {}
        return self._store.counts(states, start=start, end=end, bucket_s=bucket_s, **filters)

    def failures(self, limit: int) -> list[Failure]:
        """Return the jobs that failed last, the newest failure first, at most `limit` of them."""
        return self._store.failures(limit) if self._records.exists() else []

    def retried(self, job_ids: Sequence[str]) -> dict[str, JobMetadata]:
        """Return the last retry of each of some jobs that has one, by the id of the job."""
        if not self._records.exists():
            return {}
        last = {parent: retries[-1] for parent, retries in self._store.retries(job_ids).items()}
        jobs = {job.job_id: job for job in self.some_jobs(list(last.values()))}
        return {parent: jobs[job_id] for parent, job_id in last.items()}

    def retries_of(self, job_id: str) -> list[str]:
        """Return the retries and rereads of a job, the oldest first."""
        return self._store.retries([job_id]).get(job_id, [])

    def ancestors(self, job_ids: Sequence[str], *, limit: int) -> dict[str, bool]:
        """Return jobs and the jobs that they wait for; see :meth:`JobReader.ancestors`."""
        return self._store.ancestors(job_ids, limit=limit) if job_ids else {}

    def with_steps(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Add to the flows among some jobs how many of their steps are in each state."""
        flows = [job for job in jobs if job.stage is not None]
        counts = self._store.steps([flow.job_id for flow in flows]) if flows else {}
        reasons: dict[str, str] = {}
        for flow in flows:
            by_state = counts.get(flow.job_id)
            if by_state and not flow.state.is_terminal() and self._correct(by_state, flow):
                ended = sum(by_state[state] for state in by_state if state.is_terminal())
                reasons[flow.job_id] = f"{ended} of {sum(by_state.values())} steps have ended"
        return [
            evolve(
                job,
                steps={state.value: by_state[state] for state in JobState if by_state.get(state)},
                reason=reasons.get(job.job_id, job.reason),
            )
            if (by_state := counts.get(job.job_id))
            else job
            for job in jobs
        ]

    def _correct(self, counts: dict[JobState, int], flow: JobMetadata) -> bool:
        """Correct the counts of a flow's steps by their files, unless this process owns the flow.

        Return whether any differs from its row.
        """
        if self._onlooker.host.is_own(flow.owner):
            return False
        states = self._store.step_states(flow.job_id)
        rows = self._store.get_many([one for one in states if not states[one].is_terminal()])
        pairs = zip(rows, self._onlooker.seen(rows), strict=True)
        changed = [(row.state, job.state) for row, job in pairs if job.state is not row.state]
        for before, now in changed:
            counts[before] = max(counts.get(before, 0) - 1, 0)
            counts[now] = counts.get(now, 0) + 1
        return bool(changed)

    def step_ids(self, job_id: str) -> list[str]:
        """Return the jobs that are, or were, steps of a flow, the oldest first."""
        return list(self._store.step_states(job_id))

    def by_key(self, keys: Sequence[str]) -> dict[str, JobMetadata]:
        """Return the jobs that have these keys, by key."""
        return self._store.by_key(keys) if self._records.exists() else {}

    def children(self, job_id: str, *, limit: int | None = None) -> list[Parent]:
        """Return the children of a job, the oldest first, each with its role."""
        children = self._existing(job_id).children(job_id, limit=limit)
        return cast("list[Parent]", children)

    def _seen_elsewhere(self) -> dict[str, JobMetadata]:
        """Return the jobs of other processes whose files are newer than their rows."""
        owners = self._store.owners()
        if owners:
            is_own = self._onlooker.host.is_own
            owners = [owner for owner in owners if not is_own(json.loads(owner))]
        rows: list[JobMetadata] = []
        for owner in owners:
            rows += self._store.list(newest_first=False, state=[JobState.RUNNING], owner=owner)
            # Most jobs of a large home wait: their rows are read only if they have begun.
            pending = self._store.pending_attempts(owner)
            rows += self._store.get_many(
                [job_id for job_id, attempt in pending if self._onlooker.has_begun(job_id, attempt)]
            )
        pairs = zip(rows, self._onlooker.seen(rows), strict=True)
        return {job.job_id: job for row, job in pairs if job is not row and job != row}

    # --- specifications and results ----------------------------------------------------------

    def specification(self, job_id: str) -> str:
        """Return the recorded specification of a job; see :mod:`crystalmath.recipes.codec`."""
        return self._existing(job_id).specification(job_id)

    def pseudopotentials(self, job_id: str) -> list[Potcar]:
        """Return the pseudopotential files that a job reads, as found when it was submitted."""
        return cast("list[Potcar]", self._existing(job_id).pseudopotentials(job_id))

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return the result of a job, as `JobRunner.get_result` does."""
        from crystalmath.recipes import codec

        job = self.job(job_id)
        if not job.state.is_terminal():
            return None
        if job.state is JobState.COMPLETED:
            value = codec.decode_result_json(b"".join(self.results.chunks(job)))
            return value if isinstance(value, dict) else {"value": value}
        more = {"traceback": job.traceback} if job.traceback else {}
        return {"error": job.error, **more}

    def result_json(self, job_id: str) -> bytes | None:
        """Return the stored JSON of a result, undecoded; ``None`` unless the job completed."""
        job = self.job(job_id)
        if job.state is not JobState.COMPLETED:
            return None
        return b"".join(self.results.chunks(job))

    def work_directory(self, job_id: str) -> Path:
        """Return the working directory of a job's present attempt; it may not exist yet."""
        with self.files(job_id) as directory:
            return Path(directory.work(self.job(job_id).attempt))

    # --- files and disk ----------------------------------------------------------------------

    def as_found(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Mark ended jobs without a run directory, as a user may remove one."""
        begun = None if self._presence is None else self._presence.begin()
        gone: set[str] = set()
        there: list[str] = []
        for job in jobs:
            if not self.is_there(job):
                with suppress(OSError):  # the file system is not there
                    if self.directory(job.job_id).is_gone():
                        gone.add(job.job_id)
                    else:
                        there.append(job.job_id)
        if self._presence is not None and begun is not None and there:
            self._presence.add(there, begun)
        # Another process may have removed a directory since, and recorded that.
        now = {job.job_id: job for job in self._store.get_many(list(gone))} if gone else {}
        current = [now.get(job.job_id, job) for job in jobs]
        return [
            evolve(job, removed="gone") if job.job_id in gone and job.removed != "all" else job
            for job in current
        ]

    def is_there(self, job: JobMetadata) -> bool:
        """Return whether a run directory is known to be there, without touching a file."""
        if job.started_at is None or job.removed == "all" or not job.state.is_terminal():
            return True
        return self._presence is not None and job.job_id in self._presence

    def waiting_for_room(self, job: JobMetadata) -> JobMetadata:
        """Mark a running job if the disk is full, as its end cannot be recorded then."""
        if job.state.is_terminal() or not self.disk.is_full:
            return job
        state = job.state
        if state is JobState.PENDING and (runner := self._following.following(job.job_id)):
            state = runner.get_status(job.job_id)
        if state is not JobState.RUNNING:
            return job
        return evolve(job, state=state, reason=DISK_FULL)

    def _known(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Return jobs as their files say, and keep those with up-to-date rows in memory."""
        self.disk.look()
        followed = [job for job in jobs if self._follows(job.job_id)]
        if followed:
            self._records.recent.catch_up(self._store)
        self._records.recent.put([*followed, *(job for job in jobs if job.state.is_terminal())])
        return self._onlooker.seen(jobs)

    def _follows(self, job_id: str) -> bool:
        return self._following.following(job_id) is not None

    def directory(self, job_id: str) -> RunDirectory:
        """Return the run directory of a job, whether or not it is there."""
        return RunDirectory(f"{self.config.jobs_directory}/{job_id}")

    @contextmanager
    def files(self, job_id: str, *, copied: bool = False) -> Iterator[RunDirectory]:
        """Keep the run directory of a job in its place, unpacked, while its files are read.

        With `copied` a packed job stays packed, and a copy is read that is removed afterwards.
        `CrystalMathError`: it is packed and cannot be unpacked now.
        """
        directory = self.directory(job_id)
        if not self._has_packs():
            yield directory
            return
        from crystalmath.jobs import packs

        jobs = str(self.config.jobs_directory)
        if copied:
            with packs.copied(jobs, job_id) as place:
                yield RunDirectory(place)
        else:
            with packs.in_place(jobs, job_id):
                yield directory

    def unpack_named(self, text: str) -> None:
        """Unpack the jobs in whose run directories a text names places.

        `CrystalMathError`: one cannot be unpacked now.
        """
        if self._has_packs():
            from crystalmath.jobs.packs import unpack

            for job_id in set(_NAMED.findall(text)):
                unpack(str(self.config.jobs_directory), job_id)

    def _has_packs(self) -> bool:
        return (self.config.jobs_directory / PACKS).is_dir()

    @property
    def _store(self) -> JobReader:
        return self._records.store

    def _existing(self, job_id: str) -> JobReader:
        """Return the store, to read a job; this makes no database."""
        if not self._records.exists():
            self._require_no_directories()
            raise UnknownJob(job_id)
        return self._store

    def _require_no_directories(self) -> None:
        """Raise `StoreError` if there are run directories, and no rows of their jobs."""
        if count := sum(1 for _ in directory_names(self.config.jobs_directory)):
            raise StoreError(
                f"the job database has no jobs, and {self.config.jobs_directory} has {count}: it "
                "was removed or replaced; crystalmath doctor --rebuild records them again"
            )


#: Filters of what the files of an unfinished job may know better than its row.
_OF_FILES = frozenset({"state", "error", "failure"})


def _depend_on_files(filters: Selection) -> bool:
    """Return whether filters may select other jobs by their files than by their rows."""
    excluded: Collection[str] = filters.get("exclude", ())
    return not _OF_FILES.isdisjoint({*filters, *excluded})


def _fuller(filters: Selection, jobs: Mapping[str, JobMetadata]) -> StoreSelection:
    """Add the states and errors of jobs whose files are newer than their rows to filters."""
    failed = (job for job in jobs.values() if job.state is JobState.FAILED)
    more = {
        "seen": {job_id: job.state for job_id, job in jobs.items()},
        "errors": {job.job_id: job.error for job in failed if job.error},
    }
    return cast("StoreSelection", {**filters, **more})


class _Nobody:
    """Follows no jobs."""

    def following(self, job_id: str) -> None:
        """Return ``None``."""


class _Opened:
    """The job database, opened when it is first used."""

    def __init__(self, configured: Config) -> None:
        self._url = configured.database_url
        self._network = configured.network
        self._reader: JobReader | None = None
        self.recent = Recent()

    def exists(self) -> bool:
        """Return whether there is a job database, without making one."""
        return self._reader is not None or database_exists(self._url)

    def is_locked(self) -> bool:
        """Return ``False``: this reader has no other threads."""
        return False

    @property
    def store(self) -> JobReader:
        """The job database."""
        if self._reader is None:
            self._reader = self._plain() or self._other()
        return self._reader

    def close(self) -> None:
        """Close it."""
        if self._reader is not None:
            self._reader.close()

    def _plain(self) -> JobReader | None:
        """Open a SQLite file with the tables of this release."""
        from crystalmath._storage import file_system, is_network

        file, network = sqlite_file(self._url), self._network
        if file is None or (is_network(file_system(file)) if network is None else network):
            return None  # on a network file system a SQLite file has another kind of journal
        database = SqliteFile(file)
        try:
            with database.reading() as snapshot:
                if snapshot.schema_version() == HEAD:
                    return JobReader(database)
        except BaseException:
            database.close()
            raise
        database.close()
        return None

    def _other(self) -> JobReader:
        """Open any other job database; `StoreError` for one of another release."""
        from crystalmath.quacc.store import JobStore

        return JobStore(self._url, create=False, network=self._network)


def database_exists(url: str) -> bool:
    """Return whether there is a job database, without making one; see :meth:`JobStore.exists`."""
    file = sqlite_file(url)
    if file is not None:
        return has_tables(file)
    from crystalmath.quacc.store import JobStore

    return JobStore.exists(url)
