"""Write the changes that engines report into the job store, and announce them."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from crystalmath.errors import CrystalMathError, StoreError
from crystalmath.jobs.changes import Change
from crystalmath.models.job_notes import repeated
from crystalmath.reading.current_jobs import Recent
from crystalmath.reading.event_feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from crystalmath.errors import InvalidJob
    from crystalmath.jobs.documents import SpecDocument
    from crystalmath.quacc.store import Event, JobMetadata, JobStore, NewJob
    from crystalmath.store.job_reader import JobReader

    #: Why a job is not on record: the job itself, or the database.
    Refused: TypeAlias = InvalidJob | StoreError

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class _Entry(Generic[_Item, _Answer]):
    """An item that a thread commits, and the answer to it."""

    def __init__(self, item: _Item) -> None:
        self.item = item
        self.outcome: _Answer | BaseException | None = None


class GroupCommit(Generic[_Item, _Answer]):
    """One transaction for the items of several threads; each gets its answer after the commit.

    `commit` commits the items durably and in order. It returns for each item the answer, or the
    exception that refuses the item alone. An exception that it raises refuses all of them.
    """

    def __init__(self, commit: Callable[[Sequence[_Item]], Sequence[_Answer | Exception]]) -> None:
        self._commit = commit
        # Guards the attributes below; never held during a commit.
        self._changed = threading.Condition()
        self._waiting: list[_Entry[_Item, _Answer]] = []
        self._busy = False

    @property
    def waiting(self) -> int:
        """How many wait for the next commit."""
        return len(self._waiting)

    def __call__(self, item: _Item) -> _Answer:
        """Commit an item together with others; return its answer or raise its exception."""
        mine: _Entry[_Item, _Answer] = _Entry(item)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: mine.outcome is not None or not self._busy)
            group: list[_Entry[_Item, _Answer]] = []
            if mine.outcome is None:  # the first thread to wake commits for all
                self._busy = True
                group, self._waiting = self._waiting, []
        if group:
            self._carry_out(group)
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        if mine.outcome is None:
            raise RuntimeError("the commit has given no answer")
        return mine.outcome

    def _carry_out(self, group: list[_Entry[_Item, _Answer]]) -> None:
        outcomes: Sequence[_Answer | BaseException]
        try:
            outcomes = self._commit([entry.item for entry in group])
        except Exception as error:  # noqa: BLE001 - each waiting thread raises it
            outcomes = [error] * len(group)
        except BaseException:
            # Ctrl-C interrupts one thread; the others must not wait for ever.
            cut = StoreError("the commit was interrupted; list the jobs to see what is on record")
            self._settle(group, [cut] * len(group))
            raise
        self._settle(group, outcomes)

    def _settle(
        self,
        group: list[_Entry[_Item, _Answer]],
        outcomes: Sequence[_Answer | BaseException],
    ) -> None:
        with self._changed:
            for entry, outcome in zip(group, outcomes, strict=True):
                entry.outcome = outcome
            self._busy = False
            self._changed.notify_all()


class Waiter(Protocol):
    """A receiver of the jobs of each transaction, such as a queue."""

    def put(self, jobs: list[JobMetadata], /) -> None:
        """Take jobs as they are now."""


_LOG = logging.getLogger("crystalmath.service")

#: The longest time for which a burst of changes is gathered into one transaction, in seconds, and
#: the time for each change of the last transaction beyond the first.
GATHER_S, EACH_S = 0.1, 0.01
#: How long a change that ends no job waits for another: quick jobs begin and end in one write.
BEGUN_S = 0.01
#: How often changes that the database refuses are written again, in seconds.
REFUSED_S = 30.0
#: After a pause of this length, in seconds, a writer that is to end gives up.
_LAST_PAUSE_S = 5.0


class Recorder:
    """The only writer of a service's changes of state.

    It opens, or makes, the job database at its first use. `unwritten` returns header and body of
    each acknowledged job without a run directory; `is_busy` returns whether more changes may come.
    Each of `waiters` gets the jobs of every transaction with their new states.
    """

    def __init__(
        self,
        url: str,
        jobs_directory: Path,
        *,
        network: bool | None = None,
        unwritten: Callable[[], Sequence[SpecDocument]] = tuple,
        is_busy: Callable[[], bool] = lambda: True,
    ) -> None:
        self._url = url
        self._network = network
        self._jobs_directory = jobs_directory
        self._unwritten = unwritten
        self._is_busy = is_busy
        self._lock = threading.Lock()
        self._opened: JobStore | None = None
        # The waiting jobs of a lost database, until they are on record again.
        self._waiting: list[SpecDocument] = []
        self._closed = False
        # The jobs whose changes the database refuses, and why.
        self._refused: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._changes: queue.SimpleQueue[Sequence[Change] | None] = queue.SimpleQueue()
        self._insert = GroupCommit(self._insert_groups)
        self.feed = Feed(lambda: self.store if self.exists() else None, self._jobs_of)
        self.recent = Recent()
        self.waiters: set[Waiter] = set()

    @property
    def store(self) -> JobStore:
        """The job store; reading it makes and migrates nothing."""
        return self._open(create=False)

    def open(self) -> None:
        """Open the job database, if there is one, and bring it to this release's schema."""
        if self.exists():
            self._open(create=True)

    def _open(self, *, create: bool) -> JobStore:
        from crystalmath.quacc.store import JobStore

        with self._lock:
            if self._closed:
                raise StoreError("the job service has been closed, and its job database with it")
            if self._opened is not None and self._opened.is_replaced():
                self._reopen(self._opened)
            if self._opened is None:
                self._opened = JobStore(self._url, create=create, network=self._network)
            return self._opened

    def _reopen(self, lost: JobStore) -> None:
        """Open the database that replaced the lost one, and record all known jobs in it."""
        from crystalmath.quacc.store import JobStore
        from crystalmath.running.rebuild import NOT_REBUILT, rebuild

        if not self._jobs_directory.exists():
            raise StoreError(
                f"{lost!r} was removed, and {self._jobs_directory} too: nothing is recorded"
            )
        _LOG.error("%r was removed or replaced; its rows are made again", lost)
        try:
            # The removed file is open and readable during the first attempt alone.
            self._waiting = self._waiting or list(_waiting(lost.of_open_file()))
        except CrystalMathError as error:
            _LOG.warning("%s: %s", error, NOT_REBUILT)
        lost.close()
        store = JobStore(self._url, network=self._network)
        try:
            rebuilt = rebuild(
                store, self._jobs_directory, lambda: [*self._waiting, *self._unwritten()]
            )
        except BaseException:
            store.close()  # the lost one stays open, so that the next call tries again
            raise
        _LOG.warning("recorded %d jobs from their run directories", len(rebuilt.recorded))
        for reason in rebuilt.left_out:
            _LOG.warning("not recorded: %s", reason)
        self._opened, self._waiting = store, []
        self.recent = Recent()

    def is_locked(self) -> bool:
        """Return whether another program locks the database at the moment."""
        return self._opened is not None and self._opened.is_locked()

    def exists(self) -> bool:
        """Return whether there is a job database, without making one."""
        from crystalmath.quacc.store import JobStore

        return self._opened is not None or JobStore.exists(self._url)

    def report(self, changes: Sequence[Change]) -> None:
        """Queue changes, which are written soon and in order."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write, name="crystalmath-store", daemon=True
                )
                self._thread.start()
        self._changes.put(changes)

    def apply(self, *changes: Change) -> None:
        """Write changes now."""
        if not changes:
            return
        store, job_ids = self.store, {change.job_id for change in changes}
        with self.recent.changing(job_ids):
            jobs = store.apply(changes)
            # Another service of this process may have written the same change first; only this
            # call wakes the waiters of this service.
            known = job_ids - {job.job_id for job in jobs}
            jobs = jobs + store.get_many(sorted(known)) if known else jobs
            self.recent.put(jobs)
        self._announce(jobs)

    def insert(self, jobs: Sequence[NewJob]) -> list[JobMetadata | Refused]:
        """Record new jobs durably, each on its own, in a transaction shared with other threads."""
        return self._insert(jobs)

    def insert_all(self, jobs: Sequence[NewJob]) -> list[JobMetadata]:
        """Record new jobs durably, all of them or none; `InvalidJob` says why not."""
        while True:
            store = self._open(create=True)
            recorded = store.insert(jobs)
            if not store.is_replaced():
                break
        self._announce_new(recorded)
        return recorded

    def _insert_groups(
        self, groups: Sequence[Sequence[NewJob]]
    ) -> list[list[JobMetadata | Refused]]:
        jobs = list(chain.from_iterable(groups))
        while True:
            store = self._open(create=True)
            answers = self._insert_each(store, jobs)
            # Rows in a file that was removed meanwhile would be acknowledged and lost.
            if not store.is_replaced():
                break
        self._announce_new([each for each in answers if not isinstance(each, Exception)])
        left = iter(answers)
        return [list(islice(left, len(group))) for group in groups]

    def _insert_each(self, store: JobStore, jobs: Sequence[NewJob]) -> list[JobMetadata | Refused]:
        """Record jobs in one transaction; in several where the database refuses some of them."""
        try:
            return [*store.insert_each(jobs)]
        except Exception:
            if len(jobs) == 1:
                raise
            store.require_writable()
        answers: list[JobMetadata | Refused] = []
        half, failed = len(jobs) // 2, False
        for some in (jobs[:half], jobs[half:]):
            try:
                answers += self._insert_each(store, some)
            except Exception as error:
                if failed:  # nothing of either half is on record
                    raise
                failed = True
                # The other half is on record, or will be, and must be started.
                answers += [StoreError(f"it cannot be recorded: {error}")] * len(some)
        return answers

    def insert_ended(self, ended: Sequence[tuple[NewJob, Change]]) -> None:
        """Record jobs that have ended elsewhere; see :meth:`JobStore.insert_ended`."""
        if ended:
            recorded = self._open(create=True).insert_ended(ended)
            self._announce([*recorded, *self._superseded(recorded)])

    def put_in(self, ready: Sequence[tuple[JobMetadata, NewJob]]) -> list[JobMetadata]:
        """Record that jobs no longer wait; see :meth:`JobStore.put_in`."""
        jobs = self.store.put_in(ready, time.time())
        self._announce(jobs)
        return jobs

    def note_cancel(self, job_ids: Sequence[str]) -> None:
        """Record that somebody asked for jobs to be stopped; see :meth:`JobStore.note_cancel`."""
        self._announce(self.store.note_cancel(job_ids, time.time()))

    def note_removed(self, job_ids: Sequence[str], removed: str, reason: str) -> None:
        """Record what was removed of jobs' files; see :meth:`JobStore.note_removed`."""
        if job_ids:
            self._announce(self.store.note_removed(job_ids, removed, reason, time.time()))

    def _announce_new(self, jobs: list[JobMetadata]) -> None:
        # The submitter knows its jobs; the feed announces them at its next poll.
        self._announce([*jobs, *self._superseded(jobs)], at_once=False)

    def _superseded(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Return the jobs that new ones retry or reread; their records have changed."""
        earlier = [job_id for job in jobs if (job_id := repeated(job.parents)) is not None]
        return self.store.get_many(earlier) if earlier else []

    def _announce(self, jobs: list[JobMetadata], *, at_once: bool = True) -> None:
        if jobs:
            self.recent.put(jobs)
            for waiter in list(self.waiters):
                waiter.put(jobs)
            if at_once:
                self.feed.look()

    def _jobs_of(self, events: Sequence[Event]) -> dict[str, JobMetadata]:
        """Return the present jobs of events; those written here are in memory."""
        last = {event.job_id: event for event in events}
        remembered = {job_id: self.recent.since(event) for job_id, event in last.items()}
        missing = [job_id for job_id, job in remembered.items() if job is None]
        read = {job.job_id: job for job in self.store.get_many(missing)} if missing else {}
        return read | {job_id: job for job_id, job in remembered.items() if job is not None}

    def finish(self) -> None:
        """Write the queued changes, and end the writer; the store stays open."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._changes.put(None)
            thread.join()

    def close(self) -> None:
        """Close the store for good; later calls do not open it again."""
        self.finish()
        self.feed.close()
        with self._lock:
            self._closed = True
            store, self._opened = self._opened, None
        if store is not None:
            store.close()

    def _write(self) -> None:
        open_ = True
        free_at = again_at = 0.0
        refused: list[Change] = []
        while open_:
            batch = self._next_changes(REFUSED_S if refused else None, free_at)
            open_ = None not in batch
            changes = [change for group in batch if group is not None for change in group]
            pause_s = min(GATHER_S, EACH_S * (len(changes) - 1))
            if refused:
                # The changes of a job stay in order.
                changes, refused = [*refused, *changes], []
                if open_ and time.monotonic() < again_at:
                    changes, refused = _without(changes, self._refused)
            parts = [changes] if changes else []
            pause = 0.1
            while parts:
                try:
                    refused += self._write_next(parts)
                    free_at = time.monotonic() + pause_s
                except Exception as error:  # noqa: BLE001 - a full disk, a database restarting
                    # Nothing is lost: the outcomes are on disk.
                    _LOG.warning("cannot write to the job database, trying again: %s", error)
                    is_last = self._thread is not threading.current_thread()
                    if is_last and pause > _LAST_PAUSE_S:
                        # Changes that were queued meanwhile cannot be written, either.
                        while open_ and self._changes.get() is not None:
                            pass
                        return
                    time.sleep(pause)
                    pause = min(2 * pause, 10.0)
            if time.monotonic() >= again_at:
                again_at = time.monotonic() + REFUSED_S

    def _next_changes(self, most_s: float | None, free_at: float) -> list[Sequence[Change] | None]:
        """Wait for changes, and gather more of them until the writer is free.

        A single change is written at once, and so are the last ones.
        """
        batch: list[Sequence[Change] | None] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._changes.get(timeout=most_s))
            end = time.monotonic() + BEGUN_S
            while True:
                until = free_at if any(map(_is_awaited, batch)) else max(end, free_at)
                left = until - time.monotonic() if self._is_busy() else 0.0
                batch.append(self._changes.get(timeout=max(0.0, left)))
        return batch

    def _write_next(self, parts: list[list[Change]]) -> list[Change]:
        """Write the last part, or divide it; return the changes that the database refuses."""
        changes = parts[-1]
        job_ids = list(dict.fromkeys(change.job_id for change in changes))
        try:
            self.apply(*changes)
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
            self.store.require_writable()
            parts.pop()
            if len(job_ids) == 1:
                self._mark_refused(job_ids[0], str(error))
                return changes
            parts += _without(changes, set(job_ids[: len(job_ids) // 2]))
            return []
        parts.pop()
        for job_id in self._refused.keys() & set(job_ids):
            del self._refused[job_id]
        return []

    def _mark_refused(self, job_id: str, error: str) -> None:
        """Log, and note as the job's reason, that its state cannot be recorded; each error once."""
        if self._refused.get(job_id) == error:
            return
        self._refused[job_id] = error
        reason = f"its state cannot be recorded, trying again: {error}"
        _LOG.error("job %s: %s", job_id, reason)
        with contextlib.suppress(Exception):  # the database may refuse this row, too
            state = self.store.get(job_id).state
            self.apply(Change(job_id=job_id, state=state, at=time.time(), reason=reason))


def _waiting(store: JobReader) -> Iterator[SpecDocument]:
    """Yield header and body of jobs that wait for others and have no run directory yet."""
    for job in store.unfinished():
        if job.waits and job.stage is None:
            header, _, body = store.specification(job.job_id).partition("\n")
            more = {"created_at": job.created_at, "owner": job.owner, "reason": job.reason}
            yield {**json.loads(header), **more}, body


def _is_awaited(changes: Sequence[Change] | None) -> bool:
    """Return whether changes must be written at once: a job, or the service, has ended."""
    return changes is None or any(change.state.is_terminal() for change in changes)


def _without(
    changes: Sequence[Change], job_ids: Collection[str]
) -> tuple[list[Change], list[Change]]:
    """Divide changes into those of other jobs and those of `job_ids`."""
    parts: tuple[list[Change], list[Change]] = ([], [])
    for change in changes:
        parts[change.job_id in job_ids].append(change)
    return parts
