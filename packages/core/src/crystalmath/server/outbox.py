"""Writing messages: whole, one after another, and never so much at once that others wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from crystalmath import wire
from crystalmath.server.pools import in_pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.budget import Share

__all__ = ["Outbox", "Text"]

#: What is handed to the kernel at once; others are served between two of these.
_CHUNK = 64 * 2**10

#: What is encoded at once; it takes about a millisecond, and another's request takes some turns.
_BLOCK = 32 * 2**10

#: A client must take some of what it is sent within this time, in seconds.
_STALL_S = 60.0


class Text:
    """A message that is encoded.

    Parameters
    ----------
    parts : list of bytes or Stream
        One after another.
    """

    def __init__(self, parts: list[bytes | wire.Stream]) -> None:
        self.parts = parts
        #: How many bytes are in memory.
        self.held = sum(len(part) for part in parts if isinstance(part, bytes))
        self.size = self.held + sum(p.size for p in parts if isinstance(p, wire.Stream))

    @classmethod
    async def of(cls, document: Mapping[str, Any]) -> Text:
        """Encode a message in blocks, and let others come between two of them.

        Raises
        ------
        crystalmath.wire.WireError
            It is no JSON.
        """
        parts: list[bytes | wire.Stream] = []
        block: list[bytes] = []
        size = 0
        for piece in wire.pieces(document):
            if isinstance(piece, wire.Stream):
                parts += [b"".join(block), piece]
                block, size = [], 0
                continue
            block.append(piece)
            size += len(piece)
            if size > _BLOCK:
                parts.append(b"".join(block))
                block, size = [], 0
                await asyncio.sleep(0)
        parts.append(b"".join(block))
        return cls(parts)


class Outbox:
    """The writing end of a connection.

    Parameters
    ----------
    writer : asyncio.StreamWriter
        The connection.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._turn = asyncio.Lock()

    async def send(self, text: Text, share: Share) -> None:
        """Send a message, whole and between others.

        Raises
        ------
        ConnectionError, TimeoutError
            The client is gone, or takes nothing, or too little while others wait for room.
        """
        async with self._turn:
            # A small message is whole before anything can come between, a cancellation too.
            self._writer.write(wire.header(text.size))
            for part in text.parts:
                if isinstance(part, wire.Stream):
                    await self._pass_on(part, share)
                else:
                    await self._write(part, share)

    async def _pass_on(self, stream: wire.Stream, share: Share) -> None:
        left = stream.size
        while left:
            chunk = await in_pool("files", next, stream.chunks, b"")
            left -= len(chunk)
            if not chunk or left < 0:
                self._writer.transport.abort()
                raise ConnectionAbortedError("a file changed while it was sent")
            await self._write(chunk, share)

    async def _write(self, data: bytes, share: Share) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _CHUNK):
            if self._writer.is_closing():
                raise ConnectionResetError
            self._writer.write(view[start : start + _CHUNK])
            try:
                await share.patiently(self._writer.drain, _STALL_S)
            except TimeoutError:
                self._writer.transport.abort()
                raise
