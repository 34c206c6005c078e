"""Fixtures of all tests: a home of their own, and the recipes of `tests/lab` admitted."""

import ast
import asyncio
import contextlib
import functools
import os
import resource
import signal
import time
from pathlib import Path

import hypothesis
import pytest

LAB = Path(__file__).parent / "lab"
#: A file with a structure.
AL = str(Path(__file__).parents[1] / "examples/Al.poscar")
#: An id that no job has.
NOBODY = "00000000-0000-4000-8000-000000000000"
#: First on the path of a Python, it has it find no quacc.
LIGHT = Path(__file__).parent / "light"
#: What `config.toml` says where a test shares its worker with others.
ONE_WORKER = "[engines.local]\nworkers = 1\n"

# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


def pytest_configure():
    # What is ignored here is so in all that is started: under nohup, or in the background of a
    # script, the commands under test would hear neither Ctrl-C nor the end of their terminal.
    heard = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    for number, handler in heard.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(LAB), os.environ.get("PYTHONPATH")])
    )


def pytest_collection_modifyitems(config, items):
    """Take a part of the tests that CI runs by turns: ``TURN=0/3`` is the first of three."""
    turn = os.environ.get("TURN")
    if turn is None:
        return
    number, turns = map(int, turn.split("/"))
    others = [item for item in items if item.get_closest_marker("by_turns")]
    del others[number::turns]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Make a home for every test; nothing of the developer's is read or written."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("CRYSTALMATH_", "QUACC_", "VASP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    yield home
    if (home / "server/lock").exists():
        _require_no_server(home)


def _require_no_server(home):
    """Fail a test whose commands have started a server of its home that still runs; end it."""
    from crystalmath import processes
    from crystalmath.server.endpoint import Place

    server = Place.of(home).read_lock()
    # A test may write any process into the lock, this one too.
    if server and server.identity.pid in processes.marked("CRYSTALMATH_HOME", str(home)):
        os.kill(server.identity.pid, signal.SIGTERM)
        pytest.fail("a server of this test's home still runs: use the fixture `alone`")


@pytest.fixture
def cli(capsysbinary):
    """Run a command in this process."""
    from commands import run_here

    return lambda *arguments: run_here(capsysbinary, *arguments)


@pytest.fixture
def lab(monkeypatch):
    """Admit the recipes of `tests/lab`, in processes that find no quacc.

    They need none, and importing it takes two seconds of computing: most of what their tests cost.
    """
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
    monkeypatch.syspath_prepend(LAB)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(LIGHT), os.environ["PYTHONPATH"]]))


@pytest.fixture
def go(tmp_path):
    """Yield a file that jobs wait for; at the end it is there, and they are not."""
    path = tmp_path / "go"
    yield path
    path.touch()


@pytest.fixture
def make(home):
    """Write down a job of the home, which nobody has launched; see :func:`rundirs.write_job`."""
    from rundirs import write_job

    return functools.partial(write_job, home)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Yield a service that the tests of a module share, so that its worker is warm."""
    from crystalmath import config
    from crystalmath.service import JobService

    root = tmp_path_factory.mktemp("shared")
    (root / "config.toml").write_text(ONE_WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAB)
        environ = {"CRYSTALMATH_HOME": str(root), "CRYSTALMATH_RECIPES": "lab_recipes"}
        with JobService(config.load(environ)) as service:
            yield service


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield a server that the tests of a module share; it finds no quacc."""
    from server.home_server import HomeServer

    with HomeServer(tmp_path_factory.mktemp("served"), light=True) as server:
        (server.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
        yield server.start()


@pytest.fixture
def server(tmp_path):
    """Yield a home whose servers the test starts; they find no quacc."""
    from server.home_server import HomeServer

    with HomeServer(tmp_path / "home", light=True) as server:
        yield server


@pytest.fixture
def alone(home):
    """Yield this test's home, whose server a command may start; end that server."""
    from server.home_server import HomeServer

    with HomeServer(home) as server:
        yield server


@pytest.fixture(scope="module")
def one_home(tmp_path_factory):
    """Yield the servers of a home that the tests of a module share; none runs yet."""
    from server.home_server import HomeServer

    home = tmp_path_factory.mktemp("served")
    (home / "config.toml").write_text(ONE_WORKER)
    with HomeServer(home) as server:
        yield server


@pytest.fixture(scope="module")
def light_client(one_home):
    """Yield a client of a server that the tests of a module share."""
    from crystalmath.client import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(one_home.home))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        # Its workers find no quacc, as those of the fixture `lab`.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(LIGHT), os.environ["PYTHONPATH"]]))
        one_home.start()
        with connect(start=False) as client:
            yield client


