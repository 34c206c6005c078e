"""Clients of both kinds, and servers for them."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from commands import ran
from conftest import LAB, LIGHT
from crystalmath.client import connect, in_process
from server.home_server import HomeServer

CONFIG = "[engines.local]\nworkers = 1\n"

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["in process", "server"])
def client(request, tmp_path_factory):
    """Yield a client of each kind, shared by a module, so that its workers are warm."""
    home = tmp_path_factory.mktemp("shared")
    (home / "config.toml").write_text(CONFIG)
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


@pytest.fixture(scope="module")
def one_home(tmp_path_factory):
    """Yield the servers of a home that the tests of a module share; none runs yet."""
    home = tmp_path_factory.mktemp("served")
    (home / "config.toml").write_text(CONFIG)
    with HomeServer(home) as server:
        yield server


@pytest.fixture(scope="module")
def light_client(one_home):
    """Yield a client of a server that the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(one_home.home))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        # Its workers find no quacc, as those of the fixture `lab`.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(LIGHT), os.environ["PYTHONPATH"]]))
        one_home.start()
        with connect(start=False) as client:
            yield client


@pytest.fixture
def server(one_home, lab, monkeypatch):
    """Return the servers of this process's home."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(one_home.home))
    return one_home


@pytest.fixture
def follow(server, with_quacc, tmp_path):
    """Type in a page's commands one after the other, and give what they printed."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {
        **os.environ,
        "CRYSTALMATH_HOME": str(server.home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def follow(page):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert blocks
        script = "set -euo pipefail\n" + "".join(blocks)
        done = ran("bash", "-c", script, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return follow
