"""Tell what happens to jobs, and wait for it."""

from __future__ import annotations

import math
import queue
import time
from typing import TYPE_CHECKING

from crystalmath.errors import UnknownJob
from crystalmath.service.current_jobs import CurrentJobs
from crystalmath.service.wanted import JobEvent

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from crystalmath.models import JobState
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.event_feed import Feed
    from crystalmath.service.recorder import Recorder
    from crystalmath.service.recovery import Recovery
    from crystalmath.service.wanted import Wanted

#: How often jobs of other processes are looked at while somebody waits for them, in seconds.
POLL_S = 0.25

#: So many events are read from the store at once.
EVENTS_AT_ONCE = 500


class JobEvents(CurrentJobs):
    """The event log, and changes as they come."""

    _recorder: Recorder
    _recovery: Recovery

    @property
    def feed(self) -> Feed:
        """Tells of new events while somebody listens; close forgets who does."""
        return self._recorder.feed

    def wanted_events(
        self, after: int, limit: int, wanted: Wanted
    ) -> Generator[None, None, tuple[list[JobEvent], int]]:
        """Yield events that are wanted, the oldest first, and the ``seq`` up to which that is all.

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
        found: list[JobEvent] = []
        while True:
            read = self.feed.since(after, jobs=wanted.needs_jobs) or self._stored_events(
                after, wanted
            )
            for one in read[0]:
                if len(found) == limit:
                    return found, after
                after = one.event.seq
                if wanted.holds(one):
                    found.append(one)
            if len(found) == limit:
                return found, after
            if len(read[0]) < EVENTS_AT_ONCE:
                return found, read[1]
            yield

    def _stored_events(self, after: int, wanted: Wanted) -> tuple[list[JobEvent], int]:
        events, last = self.events(after, wanted.job_ids, EVENTS_AT_ONCE)
        if not wanted.needs_jobs:
            return [JobEvent(event) for event in events], last
        jobs = {job.job_id: job for job in self.some_jobs([event.job_id for event in events])}
        return [JobEvent(event, jobs.get(event.job_id)) for event in events], last

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
        changed: queue.SimpleQueue[list[JobMetadata]] = queue.SimpleQueue()
        self._recorder.waiters.add(changed)
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
                    batch = changed.get(timeout=min(POLL_S, left))
                except queue.Empty:
                    # Those of another process, or of another service in this one: nobody tells us.
                    foreign = [job_id for job_id in sorted(remaining) if not self._follows(job_id)]
                    batch = self._store.get_many(foreign)
                    if self._recovery.take_over(batch):
                        batch = self._store.get_many(foreign)
                    batch = self._recovery.seen(batch)
        finally:
            self._recorder.waiters.discard(changed)

    def _all(self, job_ids: Sequence[str]) -> list[JobMetadata]:
        jobs = self._existing(next(iter(job_ids), "")).get_many(job_ids)
        for missing in set(job_ids) - {job.job_id for job in jobs}:
            raise UnknownJob(missing)
        return self._recovery.seen(jobs)


def _is_later(now: tuple[int, JobState], before: tuple[int, JobState]) -> bool:
    return now[0] > before[0] or (now[0] == before[0] and now[1] is not before[1])
