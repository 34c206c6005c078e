"""A page's server in this process, and requests to it as anybody could make them."""

import contextlib
import http.client
import json
import os
import threading

import pytest

from conftest import LAB, LIGHT, eventually
from crystalmath.client import in_process

TYPE = "application/json"


class Page:
    """A page's server; who it lets in, and how it is asked."""

    def __init__(self, client, *, read_only=False):
        import uvicorn

        from crystalmath_web.app import Secrets, create_app
        from crystalmath_web.serving import PageServer

        self.client = client
        self.secrets = Secrets()
        app, end = create_app(client, self.secrets, read_only=read_only)
        settings = uvicorn.Config(
            app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = PageServer(settings, end)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self):
        self._thread.start()
        eventually(lambda: self._server.started)
        (listener,) = self._server.servers[0].sockets
        self.port = listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()

    @contextlib.contextmanager
    def open(self, method, path, body=None, headers=()):
        """Send a request with exactly these headers, and a length; return its open answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            for name, value in dict(headers).items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(None if body is None else data)
            with connection.getresponse() as answer:
                yield answer

    def ask(self, method, path, body=None, headers=()):
        """Do as `open`, and read the answer: its status, its headers and its content."""
        with self.open(method, path, body, headers) as answer:
            return answer.status, answer.headers, answer.read()

    def own(self, **changed):
        """Return the headers of the page itself, some of which are changed or, if None, missing."""
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": self.origin,
            "Content-Type": TYPE,
            "Cookie": f"crystalmath-{self.port}={self.secrets.cookie}",
            "X-CrystalMath-Key": self.secrets.key,
        }
        return {**headers, **{name.replace("_", "-"): value for name, value in changed.items()}}

    def call(self, method, params=(), **changed):
        """Call a method as the page does; return the status and the document."""
        asked = {"method": method, "params": dict(params)}
        status, _, content = self.ask("POST", "/call", asked, self.own(**changed))
        return status, json.loads(content)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the page of a home, which the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAB)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(LIGHT), os.environ["PYTHONPATH"]]))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        patch.setenv("CRYSTALMATH_HOME", str(tmp_path_factory.mktemp("shared")))
        with in_process() as client, Page(client) as page:
            yield page
