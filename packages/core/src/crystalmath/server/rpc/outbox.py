"""Writing messages: whole, one after another, and never so much at once that others wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from crystalmath.server.rpc import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Outbox"]

#: What is handed to the kernel at once; others are served between two of these.
_CHUNK = 256 * 2**10

#: What is encoded at once; it takes about a millisecond, and another's request takes some turns.
_BLOCK = 32 * 2**10

#: A client must take some of what it is sent within this time, in seconds.
_STALL_S = 60.0


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

    async def send(self, document: Mapping[str, Any]) -> None:
        """Send a message, whole and between others.

        Raises
        ------
        ConnectionError, TimeoutError
            The client is gone, or takes nothing.
        crystalmath.server.rpc.wire.WireError
            It is no JSON; nothing was sent.
        """
        async with self._turn:
            # Not before: with a client that does not read, all that waits would be there twice.
            blocks = await _encode(document)
            # A small message is whole before anything can come between, a cancellation too.
            self._writer.write(wire.header(sum(map(len, blocks))))
            for block in blocks:
                view = memoryview(block)
                for start in range(0, len(block), _CHUNK):
                    await self._write(view[start : start + _CHUNK])

    async def _write(self, chunk: memoryview) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(chunk)
        try:
            async with asyncio.timeout(_STALL_S):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise


async def _encode(document: Mapping[str, Any]) -> list[bytes]:
    """Encode a message in blocks, and let others come between two of them."""
    blocks: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for piece in wire.pieces(document):
        parts.append(piece)
        size += len(piece)
        if size > _BLOCK:
            blocks.append(b"".join(parts))
            parts, size = [], 0
            await asyncio.sleep(0)
    blocks.append(b"".join(parts))
    return blocks
