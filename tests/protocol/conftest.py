"""A server that the tests of a module share."""

import pytest

from server.home_server import HomeServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with HomeServer(tmp_path_factory.mktemp("served")) as server:
        yield server.start()
