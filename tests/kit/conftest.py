"""Runs the kit on the good engines and on the broken ones, once for all tests here."""

from __future__ import annotations

import os
from pathlib import Path

import broken_boundary  # noqa: F401
import broken_calls  # noqa: F401
import broken_ends  # noqa: F401
import broken_engines
import broken_face  # noqa: F401
import broken_surroundings  # noqa: F401
import early_engine  # noqa: F401
import psutil
import pytest

from crystalmath.testing.pytest_session import run_pytest

HERE = Path(__file__).parent
#: Hides quacc, which no case needs: its import takes seconds.
LIGHT = HERE.parent / "light"
HEAD = """\
import pytest
from crystalmath.testing import EngineUnderTest, RunnerContract
"""
CLASS = """

class Test{name}(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(
            {name!r},
            options={{"workers": {workers}}},
            workers={workers},
            library={library!r},
            start_s={start_s},
            {limits}
        )
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Install the distribution of the engines here, for this process's children."""
    folder = tmp_path_factory.mktemp("site")
    metadata = folder / "broken_engines-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-engines\nVersion: 1.0\n"
    )
    lines = [
        f"{name} = {engine.__module__}:{name}.plugin"
        for name, engine in broken_engines.ENGINES.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(["[crystalmath.engines]", *lines]))
    own = {engine.__module__ for engine in broken_engines.ENGINES.values()} | {"broken_engines"}
    (metadata / "top_level.txt").write_text("\n".join(own))
    with pytest.MonkeyPatch.context() as patch:
        path = [str(folder), str(HERE), str(LIGHT), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        yield folder
    for process in psutil.process_iter():
        try:
            leaked = process.environ().get(broken_engines.LEAK)
        except psutil.Error:
            continue
        if leaked:
            process.kill()


@pytest.fixture(scope="session")
def judge(site, tmp_path_factory):
    """Run the kit on engines: ``judge({engine: tests}, ...)`` gives what became of each test."""

    def judge(chosen, workers=2, limits=""):
        folder = tmp_path_factory.mktemp("k")
        module = folder / "test_engines.py"
        module.write_text(HEAD + "".join(_class(name, workers, limits) for name in chosen))
        nodes = [
            f"{module}::Test{name}::{test}" for name, tests in chosen.items() for test in tests
        ]
        events = run_pytest(folder, nodes)
        return {
            (event["class"].removeprefix("Test"), event["name"]): event
            for event in events
            if event["event"] == "finished"
        }

    return judge


def _class(name, workers, limits):
    engine = broken_engines.ENGINES.get(name, broken_engines.Engine)
    return CLASS.format(
        name=name,
        workers=workers,
        library=engine.library,
        start_s=engine.start_s,
        limits=limits,
    )
