"""The lock that keeps a second server out of a home."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from crystalmath import build_version
from crystalmath.errors import ServerError
from crystalmath.jobs.host import Host
from crystalmath.jobs.identities import own_identity
from crystalmath.server.endpoint import Server

if TYPE_CHECKING:
    from crystalmath.processes import Identity
    from crystalmath.server.endpoint import Place

#: How often a server tries to take a lock that another holds, in seconds.
PAUSE_S = 0.05
#: More bytes than the content of a lock has.
_MOST = 1 << 16


class AlreadyServed(ServerError):  # noqa: N818 - a state, as FileExistsError
    """A server of this home runs on this host."""

    code = "already_served"


class HomeLock:
    """The lock of a home, which one server holds.

    The kernel drops the lock with the process, however that ends. The content names the process and
    its identity file; processes in other containers see by the lock on that file that it lives.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._descriptor = -1
        self._written = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, timeout_s: float) -> None:
        """Become the server of the home, or raise.

        A server that is leaving has `timeout_s` to do so. A server on another host is replaced once
        its lease has ended.
        """
        deadline = time.monotonic() + timeout_s
        while not self._try():
            server = self._place.read_lock()
            listening = server is not None and Path(server.socket).exists()
            if listening or time.monotonic() >= deadline:
                who = server or "a process that has not said its name yet"
                raise AlreadyServed(f"{self._place.home} is served already: {who}")
            time.sleep(PAUSE_S)
        last = self._place.named()
        # This process holds the lock now, so no other process of this kernel serves.
        if last and not last.is_here() and last.identity.is_alive_if(held=False) is not False:
            self._outlast(last)
        identity = own_identity(self._place.home / "jobs")
        identity.keep_beating(self)
        self._write(self._name(identity.identity))

    def _outlast(self, server: Server) -> None:
        """Wait until the lease of a server on another host has ended; raise if it beats."""
        host = Host(self._place.home / "jobs")
        silence = host.silence(server.identity)
        if silence is not None:
            sys.stderr.write(
                f"{self._place.home} was served by the {server}: listening for it before this one "
                f"takes its place, for {silence.lease_s:g} s\n"
            )
        while silence is not None and silence.for_s < silence.lease_s:
            time.sleep(min(1.0, silence.lease_s / 20))
            before, silence = silence, host.silence(server.identity)
            if silence is not None and silence.for_s < before.for_s:
                silence = None  # it has beaten
        if silence is None:
            self.release()
            raise self._place.elsewhere(server)

    def is_ours(self) -> bool:
        """Return whether the lock file is still the one that this process holds."""
        try:
            there, held = self._place.lock.lstat(), os.fstat(self._descriptor)
        except OSError:
            return False
        return os.path.samestat(there, held)

    def release(self) -> None:
        """Leave the home to the next server."""
        if self._descriptor < 0:
            return
        # The content may be that of a server on another host.
        if self._written and os.pread(self._descriptor, _MOST, 0) == self._written:
            os.ftruncate(self._descriptor, 0)
        self._let_go()

    def _try(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._place.lock, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        # A forked child that starts no other program must not go on holding the lock.
        os.register_at_fork(after_in_child=self._let_go)
        return True

    def _name(self, identity: Identity) -> str:
        return Server(
            identity=identity,
            socket=os.fspath(self._place.socket),
            version=build_version(),
            started_at=time.time(),
        ).write()

    def _write(self, text: str) -> None:
        self._written = text.encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, self._written, 0)

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
