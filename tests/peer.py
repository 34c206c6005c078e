"""The other end of a connection, byte by byte; and a server with methods of a test's own."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from crystalmath.server.rpc.declare import Method
from crystalmath.server.rpc.session import Connections
from crystalmath.wire import messages


class Peer:
    """A client that may break any rule."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def send(self, document):
        """Send a message; bytes are its body."""
        body = document if isinstance(document, bytes) else messages.dumps(document)
        self.writer.write(messages.frame(body))

    def request(self, request_id, method, params=None):
        document = {"jsonrpc": "2.0", "id": request_id, "method": method}
        self.send(document if params is None else {**document, "params": params})

    def notify(self, method, params):
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def receive(self):
        """Return the next message, or None where the server has closed the connection."""
        async with asyncio.timeout(60):
            try:
                header = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            return messages.loads(await self.reader.readexactly(messages.read_length(header)))

    async def call(self, method, params=None, request_id="call"):
        """Return the result of a request, or its error."""
        self.request(request_id, method, params)
        answer = await self.receive()
        assert answer["id"] == request_id
        return answer.get("result", answer.get("error"))


def method(handler, **more):
    """Declare a handler that looks at nothing."""
    blank = {"name": handler.__name__, "types": dict, "summary": "", "description": ""}
    return Method(**blank, handler=handler, **more)


@contextlib.asynccontextmanager
async def serving(methods, server=None, **options):
    """Serve methods; give a function that connects a `Peer`, and has the `connections`."""
    peers = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "socket"))
        server = server or SimpleNamespace(service=None)
        connections = Connections(server, methods, **options)
        listening = await asyncio.start_unix_server(connections, path)

        async def connect():
            peers.append(Peer(*await asyncio.open_unix_connection(path, limit=2**20)))
            return peers[-1]

        opened: Any = connect
        opened.path = path
        opened.connections = connections
        try:
            yield opened
        finally:
            listening.close()
            await connections.close()
            for peer in peers:
                peer.writer.close()
