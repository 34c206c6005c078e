"""Large messages and answers: a file holds them while they wait, and memory few of them at once.

A large message is written to a temporary file as it arrives, and decoded once there is room for it.
An answer that may be large is made once its connection has sent the one before, and few of a method
are made at once. Its text is written to a temporary file: a client that reads slowly holds a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import tempfile
import threading
from collections import defaultdict
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from crystalmath.server.pools import afterwards, in_pool, in_slices
from crystalmath.wire import messages
from crystalmath.wire.messages import REFUSED, RpcError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
    from pathlib import Path

Part: TypeAlias = bytes | messages.Stream

#: From how many bytes on a message needs room, and is decoded in a thread.
LARGE = 32 * 2**10
#: From how many bytes on a message or an answer is written to a file.
IN_FILE = 256 * 2**10
#: Messages of more bytes have a room of their own: smaller ones do not wait for them.
_LARGEST = 2**20
#: How often a message is in memory while it is carried out: its bytes, its values, what is made of
#: them. Small values take more, and large ones less.
_COPIES = 8
#: How many answers of one method that may be large are made at once.
_AT_ONCE = 2
#: What is encoded at once, in about a millisecond; the rest of an answer is encoded in threads.
_BLOCK = 32 * 2**10


class Room:
    """So many bytes; a size that does not fit waits for its turn, and any size fits alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._line = asyncio.Lock()
        self._left = asyncio.Event()

    async def take(self, size: int) -> None:
        """Take bytes as soon as they are left."""
        async with self._line:
            while self._used and self._used + size > self._size:
                self._left.clear()
                await self._left.wait()
            self._used += size

    def leave(self, size: int) -> None:
        """Return bytes."""
        self._used -= size
        self._left.set()


class Memory:
    """What all connections of a server may have in memory: so many bytes of decoded messages.

    Messages of more than 1 MiB have as many again. Files lie in the folder that is named, and of
    answers so many are open: a process may have 1024, and each connection takes up to two.
    """

    def __init__(self, room: int, folder: Path, files: int = 200) -> None:
        self.folder = folder
        self.files = threading.Semaphore(files)
        self.rooms = Room(room), Room(room)
        self.answers: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_AT_ONCE)
        )
        #: Whether any of it was used since this was reset.
        self.was_used = False


class Request:
    """What one request has of the memory: room for its message, and the turn to make an answer.

    While it has room, it waits for no client that reads slowly: others would wait for it, too.
    """

    def __init__(self, memory: Memory, connection: asyncio.Lock) -> None:
        self.method = ""
        self.is_large = False
        self._memory = memory
        self._connection = connection  # which has one answer that may be large at a time
        self._room: tuple[Room, int] | None = None
        self._turns: list[asyncio.Lock | asyncio.Semaphore] = []

    async def take_room(self, length: int) -> None:
        """Wait for room for a message of so many bytes."""
        self.is_large = self._memory.was_used = True
        room, size = self._memory.rooms[length > _LARGEST], _COPIES * length
        await room.take(size)
        self._room = room, size

    async def take_turn(self) -> None:
        """Wait until the answer may be made."""
        if self._turns:
            return
        self._memory.was_used = True
        turns: list[asyncio.Lock | asyncio.Semaphore] = [self._memory.answers[self.method]]
        if self._room is None:
            turns.insert(0, self._connection)
        for turn in turns:
            await turn.acquire()
            self._turns.append(turn)

    def is_made(self) -> None:
        """Let others make theirs: of the message and the answer only the text is left."""
        self._leave(int(self._connection in self._turns))

    def close(self) -> None:
        """Return room and turn."""
        self._leave(0)

    def _leave(self, kept: int) -> None:
        if self._room:
            room, size = self._room
            room.leave(size)
            self._room = None
            self._memory.was_used = True  # what was freed may be looked at again
        while len(self._turns) > kept:
            self._turns.pop().release()
            self._memory.was_used = True


#: The request that is being carried out; `None` where there is no server.
present: contextvars.ContextVar[Request | None] = contextvars.ContextVar("present", default=None)


async def turn() -> None:
    """Wait until the present request may make an answer that may be large."""
    if (request := present.get()) is not None:
        await request.take_turn()


def rest() -> None:
    """Return what the present request has of the memory, before it waits for something."""
    if (request := present.get()) is not None:
        request.close()


async def receive(
    exactly: Callable[[int], Awaitable[bytes]], length: int, stall_s: float, folder: Path
) -> IO[bytes]:
    """Write a large message to a file as it arrives; `RpcError`: the file cannot be written.

    The message was read then: a client that still sends would never read the error.
    """
    file: IO[bytes] | None = None
    failed: str | None = None
    try:
        for start in range(0, length, IN_FILE):
            async with asyncio.timeout(stall_s):
                part = await exactly(min(IN_FILE, length - start))
            try:
                if failed is None:
                    file = await in_pool("receiving", _written, file, part, folder)
            except OSError as error:
                failed = error.strerror
    except BaseException:
        if file is not None:
            afterwards("receiving", file.close)
        raise
    if failed is not None or file is None:
        raise RpcError(
            REFUSED,
            f"a large message cannot be kept in {folder} ({failed}); make room there, and ask "
            "again",
            data={"code": "disk_full"},
        )
    return file


def _written(file: IO[bytes] | None, part: bytes, folder: Path) -> IO[bytes]:
    file = file or tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it is closed once it is read
    try:
        file.write(part)
        file.flush()  # what does not fit is told now, not when it is read
    except OSError:
        with contextlib.suppress(OSError):  # it tries to write the rest
            file.close()
        raise
    return file


def read(body: bytes | IO[bytes]) -> Any:
    """Decode a message."""
    if isinstance(body, bytes):
        return messages.loads(body)
    with body:
        body.seek(0)
        return messages.loads(body.read())


async def encoded(memory: Memory, document: Mapping[str, Any]) -> list[Part]:
    """Encode a message; a large one in threads, and into a file."""
    pieces = messages.pieces(document)
    parts, is_whole = _block(pieces)
    return parts if is_whole else await in_slices("computing", _rest(memory, parts, pieces))


def _rest(
    memory: Memory, parts: list[Part], pieces: Iterator[Part]
) -> Generator[None, None, list[Part]]:
    is_whole = False
    while not is_whole:
        more, is_whole = _block(pieces)
        parts += more
        yield
    text = [part for part in parts if isinstance(part, bytes)]
    size = sum(map(len, text))
    # Beside a stream, a result of its own file, stand a few members: they stay in memory.
    if size <= IN_FILE or len(text) < len(parts) or not memory.files.acquire(blocking=False):
        return parts
    try:
        chunks = _chunks(memory, text)
        next(chunks)
    except OSError:
        return parts  # in memory it may still be sent
    return [messages.Stream(size, chunks, "computing")]


def _chunks(memory: Memory, text: list[bytes]) -> Generator[bytes, None, None]:
    """Write text to a file; then read it again."""
    try:
        with tempfile.TemporaryFile(dir=memory.folder) as file:
            file.writelines(text)
            file.seek(0)
            text.clear()
            yield b""
            while chunk := file.read(messages.CHUNK):
                yield chunk
    finally:
        memory.files.release()


def _block(pieces: Iterator[Part]) -> tuple[list[Part], bool]:
    """Encode the next block, and what is a stream; tell whether there is no more."""
    parts: list[Part] = []
    block: list[bytes] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, messages.Stream):
            parts += [b"".join(block), piece]
            block = []
            continue
        block.append(piece)
        size += len(piece)
        if size > _BLOCK:
            break
    return [*parts, b"".join(block)], size <= _BLOCK
