"""Writing messages: whole, one after another, and never so much at once that others wait."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from crystalmath.errors import CrystalMathError
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc import wire

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from crystalmath.server.rpc.budget import Share

_LOG = logging.getLogger("crystalmath.server")

_Part: TypeAlias = bytes | wire.Stream

#: What is handed to the kernel at once; others are served between two of these.
_CHUNK = 64 * 2**10

#: What is encoded at once, in about a millisecond; a message that is larger is encoded in threads.
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

    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts
        sizes = [(len(p), len(p)) if isinstance(p, bytes) else (p.size, wire.CHUNK) for p in parts]
        #: How many bytes it has, and how many of them are in memory.
        self.size, self.held = map(sum, zip(*sizes, strict=True))

    @classmethod
    async def of(cls, document: Mapping[str, Any]) -> Text:
        """Encode a message; a large one in threads.

        Raises
        ------
        crystalmath.server.rpc.wire.WireError
            It is no JSON.
        """
        pieces = wire.pieces(document)
        parts, is_whole = _block(pieces)
        if not is_whole:
            parts += await in_slices("computing", _blocks(pieces))
        return cls(parts)


def _blocks(pieces: Iterator[_Part]) -> Generator[None, None, list[_Part]]:
    parts: list[_Part] = []
    is_whole = False
    while not is_whole:
        more, is_whole = _block(pieces)
        parts += more
        yield
    return parts


def _block(pieces: Iterator[_Part]) -> tuple[list[_Part], bool]:
    """Encode the next block, and what is a stream; tell whether there is no more."""
    parts: list[_Part] = []
    block: list[bytes] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, wire.Stream):
            parts += [b"".join(block), piece]
            block = []
            continue
        block.append(piece)
        size += len(piece)
        if size > _BLOCK:
            break
    return [*parts, b"".join(block)], size <= _BLOCK


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
            # A small message is whole before anything can come between, a cancellation too. Its
            # header goes with it: a client that wakes for that alone has to wait again.
            header = wire.header(text.size)
            for part in text.parts:
                if isinstance(part, wire.Stream):
                    try:
                        await self._pass_on(part, share)
                    finally:
                        part.close()
                else:
                    await self._write(part, share, header)
                    header = b""

    async def _pass_on(self, stream: wire.Stream, share: Share) -> None:
        left = stream.size
        while left:
            try:
                chunk = await in_pool("files", next, stream.chunks, b"")
            except (CrystalMathError, OSError) as error:
                _LOG.error("an answer breaks off: %s", error)
                chunk = b""
            left -= len(chunk)
            if not chunk or left < 0:
                # What was announced cannot be taken back.
                self._writer.transport.abort()
                raise ConnectionAbortedError
            await self._write(chunk, share)

    async def _write(self, data: bytes, share: Share, header: bytes = b"") -> None:
        view = memoryview(data)
        for start in range(0, len(data), _CHUNK):
            if self._writer.is_closing():
                raise ConnectionResetError
            chunk = view[start : start + _CHUNK]
            self._writer.write(chunk if start or not header else header + chunk)
            try:
                await share.patiently(self._writer.drain, _STALL_S)
            except TimeoutError:
                self._writer.transport.abort()
                raise
