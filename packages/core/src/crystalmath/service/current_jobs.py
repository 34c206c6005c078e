"""Give the record of a job as it is now: what the store has, what is in memory, what files tell."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from attrs import evolve

from crystalmath.errors import FilesRemoved, StoreError, UnknownJob, the_one
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models.job_notes import JobState
from crystalmath.service.home_disk import DISK_FULL, HomeDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from crystalmath.config import Config
    from crystalmath.jobs.facts import Doubt, Record
    from crystalmath.jobs.host import Host
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.service.recent_jobs import Recent
    from crystalmath.store.job_reader import JobReader
    from crystalmath.store.records import Event, JobMetadata


class Records(Protocol):
    """What is on record of a home's jobs."""

    @property
    def recent(self) -> Recent:
        """The jobs that were written or read last."""

    @property
    def store(self) -> JobReader:
        """The job database."""

    def exists(self) -> bool:
        """Return whether there is a job database, without making one."""

    def is_locked(self) -> bool:
        """Return whether another program just keeps this process from the database."""


class Following(Protocol):
    """The engines of a process, which follow jobs."""

    def following(self, job_id: str) -> EngineRunner | None:
        """Return the runner that follows a job, if one does."""


class Onlooker:
    """See jobs as their files tell; nothing is written, neither there nor in the store.

    Parameters
    ----------
    jobs_directory : pathlib.Path
        Where the run directories are.
    follows : callable
        Tells whether a job is followed here: then its row is up to date.
    host : Host, optional
        This process.
    open_directory : callable
        Gives the run directory at a path.
    """

    def __init__(
        self,
        jobs_directory: Path,
        follows: Callable[[str], bool] = lambda _: False,
        *,
        host: Host | None = None,
        open_directory: Callable[[Path], RunDirectory] = RunDirectory,
    ) -> None:
        self._jobs_directory = jobs_directory
        self._follows = follows
        self._host = host
        self._open = open_directory
        self._doubts: dict[str, Doubt] = {}

    @cached_property
    def host(self) -> Host:
        """The present process."""
        from crystalmath.jobs.host import Host

        return self._host or Host(self._jobs_directory)

    def seen(self, jobs: Iterable[JobMetadata]) -> list[JobMetadata]:
        """Return jobs as their files tell."""
        return [self._seen(job) for job in jobs]

    def _seen(self, job: JobMetadata) -> JobMetadata:
        if job.state.is_terminal() or self._follows(job.job_id):
            return job
        from crystalmath.jobs.view import view
        from crystalmath.store.transitions import follow

        revision = job.revision
        for change in view(self._directory(job), self._record(job), self.host).changes:
            job, _ = follow(job, change)
        return evolve(job, revision=revision)

    def _directory(self, job: JobMetadata) -> RunDirectory:
        return self._open(self._jobs_directory / job.job_id)

    def _record(self, job: JobMetadata) -> Record:
        from crystalmath.jobs.facts import Record

        return Record(
            job_id=job.job_id,
            place=self._directory(job).path,
            state=job.state,
            attempt=job.attempt,
            cancelled=job.cancel_requested_at is not None,
            written=job.state is JobState.RUNNING,
            doubt=self._doubts.get(job.job_id),
        )


