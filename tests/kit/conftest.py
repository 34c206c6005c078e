"""Runs the kit on the good engines and on the broken ones, once for all tests here."""

import contextlib
import os
import secrets
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import broken_engines
import psutil
import pytest
import small_slurm

from crystalmath.testing.oracle import living
from crystalmath.testing.run import run_pytest

#: Each of these modules adds its engines to `broken_engines`.
for _name in (
    "broken_boundary",
    "broken_calls",
    "broken_ends",
    "broken_face",
    "broken_guests",
    "broken_in_time",
    "broken_subtly",
    "broken_surroundings",
    "broken_together",
    "broken_when_killed",
    "early_engine",
    "good_engines",
):
    import_module(_name)

HERE = Path(__file__).parent
#: Hides quacc, which no case needs: its import takes seconds.
LIGHT = HERE.parent / "light"
HEAD = """\
import contextlib
import os
from pathlib import Path

import pytest
from crystalmath.testing import EngineUnderTest, RunnerContract


@contextlib.contextmanager
def outage():
    away = Path(os.environ["CRYSTALMATH_HOME"], "away")
    away.touch()
    try:
        yield
    finally:
        away.unlink()
"""
#: Of hundreds of classes with all tests of the kit each, pytest would make items for a minute.
CHOOSE = """\
ASKED = {asked!r}


def pytest_pycollect_makeitem(collector, name):
    if name.startswith("test_") and name not in ASKED.get(collector.name, [name]):
        return []
"""
CLASS = """

class Test{name}(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(
            {name!r},
            options={options},
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
        patch.setenv(broken_engines.RUN, secrets.token_hex(8))
        yield folder
        for process in living(broken_engines.RUN, os.environ[broken_engines.RUN]):
            with contextlib.suppress(psutil.Error):  # it ends meanwhile
                if broken_engines.LEAK in process.environ():
                    process.kill()
        for segment in broken_engines.SHM.glob(f"{broken_engines.leaked()}*"):
            segment.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def judge(site, tmp_path_factory):
    """Run the kit on engines: ``judge({engine: tests}, ...)`` gives what became of each test."""

    def judge(chosen, workers=2, limits="", options=None, at_once=0):
        folder = tmp_path_factory.mktemp("k")
        module = folder / "test_engines.py"
        classes = [_class(name, workers, limits, options) for name in chosen]
        module.write_text(HEAD + "".join(classes))
        asked = {f"Test{n}": [t.partition("[")[0] for t in tests] for n, tests in chosen.items()}
        nodes = dict.fromkeys(
            f"{module}::Test{name}::{test}" for name, tests in chosen.items() for test in tests
        )
        (folder / "conftest.py").write_text(CHOOSE.format(asked=asked))
        side_by_side = ["-p", "xdist.plugin", f"--numprocesses={at_once}", "--dist=loadscope"]
        with (folder / "output").open("w") as output:
            cases = run_pytest(folder, [*(side_by_side if at_once else ()), *nodes], output)
        return {(case.owner.removeprefix("Test"), case.name): case for case in cases}

    return judge


def _class(name, workers, limits, options):
    engine = broken_engines.ENGINES.get(name)
    workers = (engine and engine.crew) or workers
    return CLASS.format(
        name=name,
        workers=workers,
        options={"workers": workers} if options is None else options,
        library=engine.library if engine else None,
        start_s=engine.start_s if engine else None,
        limits=limits if engine is None or not engine.can_be_away else f"{limits}, outage=outage",
    )


@pytest.fixture(scope="session")
def queue(tmp_path_factory):
    """Yield a batch system that runs two jobs at a time; its commands are on PATH."""
    place = tmp_path_factory.mktemp("queue")
    spool, folder = place / "spool", place / "bin"
    small_slurm.install(spool, folder)
    command = [sys.executable, small_slurm.__file__, str(spool), "serve", "2"]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as server,
    ):
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        assert server.stdout.readline() == b"ready\n"
        yield spool
        (spool / "stop").touch()
