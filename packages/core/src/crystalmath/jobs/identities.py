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
#: An unfinished file in that folder is abandoned after this time, in seconds.
UNFINISHED_S = 60.0
#: A file of another host is litter after this time without a beat, in seconds of the file
#: system's clock.
LITTER_S = 86400.0
#: Beyond this number, claims of decided attempts are forgotten.
REMEMBERED = 1000
#: A beat, and its place in the file, where it is overwritten: it is first in the header.
_BEAT = b"%020d"
_BEAT_AT = document({"heart": ""}, b"").index(b'""') + 1


class IdentityFile:
    """The file that names a process and is locked by it; the claims of the process are links to it.

    The kernel drops the lock when the process ends in any way. So a process in another namespace of
    pids sees by the file, or by a claim, whether its maker lives.

    `directory` is on the file system of the run directories. `containment` names the group or
    guardian of a job's processes (:mod:`crystalmath.jobs.cgroups`). After `lease_s` seconds of
    silence, other hosts take the process for dead.
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
        # Older descriptors stay open: they hold the lock of the claims that link to their files.
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
        """The holder and the name of the file; without a name if the file cannot be made."""
        with self._lock, contextlib.suppress(OSError):
            if not self._descriptors:
                self._make()
        return self._identity

    def keep_beating(self, whom: object) -> None:
        """Beat for other hosts until `rest` is called with the same `whom`."""
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
            # The write is not under the lock, as the file system may hang, and so needs copies.
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
            # Check two claims for each new one, so that only undecided attempts remain.
            for claim in list(itertools.islice(self._claims, 2)):
                del self._claims[claim]
                if not _is_over(claim):
                    self._claims[claim] = None

    def _is_ours(self, name: str) -> bool:
        """Return whether we have just made a claim, and the network lost the server's reply.

        The client then repeats the request, which meets the name that it has made itself.
        """
        if name in self._claims or _is_over(name):
            return False
        claim, own = os.stat(name), os.fstat(self._descriptors[-1])
        return os.path.samestat(claim, own)

    def remove(self) -> None:
        """Remove the file and release the lock; the claims stay."""
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
            # The file is locked before any reader can see it.
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
    with _Making.lock:
        if key not in _files:
            directory = f"{key[0]}/{IDENTITIES}"
            _files[key] = IdentityFile(directory, processes.own_identity(), lease_s=lease_s)
            _own.append((os.getpid(), _files[key]))
        return _files[key]


class _Making:
    """The lock for making files, which a forked child replaces: it may be held at the fork."""

    lock = threading.Lock()

    @classmethod
    def renew(cls) -> None:
        cls.lock = threading.Lock()


os.register_at_fork(after_in_child=_Making.renew)
_files: dict[tuple[str, int], IdentityFile] = {}
_own: list[tuple[int, IdentityFile]] = []


def remove_own() -> None:
    """Remove the files of this process, which claims nothing any more."""
    for pid, file in _own:
        if os.getpid() == pid:
            file.remove()


# Modules that claim at the interpreter's exit import this one, and so their hooks run before.
atexit.register(remove_own)


def is_alive(process: Identity, jobs_directory: str | os.PathLike[str]) -> bool | None:
    """Return whether a process that owns jobs of a home is alive; ``None`` if that is unknown.

    For the process that claimed an attempt, use
    :meth:`crystalmath.jobs.rundir.RunDirectory.is_claimant_alive`.
    """
    directory = os.fspath(jobs_directory)
    return process.is_alive(f"{directory}/{IDENTITIES}/{process.lock}" if process.lock else None)


def remove_dead(directory: str, now: float) -> None:
    """Remove the files of killed processes; their claims stay.

    `now` is the time by the clock of the file system, in seconds since the epoch.
    """
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        with contextlib.suppress(OSError, BadFile, KeyError, TypeError):
            if name.startswith("."):
                # Its process was killed while it wrote the file.
                if now - os.stat(path).st_mtime > UNFINISHED_S:
                    os.unlink(path)
                continue
            header, _ = read_document(path)
            identity, heart = Identity.read(header), Heart.read(header)
            alive = identity.is_alive(path if identity.lock else None)
            if alive is False or (heart and _is_litter(identity, heart, now - _written(path))):
                os.unlink(path)


def _is_over(claim: str) -> bool:
    """Return whether an attempt is decided, or its claim is gone."""
    stem, _ = os.path.splitext(claim)
    return os.path.exists(f"{stem}.outcome") or not os.path.exists(claim)


def _is_litter(identity: Identity, heart: Heart, silent_s: float) -> bool:
    """Return whether a file can be removed; a living process would make it anew."""
    return not identity.is_of_this_boot() and silent_s > max(LITTER_S, 3 * heart.lease_s)


def _written(path: str) -> float:
    return os.stat(path).st_mtime


def _closed(descriptors: list[int]) -> list[int]:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return []


def _lock(descriptor: int) -> bool:
    """Lock a file that no other process knows yet; ``False`` if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
