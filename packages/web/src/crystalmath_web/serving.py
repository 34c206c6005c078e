"""Serves the page: opens the socket and the browser, and ends the streams."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import webbrowser
from typing import TYPE_CHECKING

import uvicorn

from crystalmath import config
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import connected
from crystalmath.errors import CrystalMathError
from crystalmath.server.endpoint import Place
from crystalmath_web.app import Secrets, create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "127.0.0.1"

#: A private file redirects the browser to the address, because everybody can read command lines.
_REDIRECT = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>CrystalMath jobs</title>
"""


def serve(*, browser: bool, port: int, read_only: bool) -> int:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    browser : bool
        Whether to open a browser, if there is a screen.
    port : int
        The port to listen on; 0: a free one.
    read_only : bool
        Whether to refuse requests that change something.

    Raises
    ------
    CrystalMathError
        The port is taken, or the home's server cannot be reached.
    """
    secrets = Secrets()
    with _listening(port) as listener, connected() as client:
        app, end = create_app(client, secrets, read_only=read_only)
        address = f"http://{HOST}:{listener.getsockname()[1]}/#{secrets.token}"
        output.write(address)
        sys.stdout.flush()
        # The log must not show requests, and uvicorn's own log has nothing else.
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=1, lifespan="off"
        )
        opened = _redirected(address) if browser and _has_screen() else contextlib.nullcontext()
        # uvicorn raises its signal again at the end; as Ctrl-C it removes the token's file, too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt), opened:
            PageServer(settings, end).run(sockets=[listener])
    return 0


class PageServer(uvicorn.Server):
    """A server that ends the streams of its pages when it is stopped.

    Parameters
    ----------
    settings : uvicorn.Config
        The settings of uvicorn.
    end : callable
        Ends the streams.
    """

    def __init__(self, settings: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(settings)
        self._end = end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as uvicorn does."""
        self._end()
        await super().shutdown(sockets)


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise CrystalMathError(
                f"cannot listen on {HOST}:{port}: {error.strerror}; take another --port, or none"
            ) from error
        listener.listen()  # the browser may connect before the server runs
        yield listener


def _has_screen() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _redirected(address: str) -> Iterator[None]:
    """Open a browser on a private file that redirects it to the page."""
    place = Place.of(config.home())
    place.make()
    path: Path = place.directory / f"page-{os.getpid()}.html"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_REDIRECT.format(address=address))
    try:
        if not webbrowser.open(path.as_uri()):
            output.note("no browser could be opened: open the address above")
        yield
    finally:
        path.unlink(missing_ok=True)
