"""The place of a home's server, the checks that this place is safe, and the connection to it.

A server and its clients find each other by these rules alone. Clients start with this module, so it
imports nothing slow.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shlex
import socket as sockets
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from crystalmath._permissions import make_own, may_be_closed
from crystalmath.errors import BadFile, PlaceError, ServedElsewhere, ServerNotRunning
from crystalmath.jobs.identities import is_alive
from crystalmath.processes import Identity
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The longest path of a Unix socket, in bytes.
LONGEST = 107


class Server(NamedTuple):
    """The server of a home, as its lock names it."""

    identity: Identity
    socket: str
    version: str
    started_at: float

    @classmethod
    def read(cls, text: str) -> Server | None:
        """Read the content of a lock; ``None`` if it names no server."""
        try:
            fields: Mapping[str, Any] = json.loads(text)
            return cls(
                identity=Identity.read(fields),
                socket=str(fields["socket"]),
                version=str(fields["version"]),
                started_at=float(fields["started_at"]),
            )
        except (ValueError, KeyError, TypeError):
            return None  # the lock is being written, or its server has left

    def write(self) -> str:
        """Return the content of a lock."""
        more = {"socket": self.socket, "version": self.version, "started_at": self.started_at}
        return json.dumps({**self.identity.as_dict(), **more}, indent=1) + "\n"

    def is_here(self) -> bool:
        """Return whether its process is on this host, and not in another container."""
        return self.identity.is_here()

    def __str__(self) -> str:
        return f"process {self.identity.pid} on {self.identity.host} (version {self.version})"


class Place(NamedTuple):
    """The place of a home's server, running or not."""

    home: Path
    socket: Path

    @classmethod
    def of(cls, home: Path, environ: Mapping[str, str] = os.environ) -> Place:
        """Return the place for a home.

        The socket is ``CRYSTALMATH_SOCKET``, else ``<home>/server/socket``. If that path is too
        long for a socket, it is one below ``XDG_RUNTIME_DIR``, or in ``/tmp/crystalmath-<uid>``.
        """
        named = environ.get("CRYSTALMATH_SOCKET")
        if not named:
            return cls(home=home, socket=_socket_of(home, environ))
        socket = Path(named).expanduser().absolute()
        if not _fits(socket):
            raise PlaceError(
                f"CRYSTALMATH_SOCKET={named} is too long for a socket "
                f"({len(os.fsencode(socket))} bytes of at most {LONGEST}); give a shorter path"
            )
        return cls(home=home, socket=socket)

    @property
    def directory(self) -> Path:
        """The private folder of the server's own files."""
        return self.home / "server"

    @property
    def lock(self) -> Path:
        """The file that names the server."""
        return self.directory / "lock"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.directory / "log"

    @property
    def output(self) -> Path:
        """The file with the output of a server in the background, and of its child processes."""
        return self.directory / "output"

    def mark(self) -> tuple[int, ...] | None:
        """Return a mark of the present socket, which differs from that of a later one."""
        try:
            status = self.socket.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns  # inode numbers are reused

    def make(self) -> None:
        """Make the private folders of the server and of its socket."""
        try:
            make_own(self.home)
        except OSError as error:
            raise PlaceError(
                f"cannot make the home {self.home}: {error.strerror}; set CRYSTALMATH_HOME to a "
                "folder where you may write"
            ) from error
        make_private(self.directory)
        make_private(self.socket.parent)

    def read_lock(self) -> Server | None:
        """Return the server of the home; ``None`` if there is none, or its process has died."""
        server = self.named()
        return None if server is None or self.is_dead(server) else server

    def is_dead(self, server: Server) -> bool:
        """Return whether the process of a server is known to have ended."""
        # The kernel's lock cannot tell: the next server may hold it before it has written its name.
        return is_alive(server.identity, self.home / "jobs") is False

    def named(self) -> Server | None:
        """Return the server that the lock names, dead or alive."""
        try:
            require_private(self.directory)
            return Server.read(self.lock.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None

    def has_crashed(self) -> bool:
        """Return whether the last server has died without clearing the lock."""
        server = self.named()
        return server is not None and self.is_dead(server)

    def address(self) -> Path:
        """Return the socket of the server, or the one that it would make."""
        server = self.read_lock()
        if server is None:
            return self.socket
        if not server.is_here():
            raise self.elsewhere(server)
        return Path(server.socket)

    def elsewhere(self, server: Server) -> ServedElsewhere:
        """Return the error that names a server which cannot be reached from here."""
        return ServedElsewhere(
            f"the home {self.home} is served by {server} since {_moment(server.started_at)}: "
            f"{self.way_to(server)}; if that host is gone, `crystalmath serve` here takes its "
            f"place once it has been silent for {self._lease_of(server)}; or remove {self.lock}"
        )

    def way_to(self, server: Server) -> str:
        """Describe how a command gets to a server on another host, as part of a sentence."""
        host = server.identity.host
        name, home = shlex.quote(host.partition(".")[0]), shlex.quote(os.fspath(self.home))
        return (
            f"run the command there, or here by way of SSH with `crystalmath --on {name} ...`, "
            f"once `crystalmath remotes add {name} {shlex.quote(host)} --home {home}` has "
            "named that host"
        )

    def _lease_of(self, server: Server) -> str:
        """Describe its lease, and when that would end if it were silent from now on."""
        from crystalmath.jobs.host import heart_of

        try:
            heart = heart_of(server.identity, self.home / "jobs")
        except (BadFile, OSError):
            heart = None
        if heart is None or not math.isfinite(heart.lease_s):
            return "its lease ([jobs] lease_s)"
        ends = _moment(time.time() + heart.lease_s)
        return f"its lease of {heart.lease_s:g} s ([jobs] lease_s), at {ends} at the earliest"


def _moment(epoch_s: float) -> str:
    """Return a time as people on this host read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))


def _socket_of(home: Path, environ: Mapping[str, str]) -> Path:
    nearest = home / "server" / "socket"
    if _fits(nearest):
        return nearest
    import hashlib

    name = f"{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}.socket"
    runtime = environ.get("XDG_RUNTIME_DIR")
    below = Path(runtime) / "crystalmath" / name if runtime else None
    if below is not None and below.is_absolute() and _fits(below):
        return below
    # Batch nodes and cron have no XDG_RUNTIME_DIR.
    return Path("/tmp") / f"crystalmath-{os.geteuid()}" / name  # noqa: S108 - it is checked first


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST


def make_private(directory: Path) -> None:
    """Make a folder that only the user can enter, or check that it is one."""
    try:
        make_own(directory)
    except FileExistsError:
        pass
    except OSError as error:
        raise PlaceError(
            f"cannot make the folder {directory}: {error.strerror}; set CRYSTALMATH_HOME or "
            "CRYSTALMATH_SOCKET to where you may write"
        ) from error
    require_private(directory)


def require_private(directory: Path) -> None:
    """Check that a folder is the user's own, no link, and closed to everybody else."""
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise PlaceError(f"{directory} is a symbolic link; a socket is used only in a real folder")
    if not stat.S_ISDIR(status.st_mode):
        raise PlaceError(f"{directory} is no folder; remove it, or set CRYSTALMATH_SOCKET")
    if status.st_uid != os.geteuid():
        raise PlaceError(
            f"{directory} belongs to the user {status.st_uid}, not to you ({os.geteuid()}); "
            "set CRYSTALMATH_SOCKET to a path in a folder of your own"
        )
    if status.st_mode & 0o077:
        close = f"`chmod 700 {directory}`, or " * may_be_closed(os.fspath(directory), status)
        raise PlaceError(
            f"{directory} is open to others (mode {stat.S_IMODE(status.st_mode):o}); "
            f"{close}set CRYSTALMATH_SOCKET to a path in a private folder"
        )


def require_socket(socket: Path) -> None:
    """Check that a socket is the user's own, and lies in a private folder."""
    require_private(socket.parent)
    status = socket.lstat()
    if not stat.S_ISSOCK(status.st_mode):
        raise PlaceError(f"{socket} is no socket; remove it")
    if status.st_uid != os.geteuid():
        raise PlaceError(f"{socket} belongs to the user {status.st_uid}, not to you")


# --- a connection ----------------------------------------------------------------------------

#: The name of a method, and its parameters.
Request: TypeAlias = tuple[str, Mapping[str, Any]]


class Connection:
    """One connection, which carries one request after the other."""

    def __init__(self, opened: sockets.socket) -> None:
        self._socket = opened
        self._answers = opened.makefile("rb")
        self._ids = itertools.count(1)

    @classmethod
    def to(cls, place: Place) -> Self:
        """Open a connection to a home's server, if its socket can be trusted.

        `ServerNotRunning`: none listens. `ServedElsewhere`, `PlaceError`, `OSError`: it cannot be
        reached.
        """
        path = place.address()
        opened = sockets.socket(sockets.AF_UNIX)
        try:
            require_socket(path)
            opened.connect(os.fspath(path))
            return cls(opened)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            opened.close()
            raise ServerNotRunning(
                f"no server of {place.home} runs; `crystalmath serve` starts one"
            ) from error
        except BaseException:
            opened.close()
            raise

    def abort(self) -> None:
        """Make a thread that waits for an answer on this connection get an error."""
        with contextlib.suppress(OSError):  # the server was faster
            self._socket.shutdown(sockets.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()

    def is_fresh(self) -> bool:
        """Return whether the connection is open and has no unread bytes."""
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1, sockets.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def ask(self, method: str, params: Mapping[str, Any], timeout: float) -> bytes:
        """Send a request and return the whole message that answers it.

        `OSError`, `EOFError`: the server has gone, is going, or does not answer in time.
        """
        return self.ask_both([(method, params)], timeout)[0]

    def ask_both(
        self,
        requests: Sequence[Request],
        timeout: float,
        first_s: float | None = None,
    ) -> list[bytes]:
        """Send requests together, and return the messages that answer them, in their order.

        The first message must come within `first_s`, if given.
        """
        numbers = [next(self._ids) for _ in requests]
        self._socket.settimeout(timeout if first_s is None else first_s)
        documents = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in zip(numbers, requests, strict=True)
        ]
        self._socket.sendall(b"".join(messages.frame(messages.dumps(one)) for one in documents))
        answers = [self._message()]
        self._socket.settimeout(timeout)
        answers += [self._message() for _ in requests[1:]]
        # Answers come in any order, each with the number of its request first. An answer without a
        # number is an error that stands for all.
        begins = [b'{"jsonrpc":"2.0","id":%d,' % number for number in numbers]
        return [next((o for o in answers if o.startswith(b)), answers[0]) for b in begins]

    def _message(self) -> bytes:
        length = self._length()
        body = self._answers.read(length)
        if len(body) < length or messages.is_stopping(body):
            raise EOFError
        return body

    def _length(self) -> int:
        """Read a header, and return the length of the message after it."""
        return messages.read_length(b"".join(iter(self._line, b"\r\n")), most=None)

    def _line(self) -> bytes:
        line = self._answers.readline(messages.MAX_HEADER)
        if not line.endswith(b"\n"):
            raise EOFError
        return line
