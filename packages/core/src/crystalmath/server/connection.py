"""A connection to a server, which carries one request after the other."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from crystalmath.errors import ServerNotRunning
from crystalmath.server.endpoint import require_socket
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.server.endpoint import Place

#: The name of a method, and its parameters.
Request: TypeAlias = tuple[str, Mapping[str, Any]]


class Connection:
    """One connection, which carries one request after the other."""

    def __init__(self, opened: socket.socket) -> None:
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
        opened = socket.socket(socket.AF_UNIX)
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
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()

    def is_fresh(self) -> bool:
        """Return whether the connection is open and has no unread bytes."""
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
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
