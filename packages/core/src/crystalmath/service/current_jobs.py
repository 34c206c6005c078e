"""Give the record of a job as it is now: what the store has, what is in memory, what files tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.errors import FilesRemoved, InvalidJob, StoreError, UnknownJob
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.service.home_disk import DISK_FULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.config import Config
    from crystalmath.quacc.store import JobMetadata, JobStore
    from crystalmath.service.engine_pool import Runners
    from crystalmath.service.home_disk import HomeDisk
    from crystalmath.service.recorder import Recorder
    from crystalmath.service.recovery import Recovery


class CurrentJobs:
    """What every part of :class:`~crystalmath.service.JobService` knows of jobs.

    Who asks changes nothing. Of a job that is not followed here the files are believed, whatever
    its row says.
    """

    config: Config
    disk: HomeDisk
    _recorder: Recorder
    _recovery: Recovery
    _runners: Runners

    def job(self, job_id: str) -> JobMetadata:
        """Tell all that is recorded of a job (`UnknownJob` if there is none)."""
        return self.as_found(self._known([self._existing(job_id).get(job_id)]))[0]

    def some_jobs(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        """Tell all that is recorded of some jobs; those that do not exist are left out."""
        found = {job_id: self.remembered(job_id) for job_id in job_ids}
        missing = [job_id for job_id, job in found.items() if job is None]
        if missing and self._recorder.exists():
            found |= {job.job_id: job for job in self._known(self._store.get_many(missing))}
        return self.as_found([job for job in found.values() if job is not None])

    def remembered(self, job_id: str) -> JobMetadata | None:
        """Give a job from memory, at once, if what is known there is true; see :meth:`job`."""
        job = self._recorder.recent.get(job_id, locked=self._recorder.is_locked())
        return job if job and (job.state.is_terminal() or self._follows(job_id)) else None

    def job_with_files(self, job_id: str) -> JobMetadata:
        """Tell what is recorded of a job whose files are wanted (`FilesRemoved` if it has none)."""
        remembered = self.remembered(job_id)
        job = self.as_found([remembered])[0] if remembered else self.job(job_id)
        if said := job.without_files():
            raise FilesRemoved(said)
        return job

    def find(self, prefix: str) -> str:
        """Give the one job id that begins so.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do.
        """
        found = self._existing(prefix).find(prefix, limit=5)
        if not found:
            raise UnknownJob(prefix)
        if len(found) > 1:
            raise InvalidJob(f"several job ids begin with {prefix!r}: {', '.join(found)}, ...")
        return found[0]

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
        """Tell whether the run directory of an ended job, which had one once, is not there."""
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
        if state is JobState.PENDING and (runner := self._runners.following(job.job_id)):
            state = runner.get_status(job.job_id)
        if state is not JobState.RUNNING:
            return job
        return evolve(job, state=state, reason=DISK_FULL)

    def _known(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Tell what is seen of jobs, and remember those whose rows are true."""
        self.disk.look()
        followed = [job for job in jobs if self._follows(job.job_id)]
        if followed:
            self._recorder.recent.catch_up(self._store)
        self._recorder.recent.put([*followed, *(job for job in jobs if job.state.is_terminal())])
        return self._recovery.seen(jobs)

    def _follows(self, job_id: str) -> bool:
        return self._runners.following(job_id) is not None

    def _directory(self, job_id: str) -> RunDirectory:
        return RunDirectory(self.config.jobs_directory / job_id)

    @property
    def _store(self) -> JobStore:
        return self._recorder.store

    def _existing(self, job_id: str) -> JobStore:
        """Give the store for a question; asking for a job makes no database."""
        if not self._recorder.exists():
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
