"""Asks a server through connections of one request at a time: that of the home, by its socket."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from crystalmath.client.client_errors import ClientClosed, ConnectionLost
from crystalmath.client.handshake import check_server
from crystalmath.client.transport import Transport, read_result
from crystalmath.errors import ServerNotRunning
from crystalmath.server.endpoint import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystalmath.server.endpoint import Place

#: The time within which a server must answer, in seconds.
ANSWER_S = 300.0

#: The same for its version, which it answers even while it is busy.
HELLO_S = 30.0

#: Idle connections that are kept for later requests.
KEPT = 4


class Connected(Transport):
    """A server, over as many connections as there are requests at a time."""

    #: The place of the server's log.
    log = ""

    def __init__(self) -> None:
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        # A fork needs it, too: the connections are the parent's, and the lock may be held.
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    def open(self) -> None:
        """Connect and check the server; the connection is kept for the first request."""
        self._keep(self._take())

    def close(self) -> None:
        """Close the connections; requests under way end with an error."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.abort()
        for connection in idle:
            connection.close()

    def message(self, method: str, params: Mapping[str, Any], timeout: float | None) -> bytes:
        """Ask the server, and once more if it went away and a repetition does no harm."""
        seconds = ANSWER_S + params.get("timeout_s", 0.0) if timeout is None else timeout
        again = False
        while True:
            connection = self._take()
            try:
                answer = connection.ask(method, params, seconds)
            except (OSError, EOFError) as error:
                self._drop(connection)
                repeatable = is_repeatable(method, params)
                if again or not repeatable or isinstance(error, TimeoutError):
                    raise self._lost(method, seconds, error, once=not repeatable) from error
                again = True
            except BaseException as stopped:  # Ctrl-C: the next request would read its answer
                self._drop(connection)
                if not is_repeatable(method, params):
                    stopped.add_note(_interrupted(method))
                raise
            else:
                self._keep(connection)
                return answer

    def _take(self) -> Connection:
        if os.getpid() != self._process:
            self._reset()
        while True:
            with self._lock:
                self._check()
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._busy.add(connection)
            if connection is None:
                break
            if connection.is_fresh():
                return connection
            self._drop(connection)
        connection = self._connect()
        with self._lock:
            self._busy.add(connection)
        return connection

    def _check(self) -> None:
        if self._closed:
            raise ClientClosed("this client was closed")

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._closed and len(self._idle) < KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()
        self._check()

    def _connect(self) -> Connection:
        """Open a connection, and check the server."""
        raise NotImplementedError

    def _lost(
        self, method: str, seconds: float, error: Exception, *, once: bool = False
    ) -> ConnectionLost:
        if isinstance(error, TimeoutError):
            event = f"has not answered {method} for {seconds:g} s; its log is {self.log}"
        elif once:
            event = (
                f"went away before it answered {method}, and may have carried it out: list the "
                "jobs before you repeat it (a job with a key can be submitted again without harm)"
            )
        else:
            event = f"went away before it answered {method}; its log is {self.log}"
        return ConnectionLost(f"{self} {event}")


class Remote(Connected):
    """The home's server on this host.

    `start` starts a server if none runs. A `waiting` transport starts one only after a crash, so
    that a stopped server stays stopped while clients wait for jobs.
    """

    def __init__(
        self, place: Place, start: Callable[[], object] | None = None, *, waiting: bool = False
    ) -> None:
        self._place = place
        self._start = start
        self._waiting = waiting
        self.log = str(place.log)
        super().__init__()

    def __str__(self) -> str:
        return f"the server of {self._place.home}"

    def for_waiting(self) -> Remote:
        """Return another transport to this server, for waiting."""
        return Remote(self._place, self._start, waiting=True)

    def _connect(self, *, again: bool = True) -> Connection:
        """Open a connection and check the server, which is started if need be."""
        try:
            connection = Connection.to(self._place)
        except ServerNotRunning:
            if self._start is None or (self._waiting and not self._place.has_crashed()):
                raise
            self._start()
            self.is_cold = True
            connection = Connection.to(self._place)
        try:
            version = read_result(connection.ask("system.version", {}, HELLO_S))
            check_server(version, self._place.home)
        except (OSError, EOFError) as error:
            connection.close()
            if again and not isinstance(error, TimeoutError):
                return self._connect(again=False)  # a new server may have taken its place
            raise self._lost("system.version", HELLO_S, error) from error
        except BaseException:
            connection.close()
            raise
        return connection


def _interrupted(method: str) -> str:
    return (
        f"{method} was sent, and the server may still carry it out; crystalmath list shows the jobs"
    )


def is_repeatable(method: str, params: Mapping[str, Any]) -> bool:
    """Return whether a request has the same effect when it is carried out twice."""
    from crystalmath.server import handlers  # needed only if an answer is lost

    return handlers.is_repeatable(method, params)
