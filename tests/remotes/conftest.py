"""Another machine for the tests of a module, and a home here that names it ``hawk``."""

import re
import sys
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
def there(hawk, cli):
    """Return a function that types a command with --on hawk."""
    return lambda *arguments: cli("--on", "hawk", *arguments)


@pytest.fixture
def turns(hawk, home, tmp_path):
    """Count the round trips of commands to the machine."""
    log = tmp_path / "turns"
    counting = Path(__file__).with_name("counting.py")
    (home / "config.toml").write_text(
        hawk.table(command=f"{sys.executable} {counting} {log} {hawk.command}")
    )

    def since():
        count = len(log.read_text().splitlines()) if log.exists() else 0
        log.unlink(missing_ok=True)
        return count

    return since


@pytest.fixture
def open_page(hawk):
    """Return a function that opens the page of the machine's home, and ends it."""

    def opened():
        pytest.importorskip("crystalmath_web.app", reason="crystalmath-web is not installed")
        process = start("--on", "hawk", "ui", "--no-browser")
        with limited(process):
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#\S+", address)
            with urllib.request.urlopen(address.partition("#")[0]) as page:
                assert page.status == 200
            process.terminate()
            assert finish(process).code in {0, -15}

    return opened