class CurrentJobs:
    """What every part of :class:`~crystalmath.service.JobService` knows of jobs.

    Who asks changes nothing. Of a job that is not followed here the files are believed, whatever
    its row says.

    Parameters
    ----------
    configured : Config
        The home's configuration.
    records : Records
        What is on record.
    onlooker : Onlooker
        What the files tell.
    following : Following
        Who follows jobs here.

    Attributes
    ----------
    disk : HomeDisk
        How much room there is for the jobs.
    """

    def __init__(
        self, configured: Config, records: Records, onlooker: Onlooker, following: Following
    ) -> None:
        self.config = configured
        self.disk = HomeDisk(lambda: self.config.jobs_directory)
        self._records = records
        self._onlooker = onlooker
        self._following = following

    def job(self, job_id: str) -> JobMetadata:
        """Return all that is recorded of a job (`UnknownJob` if there is none)."""
        return self.as_found(self._known([self._existing(job_id).get(job_id)]))[0]

    def some_jobs(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        """Return all that is recorded of some jobs; those that do not exist are left out."""
        found = {job_id: self.remembered(job_id) for job_id in job_ids}
        missing = [job_id for job_id, job in found.items() if job is None]
        if missing and self._records.exists():
            found |= {job.job_id: job for job in self._known(self._store.get_many(missing))}
        return self.as_found([job for job in found.values() if job is not None])

    def remembered(self, job_id: str) -> JobMetadata | None:
        """Return a job from memory, at once, if what is known there is true; see :meth:`job`."""
        job = self._records.recent.get(job_id, locked=self._records.is_locked())
        return job if job and (job.state.is_terminal() or self._follows(job_id)) else None

    def job_with_files(self, job_id: str) -> JobMetadata:
        """Return the record of a job whose files are wanted, or raise `FilesRemoved`."""
        remembered = self.remembered(job_id)
        job = self.as_found([remembered])[0] if remembered else self.job(job_id)
        if said := job.without_files():
            raise FilesRemoved(said)
        return job

    def find(self, prefix: str) -> str:
        """Return the one job id that begins so.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do.
        """
        return the_one(prefix, self._existing(prefix).find(prefix, limit=5))

    def events(
        self,
        after: int = 0,
        job_ids: Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[list[Event], int]:
        """Return the event log, the oldest first, and the ``seq`` up to which that is all there is.

        Parameters
        ----------
        after : int
            Only events whose ``seq`` is larger.
        job_ids : collection of str, optional
            Only of these jobs.
        limit : int, optional
            No more than this many.
        """
        return self._store.follow(after, job_ids, limit) if self._records.exists() else ([], 0)

    def as_found(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Say of those of some jobs that have ended, and whose run directory is gone, that it is.

        Nobody records that a directory was removed by hand, so it is looked for.
        """
        gone = {job.job_id for job in jobs if self._is_gone(job)}
        # Another process may have removed it since, and recorded that.
        now = {job.job_id: job for job in self._store.get_many(list(gone))} if gone else {}
        found = [now.get(job.job_id, job) for job in jobs]
        return [
            evolve(job, removed="gone") if job.job_id in gone and job.removed != "all" else job
            for job in found
        ]

    def _is_gone(self, job: JobMetadata) -> bool:
        """Return whether the run directory of an ended job, which had one once, is not there."""
        if job.started_at is None or job.removed == "all" or not job.state.is_terminal():
            return False
        try:
            return self._directory(job.job_id).is_gone()
        except OSError:
            return False  # the file system is away, and with it all of them

    def waiting_for_room(self, job: JobMetadata) -> JobMetadata:
        """Say of a running job that the disk is full, as far as is known: this reads no file.

        On a full disk nothing can be noted of it: that it runs, neither.
        """
        if job.state.is_terminal() or not self.disk.is_full:
            return job
        state = job.state
        if state is JobState.PENDING and (runner := self._following.following(job.job_id)):
            state = runner.get_status(job.job_id)
        if state is not JobState.RUNNING:
            return job
        return evolve(job, state=state, reason=DISK_FULL)

    def _known(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Return what is seen of jobs, and remember those whose rows are true."""
        self.disk.look()
        followed = [job for job in jobs if self._follows(job.job_id)]
        if followed:
            self._records.recent.catch_up(self._store)
        self._records.recent.put([*followed, *(job for job in jobs if job.state.is_terminal())])
        return self._onlooker.seen(jobs)

    def _follows(self, job_id: str) -> bool:
        return self._following.following(job_id) is not None

    def _directory(self, job_id: str) -> RunDirectory:
        return RunDirectory(self.config.jobs_directory / job_id)

    @property
    def _store(self) -> JobReader:
        return self._records.store

    def _existing(self, job_id: str) -> JobReader:
        """Return the store for a question; asking for a job makes no database."""
        if not self._records.exists():
            self._require_no_directories()
            raise UnknownJob(job_id)
        return self._store

    def _require_no_directories(self) -> None:
        """Say what became of jobs that have files and no rows, rather than that there are none."""
        from crystalmath.service.rebuild import count_directories

        if count := count_directories(self.config.jobs_directory):
            raise StoreError(
                f"the job database has no jobs, and {self.config.jobs_directory} has {count}: it "
                "was removed or replaced; crystalmath doctor --rebuild records them again"
            )
