"""Another machine for the tests of a module, and a home here that names it ``hawk``."""

import pytest

from remotes.machine import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Yield a machine that the tests of a module share."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.end()


@pytest.fixture
def hawk(machine, home, tmp_path, monkeypatch):
    """Name the machine ``hawk`` in the home here, and share no connection with other tests."""
    (home / "config.toml").write_text(machine.table())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    return machine


@pytest.fixture
def there(hawk, cli):
    """Return a function that types a command with --on hawk."""
    return lambda *arguments: cli("--on", "hawk", *arguments)
