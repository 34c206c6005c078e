"""The process that looks after jobs, and its host: clock, owners, processes."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath._permissions import make_own
from crystalmath.errors import BadFile
from crystalmath.jobs.cgroups import end_contained
from crystalmath.jobs.documents import read_document, to_disk
from crystalmath.jobs.facts import Moment
from crystalmath.jobs.heartbeat import Heart, Hearts
from crystalmath.jobs.identities import IDENTITIES, LITTER_S, is_alive, own_identity
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from crystalmath.jobs.facts import Silence
    from crystalmath.jobs.identities import IdentityFile
    from crystalmath.jobs.journal import Left

#: How long one call tries to end the processes of a lost attempt, in seconds.
SWEEP_S = 5.0
#: The number of attempts whose processes are ended side by side.
_SWEEPS = 16


class Host:
    """The clock, owners and processes that a job needs beside its files. Simulations replace it."""

    def __init__(self, jobs_directory: Path) -> None:
        self._jobs_directory = jobs_directory
        self._rests = False
        self._is_synced = False
        self._has_links = False
        self._sweepers: ThreadPoolExecutor | None = None
        self._sweeps: dict[str, Future[bool]] = {}
        # The last warning about each journal, and about all of them: they are read every second.
        self._warned: dict[str, str] = {}

    @property
    def identity(self) -> IdentityFile:
        """The file that claims of this process are links to."""
        return own_identity(self._jobs_directory)

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the time of the monotonic clock, in seconds."""
        return time.monotonic()

    def moment(self) -> Moment:
        """Return the time by both clocks."""
        return Moment(self.now(), self.monotonic())

    def make_room(self) -> None:
        """Make the folder of the run directories.

        Its other content tells a folder without jobs from one that is not mounted.
        """
        make_own(self._jobs_directory / IDENTITIES)

    def require_links(self) -> None:
        """Raise `PlaceError` if no job could be claimed here; look once."""
        if not self._has_links:
            from crystalmath._storage import require_links

            require_links(self._jobs_directory)
            self._has_links = True

    def publish_left(self) -> None:
        """Publish outcomes that a power cut or a kill has left in journals without a writer.

        It comes before any decision from the files of these jobs.
        """
        from crystalmath.jobs.journal import remove_unfinished

        with contextlib.suppress(OSError):
            remove_unfinished(os.fspath(self._jobs_directory), self.now())
        for left in self._left():
            with contextlib.suppress(FileNotFoundError):  # another process publishes
                self._publish(left)

    def left(self) -> dict[str, bytes]:
        """Return the outcomes, by their attempts, that `publish_left` would publish."""
        outcomes = {}
        for left in self._left():
            for attempt, each in left.outcomes:
                with contextlib.suppress(OSError):  # it could not be published either
                    if self._is_writers(left, attempt):
                        outcomes[attempt] = each
        return outcomes

    def _is_writers(self, left: Left, attempt: str) -> bool:
        """Return whether no process but the writer of a journal has claimed an attempt."""
        job_id, _, number = attempt.rpartition(".")
        claimant = None
        with contextlib.suppress(BadFile):
            claimant = RunDirectory(self._jobs_directory / job_id).claimant(int(number))
        return claimant in {None, left.writer}

    def _left(self) -> Iterator[Left]:
        from crystalmath.jobs import journal

        try:
            for left in journal.left(os.fspath(self._jobs_directory)):
                with contextlib.suppress(FileNotFoundError):  # another process publishes
                    if self._is_closed(left):
                        yield left
            self._warned.pop("", None)
        except OSError as error:
            self._warn_once("", str(error.strerror))

    def _warn_once(self, about: str, message: str) -> None:
        if self._warned.get(about) != message:
            self._warned[about] = message
            _warn(message)

    def _is_closed(self, left: Left) -> bool:
        """Return whether a journal has no writer any more, on any host."""
        from crystalmath._storage import file_system, is_local

        if left.writer.is_dead(left.path):
            return True
        if processes.is_locked(left.path) is not False:
            return False
        # A writer on another host may hold a lock unseen from here, or lose it with the network.
        silent_s = self.now() - Path(left.path).stat().st_mtime
        return silent_s > LITTER_S or is_local(file_system(Path(left.path)))

    def _publish(self, left: Left) -> None:
        from crystalmath.jobs.journal import sync_all

        to_disk(left.path)  # its writer may have been killed before that
        directories = set()
        keeps = False
        for attempt, _ in left.outcomes:
            job_id, _, number = attempt.rpartition(".")
            directory = RunDirectory(self._jobs_directory / job_id)
            try:
                if self._is_writers(left, attempt):
                    directory.publish_in(int(number), left.path)
                    directories.add(directory.path)
            except FileNotFoundError:
                pass  # it was removed, or another process publishes
            except OSError as error:
                why = f"cannot publish an outcome of {left.path}, trying again: {error}"
                self._warn_once(left.path, why)
                keeps = True
        sync_all(directories)
        if not keeps:
            self._warned.pop(left.path, None)
            with contextlib.suppress(FileNotFoundError):
                Path(left.path).unlink()

    def sync_entries(self) -> None:
        """Sync the names of all run directories, and of their folder, against a power cut."""
        to_disk(self._jobs_directory)
        if not self._is_synced:
            to_disk(self._jobs_directory.parent)
            self._is_synced = True

    @property
    def lease_s(self) -> float:
        """The lease of this process, in seconds."""
        return self.identity.lease_s

    @property
    def hearts(self) -> Hearts:
        """The hearts of processes on other hosts, as known here."""
        return _hearts(os.fspath(self._jobs_directory), os.getpid())

    def sees(self, process: Identity) -> bool:
        """Return whether this host's kernel knows for sure whether a process is alive."""
        return process.is_of_this_boot()

    def own_fields(self) -> Mapping[str, Any]:
        """Return this process as an owner, whose heart beats until `rest` is called.

        All its jobs share the mapping.
        """
        if not self._rests:
            self.identity.keep_beating(self)
        return vars(self.identity.identity)

    def rest(self) -> None:
        """Stop beating for good: this process owns no jobs any more."""
        self._rests = True
        self.identity.rest(self)
        if self._sweepers is not None:
            self._sweepers.shutdown(wait=False, cancel_futures=True)

    def is_own(self, owner: object) -> bool:
        """Return whether this process is the owner."""
        try:
            return Identity.read(_fields(owner)) == processes.own_identity()
        except (KeyError, TypeError):
            return False

    def is_orphan(self, owner: object) -> bool:
        """Return whether a job has no owner: it has died, or has let the job go."""
        if not owner:
            return True
        try:
            identity = Identity.read(_fields(owner))
        except (KeyError, TypeError):
            return False  # a newer release may write owners differently
        alive = is_alive(identity, self._jobs_directory)
        if alive is not None and (alive is False or self.sees(identity)):
            return not alive
        silence = self.silence(identity)
        return silence is not None and silence.for_s >= silence.lease_s

    def silence(self, identity: Identity) -> Silence | None:
        """Return how long an owner on another host has been silent; ``None`` if that is unknown."""
        if not identity.lock:
            return None
        try:
            heart = heart_of(identity, self._jobs_directory)
        except FileNotFoundError:
            heart = Heart("", self.lease_s)  # ended in order, or about to make it anew
        except (BadFile, OSError):
            return None
        whose = f"{self._jobs_directory}/{IDENTITIES}/{identity.lock}"
        return None if heart is None else self.hearts.listen(whose, heart)

    def has_processes(self, attempt: str) -> bool:
        """Return whether any process of an attempt is alive on this host."""
        return bool(processes.marked("CRYSTALMATH_ATTEMPT", attempt))

    def end_processes(self, attempt: str) -> bool:
        """End every process of an attempt on this host; return whether none is left."""
        return self._end_contained(attempt) and processes.end_processes(
            lambda: processes.marked("CRYSTALMATH_ATTEMPT", attempt), limit_s=SWEEP_S
        )

    def sweep(self, attempt: str, then: Callable[[], None]) -> bool:
        """Begin to end every process of an attempt; return whether none is left.

        Until that is known, return ``False``, and call `then` once it is. Only one thread may call
        this.
        """
        if self._sweepers is None:
            from concurrent.futures import ThreadPoolExecutor

            self._sweepers = ThreadPoolExecutor(_SWEEPS, "crystalmath-sweep")
        sweep = self._sweeps.get(attempt)
        if sweep is None:
            sweep = self._sweeps[attempt] = self._sweepers.submit(self.end_processes, attempt)
            sweep.add_done_callback(lambda _: then())
        if not sweep.done():
            return False
        del self._sweeps[attempt]
        return sweep.result()

    def _end_contained(self, attempt: str) -> bool:
        """End what a dead supervisor's control group or guardian holds."""
        job_id, _, number = attempt.rpartition(".")
        directory = RunDirectory(self._jobs_directory / job_id)
        try:
            claimant, containment = (
                directory.claimant(int(number)),
                directory.containment(int(number)),
            )
        except (BadFile, OSError):
            return True  # processes with the attempt's mark are ended anyway
        # A living supervisor has ended them itself, and runs other jobs in the same group.
        if claimant is None or not claimant.is_here() or not claimant.is_dead():
            return True
        return end_contained(containment, SWEEP_S)


def _fields(owner: object) -> Mapping[str, Any]:
    """Return the fields of an owner; `TypeError` for something else."""
    if not isinstance(owner, Mapping):
        raise TypeError(f"{owner!r} is no owner")
    return owner


def heart_of(identity: Identity, jobs_directory: Path) -> Heart | None:
    """Read the present heart of a process; ``None`` if it has none.

    `BadFile` or `OSError` is raised if it cannot be read.
    """
    return Heart.read(read_document(f"{jobs_directory}/{IDENTITIES}/{identity.lock}")[0])


@functools.cache
def _hearts(jobs_directory: str, pid: int) -> Hearts:
    # All hosts of one process share the hearts that any of them has read.
    del jobs_directory, pid
    return Hearts()


def _warn(message: str) -> None:
    import logging  # a command that only reads needs it here alone

    logging.getLogger("crystalmath.jobs").warning(message)
