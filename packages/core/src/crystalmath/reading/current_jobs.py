"""The present state of jobs: from memory and from their files; and the free disk space."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from crystalmath._storage import file_system, is_local
from crystalmath.jobs.documents import PACKS
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.models.job_notes import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from crystalmath.jobs.facts import Doubt, Record
    from crystalmath.jobs.host import Host
    from crystalmath.store.job_reader import JobReader
    from crystalmath.store.records import Event, JobMetadata

#: How old an answer about an unfinished job may be, in seconds. This process knows its own changes
#: at once; other processes may record changes, too.
FRESH_S = 0.5
#: The most jobs in memory; each takes about 3 kB.
MOST = 4096
#: After more new events than this, all unfinished jobs are forgotten instead of updated.
_FAR = 2000


class Recent:
    """Keep the jobs that were read or changed last in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, JobMetadata] = OrderedDict()
        self._changing: list[Collection[str]] = []
        self._position: int | None = None
        self._caught_up_at = -FRESH_S

    def put(self, jobs: Iterable[JobMetadata]) -> None:
        """Keep jobs as they were just read or written."""
        with self._lock:
            self._put(jobs)

    @contextlib.contextmanager
    def changing(self, job_ids: Collection[str]) -> Iterator[None]:
        """Hide unfinished jobs while they are written, until they have been put.

        Their events can be read before that. A client that has seen the end of a job must not see
        it running afterwards, as no further event would correct that.
        """
        self._changing.append(job_ids)
        try:
            yield
        finally:
            self._changing.remove(job_ids)

    def get(self, job_id: str, *, locked: bool = False) -> JobMetadata | None:
        """Return a job from memory, if that is up to date.

        An unfinished job is returned only if `catch_up` has just read its changes, or if the
        database is `locked`. The caller knows whether this process follows the job.
        """
        job = self._jobs.get(job_id)
        if job is None or locked or job.state.is_terminal():
            return job
        if any(job_id in job_ids for job_ids in tuple(self._changing)):
            return None
        return job if time.monotonic() - self._caught_up_at < FRESH_S else None

    def since(self, event: Event) -> JobMetadata | None:
        """Return a job from memory, if it is not older than its newest event."""
        job = self._jobs.get(event.job_id)
        if job is None or job.state.is_terminal():
            return job
        # Notes change no state; and a change is put after its event.
        is_change = event.from_state is not event.to_state
        return job if is_change and job.state is event.to_state else None

    def catch_up(self, store: JobReader) -> None:
        """Read what other processes recorded of jobs that are followed here: a cancel, an owner."""
        with self._lock:
            began = time.monotonic()
            if began - self._caught_up_at < FRESH_S:
                return
            last = store.last_event()
            if self._position is None or last - self._position > _FAR:
                self._forget_unfinished()
            elif last > self._position:
                events = store.events(self._position)
                # The recorder of this process puts changes of a state.
                noted = {event.job_id for event in events if event.from_state is event.to_state}
                # Also jobs that are not here: another thread may be about to put an older state.
                self._put(store.get_many(list(noted)))
            self._position, self._caught_up_at = last, began

    def _put(self, jobs: Iterable[JobMetadata]) -> None:
        for job in jobs:
            known = self._jobs.get(job.job_id)
            if known is None or known.revision <= job.revision:
                # A traceback may be long, and no answer about a state has it.
                self._jobs[job.job_id] = evolve(job, traceback=None) if job.traceback else job
            self._jobs.move_to_end(job.job_id)
        while len(self._jobs) > MOST:
            self._jobs.popitem(last=False)

    def _forget_unfinished(self) -> None:
        for name, job in list(self._jobs.items()):
            if not job.state.is_terminal():
                del self._jobs[name]


#: Masks of the kernel's inotify: an entry of a folder, or the folder itself, was removed or moved
#: away; and the head of each event (watch, mask, cookie, length of the name).
_GONE = 0x200 | 0x40
_WATCHED = _GONE | 0x400 | 0x800 | 0x1000000
_OPTIONS = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")
#: Set beside another bit if the entry of an event is a folder.
_IS_FOLDER = 0x40000000


