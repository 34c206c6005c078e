"""A client of each kind, in process and with a server."""

import pytest

from conftest import LAB, ONE_WORKER
from crystalmath.client import connect, in_process
from server.home_server import HomeServer


@pytest.fixture(scope="module", params=["in process", "server"])
def client(request, tmp_path_factory):
    """Yield a client of each kind, shared by a module, so that its workers are warm."""
    home = tmp_path_factory.mktemp("shared")
    (home / "config.toml").write_text(ONE_WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(home))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        patch.syspath_prepend(LAB)
        with HomeServer(home) as server:
            if request.param == "server":
                server.start()
            # All submissions have it, as a worker is warm for one environment only.
            patch.setenv("OMP_OF_THE_TEST", "here")
            with in_process() if request.param == "in process" else connect(start=False) as client:
                yield client
