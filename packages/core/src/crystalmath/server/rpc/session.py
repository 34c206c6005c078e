"""One connection: read messages, carry them out beside each other, write answers whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from typing import TYPE_CHECKING, Any

from crystalmath.server.rpc import wire
from crystalmath.server.rpc.messages import INVALID_REQUEST, REFUSED, RpcError
from crystalmath.server.rpc.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from crystalmath.server.rpc.budget import Budget
    from crystalmath.server.rpc.dispatch import Dispatcher, Pending
    from crystalmath.server.rpc.messages import Call

__all__ = ["IN_FLIGHT", "Session"]

_LOG = logging.getLogger("crystalmath.server")

#: How many requests of one connection are carried out at once; more are read when one has ended.
IN_FLIGHT = 64

#: From how many bytes on a message needs its share of the budget.
_LARGE = 64 * 2**10

#: A client that begins a message must send all of it within this time, in seconds.
_STALL_S = 60.0

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
    budget : Budget
        For large messages, shared by all connections.
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
        The connection.
    idle_s : float
        Leave when nothing has happened for so long, in seconds.

    Attributes
    ----------
    pending : dict
        The requests that are not answered yet, by their id.
    large : asyncio.Lock
        Held while a large answer is made and written.
    """

    def __init__(
        self,
        server: Any,
        dispatcher: Dispatcher,
        budget: Budget,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        idle_s: float,
    ) -> None:
        self.server = server
        self.pending: dict[Any, Pending] = {}
        self.large = asyncio.Lock()
        self._dispatcher = dispatcher
        self._budget = budget
        self._reader = reader
        self._writer = writer
        self._idle_s = idle_s
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

    async def send(self, document: Mapping[str, Any]) -> None:
        """Send a message, whole and between others.

        Raises
        ------
        ConnectionError, TimeoutError
            The client is gone, or takes nothing.
        crystalmath.server.rpc.wire.WireError
            It is no JSON; nothing was sent.
        """
        await self._outbox.send(document)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification; wait while the client does not take what was sent before.

        Raises
        ------
        ConnectionError
            The client is gone.
        """
        await self.send({"jsonrpc": "2.0", "method": method, "params": params})

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
            await self.send(error.document())
        await self._end()

    def stop(self) -> None:
        """Take no more messages; :meth:`run` ends once the requests have, or soon."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        try:
            while (header := await self._header()) is not None:
                await self._take(wire.read_length(header))
        except wire.WireError as error:
            # Where the next message begins is not known.
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self.send(RpcError(INVALID_REQUEST, str(error)).document())
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
        """Tell whether the client has closed both directions."""
        poll = select.poll()
        try:
            poll.register(self._writer.get_extra_info("socket").fileno(), 0)
        except (OSError, ValueError):  # closed at our end
            return True
        return bool(poll.poll(0))

    # --- reading -----------------------------------------------------------------------------

    async def _header(self) -> bytes | None:
        lines = b""
        while len(lines) <= wire.MAX_HEADER:
            line = await self._line()
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

    async def _line(self) -> bytes:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    return await self._reader.readline()
            except TimeoutError:
                if not self._working and self._background is None:
                    raise
            except ValueError:  # longer than the reader holds
                raise wire.WireError("the message does not begin with a header") from None

    async def _take(self, length: int) -> None:
        """Read a message and begin to carry it out; nothing of it stays here."""
        share = length if length >= _LARGE else 0
        if share:  # it is none that cancels another
            # Before others lack the share: what is in flight may wait for minutes.
            await self._room()
        await self._budget.take(share)
        try:
            try:
                call = await self._dispatcher.read(await self._body(length))
            except RpcError as error:
                await self.send(error.document())
                return
            if self._dispatcher.note(call, self):
                return
            await self._room()
            self._start(call, share)
            share = 0  # the request's own now
        finally:
            self._budget.give_back(share)
        # Its first step comes before the next message, which may cancel it, and others get a turn.
        await asyncio.sleep(0)

    async def _body(self, length: int) -> bytes:
        async with asyncio.timeout(_STALL_S):
            return await self._reader.readexactly(length)

    async def _room(self) -> None:
        """Wait until another request may be carried out."""
        while len(self._working) >= IN_FLIGHT:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(self._working, timeout=_GRACE_S, return_when=first)
            if self._is_gone():
                raise ConnectionResetError

    def _start(self, call: Call, share: int) -> None:
        task = asyncio.create_task(self._dispatcher.answer(call, self))
        self._working.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._working.discard(task)
            self._budget.give_back(share)
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ConnectionError | TimeoutError):
                _LOG.error("%s: %s", call.method, type(error).__name__)

        task.add_done_callback(ended)
