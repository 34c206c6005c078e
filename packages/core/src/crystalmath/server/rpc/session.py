"""One connection: read messages, carry them out beside each other, write answers whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from functools import partial
from typing import TYPE_CHECKING, Any

from crystalmath.server.pools import Asker, asker
from crystalmath.server.rpc import wire
from crystalmath.server.rpc.messages import INVALID_REQUEST, REFUSED, RpcError
from crystalmath.server.rpc.outbox import Outbox, Text

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from crystalmath.server.rpc.budget import Account, Share
    from crystalmath.server.rpc.dispatch import Dispatcher, Pending
    from crystalmath.server.rpc.messages import Call

_LOG = logging.getLogger("crystalmath.server")

#: How many requests of one connection are carried out at once; more are read when one has ended.
IN_FLIGHT = 64

#: How much of a message is read at once, and has its share of the budget before.
_CHUNK = 256 * 2**10

#: A client that has begun a message must send the header, and then more of it, within this time, in
#: seconds.
_STALL_S = 15.0
#: And within this one while others wait for the room that the message has: it is there to be sent.
_PAUSE_S = 5.0

#: A client must begin with its first message within this time, in seconds.
FIRST_S = 10.0

#: How long requests may go on when the server stops, in seconds.
_GRACE_S = 1.0


class Session:
    """One connection.

    Parameters
    ----------
    server : object
        For handlers; its ``service`` is the job service.
    dispatcher : Dispatcher
        Carries out what comes in.
    account : Account
        For its messages and answers.
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
        The connection.
    first_s : float
        Leave when there was no first message for so long, in seconds.
    idle_s : float
        Leave when nothing has happened for so long, in seconds.
    may_only : str
        How the names of the methods begin that may be called.

    Attributes
    ----------
    pending : dict
        The requests that are not answered yet, by their id.
    """

    def __init__(
        self,
        server: Any,
        dispatcher: Dispatcher,
        account: Account,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        first_s: float = FIRST_S,
        idle_s: float,
        may_only: str = "",
    ) -> None:
        self.server = server
        self.pending: dict[Any, Pending] = {}
        self._dispatcher = dispatcher
        self._account = account
        self._reader = reader
        self._writer = writer
        self._timeout_s = first_s
        self._idle_s = idle_s
        self.may_only = may_only
        self._outbox = Outbox(writer)
        self._working: set[asyncio.Task[None]] = set()
        self._background: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def controller(self) -> Any:
        """The job service."""
        return self.server.service

    # --- for handlers ------------------------------------------------------------------------

    async def send(self, text: Text, share: Share) -> None:
        """Send a message, whole and between others.

        Raises
        ------
        ConnectionError, TimeoutError
            The client is gone, or takes nothing.
        """
        await self._outbox.send(text, share)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification; wait while the client does not take what was sent before.

        Raises
        ------
        ConnectionError, TimeoutError
            The client is gone, or takes nothing.
        """
        await self._tell({"jsonrpc": "2.0", "method": method, "params": params})

    async def _tell(self, document: Mapping[str, Any]) -> None:
        text = await Text.of(document)
        with self._account.share() as share:
            share.settle(text.held)
            await self.send(text, share)

    def in_background(self, work: Coroutine[Any, Any, None] | None) -> None:
        """Do one thing beside the requests until the connection ends, in place of the last one.

        The connection is not idle meanwhile; and where the work fails, it ends, so that the client
        knows.
        """
        if self._background is not None:
            self._background.cancel()
        self._background = None
        if work is not None:
            self._background = asyncio.create_task(work)
            self._background.add_done_callback(self._failed)

    def _failed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            _LOG.error("a subscription failed with %s", type(error).__name__)
            self._writer.close()

    # --- life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the client has left, or broken the frame, or :meth:`stop` was called."""
        asker.set(Asker())
        self._reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait([self._reading])
            await self._finish()
        finally:
            self._reading.cancel()
            await self._end()

    async def leave(self, error: RpcError) -> None:
        """Say why, and close the connection."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._tell(error.document())
        await self._end()

    def cut_off(self) -> None:
        """Close the connection at once, whatever is under way."""
        self._writer.transport.abort()

    def stop(self) -> None:
        """Take no more messages; :meth:`run` ends once the requests have, or soon."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        try:
            while (header := await self._header()) is not None:
                self._timeout_s = self._idle_s
                await self._take(wire.read_length(header))
        except wire.WireError as error:
            # Where the next message begins is not known.
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._tell(RpcError(INVALID_REQUEST, str(error)).document())
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass

    async def _finish(self) -> None:
        """Let requests end; who has only closed its own direction still wants the answers."""
        while self._working and not self._stopping and not self._is_gone():
            await asyncio.wait(self._working, timeout=_GRACE_S)
        if self._working and self._stopping:
            await asyncio.wait(self._working, timeout=_GRACE_S)
            told = RpcError(REFUSED, "the server is stopping", data={"code": "stopping"})
            for pending in list(self.pending.values()):
                pending.cancel(told)
            if self._working:
                await asyncio.wait(self._working, timeout=_GRACE_S)

    async def _end(self) -> None:
        self.in_background(None)
        for task in self._working:
            task.cancel()
        self._writer.close()
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    def _is_gone(self) -> bool:
        """Return whether the client has closed both directions."""
        poll = select.poll()
        try:
            poll.register(self._writer.get_extra_info("socket").fileno(), 0)
        except (OSError, ValueError):  # closed at our end
            return True
        return bool(poll.poll(0))

    # --- reading -----------------------------------------------------------------------------

    async def _header(self) -> bytes | None:
        first = await self._first_byte()
        # All of it, not each line: whoever sends one after the other could go on for ever.
        async with asyncio.timeout(min(self._timeout_s, _STALL_S)):
            return await self._lines(first)

    async def _first_byte(self) -> bytes:
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._reader.read(1)
            except TimeoutError:
                if not self._working and self._background is None:
                    raise

    async def _lines(self, begun: bytes) -> bytes | None:
        lines = b""
        while len(lines) <= wire.MAX_HEADER:
            try:
                line = begun + await self._reader.readline()
            except ValueError:  # longer than the reader holds
                raise wire.WireError("the message does not begin with a header") from None
            begun = b""
            if self._reader.at_eof():
                return None
            if not line.endswith(b"\r\n"):
                raise wire.WireError(
                    f"a header line ends with CRLF, and this does not: {line[:80]!r}; a message"
                    " begins with 'Content-Length: <bytes>' and an empty line"
                )
            if line == b"\r\n":
                return lines
            lines += line
        raise wire.WireError(f"the header is longer than {wire.MAX_HEADER} bytes")

    async def _take(self, length: int) -> None:
        """Read a message and begin to carry it out; nothing of it stays here."""
        if length > _CHUNK:  # it is none that cancels another
            # Before others lack the share: what is in flight may wait for minutes.
            await self._room()
        with contextlib.ExitStack() as stack:
            share = stack.enter_context(self._account.share())
            try:
                call = await self._dispatcher.read(await self._body(length, share), share)
            except RpcError as error:
                await self._tell(error.document())
                return
            if self._dispatcher.note(call, self):
                return
            await self._room()
            self._start(call, share)
            stack.pop_all()  # the share is the request's now
        # Its first step comes before the next message, which may cancel it, and others get a turn.
        await asyncio.sleep(0)

    async def _body(self, length: int, share: Share) -> bytearray:
        body = bytearray()
        while left := length - len(body):
            size = min(left, _CHUNK)
            await share.grow(size)
            part = partial(self._reader.readexactly, size)
            body += await share.patiently(part, _STALL_S, _PAUSE_S)
        return body

    async def _room(self) -> None:
        """Wait until another request may be carried out."""
        while len(self._working) >= IN_FLIGHT:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(self._working, timeout=_GRACE_S, return_when=first)
            if self._is_gone():
                raise ConnectionResetError

    def _start(self, call: Call, share: Share) -> None:
        task = asyncio.create_task(self._dispatcher.answer(call, self, share))
        self._working.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._working.discard(task)
            share.close()
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ConnectionError | TimeoutError):
                _LOG.error("%s: %s", call.method, type(error).__name__)

        task.add_done_callback(ended)
