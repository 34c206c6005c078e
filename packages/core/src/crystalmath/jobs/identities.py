"""Who owns and runs the jobs of a home, and whether they are alive.

Each process that does has a file in ``<home>/jobs/.identities``, locked for its life; the claims
that it makes are hard links to that file.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import attrs

from crystalmath import processes
from crystalmath.errors import BadFile
from crystalmath.jobs.documents import document, read_document, write_all
from crystalmath.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IDENTITIES", "IdentityFile", "is_alive", "own_identity", "remove_dead", "remove_own"]

#: The folder, beside the run directories, of the files that tell who owns and runs jobs.
IDENTITIES = ".identities"
#: A file of that folder that was begun so long ago is not going to be finished, in seconds.
UNFINISHED_S = 60.0


class IdentityFile:
    """The file to which claims are hard links: it tells who made them, and is locked by it.

    The kernel drops the lock with the process, however that ends; so whoever sits in another
    namespace of pids can tell by it, and by each claim, whether the process lives.

    Parameters
    ----------
    directory : str or path-like
        A folder on the file system of the run directories.
    identity : Identity
        The process that claims.
    containment : mapping, optional
        What holds together the processes of what it runs (:mod:`crystalmath.jobs.containment`).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: Identity,
        containment: Mapping[str, Any] | None = None,
    ) -> None:
        self._directory = os.fspath(directory)
        self._identity = identity
        self._containment = {"containment": dict(containment)} if containment else {}
        self._nonce = secrets.token_hex(8)
        self._path = f"{self._directory}/{self._nonce}"
        # An older one stays open: claims that are links to it are locked by it.
        self._descriptors: list[int] = []
        self._durable = False
        self._lock = threading.Lock()
        # A forked child has an identity of its own, and must not hold the lock of this one.
        os.register_at_fork(after_in_child=self._let_go)

    @property
    def identity(self) -> Identity:
        """Who holds the file, and its name; where it cannot be made, as one who holds none."""
        with self._lock, contextlib.suppress(OSError):
            if not self._descriptors:
                self._make()
        return self._identity

    def link(self, name: str) -> None:
        """Make a claim; `FileExistsError` if the name exists."""
        with self._lock:
            if not self._descriptors:
                self._make()
            if not self._durable:
                # A claim that survives a power cut must still tell whose it is.
                os.fsync(self._descriptors[-1])
                self._durable = True
            try:
                os.link(self._path, name)
            except FileExistsError:
                raise
            except OSError:
                # The file was tidied away, or has as many links as the file system allows.
                self._make(durable=True)
                os.link(self._path, name)

    def remove(self) -> None:
        """Remove the file, and let go of the lock; the claims stay."""
        with self._lock:
            if self._descriptors:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._let_go()

    def _make(self, *, durable: bool = False) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        remove_dead(self._directory)
        temporary = f"{self._directory}/.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Whoever can read it must find it locked.
            lock = self._nonce if _lock(descriptor) else ""
            identity = attrs.evolve(self._identity, lock=lock)
            header = {**identity.as_dict(), "nonce": self._nonce, **self._containment}
            content = document(header, b"")
            write_all(descriptor, content, durable=durable)
            os.replace(temporary, self._path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._descriptors.append(descriptor)
        self._identity, self._durable = identity, durable

    def _let_go(self) -> None:
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def own_identity(jobs_directory: str | os.PathLike[str]) -> IdentityFile:
    """Give the identity of this process among those that own or run jobs of a home.

    The file is made when it is needed first, and goes with the process.

    Parameters
    ----------
    jobs_directory : str or path-like
        Where the run directories are.
    """
    return _own_identity(os.fspath(jobs_directory), os.getpid())


@functools.cache
def _own_identity(jobs_directory: str, pid: int) -> IdentityFile:
    del pid  # a forked child is somebody else
    file = IdentityFile(f"{jobs_directory}/{IDENTITIES}", processes.own_identity())
    _own.append((os.getpid(), file))
    return file


_own: list[tuple[int, IdentityFile]] = []


def remove_own() -> None:
    """Remove the files of this process, which has nothing to claim any more."""
    for pid, file in _own:
        if os.getpid() == pid:
            file.remove()


# Whoever claims at the interpreter's exit imports this first, and so is called before.
atexit.register(remove_own)


def is_alive(process: Identity, jobs_directory: str | os.PathLike[str]) -> bool | None:
    """Tell whether a process that owns jobs of a home is alive; ``None`` if that cannot be told.

    Parameters
    ----------
    process : Identity
        As it stands in a specification or a row. Of one that claimed an attempt
        :meth:`RunDirectory.is_claimant_alive` tells it.
    jobs_directory : str or path-like
        Where the run directories are.
    """
    directory = os.fspath(jobs_directory)
    return process.is_alive(f"{directory}/{IDENTITIES}/{process.lock}" if process.lock else None)


def remove_dead(directory: str) -> None:
    """Remove the files of processes that were killed.

    Parameters
    ----------
    directory : str
        Where the identities are. Claims that are links to them stay.
    """
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        with contextlib.suppress(OSError, BadFile, KeyError, TypeError):
            if name.startswith("."):
                # One that was killed while it wrote its own.
                if time.time() - os.stat(path).st_mtime > UNFINISHED_S:
                    os.unlink(path)
                continue
            identity = Identity.read(read_document(path)[0])
            if identity.is_alive(path if identity.lock else None) is False:
                os.unlink(path)


def _lock(descriptor: int) -> bool:
    """Take the lock on a file that nobody else knows yet; ``False`` where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
