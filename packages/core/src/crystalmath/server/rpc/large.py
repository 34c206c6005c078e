"""Large messages and answers: few of them are in memory at once, over all connections.

A large message is read once there is room for it, and meanwhile its client waits. An answer that
may be large is made once its connection has sent the one before; few of a method are made at once.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from crystalmath.server.pools import in_slices
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

Part: TypeAlias = bytes | messages.Stream

#: Messages of more bytes are decoded, and their parameters checked, in a thread.
IN_THREAD = 32 * 2**10
#: Messages of more bytes are read once there is room; smaller ones never wait for it.
LARGE = 2**20
#: The room for large messages, in bytes of their text; decoded, they take eight times as much.
ROOM = 16 * 2**20
#: How many answers of one method that may be large are made at once.
_AT_ONCE = 2
#: This much of an answer is encoded at once, in about a millisecond; threads encode the rest.
_BLOCK = 32 * 2**10


class Memory:
    """The limits of all connections together: room for large messages, turns to make answers."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._used = 0
        self._line = asyncio.Lock()
        self._freed = asyncio.Event()
        #: The turns to make a large answer, by method.
        self.turns: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
        #: Whether a large message or answer was in memory since this was reset.
        self.was_used = False

    async def take(self, size: int) -> None:
        """Wait in line for room; a message that is larger than all of it is read alone."""
        async with self._line:
            while self._used and self._used + size > self._room:
                self._freed.clear()
                await self._freed.wait()
            self._used += size

    def free(self, size: int) -> None:
        """Return room."""
        self._used -= size
        self._freed.set()


class Request:
    """A request with its share of the memory: room for its message, turns to make its answer."""

    def __init__(self, memory: Memory, connection: asyncio.Lock, length: int) -> None:
        self.method = ""
        self.is_large = length > IN_THREAD
        self._length = length
        self._memory = memory
        self._connection = connection  # the lock that lets it make one large answer at a time
        self._room = 0
        self._turns: list[asyncio.Lock | asyncio.Semaphore] = []

    async def take_room(self) -> None:
        """Wait until the message may be read."""
        await self._memory.take(self._length)
        self._room = self._length
        self._memory.was_used = True

    async def take_turns(self) -> None:
        """Wait until the answer may be made."""
        if not self._turns:
            self._memory.was_used = True
            for turn in (self._connection, self._memory.turns[self.method]):
                await turn.acquire()
                self._turns.append(turn)

    def is_made(self) -> None:
        """Let other connections make theirs; the next of this one waits until this one is sent."""
        self._leave(turns=1)

    def close(self) -> None:
        """Return room and turns."""
        self._leave(turns=0)

    def _leave(self, turns: int) -> None:
        if self._room:
            self._memory.free(self._room)
            self._memory.was_used = True
            self._room = 0
        while len(self._turns) > turns:
            self._turns.pop().release()
            self._memory.was_used = True


#: The request that is being carried out; `None` where there is no server.
present: contextvars.ContextVar[Request | None] = contextvars.ContextVar("present", default=None)


async def turn() -> None:
    """Wait until the present request may make an answer that may be large."""
    if (request := present.get()) is not None:
        await request.take_turns()


def rest() -> None:
    """Return the turn of the present request, before it waits for something."""
    if (request := present.get()) is not None:
        request.close()


async def encoded(document: Mapping[str, Any]) -> list[Part]:
    """Encode a message; a large one in threads."""
    pieces = messages.pieces(document)
    parts, is_whole = _block(pieces)
    return parts if is_whole else await in_slices("computing", _rest(parts, pieces))


def _rest(parts: list[Part], pieces: Iterator[Part]) -> Generator[None, None, list[Part]]:
    is_whole = False
    while not is_whole:
        more, is_whole = _block(pieces)
        parts += more
        yield
    return parts


def _block(pieces: Iterator[Part]) -> tuple[list[Part], bool]:
    """Encode the next block, or up to the end; return also whether that was the end."""
    parts: list[Part] = []
    text: list[bytes] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, messages.Stream):
            parts += [b"".join(text), piece]
            text = []
            continue
        text.append(piece)
        size += len(piece)
        if size > _BLOCK:
            break
    return [*parts, b"".join(text)], size <= _BLOCK
