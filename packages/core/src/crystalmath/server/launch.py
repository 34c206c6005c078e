"""Starts the home's server in the background, and connects pipes to it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath._storage import read_only
from crystalmath.errors import ServerError
from crystalmath.processes import start_process
from crystalmath.server.endpoint import require_socket
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.endpoint import Place

#: How long a server may take to answer, in seconds; another may be leaving meanwhile.
START_S = 90.0
#: How often it is asked, in seconds.
PAUSE_S = 0.02
#: How long a server that is there may take to answer a ping, in seconds.
PING_S = 5.0
#: How much of what a server wrote goes into an error message, in bytes.
TAIL = 2000
_CHUNK = 1 << 16


def start(place: Place) -> None:
    """Start the home's server, and return once one answers: this one, or another's.

    It belongs to no terminal, so that a hang-up does not reach it. `ServerError`: none came up; the
    message has the end of its output. `ServedElsewhere`: a server on another host serves the home.
    `PlaceError`: the place must not be trusted.
    """
    place.make()
    place.address()
    # Errors quote only the output of this server, not that of earlier ones.
    before = {file: _size(file) for file in (place.output, place.log)}
    process = _spawn(place)
    deadline = time.monotonic() + START_S
    while not answers(place):
        # If two are started at the same time, one leaves, and the other is about to answer.
        if process.poll() is not None and place.read_lock() is None:
            raise ServerError(
                f"the server of {place.home} ended with {process.returncode} before it answered"
                f"{_output_since(before)}"
            )
        if time.monotonic() >= deadline:
            raise ServerError(
                f"the server of {place.home} does not answer after {START_S:g} s; its log is "
                f"{place.log}{_output_since(before)}"
            )
        time.sleep(PAUSE_S)
    # Without a wait the child would become a zombie while this process lives on.
    threading.Thread(target=process.wait, daemon=True).start()


def answers(place: Place) -> bool:
    """Return whether the home's server answers."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "system.ping"}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PING_S)
        try:
            path = place.address()
            require_socket(path)
            connection.connect(os.fspath(path))
            connection.sendall(messages.frame(messages.dumps(request)))
            return bool(connection.recv(1))
        except OSError:
            return False


def _spawn(place: Place) -> subprocess.Popen[bytes]:
    # The server leaves the present folder, to which these paths may be relative.
    environment = {**os.environ, "CRYSTALMATH_HOME": str(place.home)}
    if environment.get("CRYSTALMATH_SOCKET"):
        environment["CRYSTALMATH_SOCKET"] = str(place.socket)
    if paths := environment.get("PYTHONPATH"):
        absolute = [os.fspath(Path(path).absolute()) for path in paths.split(os.pathsep) if path]
        environment["PYTHONPATH"] = os.pathsep.join(absolute)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        output = os.open(place.output, flags, 0o600)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES}:
            raise
        raise read_only(place.home, error) from error
    try:
        return start_process(
            # -P: a file of the working directory must never stand in for a library.
            [sys.executable, "-P", "-m", "crystalmath.server"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)


def _output_since(before: Mapping[Path, int]) -> str:
    tails = [tail for file, size in before.items() if (tail := _tail(file, size))]
    return "; it wrote:\n" + "\n".join(tails) if tails else ""


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _tail(file: Path, before: int) -> str:
    """Read the end of a file beyond a size; a smaller file was replaced, and counts as new."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        opened.seek(max(before if before <= size else 0, size - TAIL))
        return opened.read().decode(errors="replace").strip()
    return ""


# --- `crystalmath serve --stdio` -------------------------------------------------------------


def bridge(place: Place, incoming: int = 0, outgoing: int = 1) -> bool:
    """Copy requests to the server and answers back, until either side ends.

    A server is started if none runs. Returns whether the client left, and not the server.
    """
    # A server drops silent connections, and an editor may wait before its first request.
    first = os.read(incoming, _CHUNK)
    if not first:
        return True
    if not answers(place):
        start(place)
    with socket.socket(socket.AF_UNIX) as connection:
        path = place.address()
        require_socket(path)
        connection.connect(os.fspath(path))
        connection.sendall(first)
        left = threading.Event()
        threading.Thread(target=_send, args=(incoming, connection, left), daemon=True).start()
        events = select.poll()
        events.register(connection, select.POLLIN)
        events.register(outgoing, 0)  # only errors: nobody reads any more, as after a lost network
        with contextlib.suppress(ConnectionError):
            while all(number != outgoing for number, _ in events.poll()):
                if not (data := connection.recv(_CHUNK)):
                    break
                _write(outgoing, data)
    return left.is_set()


def _send(incoming: int, connection: socket.socket, left: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(incoming, _CHUNK):
            connection.sendall(data)
        left.set()
        # Answers to earlier requests still come.
        connection.shutdown(socket.SHUT_WR)


def _write(outgoing: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(outgoing, view) :]
