"""A connection to the server of a remote home, over ssh."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from crystalmath.errors import Unreachable, shown
from crystalmath.remotes.answer_checks import unusable
from crystalmath.remotes.ssh import Link, ask_nobody
from crystalmath.server.endpoint import Connection
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystalmath.remotes.remote_home import RemoteHome
    from crystalmath.server.endpoint import Request

#: How long the first answer may take, in seconds: a server may have to start there, and the user
#: may have to type a password and a second factor.
FIRST_S, TYPED_S = 120.0, 300.0
#: How many bytes may come before the first answer, as a shell's greeting.
BANNER = 16 * 2**10
#: How long a program that has written something else may take to end with a message, in seconds.
_TALKS_S = 0.3
#: The largest answer, in bytes.
MOST = 512 * 2**20

_HELLO: Request = ("system.version", {})
_HEADER = b"Content-Length:"
#: The beginning of each answer, as our server writes it.
_ANSWER = re.compile(rb'\{"jsonrpc":"2\.0","id":(?:\d+|null),"(?:result|error)":\{')


class SshConnection(Connection):
    """A connection over ssh, which asks for the server's version with its first request.

    `check` gets the message that answers, and raises an error if that server is not to be used.
    """

    def __init__(self, remote: RemoteHome, check: Callable[[bytes], object]) -> None:
        self._remote = remote
        self._check = check
        self._is_checked = False
        self._link = Link(remote, "serve", "--stdio")
        super().__init__(self._link.socket)
        self._banner: bytes | None = b""

    def close(self) -> None:
        """End ssh."""
        super().close()
        self._link.close()

    def abort(self) -> None:
        """End ssh from another thread, even while it looks for the other machine."""
        super().abort()
        self._link.abort()

    def ask_both(
        self,
        requests: Sequence[Request],
        timeout: float,
        first_s: float | None = None,
    ) -> list[bytes]:
        """Send requests together, as `Connection` does.

        `Unreachable`: there is no server of ours.
        """
        if self._is_checked:
            return super().ask_both(requests, timeout, first_s)
        first_s = TYPED_S if self._link.may_ask else min(timeout, FIRST_S)
        try:
            hello, *answers = super().ask_both([_HELLO, *requests], timeout, first_s)
        except BrokenPipeError:  # ssh has ended before the request
            raise self._link.failure(self._banner or b"") from None
        self._check(hello)
        self._is_checked = True
        ask_nobody(self._remote)  # a later question would come where nobody expects it
        return answers

    def _message(self) -> bytes:
        try:
            body = super()._message()
        except messages.WireError as error:
            if self._banner is None:
                raise unusable(self._remote.name, error) from error
            raise self._link.failure(self._banner or str(error).encode(), _TALKS_S) from error
        except TimeoutError as error:
            if self._banner is None:
                raise
            raise Unreachable(f"{self._remote} does not answer in time") from error
        except (OSError, EOFError):
            if self._banner is None:
                raise
            # The socket was reset because ssh ended, and ssh has said why.
            raise self._link.failure(self._banner) from None
        if not _ANSWER.match(body):
            if self._banner is None:  # it would answer so again
                raise unusable(self._remote.name, f"it is {shown(body[:BANNER])}")
            raise self._link.failure(body[:BANNER], _TALKS_S)
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
