"""Asks the server of a home on another machine, over SSH."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from crystalmath import server
from crystalmath.client.client_errors import ConnectionLost
from crystalmath.client.remote import ANSWER_S, Connected, is_repeatable
from crystalmath.client.transport import read_result, split_last
from crystalmath.errors import Unreachable
from crystalmath.models.job_keys import with_keys
from crystalmath.remotes.answer_checks import check_answer, check_version, reading, versions
from crystalmath.remotes.ssh_connection import SshConnection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.remotes.remote_home import RemoteHome
    from crystalmath.server.endpoint import Connection

_LOG = logging.getLogger("crystalmath.client")

#: The first and the longest pause before a lost connection is made again, in seconds, and how long
#: a request waits for it.
PAUSE_S, LONGEST_S, LOST_S = 0.5, 30.0, 900.0


#: Transports that were opened for a version, until a client takes them.
_kept: dict[RemoteHome, OverSsh] = {}


def version_of(remote: RemoteHome) -> Mapping[str, Any]:
    """Return what ``system.version`` answers there; the connection is kept for the next client."""
    if remote not in versions:
        transport = OverSsh(remote)
        transport.open()
        _kept[remote] = transport
    return versions[remote]


def opened(remote: RemoteHome) -> OverSsh:
    """Return a transport whose server was checked."""
    transport = _kept.pop(remote, None) or OverSsh(remote)
    transport.open()
    return transport


@atexit.register
def _close_kept() -> None:
    for transport in _kept.values():
        transport.close()


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
        connection = SshConnection(self._remote, self._check_version)
        with self._lock:
            self._busy.add(connection)  # `close` in another thread ends it meanwhile
        try:
            self._check()
            if not self._reads:
                connection.ask_both([], ANSWER_S)
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _check_version(self, answer: bytes) -> None:
        version = read_result(answer)
        check_version(self._remote, version)
        self._home, self._failures = str(version.get("home")), 0
        self.log = self._remote.path(f"{self._home}/server/log")

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result; a submission without a key gets one.

        `ProtocolMismatch`: the answer is not as our server writes it.
        """
        sent, ours = with_keys(method, params)
        with reading(self._remote):
            result = super().call(method, sent, timeout)
        check_answer(self._remote, method, params, result)
        for at, answer in enumerate(result.get("jobs", [result]) if ours else ()):
            if at in ours:
                answer.pop("known", None)  # as without a key
        return result

    def call_raw(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Return a method's result as JSON text; `ProtocolMismatch` as in `call`."""
        with reading(self._remote):
            text = super().call_raw(method, params, timeout)
            head = split_last(text, "result")[0] if method == server.JOBS_RESULT else None
        if head is not None:
            check_answer(self._remote, method, params, {**head, "result": None})
        return text

    def message(self, method: str, params: Mapping[str, Any], timeout: float | None) -> bytes:
        """Ask the server, and again after a lost connection if a repetition does no harm."""
        params, _ = with_keys(method, params)
        lost_at: float | None = None
        while True:
            try:
                answer = super().message(method, params, timeout)
            except (ConnectionLost, Unreachable) as error:
                self._failures += 1
                if self._waiting:
                    raise ConnectionLost(str(error)) from error
                late = isinstance(error.__cause__, TimeoutError)
                if not self._home or late or not is_repeatable(method, params):
                    raise
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
