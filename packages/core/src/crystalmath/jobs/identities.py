"""The processes that own and run the jobs of a home, and whether they are alive.

Each such process has a file in ``<home>/jobs/.identities``, locked for its life; the claims that it
makes are hard links to that file.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import itertools
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath._permissions import make_own
from crystalmath.config import LEASE_S
from crystalmath.errors import BadFile
from crystalmath.jobs.documents import document, read_document, write_all
from crystalmath.jobs.heartbeat import Heart, Heartbeat
from crystalmath.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The folder, beside the run directories, of the identity files of processes.
IDENTITIES = ".identities"
#: A file of that folder that was begun so long ago is not going to be finished, in seconds.
UNFINISHED_S = 60.0
#: One of another host that has not beaten for so long, by the file system's clock, is litter.
LITTER_S = 86400.0
#: From so many claims on those are forgotten that nobody asks about any more.
REMEMBERED = 1000
#: A beat, and where it is written over in place: it stands first in the header.
_BEAT = b"%020d"
_BEAT_AT = document({"heart": ""}, b"").index(b'""') + 1


class IdentityFile:
    """The file to which a process's claims are hard links: it names the process, which locks it.

    The kernel drops the lock with the process, however that ends. So a process in another namespace
    of pids can see by the file, or by a claim, whether its maker lives.

    `directory` is on the file system of the run directories. `containment` is what holds together
    the processes of a job (:mod:`crystalmath.jobs.cgroups`). After `lease_s` seconds of silence
    other hosts take the process for dead.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: Identity,
        containment: Mapping[str, Any] | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self._directory = os.fspath(directory)
        self._identity = identity
        self._containment = {"containment": dict(containment)} if containment else {}
        self._nonce = os.urandom(8).hex()
        self._path = f"{self._directory}/{self._nonce}"
        # An older one stays open: claims that are links to it are locked by it.
        self._descriptors: list[int] = []
        self._beating: list[int] = []
        self._durable = False
        #: The oldest first.
        self._claims: dict[str, None] = {}
        self._beats = 0
        self.lease_s = lease_s
        self._heartbeat = Heartbeat(self.beat, lease_s)
        self._hearts_of: set[object] = set()
        self._lock = threading.Lock()
        # A forked child has an identity of its own, and must not hold the lock of this one.
        os.register_at_fork(after_in_child=self._let_go_in_child)

    @property
    def identity(self) -> Identity:
        """The holder and the name of the file; without a name where the file cannot be made."""
        with self._lock, contextlib.suppress(OSError):
            if not self._descriptors:
                self._make()
        return self._identity

    def keep_beating(self, whom: object) -> None:
        """Show other hosts that this process lives, until `rest` is called with the same `whom`."""
        self._hearts_of.add(whom)
        self._heartbeat.begin()

    def rest(self, whom: object) -> None:
        """Stop beating for `whom`, and altogether with the last one."""
        self._hearts_of.discard(whom)
        if not self._hearts_of:
            self._heartbeat.stop()

    def beat(self) -> None:
        """Write one beat, durably; `OSError` if that cannot be done."""
        with self._lock:
            if not self._descriptors:
                return
            if not os.path.exists(self._path):
                self._make()  # the user may have removed it
            self._beats += 1
            # Not under the lock: the file system may hang. Nobody else closes copies.
            self._beating = [os.dup(each) for each in self._descriptors]
        try:
            for descriptor in self._beating:
                os.pwrite(descriptor, _BEAT % self._beats, _BEAT_AT)
                os.fdatasync(descriptor)
        finally:
            with self._lock:
                self._beating = _closed(self._beating)

    def link(self, name: str) -> None:
        """Make a claim; `FileExistsError` if the name exists."""
        with self._lock:
            if not self._descriptors:
                self._make()
            if not self._durable:
                # A claim that survives a power cut must still name its claimant.
                os.fsync(self._descriptors[-1])
                self._durable = True
            try:
                os.link(self._path, name)
            except FileExistsError:
                if not self._is_ours(name):
                    raise
            except OSError as error:
                if error.errno != errno.EMLINK and os.path.exists(self._path):
                    raise
                # The file was tidied away, or has as many links as the file system allows.
                self._make(durable=True)
                os.link(self._path, name)
            self._remember(name)

    def _remember(self, name: str) -> None:
        self._claims[name] = None
        if len(self._claims) > REMEMBERED:
            # Two for each that comes: in the end no more are left than attempts that have not.
            for claim in list(itertools.islice(self._claims, 2)):
                del self._claims[claim]
                if not _is_over(claim):
                    self._claims[claim] = None

    def _is_ours(self, name: str) -> bool:
        """Return whether we have just made a claim, but the network lost the server's word for it.

        The request is sent again then, and finds the name that it made itself.
        """
        if name in self._claims or _is_over(name):
            return False
        claim, own = os.stat(name), os.fstat(self._descriptors[-1])
        return os.path.samestat(claim, own)

    def remove(self) -> None:
        """Remove the file, and let go of the lock; the claims stay."""
        with self._lock:
            if self._descriptors:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._let_go()

    def _make(self, *, durable: bool = False) -> None:
        make_own(self._directory)
        temporary = f"{self._directory}/.{os.urandom(8).hex()}"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Whoever can read it must find it locked.
            lock = self._nonce if _lock(descriptor) else ""
            identity = replace(self._identity, lock=lock)
            heart = {"heart": (_BEAT % self._beats).decode(), "lease_s": self.lease_s}
            own = {"nonce": self._nonce, **self._containment}
            content = document({**heart, **identity.as_dict(), **own}, b"")
            write_all(descriptor, content, durable=durable)
            remove_dead(self._directory, os.fstat(descriptor).st_mtime)
            os.replace(temporary, self._path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._descriptors.append(descriptor)
        self._identity, self._durable = identity, durable

    def _let_go(self) -> None:
        self._descriptors = _closed(self._descriptors)

    def _let_go_in_child(self) -> None:
        self._let_go()
        self._beating = _closed(self._beating)


def own_identity(jobs_directory: str | os.PathLike[str], lease_s: float = LEASE_S) -> IdentityFile:
    """Return the identity of this process among those that own or run jobs of a home.

    The file is made when it is needed first, and goes with the process. Only the first call sets
    the lease, in seconds.
    """
    key = (os.fspath(jobs_directory), os.getpid())  # a forked child is another process
    with _making:
        if key not in _files:
            directory = f"{key[0]}/{IDENTITIES}"
            _files[key] = IdentityFile(directory, processes.own_identity(), lease_s=lease_s)
            _own.append((os.getpid(), _files[key]))
        return _files[key]


def _lock_anew() -> None:
    global _making  # noqa: PLW0603 - a lock held at the fork would stay held for ever
    _making = threading.Lock()


_making = threading.Lock()
os.register_at_fork(after_in_child=_lock_anew)
_files: dict[tuple[str, int], IdentityFile] = {}
_own: list[tuple[int, IdentityFile]] = []


def remove_own() -> None:
    """Remove the files of this process, which has nothing to claim any more."""
    for pid, file in _own:
        if os.getpid() == pid:
            file.remove()


# Whoever claims at the interpreter's exit imports this first, and so is called before.
atexit.register(remove_own)


def is_alive(process: Identity, jobs_directory: str | os.PathLike[str]) -> bool | None:
    """Return whether a process that owns jobs of a home is alive; ``None`` if that is unknown.

    For the process that claimed an attempt, use
    :meth:`crystalmath.jobs.rundir.RunDirectory.is_claimant_alive`.
    """
    directory = os.fspath(jobs_directory)
    return process.is_alive(f"{directory}/{IDENTITIES}/{process.lock}" if process.lock else None)


def remove_dead(directory: str, now: float) -> None:
    """Remove the files of processes that were killed; claims that are links to them stay.

    `now` is the time by the clock of the file system, in seconds since the epoch.
    """
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        with contextlib.suppress(OSError, BadFile, KeyError, TypeError):
            if name.startswith("."):
                # One that was killed while it wrote its own.
                if now - os.stat(path).st_mtime > UNFINISHED_S:
                    os.unlink(path)
                continue
            header, _ = read_document(path)
            identity, heart = Identity.read(header), Heart.read(header)
            alive = identity.is_alive(path if identity.lock else None)
            if alive is False or (heart and _is_litter(identity, heart, now - _written(path))):
                os.unlink(path)


def _is_over(claim: str) -> bool:
    """Return whether nobody may claim an attempt any more, or whether its claim is gone."""
    stem, _ = os.path.splitext(claim)
    return os.path.exists(f"{stem}.outcome") or not os.path.exists(claim)


def _is_litter(identity: Identity, heart: Heart, silent_s: float) -> bool:
    """Return whether nobody misses a file; a process that lives would make it anew."""
    return not identity.is_of_this_boot() and silent_s > max(LITTER_S, 3 * heart.lease_s)


def _written(path: str) -> float:
    return os.stat(path).st_mtime


def _closed(descriptors: list[int]) -> list[int]:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return []


def _lock(descriptor: int) -> bool:
    """Take the lock on a file that nobody else knows yet; ``False`` where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
