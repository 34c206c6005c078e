"""Servers in homes of their own, always ended, with no process left."""

import pytest

from server.home_server import HomeServer


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield a server that the tests of a module share; it finds no quacc."""
    with HomeServer(tmp_path_factory.mktemp("served"), light=True) as server:
        (server.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
        yield server.start()


@pytest.fixture
def server(tmp_path):
    """Yield a home whose servers the test starts; they find no quacc."""
    with HomeServer(tmp_path / "home", light=True) as server:
        yield server
