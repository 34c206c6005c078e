"""The site that `nox -s docs` has built, and a browser that sees it."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from page.conftest import axe, chromium

__all__ = ["axe", "chromium", "served", "site"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    """Return the folder of the site."""
    folder = Path(os.environ["SITE"])
    assert (folder / "index.html").exists(), f"{folder} has no site: nox -s docs"
    return folder


@pytest.fixture(scope="session")
def served(site):
    """Return the address of the site on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
