"""The other side of a server under measurement: its process, a bare echo, and raw clients."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from crystalmath.server.endpoint import Place
from crystalmath.server.launch import answers
from crystalmath.wire import messages

__all__ = ["Client", "Echo", "Server", "receive"]

BENCHMARKS = Path(__file__).resolve().parent


async def receive(reader: asyncio.StreamReader) -> bytes:
    """Read the body of one message."""
    header = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(messages.read_length(header, most=None))


class Client:
    """One connection, by nothing but the wire format; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)

    @classmethod
    async def connect(cls, path: str) -> Self:
        """Connect."""
        return cls(*await asyncio.open_unix_connection(path, limit=2**26))

    async def ask(self, method: str, params: dict[str, Any]) -> bytes:
        """Return the body of the answer."""
        document = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        self._writer.write(messages.frame(messages.dumps(document)))
        return await receive(self._reader)

    async def call(self, method: str, **params: Any) -> Any:
        """Return a method's result."""
        answer = messages.loads(await self.ask(method, params), limited=False)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class _Process:
    path: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


class Server(_Process):
    """The server of a home, in a process of its own."""

    def __init__(self, home: Path) -> None:
        environment = os.environ | {"CRYSTALMATH_HOME": str(home)}
        place = Place.of(home, environment)
        place.make()
        self.path = place.address()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crystalmath.server"], env=environment
        )
        while not answers(place):
            if self.process.poll() is not None:
                raise RuntimeError("the server did not come up")
            time.sleep(0.02)


class Echo(_Process):
    """A server that sends back what it gets, in the same frames."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "echo.sock")
        self.process = subprocess.Popen([sys.executable, __file__, self.path])
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if not probe.connect_ex(self.path):
                    return
            time.sleep(0.02)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            writer.write(messages.frame(await receive(reader)))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve(path: str) -> None:
    server = await asyncio.start_unix_server(_echo, path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
