"""Jobs as they are now: what is in memory of them, what their files tell, how full the disk is."""

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
        self._changing: list[Collection[str]] = []
        self._position: int | None = None
        self._caught_up_at = -FRESH_S

    def put(self, jobs: Iterable[JobMetadata]) -> None:
        """Remember jobs as they were just read or written."""
        with self._lock:
            self._put(jobs)

    @contextlib.contextmanager
    def changing(self, job_ids: Collection[str]) -> Iterator[None]:
        """Pass over unfinished jobs that are just written, until they have been put.

        Their events can be read before that: whoever has seen the end of a job must not be told
        later that it runs, as no other event would correct that.
        """
        self._changing.append(job_ids)
        try:
            yield
        finally:
            self._changing.remove(job_ids)

    def get(self, job_id: str, *, locked: bool = False) -> JobMetadata | None:
        """Return a job as it is remembered, if that is still true.

        An unfinished job is given only if its changes are told to this process, or have been
        looked for just now (`catch_up`), or cannot be, as the database is locked; that it is
        followed here is the caller's to know.
        """
        job = self._jobs.get(job_id)
        if job is None or locked or job.state.is_terminal():
            return job
        if any(job_id in job_ids for job_ids in tuple(self._changing)):
            return None
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


#: For the kernel's inotify: an entry of a folder was removed or moved away, or the folder was; and
#: how each event begins (watch, what, cookie, length of the name).
_GONE = 0x200 | 0x40
_WATCHED = _GONE | 0x400 | 0x800 | 0x1000000
_OPTIONS = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")
#: Beside one of these an event is about the entry that it names.
_IS_FOLDER = 0x40000000


class Presence:
    """Know which run directories are there, as the kernel tells of those that go.

    To look at the file system takes a thread, as that may hang. Where other hosts may remove
    something the kernel does not tell, and nothing is known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = os.getpid()
        # One for what may hang with the file system, one for what a loop waits for.
        self._watching, self._lock = threading.Lock(), threading.Lock()
        self._there: set[str] = set()
        self._events: int | None = None
        self._is_local: bool | None = None
        #: Grows with each event, so that nothing is noted that was seen before one.
        self._seen = 0

    def __contains__(self, job_id: str) -> bool:
        with self._lock:
            self._read()
            return job_id in self._there

    def begin(self) -> int:
        """Return what :meth:`add` needs of the moment before somebody looks; not on a loop."""
        with self._watching:
            events = self._watch() if self._events is None else None
            with self._lock:
                self._events = self._events if events is None else events
                self._read()
                return self._seen

    def add(self, job_ids: Iterable[str], begun: int) -> None:
        """Note the run directories that were seen since :meth:`begin`."""
        with self._lock:
            self._read()
            if self._events is not None and self._seen == begun:
                if len(self._there) > MOST:
                    self._there.clear()
                self._there.update(job_ids)

    def close(self) -> None:
        """Know nothing any more."""
        with self._lock:
            self._forget()

    def _watch(self) -> int | None:
        """Have the kernel tell from now on; ``None`` where it cannot."""
        import ctypes

        if self._process != os.getpid():
            return None
        if self._is_local is None:
            self._is_local = is_local(file_system(self._folder))
        library = ctypes.CDLL(None)
        # The user may have too many already.
        if not self._is_local or (events := library.inotify_init1(_OPTIONS)) < 0:
            return None
        if library.inotify_add_watch(events, os.fsencode(self._folder), _WATCHED) < 0:
            os.close(events)
            return None
        return int(events)

    def _read(self) -> None:
        """Forget what has gone by now."""
        if self._process != os.getpid():
            self._there.clear()  # the events are those of the process that has forked
            return
        with contextlib.suppress(BlockingIOError):
            while self._events is not None:
                buffer = os.read(self._events, 2**16)
                self._seen += 1
                while buffer:
                    _, what, _, length = _EVENT.unpack_from(buffer)
                    name, buffer = buffer[16 : 16 + length], buffer[16 + length :]
                    self._there.discard(os.fsdecode(name.rstrip(b"\0")))
                    if what & ~(_GONE | _IS_FOLDER):
                        # The folder itself has gone, or is no more mounted; or events were lost.
                        self._forget()
                        return

    def _forget(self) -> None:
        self._seen += 1
        self._there.clear()
        if self._events is not None and self._process == os.getpid():
            os.close(self._events)
        self._events = None


#: Why a running job goes on running while the disk is full: what it has computed waits for room.
DISK_FULL = "disk full"

#: With less room than this, in bytes, a result or a row of the database may not fit.
FULL = 2**20

#: How old what was seen may be before it is looked again, in seconds.
LOOK_S = 1.0


@frozen(kw_only=True)
class Disk:
    """The file system of the run directories when somebody looked: its room in bytes."""

    path: str
    free: int
    size: int
    full: bool
    looked_at: float


class HomeDisk:
    """Look at the disk from threads that read the home anyway; tell at once what was seen.

    Until the folder of the run directories is there, what it will be in counts. `last` is ``None``
    before the first look, and where the room cannot be told.
    """

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place = place
        self._look_at = 0.0
        self.last: Disk | None = None

    def look(self) -> None:
        """Look again if that was not done just now. The file system may hang: not on a loop."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            place = self._place()
            seen = (_seen(folder) for folder in (place, *place.parents))
            self.last = next(filter(None, seen), None)

    @property
    def is_full(self) -> bool:
        """Whether there was no room left when somebody looked last."""
        return self.last is not None and self.last.full


def _seen(place: Path) -> Disk | None:
    try:
        there = os.statvfs(place)
    except OSError:
        return None
    # What is reserved for root is left for root.
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
    """See jobs as their files tell; nothing is written, neither there nor in the store.

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
        """Return jobs as their files tell."""
        left: dict[str, bytes] | None = None
        current = []
        for job in jobs:
            if not (job.state.is_terminal() or job.waits or self._follows(job.job_id)):
                left = self.host.left() if left is None else left
                current.append(self._seen(job, left))
            else:
                current.append(job)
        return current

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
    """Go through the run directories of a home, and those in packs: the ids of their jobs."""
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
