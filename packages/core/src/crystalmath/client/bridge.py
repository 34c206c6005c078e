"""Passes messages between a pair of pipes and the home's server: ``crystalmath serve --stdio``."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from crystalmath.client import launch
from crystalmath.server.endpoint import require_socket

if TYPE_CHECKING:
    from crystalmath.server.endpoint import Place

_CHUNK = 1 << 16


def bridge(place: Place, incoming: int = 0, outgoing: int = 1) -> bool:
    """Pass on what comes in, and what the server answers, until one of both ends.

    The server, which is started if none runs, does not notice more than a client that leaves.

    Parameters
    ----------
    place : Place
        The home's place.
    incoming, outgoing : int
        File descriptors.

    Returns
    -------
    bool
        Whether it was the client that left, not the server.
    """
    # A server serves nobody long who says nothing; an editor may take its time.
    first = os.read(incoming, _CHUNK)
    if not first:
        return True
    if not launch.answers(place):
        launch.start(place)
    with socket.socket(socket.AF_UNIX) as connection:
        path = place.address()
        require_socket(path)
        connection.connect(os.fspath(path))
        connection.sendall(first)
        left = threading.Event()
        threading.Thread(target=_send, args=(incoming, connection, left), daemon=True).start()
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(_CHUNK):
                _write(outgoing, data)
    return left.is_set()


def _send(incoming: int, connection: socket.socket, left: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(incoming, _CHUNK):
            connection.sendall(data)
        left.set()
        # Answers that are under way still come.
        connection.shutdown(socket.SHUT_WR)


def _write(outgoing: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(outgoing, view) :]