@pytest.fixture
def home_server(one_home, lab, monkeypatch):
    """Return the servers of this process's home."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(one_home.home))
    return one_home


@pytest.fixture(scope="module")
def folders_stay(tmp_path_factory):
    """Assert at the end of a module that no completed job's files have changed since its end."""
    from digests import changed_since

    base = tmp_path_factory.getbasetemp()
    before = set(base.iterdir())
    yield
    assert not changed_since(set(base.iterdir()) - before)


@pytest.fixture
def chains_end(lab):
    """End the worker processes that the test has left idle."""
    from crystalmath.worker.chains import close_idle

    yield
    close_idle()


@pytest.fixture
def many_files():
    """Hold so many files open that `select` takes none of those that are opened next."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1500, limits[1]))
        except ValueError:
            pytest.skip("the user may not open so many files")
        for _ in range(1024):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


@pytest.fixture
def with_quacc(lab, monkeypatch):
    """Have the processes that run the recipes of `tests/lab` find quacc after all."""
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p != str(LIGHT)))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one plugin module, as a wheel would."""
    from crystalmath.engines import registry

    monkeypatch.syspath_prepend(tmp_path)
    registry.plugins.cache_clear()

    def install(distribution, name, source, group="crystalmath.engines", attribute=""):
        module = f"{distribution.replace('-', '_')}_plugin"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nSummary: Made for a test\n"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}{attribute}\n")
        return module

    yield install
    registry.plugins.cache_clear()


JUDGE = """
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding, Pseudopotential

@hookimpl
def crystalmath_preflight(parameters):
    found = []
    if parameters.get("number") == "doomed":
        found += [
            Finding(severity="warning", code="odd", message="it is odd"),
            Finding(severity="error", code="doomed", message="it would die", path="/pp",
                    source="VASP_PP_PATH", remedy="set VASP_PP_PATH"),
            Finding(severity="error", code="again", message="it would die twice"),
        ]
    if parameters.get("number") == "odd":
        found.append(Finding(severity="warning", code="odd", message="it is odd", remedy="do not"))
    return found

@hookimpl
def crystalmath_pseudopotentials(parameters):
    if parameters.get("number") != "odd":
        return []
    path = "/pp/potpaw_PBE.64/Al/POTCAR"
    return [Pseudopotential(symbol="Al", setup="Al", path=path, sha256="1a2b3c4d" * 8,
                            titel="PAW_PBE Al 04Jan2001", lexch="PE", zval=3.0)]
"""


@pytest.fixture
def judge(install):
    """Install a preflight check that judges ``lab_recipes.value`` by its ``number``."""
    install("the-judge", "judge", JUDGE, group="crystalmath.plugins")


@pytest.fixture(scope="session")
def postgresql():
    """Yield a PostgreSQL server of these tests' own."""
    from postgresql_server import PostgreSQL

    with PostgreSQL() as server:
        yield server


def parse(path):
    """Parse a Python file; once more where a thread of Parsl's disturbs it (see quacc.source)."""
    text = path.read_text(encoding="utf-8")
    try:
        return ast.parse(text)
    except SystemError:
        return ast.parse(text)


def eventually(condition, timeout=120.0, message="it did not happen"):
    """Wait until a condition holds, and give what it gave."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, message
        time.sleep(0.02)
    return value


async def eventually_in_loop(condition):
    """Wait until a condition holds that no event of the loop announces, as of a thread."""
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def memory_group():
    """Make a control group of 800 MB; yield the file that takes the pids of its processes."""
    from crystalmath.worker.child import OomKills

    above = Path(OomKills(os.getpid()).file).parent
    group = above / f"crystalmath-test-{os.getpid()}"
    try:
        group.mkdir()
        limits = [group / name for name in ("memory.max", "memory.limit_in_bytes")]
        next(file for file in limits if file.exists()).write_text(str(800 * 2**20))
        for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            if (group / name).exists():
                # Else the machine swaps, and the kernel kills nobody.
                (group / name).write_text("0" if "max" in name else str(800 * 2**20))
    except (OSError, StopIteration) as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"cannot make a control group with a limit of memory: {error!r}")
    yield group / "cgroup.procs"
    eventually(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()
