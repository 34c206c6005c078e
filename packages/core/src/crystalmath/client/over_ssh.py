"""Asks the server of a home on another machine, over SSH."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from crystalmath.client.client_errors import ConnectionLost
from crystalmath.client.handshake import check_remote
from crystalmath.client.home_reader import HomeReader
from crystalmath.client.remote import HELLO_S, Connected, Connection, is_repeatable
from crystalmath.client.transport import read_result
from crystalmath.errors import Unreachable
from crystalmath.remotes.ssh import Link
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.remotes.remote_home import RemoteHome

_LOG = logging.getLogger("crystalmath.client")

#: How long the first answer may take, in seconds: a server may have to start there, and the user
#: may have to type a password and a second factor.
FIRST_S, TYPED_S = 120.0, 300.0
#: How many bytes may come before the first answer, as a shell's greeting.
BANNER = 16 * 2**10
#: The largest answer, in bytes.
MOST = 512 * 2**20
#: The first and the longest pause before a lost connection is made again, in seconds, and how long
#: a request waits for it.
PAUSE_S, LONGEST_S, LOST_S = 0.5, 30.0, 900.0

_HELLO: tuple[str, Mapping[str, Any]] = ("system.version", {})
_HEADER = b"Content-Length:"
_ANSWER = b'{"jsonrpc":"2.0",'


class SshConnection(Connection):
    """A connection over ssh, which checks the server together with its first request."""

    def __init__(self, remote: RemoteHome) -> None:
        self._remote = remote
        self._link = Link(remote, "serve", "--stdio")
        super().__init__(self._link.socket)
        self._banner: bytes | None = b""
        #: The answer of ``system.version``, once it is there.
        self.version: dict[str, Any] = {}

    def close(self) -> None:
        """End ssh."""
        super().close()
        self._link.close()

    def ask_both(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        timeout: float,
        first_s: float | None = None,
    ) -> list[bytes]:
        """Send requests together, as `Connection` does.

        `Unreachable`: there is no server of ours. `ProtocolMismatch`: it is of another release.
        """
        if self.version:
            return super().ask_both(requests, timeout, first_s)
        first_s = TYPED_S if self._link.may_ask else FIRST_S
        hello, *answers = super().ask_both([_HELLO, *requests], timeout, first_s)
        self.version = read_result(hello)
        check_remote(self.version, self._remote)
        self._link.begun()
        return answers

    def _message(self) -> bytes:
        try:
            body = super()._message()
        except messages.WireError as error:
            raise self._link.failure(self._banner or str(error).encode()) from error
        except TimeoutError as error:
            if self._banner is None:
                raise
            raise Unreachable(f"{self._remote} does not answer in time") from error
        except (OSError, EOFError) as error:
            if self._banner is None:
                raise
            raise self._link.failure(self._banner) from error
        if not body.startswith(_ANSWER):
            raise self._link.failure(body[:BANNER])
        self._banner = None
        return body

    def _length(self) -> int:
        begin = self._skipped() if self._banner is not None else b""
        header = begin + b"".join(iter(self._line, b"\r\n"))
        return messages.read_length(header, most=MOST)

    def _skipped(self) -> bytes:
        """Skip what comes before the first header, and return the beginning of the header."""
        self._banner = b""
        begun = time.monotonic()
        while True:
            line = self._answers.readline(BANNER)
            before, mark, after = line.partition(_HEADER)
            self._banner += before
            if mark:
                return mark + after
            if not line:
                raise EOFError
            if len(self._banner) >= BANNER or time.monotonic() - begun > TYPED_S:
                raise messages.WireError("no message of the server begins")


class OverSsh(Connected):
    """The server of a remote home; it is started there if none runs.

    If the connection is lost, requests that can be repeated are sent again once there is another.
    That includes submissions, because each gets a key. A `waiting` transport raises
    `ConnectionLost` instead, as those who wait for jobs ask again anyway. One that only `reads`
    checks the server together with its first request.
    """

    def __init__(self, remote: RemoteHome, *, waiting: bool = False, reads: bool = False) -> None:
        self.remote = self._remote = remote
        self._waiting = waiting
        self._reads = reads
        self._home = ""
        self._failures = 0
        self._ending = threading.Event()
        super().__init__()

    def __str__(self) -> str:
        return f"the server of {self._remote}"

    def _log(self) -> str:
        return self._remote.path(f"{self._home}/server/log")

    def for_waiting(self) -> OverSsh:
        """Return another transport to this server, for waiting."""
        return OverSsh(self._remote, waiting=True)

    def close(self) -> None:
        """Close the connections, and end ssh."""
        self._ending.set()
        super().close()

    def _connect(self) -> Connection:
        if self._failures:
            self._ending.wait(min(PAUSE_S * 2 ** min(self._failures, 10), LONGEST_S))
            self._check()
        self._failures += 1
        connection = SshConnection(self._remote)
        try:
            if not self._reads:
                connection.ask_both([], HELLO_S)
                self._note(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep(self, connection: Connection) -> None:
        self._note(connection)
        super()._keep(connection)

    def _note(self, connection: Connection) -> None:
        if isinstance(connection, SshConnection):
            self._home = str(connection.version.get("home"))
        self._failures = 0

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result; a submission without a key gets one."""
        sent, ours = keyed(method, params)
        result = super().call(method, sent, timeout)
        answers = result.get("jobs", [result])
        for at in ours:
            answers[at].pop("known", None)  # as without a key
        return result

    def message(self, method: str, params: Mapping[str, Any], timeout: float | None) -> bytes:
        """Ask the server, and again after a lost connection if a repetition does no harm."""
        lost_at: float | None = None
        while True:
            try:
                answer = super().message(method, params, timeout)
            except (ConnectionLost, Unreachable) as error:
                first = not self._home
                late = isinstance(error.__cause__, TimeoutError)
                if first or late or not is_repeatable(method, params):
                    raise
                if self._waiting:
                    raise ConnectionLost(str(error)) from error
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                    _LOG.warning("%s; trying again", error)
                elif now - lost_at > LOST_S:
                    raise ConnectionLost(str(error)) from error
            else:
                if lost_at is not None:
                    _LOG.warning("%s answers again", self)
                return answer


def keyed(method: str, params: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[int]]:
    """Add a key to each submission without one, so that a request sent twice makes one job.

    Returns the parameters, and the numbers of the jobs that got a key.
    """
    if method == "jobs.submit_many" and isinstance(params.get("jobs"), list):
        jobs, many = list(params["jobs"]), True
    elif method == "jobs.submit":
        jobs, many = [params], False
    else:
        return params, []
    name = secrets.token_hex(16)
    ours = [at for at, job in enumerate(jobs) if job.get("key") is None]
    for at in ours:
        jobs[at] = {**jobs[at], "key": f"{name}-{at}"}
    return ({**params, "jobs": jobs} if many else jobs[0]), ours


class RemoteReader(HomeReader):
    """Reads about the jobs of a remote home with requests to its server."""

    def __init__(self, remote: RemoteHome) -> None:
        self._transport = OverSsh(remote, reads=True)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def require_build(self) -> None:
        """Do nothing: the first answer has the version."""

    def _answered(self, of_server: Callable[[], Any], *_: object) -> Any:
        return of_server()

    def message(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Send a request to the server, and return its answer."""
        return self._transport.message(method, params, timeout)