class Presence:
    """The run directories that exist; the kernel reports the ones that are removed.

    Reading the file system takes a thread, as it may hang. On a network file system the kernel does
    not report removals by other hosts; then nothing is known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = os.getpid()
        # The first lock may be held while the file system hangs; event loops wait for the second.
        self._watching, self._lock = threading.Lock(), threading.Lock()
        self._there: set[str] = set()
        self._events: int | None = None
        self._is_local: bool | None = None
        #: Grows with each event: a look that began before the last event does not count.
        self._seen = 0

    def __contains__(self, job_id: str) -> bool:
        with self._lock:
            self._read()
            return job_id in self._there

    def begin(self) -> int:
        """Return the number of the last event, for :meth:`add`; do not call it on an event loop."""
        with self._watching:
            events = self._watch() if self._events is None else None
            with self._lock:
                self._events = self._events if events is None else events
                self._read()
                return self._seen

    def add(self, job_ids: Iterable[str], begun: int) -> None:
        """Add the run directories that were seen since :meth:`begin`."""
        with self._lock:
            self._read()
            if self._events is not None and self._seen == begun:
                if len(self._there) > MOST:
                    self._there.clear()
                self._there.update(job_ids)

    def close(self) -> None:
        """Forget all, and stop watching."""
        with self._lock:
            self._forget()

    def _watch(self) -> int | None:
        """Have the kernel report removals; return ``None`` if it cannot."""
        import ctypes

        if self._process != os.getpid():
            return None
        if self._is_local is None:
            self._is_local = is_local(file_system(self._folder))
        library = ctypes.CDLL(None)
        # The user may have reached the limit of watches.
        if not self._is_local or (events := library.inotify_init1(_OPTIONS)) < 0:
            return None
        if library.inotify_add_watch(events, os.fsencode(self._folder), _WATCHED) < 0:
            os.close(events)
            return None
        return int(events)

    def _read(self) -> None:
        """Forget directories that were removed."""
        if self._process != os.getpid():
            self._there.clear()  # the events belong to the parent process
            return
        with contextlib.suppress(BlockingIOError):
            while self._events is not None:
                buffer = os.read(self._events, 2**16)
                self._seen += 1
                while buffer:
                    _, mask, _, length = _EVENT.unpack_from(buffer)
                    name, buffer = buffer[16 : 16 + length], buffer[16 + length :]
                    self._there.discard(os.fsdecode(name.rstrip(b"\0")))
                    if mask & ~(_GONE | _IS_FOLDER):
                        # The folder itself was removed or unmounted, or events were lost.
                        self._forget()
                        return

    def _forget(self) -> None:
        self._seen += 1
        self._there.clear()
        if self._events is not None and self._process == os.getpid():
            os.close(self._events)
        self._events = None


#: The reason of a running job while the disk is full: its result waits for free space.
DISK_FULL = "disk full"

#: The disk is full below this free space, in bytes: a result, or a row, may not fit.
FULL = 2**20

#: The time between two looks at the disk, in seconds.
LOOK_S = 1.0


@frozen(kw_only=True)
class Disk:
    """The free space and the size of the file system of the run directories, in bytes."""

    path: str
    free: int
    size: int
    full: bool
    looked_at: float


class HomeDisk:
    """The free disk space, read by threads that read the home anyway, and remembered.

    Before the folder of the run directories exists, its nearest existing parent counts. `last` is
    ``None`` before the first look, and if the file system does not report its free space.
    """

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place = place
        self._look_at = 0.0
        self.last: Disk | None = None

    def look(self) -> None:
        """Read the free space, at most once in `LOOK_S`; it may hang, so not on an event loop."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            place = self._place()
            seen = (_seen(folder) for folder in (place, *place.parents))
            self.last = next(filter(None, seen), None)

    @property
    def is_full(self) -> bool:
        """Whether the disk was full at the last look."""
        return self.last is not None and self.last.full


def _seen(place: Path) -> Disk | None:
    try:
        there = os.statvfs(place)
    except OSError:
        return None
    # Blocks that are reserved for root count as free for root alone.
    blocks = there.f_bavail if os.geteuid() else there.f_bfree
    free = blocks * there.f_frsize
    return Disk(
        path=str(place),
        free=free,
        size=there.f_blocks * there.f_frsize,
        full=free < min(FULL, there.f_blocks * there.f_frsize),
        looked_at=time.time(),
    )


class Onlooker:
    """Read the state of jobs from their files, without writing to them or to the store.

    The row of a job is up to date if `follows` says that it is followed here.
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
        """Return the states of jobs, from the files of those that are not followed here."""
        left: dict[str, bytes] | None = None
        current = []
        for job in jobs:
            if not (job.state.is_terminal() or job.waits or self._follows(job.job_id)):
                left = self.host.left() if left is None else left
                current.append(self._seen(job, left))
            else:
                current.append(job)
        return current

    def has_begun(self, job_id: str, attempt: int) -> bool:
        """Return whether a pending job may be in another state; two system calls if it is not."""
        directory = self._open(self._jobs_directory / job_id)
        return directory.claimed(attempt) or directory.decided(attempt)

    def _seen(self, job: JobMetadata, left: Mapping[str, bytes]) -> JobMetadata:
        from crystalmath.jobs.life import follow
        from crystalmath.jobs.reading import view

        revision = job.revision
        for change in view(self._directory(job), self._record(job), self.host, left).changes:
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
            is_flow=job.stage is not None,
            doubt=self._doubts.get(job.job_id),
        )


def directory_names(jobs_directory: Path) -> Iterator[str]:
    """Yield the ids of the jobs that have a run directory in a home, or are packed there."""
    names: set[str] = set()
    has_packs = False
    try:
        with os.scandir(jobs_directory) as entries:
            for entry in entries:
                has_packs |= entry.name == PACKS
                if is_job_id(entry.name):
                    names.add(entry.name)
                    yield entry.name
    except FileNotFoundError:
        return
    if has_packs:
        from crystalmath.jobs.packs import packs_of

        yield from packs_of(str(jobs_directory)).ids() - names
