"""Jobs as they are on record, in memory: so that a poll asks no database."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystalmath.store.job_reader import JobReader
    from crystalmath.store.records import Event, JobMetadata

#: How old an answer about an unfinished job may be, in seconds. What this process itself writes
#: is known at once; others may note something beside it.
FRESH_S = 0.5
#: So many jobs are kept; each takes about 3 kB.
MOST = 4096
#: After so many events all is forgotten, and not brought up to date.
_FAR = 2000


class Recent:
    """Remember the jobs that were asked for, or changed, last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, JobMetadata] = OrderedDict()
        self._position: int | None = None
        self._caught_up_at = -FRESH_S

    def put(self, jobs: Iterable[JobMetadata]) -> None:
        """Remember jobs as they were just read or written."""
        with self._lock:
            self._put(jobs)

    def get(self, job_id: str, *, locked: bool = False) -> JobMetadata | None:
        """Return a job as it is remembered, if that is still true.

        An unfinished job is given only if its changes are told to this process, or have been
        looked for just now (`catch_up`), or cannot be, as the database is locked; that it is
        followed here is the caller's to know.
        """
        job = self._jobs.get(job_id)
        if job is None or locked or job.state.is_terminal():
            return job
        return job if time.monotonic() - self._caught_up_at < FRESH_S else None

    def since(self, event: Event) -> JobMetadata | None:
        """Return a job as it is remembered, if that is not older than the newest event of it."""
        job = self._jobs.get(event.job_id)
        if job is None or job.state.is_terminal():
            return job
        # What was noted changes no state; and the record of a change comes after its event.
        is_change = event.from_state is not event.to_state
        return job if is_change and job.state is event.to_state else None

    def catch_up(self, store: JobReader) -> None:
        """Learn what other processes noted of jobs that are followed here: a cancel, an owner."""
        with self._lock:
            began = time.monotonic()
            if began - self._caught_up_at < FRESH_S:
                return
            last = store.last_event()
            if self._position is None or last - self._position > _FAR:
                self._forget_unfinished()
            elif last > self._position:
                events = store.events(self._position)
                # What changes a state is told by this process's own recorder.
                noted = {event.job_id for event in events if event.from_state is event.to_state}
                # Also those that are not here: somebody may be about to put what he read before.
                self._put(store.get_many(list(noted)))
            self._position, self._caught_up_at = last, began

    def _put(self, jobs: Iterable[JobMetadata]) -> None:
        for job in jobs:
            known = self._jobs.get(job.job_id)
            if known is None or known.revision <= job.revision:
                # A traceback may be long, and stands in no answer about a state.
                self._jobs[job.job_id] = evolve(job, traceback=None) if job.traceback else job
            self._jobs.move_to_end(job.job_id)
        while len(self._jobs) > MOST:
            self._jobs.popitem(last=False)

    def _forget_unfinished(self) -> None:
        for name, job in list(self._jobs.items()):
            if not job.state.is_terminal():
                del self._jobs[name]
