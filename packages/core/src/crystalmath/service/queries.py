"""What can be asked of jobs: their record, brought up to date, their events and their files."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from crystalmath.errors import FilesRemoved, InvalidJob, StoreError, UnknownJob
from crystalmath.jobs.moved import move_of
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.service.home_disk import DISK_FULL
from crystalmath.service.wanted import News

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence

    from crystalmath.config import Config
    from crystalmath.jobs.moved import Move
    from crystalmath.models.answers import Parent, Potcar
    from crystalmath.quacc.store import ErrorCount, Event, JobMetadata, JobStore
    from crystalmath.service.engine_pool import Runners
    from crystalmath.service.event_feed import Feed
    from crystalmath.service.home_disk import HomeDisk
    from crystalmath.service.recorder import Recorder
    from crystalmath.service.recovery import Recovery
    from crystalmath.service.wanted import Wanted
    from crystalmath.store.records import Failure

__all__ = ["Queries"]

#: How often jobs of other processes are looked at while somebody waits for them, in seconds.
POLL_S = 0.25

#: So many events are read from the store at once.
NEWS_AT_ONCE = 500


class Queries:
    """The half of :class:`~crystalmath.service.JobService` that only answers.

    Who asks changes nothing. Of a job that is not followed here the files are believed, whatever
    its row says.
    """

    config: Config
    disk: HomeDisk
    _recorder: Recorder
    _recovery: Recovery
    _runners: Runners

    @property
    def feed(self) -> Feed:
        """Tells of new events while somebody listens; close forgets who does."""
        return self._recorder.feed

    def remembered(self, job_id: str) -> JobMetadata | None:
        """Give a job from memory, at once, if what is known there is true; see :meth:`job`."""
        job = self._recorder.recent.get(job_id)
        return job if job and (job.state.is_terminal() or self._follows(job_id)) else None

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

    def job(self, job_id: str) -> JobMetadata:
        """Tell all that is recorded of a job (`UnknownJob` if there is none)."""
        return self.as_found(self._known([self._existing(job_id).get(job_id)]))[0]

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

    def job_with_files(self, job_id: str) -> JobMetadata:
        """Tell what is recorded of a job whose files are wanted (`FilesRemoved` if it has none)."""
        remembered = self.remembered(job_id)
        job = self.as_found([remembered])[0] if remembered else self.job(job_id)
        if said := job.without_files():
            raise FilesRemoved(said)
        return job

    def _is_gone(self, job: JobMetadata) -> bool:
        """Tell whether the run directory of an ended job, which had one once, is not there."""
        if job.started_at is None or job.removed == "all" or not job.state.is_terminal():
            return False
        try:
            return self._directory(job.job_id).is_gone()
        except OSError:
            return False  # the file system is away, and with it all of them

    def some_jobs(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        """Tell all that is recorded of some jobs; those that do not exist are left out."""
        found = {job_id: self.remembered(job_id) for job_id in job_ids}
        missing = [job_id for job_id, job in found.items() if job is None]
        if missing and self._recorder.exists():
            found |= {job.job_id: job for job in self._known(self._store.get_many(missing))}
        return self.as_found([job for job in found.values() if job is not None])

    def jobs(
        self,
        *,
        limit: int | None = None,
        before: str | None = None,
        sort: str | None = None,
        **filters: Any,
    ) -> list[JobMetadata]:
        """List jobs, newest first.

        Parameters
        ----------
        limit : int, optional
            No more than this many.
        before : str, optional
            Only jobs that come after this one.
        sort : str, optional
            Another order; see :func:`crystalmath.store.ordering.sorted_page`.
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        if not self._recorder.exists():
            self._require_no_directories()
            return []
        self.disk.look()
        seen = self._seen_elsewhere()
        states = {job_id: job.state for job_id, job in seen.items()}
        found = self._store.list(limit=limit, before=before, sort=sort, seen=states, **filters)
        if not found and not self._store.list(limit=1):
            self._require_no_directories()
        return self.as_found([seen.get(job.job_id, job) for job in found])

    def totals(self, **filters: Any) -> dict[JobState, int]:
        """Count jobs by their state.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        if not self._recorder.exists():
            return {}
        seen = {job_id: job.state for job_id, job in self._seen_elsewhere().items()}
        return self._store.totals(seen=seen, **filters)

    def retried(self, job_ids: Sequence[str]) -> dict[str, JobMetadata]:
        """Give the last retry of each of some jobs that has one, by the id of the job."""
        if not self._recorder.exists():
            return {}
        last = {parent: found[-1] for parent, found in self._store.retries(job_ids).items()}
        jobs = {job.job_id: job for job in self.some_jobs(list(last.values()))}
        return {parent: jobs[job_id] for parent, job_id in last.items()}

    def children(self, job_id: str, *, limit: int | None = None) -> list[Parent]:
        """Give the jobs that came of a job, the oldest first, each with its role."""
        found = self._existing(job_id).children(job_id, limit=limit)
        return cast("list[Parent]", found)

    def summary(self, **filters: Any) -> tuple[dict[JobState, int], list[ErrorCount]]:
        """Count jobs by their state, and those that failed by their error.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        if not self._recorder.exists():
            self._require_no_directories()
            return {}, []
        seen = {job_id: job.state for job_id, job in self._seen_elsewhere().items()}
        return self._store.summary(seen=seen, **filters)

    def counts(
        self,
        states: Collection[JobState],
        *,
        start: float,
        end: float,
        bucket_s: float,
        **filters: Any,
    ) -> dict[tuple[int, JobState], int]:
        """Count the changes of jobs to some states over time; see :meth:`JobStore.counts`."""
        if not self._recorder.exists():
            self._require_no_directories()
            return {}
        return self._store.counts(states, start=start, end=end, bucket_s=bucket_s, **filters)

    def failures(self, limit: int) -> list[Failure]:
        """Give the jobs that failed last, the newest failure first, at most `limit` of them."""
        return self._store.failures(limit) if self._recorder.exists() else []

    def events(
        self,
        after: int = 0,
        job_ids: Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[list[Event], int]:
        """Give the event log, the oldest first, and the ``seq`` up to which that is all there is.

        Parameters
        ----------
        after : int
            Only events whose ``seq`` is larger.
        job_ids : collection of str, optional
            Only of these jobs.
        limit : int, optional
            No more than this many.
        """
        return self._store.follow(after, job_ids, limit) if self._recorder.exists() else ([], 0)

    def news(
        self, after: int, limit: int, wanted: Wanted
    ) -> Generator[None, None, tuple[list[News], int]]:
        """Give events that are wanted, the oldest first, and the ``seq`` up to which that is all.

        What is new is in memory while somebody listens, once for all who do; what came before is
        read from the store, in parts: it yields after each.

        Parameters
        ----------
        after : int
            Only events whose ``seq`` is larger.
        limit : int
            No more than this many.
        wanted : Wanted
            Which.
        """
        found: list[News] = []
        while True:
            read = self.feed.since(after, jobs=wanted.needs_jobs) or self._news(after, wanted)
            for news in read[0]:
                if len(found) == limit:
                    return found, after
                after = news.event.seq
                if wanted.holds(news):
                    found.append(news)
            if len(found) == limit:
                return found, after
            if len(read[0]) < NEWS_AT_ONCE:
                return found, read[1]
            yield

    def _news(self, after: int, wanted: Wanted) -> tuple[list[News], int]:
        events, last = self.events(after, wanted.job_ids, NEWS_AT_ONCE)
        if not wanted.needs_jobs:
            return [News(event) for event in events], last
        jobs = {job.job_id: job for job in self.some_jobs([event.job_id for event in events])}
        return [News(event, jobs.get(event.job_id)) for event in events], last

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """Take over those of these jobs whose owner has died."""
        foreign = [job_id for job_id in job_ids if not self._follows(job_id)]
        if foreign and self._recorder.exists():
            self._recovery.take_over(self._store.get_many(foreign))

    def _known(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Tell what is seen of jobs, and remember those whose rows are true."""
        self.disk.look()
        followed = [job for job in jobs if self._follows(job.job_id)]
        if followed:
            self._recorder.recent.catch_up(self._store)
        self._recorder.recent.put([*followed, *(job for job in jobs if job.state.is_terminal())])
        return self._recovery.seen(jobs)

    def _left(self) -> list[JobMetadata]:
        """Give the unfinished jobs that nobody follows."""
        is_orphan = self._recovery.host.is_orphan
        owners = [owner for owner in self._store.owners() if is_orphan(json.loads(owner))]
        return [job for owner in owners for job in self._store.unfinished(owner=owner)]

    def _seen_elsewhere(self) -> dict[str, JobMetadata]:
        """Give the jobs of other processes of which the files tell more than their rows."""
        is_own = self._recovery.host.is_own
        owners = [owner for owner in self._store.owners() if not is_own(json.loads(owner))]
        rows = [job for owner in owners for job in self._store.unfinished(owner=owner)]
        pairs = zip(rows, self._recovery.seen(rows), strict=True)
        return {job.job_id: job for row, job in pairs if job is not row and job != row}

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

    def wait(self, job_ids: Sequence[str], timeout: float | None = None) -> Iterator[JobMetadata]:
        """Yield the present state of each job and then each change, until all are finished.

        Jobs that nobody follows are taken over.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs.
        timeout : float, optional
            Time in seconds after which it ends all the same.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        news: queue.SimpleQueue[list[JobMetadata]] = queue.SimpleQueue()
        self._recorder.waiters.add(news)
        try:
            seen: dict[str, tuple[int, JobState]] = {}
            batch = self._all(job_ids)
            if self._recovery.take_over(batch):
                batch = self._all(job_ids)
            remaining = set(job_ids)
            while True:
                for job in batch:
                    now, before = (job.revision, job.state), seen.get(job.job_id)
                    if job.job_id in remaining and (before is None or _is_later(now, before)):
                        seen[job.job_id] = now
                        if job.state.is_terminal():
                            remaining.discard(job.job_id)
                        yield job
                left = end - time.monotonic()
                if not remaining or left <= 0:
                    return
                try:
                    batch = news.get(timeout=min(POLL_S, left))
                except queue.Empty:
                    # Those of another process, or of another service in this one: nobody tells us.
                    foreign = [job_id for job_id in sorted(remaining) if not self._follows(job_id)]
                    batch = self._store.get_many(foreign)
                    if self._recovery.take_over(batch):
                        batch = self._store.get_many(foreign)
                    batch = self._recovery.seen(batch)
        finally:
            self._recorder.waiters.discard(news)

    def _follows(self, job_id: str) -> bool:
        return self._runners.following(job_id) is not None

    def _all(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        jobs = self._existing(next(iter(job_ids), "")).get_many(job_ids)
        for missing in set(job_ids) - {job.job_id for job in jobs}:
            raise UnknownJob(missing)
        return self._recovery.seen(jobs)

    def specification(self, job_id: str) -> str:
        """Give the text that was recorded of a job; see :mod:`crystalmath.recipes.codec`."""
        return self._existing(job_id).specification(job_id)

    def specification_size(self, job_id: str) -> int:
        """Tell how many bytes at most the text has that was recorded of what was asked for."""
        return self._existing(job_id).specification_size(job_id)

    def pseudopotentials(self, job_id: str) -> list[Potcar]:
        """Name the pseudopotential files that the job was found to read when it was submitted."""
        return cast("list[Potcar]", self._existing(job_id).pseudopotentials(job_id))

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Give what the recipe returned, as `JobRunner.get_result` does."""
        from crystalmath.recipes import codec

        job = self.job(job_id)
        if not job.state.is_terminal():
            return None
        if job.state is JobState.COMPLETED:
            value = codec.decode_result_json(b"".join(self.result_chunks(job)))
            return value if isinstance(value, dict) else {"value": value}
        more = {"traceback": job.traceback} if job.traceback else {}
        return {"error": job.error, **more}

    def result_json(self, job_id: str) -> bytes | None:
        """Give the stored JSON of a result, undecoded; ``None`` unless the job completed."""
        job = self.job(job_id)
        if job.state is not JobState.COMPLETED:
            return None
        return b"".join(self.result_chunks(job))

    def result_size(self, job: JobMetadata) -> int:
        """Tell how many bytes the stored JSON of a completed job's result has."""
        from crystalmath.recipes import codec

        with _readable(job), self._directory(job.job_id).open_payload(job.attempt) as file:
            size = codec.result_size(file)
            move = self._move(job)
            return size + move.growth(codec.result_chunks(file)) if move else size

    def result_chunks(self, job: JobMetadata) -> Iterator[bytes]:
        """Give the stored JSON of a completed job's result piece by piece, undecoded.

        Where its home has moved since, paths in it lead to where its files are now.
        """
        from crystalmath.recipes import codec

        with _readable(job), self._directory(job.job_id).open_payload(job.attempt) as file:
            chunks, move = codec.result_chunks(file), self._move(job)
            yield from move.texts(chunks) if move else chunks

    def _move(self, job: JobMetadata) -> Move | None:
        written = (job.summary or {}).get("work_dir")
        return move_of(written, self._directory(job.job_id).path)

    def work_directory(self, job_id: str) -> Path:
        """Give the working directory of a job's present attempt; it may not exist yet."""
        return Path(self._directory(job_id).work(self.job(job_id).attempt))

    def log_file(self, job_id: str) -> Path:
        """Give the log of a job's present attempt; it exists once the job has printed."""
        return Path(self._directory(job_id).log(self.job(job_id).attempt))

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


def _is_later(now: tuple[int, JobState], before: tuple[int, JobState]) -> bool:
    return now[0] > before[0] or (now[0] == before[0] and now[1] is not before[1])


@contextlib.contextmanager
def _readable(job: JobMetadata) -> Iterator[None]:
    """Say in plain words that the files of a finished job are gone."""
    try:
        yield
    except FileNotFoundError as error:
        said = job.without_files()
        raise FilesRemoved(
            said or f"the result of job {job.job_id} is gone: {error.filename} was removed"
        ) from error
