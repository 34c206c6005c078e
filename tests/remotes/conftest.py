"""Another machine for the tests of a module, and a home here that names it ``hawk``."""

import contextlib
import json
import re
import shlex
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from commands import finish, limited, start
from remotes.machine import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Yield a machine that the tests of a module share."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.end()


@pytest.fixture
def hawk(machine, home, tmp_path, monkeypatch):
    """Name the machine ``hawk`` in the home here; the tests of a module share a connection."""
    (home / "config.toml").write_text(machine.table())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(machine.folder))
    return machine


@pytest.fixture
def sockets(hawk, monkeypatch):
    """Yield a folder for connections that no other test shares; paths of sockets are short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def there(hawk, cli):
    """Return a function that types a command with --on hawk."""
    return lambda *arguments: cli("--on", "hawk", *arguments)


class Turns:
    """The round trips that a log counts, since they were asked for last."""

    def __init__(self, log):
        self._log = log

    def words(self, delay_s, *there):
        """Return the words of a command that counts them."""
        counting = Path(__file__).with_name("counting.py")
        return [str(word) for word in (sys.executable, counting, self._log, delay_s, *there)]

    def __call__(self):
        count = len(self._log.read_text().splitlines()) if self._log.exists() else 0
        self._log.unlink(missing_ok=True)
        return count


@pytest.fixture
def turns(hawk, home, tmp_path):
    """Count the round trips of commands to the machine."""
    turns = Turns(tmp_path / "turns")
    (home / "config.toml").write_text(hawk.table(command=shlex.join(turns.words(0, hawk.command))))
    return turns


@pytest.fixture
def open_page(hawk):
    """Return a context in which `ui` runs, which yields a function that calls a method as it."""

    @contextlib.contextmanager
    def opened():
        pytest.importorskip("crystalmath_web.app", reason="crystalmath-web is not installed")
        process = start("--on", "hawk", "ui", "--no-browser")
        with limited(process):
            address, _, token = process.stdout.readline().strip().partition("#")
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            headers = {"Origin": address[:-1], "Content-Type": "application/json"}

            def send(path, **body):
                data = json.dumps(body).encode()
                request = urllib.request.Request(address + path, data, headers)
                with browser.open(request) as answer:
                    return json.load(answer)

            with browser.open(address) as page:
                assert page.status == 200
            headers["X-CrystalMath-Key"] = send("session", token=token)["key"]
            yield lambda method, **params: send("call", method=method, params=params)
            process.terminate()
            assert finish(process).code in {0, -15}

    return opened
