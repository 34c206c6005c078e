"""Connections: read messages, carry them out beside each other, write answers whole.

`Connections` accepts them, and limits how many there are and how much they hold in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError
from crystalmath.server.pools import Share, afterwards, in_pool, share
from crystalmath.server.rpc import large
from crystalmath.server.rpc.dispatch import Dispatcher
from crystalmath.wire import messages
from crystalmath.wire.messages import BUSY, INVALID_REQUEST, REFUSED, RpcError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from crystalmath.server.rpc.declare import Method
    from crystalmath.server.rpc.dispatch import Pending
    from crystalmath.wire.messages import Call

_LOG = logging.getLogger("crystalmath.server")

#: How many requests of one connection are carried out at once; the next is read when one has ended.
IN_FLIGHT = 64

#: A client must begin its first message within this time, in seconds.
FIRST_S = 10.0
#: A client must send a whole header, and each next part of a body, within this time, in seconds.
_RECEIVE_S = 15.0
#: A client must take the next part of an answer within this time, in seconds.
_SEND_S = 60.0
#: How long requests may go on when the server stops, in seconds.
_GRACE_S = 1.0

#: The parts in which messages are sent and received, in bytes; others are served in between.
_CHUNK, _PART = 64 * 2**10, 256 * 2**10

#: How many connections there may be at once.
MAX_CONNECTIONS = 256
#: How many more may call methods of this prefix alone, and for how many seconds each: a script that
#: leaves its connections open must not keep its user from stopping the server.
_SPARE, _SPARE_S = 16, 5.0
_SYSTEM = "system."

#: A connection without any message for this time is closed, in seconds.
IDLE_S = 3600.0


class Session:
    """One connection."""

    def __init__(
        self,
        server: Any,
        dispatcher: Dispatcher,
        memory: large.Memory,
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
        self._memory = memory
        self._reader = reader
        self._writer = writer
        self._timeout_s = first_s
        self._idle_s = idle_s
        self.may_only = may_only
        self._sending, self._turn = asyncio.Lock(), asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()
        self._background: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def controller(self) -> Any:
        """The job service."""
        return self.server.service

    # --- for handlers ------------------------------------------------------------------------

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification, once the client has taken all that was sent before."""
        message = messages.dumps({"jsonrpc": "2.0", "method": method, "params": params})
        async with self._sending:
            # Handed over in one piece: another subscription may cancel this one at any `await`.
            await self._put(messages.frame(message))

    def in_background(self, work: Coroutine[Any, Any, None] | None) -> None:
        """Run one piece of work beside the requests, in place of the last one; or none.

        It ends with the connection, which does not count as idle meanwhile. If the work fails, the
        connection is closed, so that the client notices.
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

    # --- writing -----------------------------------------------------------------------------

    async def _refuse(self, error: RpcError) -> None:
        """Answer a message that has no id, if the client still listens."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self.send([messages.dumps(error.document())])

    async def send(self, parts: Sequence[large.Part]) -> None:
        """Send one message; no other comes between its parts."""
        try:
            async with self._sending:
                await self._send(parts)
        finally:
            for part in parts:
                if isinstance(part, messages.Stream):
                    afterwards("sending", part.close)  # the file system of its file may hang

    async def _send(self, parts: Sequence[large.Part]) -> None:
        # The header goes with the first part: a client that wakes for it alone has to wait again.
        header = messages.header(sum(len(p) if isinstance(p, bytes) else p.size for p in parts))
        for part in parts:
            if isinstance(part, messages.Stream):
                await self._pass_on(part, header)
            else:
                await self._write(header + part)
            header = b""

    async def _pass_on(self, stream: messages.Stream, header: bytes) -> None:
        left = stream.size
        while left:
            try:
                chunk = await in_pool("sending", next, stream.chunks, b"")
            except (CrystalMathError, OSError) as error:
                _LOG.error("an answer breaks off: %s", error)
                chunk = b""
            left -= len(chunk)
            if not chunk or left < 0:
                # The header has announced another length.
                self._writer.transport.abort()
                raise ConnectionAbortedError
            await self._write(header + chunk)
            header = b""

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _CHUNK):
            if self._writer.is_closing():
                raise ConnectionResetError
            await self._put(view[start : start + _CHUNK])

    async def _put(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        if not self._writer.transport.get_write_buffer_size():
            return  # the kernel has taken all of it
        try:
            async with asyncio.timeout(_SEND_S):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise

    # --- life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the client leaves or breaks a frame, or :meth:`stop` is called."""
        share.set(Share())
        self._reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait([self._reading])
            await self._finish()
        finally:
            self._reading.cancel()
            await self._end()

    async def leave(self, error: RpcError) -> None:
        """Answer with an error, and close the connection."""
        await self._refuse(error)
        await self._end()

    def stop(self) -> None:
        """Read no more messages; :meth:`run` then returns with the last request, or soon."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        try:
            while header := await self._header():
                self._timeout_s = self._idle_s
                await self._take(messages.read_length(header))
        except messages.WireError as error:
            # The connection ends: nobody knows where the next message begins.
            await self._refuse(RpcError(INVALID_REQUEST, str(error)))
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass

    async def _finish(self) -> None:
        """Wait for the requests, unless the client is gone: it may have closed its end for writing.

        When the server stops, the requests are cancelled after a moment.
        """
        while self._working and not self._stopping and not self._is_gone():
            await asyncio.wait(self._working, timeout=_GRACE_S)
        if self._working and self._stopping:
            await asyncio.wait(self._working, timeout=_GRACE_S)
            stopping = RpcError(REFUSED, "the server is stopping", data={"code": "stopping"})
            for pending in list(self.pending.values()):
                pending.cancel(stopping)
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
        """Return whether the client has closed its socket for reading and writing."""
        poll = select.poll()
        try:
            poll.register(self._writer.get_extra_info("socket").fileno(), 0)
        except (OSError, ValueError):  # the socket is closed here
            return True
        return bool(poll.poll(0))

    # --- reading -----------------------------------------------------------------------------

    async def _header(self) -> bytes:
        """Read a header, or nothing if the client has left."""
        lines = await self._begin()
        async with asyncio.timeout(min(self._timeout_s, _RECEIVE_S)):
            while lines not in (b"", b"\r\n") and not lines.endswith(b"\r\n\r\n"):
                try:
                    line = await self._reader.readline()
                except ValueError:  # the line is longer than the reader's buffer
                    raise messages.WireError("the message does not begin with a header") from None
                if not line.endswith(b"\n"):
                    return b""
                lines += line
                if not lines.endswith(b"\r\n"):
                    raise messages.WireError(
                        f"a header line ends with CRLF, and this does not: {line[:80]!r}; a message"
                        " begins with 'Content-Length: <bytes>' and an empty line"
                    )
                if len(lines) > messages.MAX_HEADER:
                    raise messages.WireError(
                        f"the header is longer than {messages.MAX_HEADER} bytes"
                    )
        return lines

    async def _begin(self) -> bytes:
        """Wait for the first byte of a message; nothing comes if the client has left."""
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._reader.read(1)
            except TimeoutError:
                if not self._working and self._background is None:
                    raise

    async def _take(self, length: int) -> None:
        """Read a message and begin to carry it out."""
        with contextlib.ExitStack() as stack:
            request = large.Request(self._memory, self._turn, length)
            stack.callback(request.close)
            if length > large.LARGE:
                # Before it takes room: the requests in flight may wait for hours.
                await self._has_place()
                await request.take_room()
            try:
                call = await self._dispatcher.read(await self._body(length))
            except RpcError as error:
                await self.send([messages.dumps(error.document())])
                return
            if self._dispatcher.note(call, self):
                return
            await self._has_place()
            self._start(call, request)
            stack.pop_all()  # the request returns its room itself when it has ended
        # The request begins before the next message, which may cancel it, and others get a turn.
        await asyncio.sleep(0)

    async def _body(self, length: int) -> list[bytes]:
        """Read a body in parts, each within the time limit."""
        parts = []
        for start in range(0, length, _PART):
            async with asyncio.timeout(_RECEIVE_S):
                parts.append(await self._reader.readexactly(min(_PART, length - start)))
        return parts

    async def _has_place(self) -> None:
        """Wait until another request may be carried out."""
        while len(self._working) >= IN_FLIGHT:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(self._working, timeout=_GRACE_S, return_when=first)
            if self._is_gone():
                raise ConnectionResetError

    def _start(self, call: Call, request: large.Request) -> None:
        task = asyncio.create_task(self._dispatcher.answer(call, self, request))
        self._working.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._working.discard(task)
            request.close()
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ConnectionError | TimeoutError):
                _LOG.error("%s: %s", call.method, type(error).__name__)

        task.add_done_callback(ended)


class Connections:
    """The connections of one server."""

    def __init__(
        self,
        server: Any,
        methods: Mapping[str, Method],
        *,
        most: int = MAX_CONNECTIONS,
        first_s: float = FIRST_S,
        idle_s: float = IDLE_S,
        room: int = large.ROOM,
    ) -> None:
        self._dispatcher = Dispatcher(methods)
        self._server = server
        self._most = most
        self._first_s = first_s
        self._idle_s = idle_s
        self.memory = large.Memory(room)
        self._sessions: dict[asyncio.Task[Any], Session] = {}

    @property
    def count(self) -> int:
        """The number of connections."""
        return len(self._sessions)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends (for `asyncio.start_unix_server`)."""
        is_spare = len(self._sessions) >= self._most
        session = Session(
            self._server,
            self._dispatcher,
            self.memory,
            reader,
            writer,
            first_s=self._first_s,
            idle_s=self._idle_s,
            may_only=_SYSTEM if is_spare else "",
        )
        uid = peer_uid(writer.get_extra_info("socket"))
        if uid != os.getuid():
            _LOG.warning("refused a connection of user id %s", uid)
            await session.leave(RpcError(REFUSED, "this server serves its own user only"))
        elif len(self._sessions) >= self._most + _SPARE:
            _LOG.warning("refused a connection: there are %s", len(self._sessions))
            await session.leave(RpcError(REFUSED, BUSY, data={"code": "busy"}))
        else:
            serving = asyncio.create_task(session.run())
            self._sessions[serving] = session
            try:
                async with asyncio.timeout(_SPARE_S if is_spare else None):
                    await serving
            except TimeoutError:
                pass
            finally:
                del self._sessions[serving]

    async def close(self) -> None:
        """Stop all sessions, and wait until they have ended."""
        for session in self._sessions.values():
            session.stop()
        if self._sessions:
            # Each session ends within its own time limits.
            await asyncio.wait(list(self._sessions))


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end, as the kernel knows it."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
