"""The life of a page's server: its socket, its address, the browser, and its end."""

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

#: A browser is sent on by a file of the user's own: its command line can be read by everybody.
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
        Whether to open a browser, where there is a screen.
    port : int
        The port to listen on; 0: a free one.
    read_only : bool
        Whether requests that change something are refused.

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
        # Whoever sees the log must not see who asked for what, and uvicorn's own says no more.
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=1, lifespan="off"
        )
        opened = _sent_on(address) if browser and _has_screen() else contextlib.nullcontext()
        # uvicorn sends itself what has stopped it, whereupon the token's file is removed, too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt), opened:
            PageServer(settings, end).run(sockets=[listener])
    return 0


class PageServer(uvicorn.Server):
    """A server that ends the streams of its pages when it is told to stop.

    Parameters
    ----------
    settings : uvicorn.Config
        How it serves.
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
        listener.listen()  # a browser may be faster than what comes now
        yield listener


def _has_screen() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _sent_on(address: str) -> Iterator[None]:
    """Open a browser on a private file that sends it on to the page."""
    place = Place.of(config.home())
    place.make()
    path: Path = place.directory / f"page-{os.getpid()}.html"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(_REDIRECT.format(address=address))
    try:
        if not webbrowser.open(path.as_uri()):
            output.note("no browser could be opened: open the address above")
        yield
    finally:
        path.unlink(missing_ok=True)
