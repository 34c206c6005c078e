"""List and count the jobs of a home."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Unpack, cast

from crystalmath.service.current_jobs import CurrentJobs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from crystalmath.models import JobState
    from crystalmath.models.filters import Selection
    from crystalmath.models.job_notes import Parent
    from crystalmath.store.records import ErrorCount, Failure, JobMetadata


class JobListings(CurrentJobs):
    """The jobs for which something holds, and how many there are."""

    def jobs(
        self,
        *,
        limit: int | None = None,
        before: str | None = None,
        sort: str | None = None,
        **filters: Unpack[Selection],
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
        if not self._records.exists():
            self._require_no_directories()
            return []
        self.disk.look()
        seen = self._seen_elsewhere()
        states = {job_id: job.state for job_id, job in seen.items()}
        found = self._store.list(limit=limit, before=before, sort=sort, seen=states, **filters)
        if not found and not self._store.list(limit=1):
            self._require_no_directories()
        return self.as_found([seen.get(job.job_id, job) for job in found])

    def totals(self, **filters: Unpack[Selection]) -> dict[JobState, int]:
        """Count jobs by their state.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        if not self._records.exists():
            return {}
        seen = {job_id: job.state for job_id, job in self._seen_elsewhere().items()}
        return self._store.totals(seen=seen, **filters)

    def summary(self, **filters: Unpack[Selection]) -> tuple[dict[JobState, int], list[ErrorCount]]:
        """Count jobs by their state, and those that failed by their error.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        if not self._records.exists():
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
        last = {parent: found[-1] for parent, found in self._store.retries(job_ids).items()}
        jobs = {job.job_id: job for job in self.some_jobs(list(last.values()))}
        return {parent: jobs[job_id] for parent, job_id in last.items()}

    def children(self, job_id: str, *, limit: int | None = None) -> list[Parent]:
        """Return the jobs that came of a job, the oldest first, each with its role."""
        found = self._existing(job_id).children(job_id, limit=limit)
        return cast("list[Parent]", found)

    def _seen_elsewhere(self) -> dict[str, JobMetadata]:
        """Return the jobs of other processes of which the files tell more than their rows."""
        owners = self._store.owners()
        if owners:
            is_own = self._onlooker.host.is_own
            owners = [owner for owner in owners if not is_own(json.loads(owner))]
        rows = [job for owner in owners for job in self._store.unfinished(owner=owner)]
        pairs = zip(rows, self._onlooker.seen(rows), strict=True)
        return {job.job_id: job for row, job in pairs if job is not row and job != row}
