"""All connections of one server: who may come in, and how much all of them may hold at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from crystalmath.server.rpc.dispatch import Dispatcher
from crystalmath.server.rpc.large import Memory
from crystalmath.server.rpc.messages import BUSY, REFUSED, RpcError
from crystalmath.server.rpc.session import FIRST_S, Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.server.rpc.declare import Method

_LOG = logging.getLogger("crystalmath.server")

#: How many connections there may be at once; and how many more that only ask for what begins with
#: `_SYSTEM`, for so many seconds each.
MAX_CONNECTIONS = 256
_SPARE = 16
_SPARE_S = 5.0
_SYSTEM = "system."

#: A connection on which nothing has happened for so long is closed, in seconds.
IDLE_S = 3600.0

#: How many bytes of memory decoded messages may take.
ROOM = 128 * 2**20


class Connections:
    """The connections of one server, which writes large messages to files in a folder."""

    def __init__(
        self,
        server: Any,
        methods: Mapping[str, Method],
        folder: Path,
        *,
        most: int = MAX_CONNECTIONS,
        first_s: float = FIRST_S,
        idle_s: float = IDLE_S,
        room: int = ROOM,
    ) -> None:
        self._dispatcher = Dispatcher(methods)
        self._server = server
        self._most = most
        self._first_s = first_s
        self._idle_s = idle_s
        self.memory = Memory(room, folder)
        self._sessions: dict[asyncio.Task[Any], Session] = {}

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._sessions)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends (for `asyncio.start_unix_server`)."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio calls this in a task of its own
        spare = len(self._sessions) >= self._most
        session = self._session(reader, writer, spare=spare)
        uid = peer_uid(writer.get_extra_info("socket"))
        if uid != os.getuid():
            _LOG.warning("refused a connection of user id %s", uid)
            await session.leave(RpcError(REFUSED, "this server serves its own user only"))
        elif len(self._sessions) >= self._most + _SPARE:
            _LOG.warning("refused a connection: there are %s", len(self._sessions))
            await session.leave(RpcError(REFUSED, BUSY, data={"code": "busy"}))
        else:
            self._sessions[task] = session
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SPARE_S if spare else None):
                        await session.run()
            finally:
                del self._sessions[task]

    def _session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, spare: bool
    ) -> Session:
        return Session(
            self._server,
            self._dispatcher,
            self.memory,
            reader,
            writer,
            first_s=_SPARE_S if spare else self._first_s,
            idle_s=_SPARE_S if spare else self._idle_s,
            may_only=_SYSTEM if spare else "",
        )

    async def close(self) -> None:
        """Take no more messages, let requests end for a moment, and close every connection."""
        for session in self._sessions.values():
            session.stop()
        if self._sessions:
            # Each session limits its own end; this wait only gathers them.
            await asyncio.wait(list(self._sessions))


def peer_uid(connection: socket.socket) -> int:
    """Return whose process is at the other end, as the kernel knows it."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
