"""What developers and CI run: ``nox`` for every day, ``nox --list`` for the rest."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nox
from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Sequence

# The first that runs sessions side by side (`-j 2`), as `.ci/run` has it.
nox.needs_version = ">=2026.8.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True
nox.options.error_on_missing_interpreters = "CI" in os.environ
# The tests come last: pytest's closing line is what one wants to see.
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
LOCK = "requirements-dev.lock"
CORE = "./packages/core"
PARSL = "./packages/engine-parsl"
COVALENT = "./packages/engine-covalent"
PSIJ = "./packages/engine-psij"
DASK = "./examples/engine-dask"
WEB = "./packages/web"
MCP = "./packages/mcp"
TOP = "./packages/top"
PACKAGES = (CORE, PARSL, COVALENT, PSIJ, DASK, WEB, MCP, TOP)
SOURCES = [f"{package}/src" for package in PACKAGES]
EXTRAS = "postgresql,quacc,tables,testing"
#: The packages of Debian's Python.
DEBIANS = Path("/usr/lib/python3/dist-packages")
#: The source tree of all packages that can be installed together with SQLAlchemy 2.
EDITABLE = [
    f"--editable={CORE}[{EXTRAS}]",
    *(f"--editable={package}" for package in (PARSL, PSIJ, DASK, WEB, MCP, TOP)),
    "quacc[atomate2,defects,phonons,tblite]",
    # Without bounds uv settles on releases of them that lie years apart from the others.
    *("maggma>=0.77", "jobflow>=0.4", "pyzmq>=26"),
]
#: The same with Covalent, which holds SQLAlchemy and FastAPI back.
WITH_COVALENT = [
    f"--editable={CORE}[{EXTRAS}]",
    *(f"--editable={package}" for package in (PARSL, PSIJ, COVALENT, DASK)),
]
#: Where the session `build` leaves a wheel of each distribution.
WHEELS = ROOT / ".nox/.cache/wheels"
#: Each process that `coverage` measures leaves a file here, whose name begins so.
COVERED = ROOT / ".nox/.cache/coverage/data"
STORE = ["tests/core/test_store.py", "tests/core/test_store_database.py"]
POSTGRESQL = ["tests/core/test_store_postgresql.py"]
#: Tests that need a server, or a client that starts one.
SERVERS = ["tests/server", "tests/client", "tests/protocol"]
#: Tests in which workers, owners and what they leave are started, killed and taken over.
PROCESSES = ["tests/processes", "tests/engines/test_local_kills.py"]
#: Those that make a file system with a program of Debian's: the everyday tests skip them without.
FILE_SYSTEMS = [
    "tests/core/test_outdirs.py::test_a_copy_shares_its_blocks_where_the_file_system_can",
    "tests/core/test_storage_settings.py::test_no_job_is_taken_on_exfat",
]
#: VASP and Quantum ESPRESSO, and warm children that import quacc.
VASP = ["tests/preflight", "tests/vasp"]
#: Of their jobs that two engines run, Parsl runs those in which the engine has a part.
FEW_ON_PARSL = ["-k", "not parsl or ranks or cancelling"]
#: Pages that are typed in from top to bottom, and take more than some seconds.
PAGES = [
    f"tests/client/test_{page}_page.py"
    for page in ("command_line", "convergence", "cutoff", "screening")
]
NO_PAGES = [f"--ignore={page}" for page in PAGES]
KIT = ["--config-file=tests/contract/pytest.ini"]
#: Tests that wait most of the time: two at once, also beside another session.
TWO = "--numprocesses=2"
#: So do these, of the kit.
SIDE_BY_SIDE = ["--numprocesses=4", "--dist=worksteal"]

#: The deaths of Parsl's processes; ``KILL_RUNS=20 KILLS_A_RUN=25`` is the long run, as of
#: `test_local_kills`.
DEATHS = [
    "tests/engines/test_parsl.py",
    "tests/engines/test_parsl_pools.py",
    "tests/engines/test_parsl_pilots.py",
    "tests/engines/test_parsl_nodes.py",
    "tests/engines/test_parsl_kills.py",
]
#: What batch systems get of PSI/J; `slurm` runs jobs on a real one.
SCRIPTS = ["tests/engines/test_psij_scripts.py", "tests/engines/test_psij_flux.py"]
#: What Parsl and PSI/J make of a cluster's keys: where both are.
KEYS = ["tests/engines/test_cluster_keys.py"]
#: An engine that needs a cluster of somebody else's, and its tests.
DASK_APART = "./examples/engine-dask-apart"
APART = ["tests/engines/test_apart.py"]
#: How Dask shares its work out, which takes half a minute.
QUEUE = ["tests/engines/test_dask.py"]
#: CHGNet on workers, in an environment of its own.
POTENTIALS = ["tests/potentials"]
#: Those of an engine that the environment of most sessions lacks.
COVALENTS = ["tests/engines/test_covalent.py"]
#: The default tests are all but these: they need Python and its packages alone.
NOT_EVERY_DAY = [
    f"--ignore={path}"
    for path in (
        *(*APART, *COVALENTS, *DEATHS, *KEYS, *POSTGRESQL, *PROCESSES, *QUEUE, *SCRIPTS),
        *(*POTENTIALS, *SERVERS, *VASP),
    )
]
#: Engine -> how pytest runs the kit on it, and its other tests.
ENGINES: dict[str, tuple[list[str], list[str]]] = {
    "local": ([*KIT, *SIDE_BY_SIDE, "tests/contract/test_local.py"], []),
    "parsl": (
        [*KIT, *SIDE_BY_SIDE, "tests/contract/test_parsl.py"],
        [TWO, "--dist=loadfile", *DEATHS],
    ),
    "covalent": (
        [*KIT, "tests/contract/test_covalent.py"],
        [*COVALENTS, "tests/test_metadata.py::test_one_version"],
    ),
    "psij": ([*KIT, "tests/contract/test_psij.py"], SCRIPTS),
    # As its author would, with a configuration of its own, and none for a plugin of ours.
    "dask": (
        [
            "-p",
            "no:asyncio",
            *SIDE_BY_SIDE,
            f"--config-file={DASK}/pyproject.toml",
            f"{DASK}/tests",
        ],
        QUEUE,
    ),
}
#: The tests on a cluster, in two halves: each of them is a session.
LONG = [f"tests/cluster/test_{name}.py" for name in ("conform", "guide_batch", "strikes")]
CLUSTER = {"jobs": ["tests/cluster", *(f"--ignore={path}" for path in LONG)], "kit": LONG}

#: What `drawn` draws more of: the tests, and how many.
DRAWS = {
    "lives": ("tests/jobs/test_simulation.py", {"CRYSTALMATH_LIVES": "5000"}),
    "vasp": ("tests/vasp/test_differential.py", {"DIFFERENTIAL_CASES": "1000"}),
    "messages": ("tests/protocol/test_fuzz.py", {"FUZZ_SERIES": "2000"}),
}

#: What CI runs at each landing beside the default sessions. After `types` here, beside another
#: session, mypy has its cache for that of the default sessions, which run one after the other.
LANDING = [
    *("vasp", "kit", "contract(parsl)", "processes", "server", "contract(local)", "types", "lock")
]
#: What it runs of by turns, one at each landing; `deep` runs them all.
SLICES = [
    ["slurm(jobs)"],
    ["slurm(kit)", "store"],
    ["pythons-3.13(tests)"],
    ["pythons-3.13(servers)"],
    ["minimums"],
    ["contract(psij)", "postgresql", "potentials"],
    ["contract(covalent)"],
    ["wheels", "guide"],
    ["together", "same"],
    ["drawn(lives)", "drawn(messages)", "contract(dask)"],
    ["drawn(vasp)"],
    ["web", "vasp_on_parsl"],
]
#: Those that take from 10 minutes to 3 beside another session. The longest begin first: what begins
#: last would have one of the two cores for itself.
LONGEST = [
    *("vasp", "server", "drawn(vasp)", "contract(covalent)", "slurm(kit)", "slurm(jobs)"),
    *("contract(parsl)", "minimums", "processes", "pythons-3.13(servers)", "pythons-3.13(tests)"),
    *("wheels", "kit", "contract(psij)", "same", "guide"),
]

# Users have bytecode; without it every worker and every cold start is three times as slow.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _groups(*names: str) -> list[str]:
    return list(
        nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), *names)
    )


def _install(session: nox.Session, *arguments: str) -> None:
    """Install just this: an environment that is used again keeps nothing else."""
    session.install("--exact", *arguments)


def _shared(session: nox.Session, name: str, *packages: str) -> None:
    """Run the rest of a session in an environment that several share: each is installed once.

    The session has none of its own (``venv_backend="none"``).
    """
    folder = ROOT / ".nox" / name
    files = (LOCK, "pyproject.toml", *(f"{package}/pyproject.toml" for package in PACKAGES))
    wanted = "\n".join([*packages, *((ROOT / file).read_text(encoding="utf-8") for file in files)])
    installed = folder / "installed.txt"
    # Sessions run side by side, and an installer takes away for a moment what others are using.
    with FileLock(f"{folder}.lock"):
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            venv = ["uv", "venv", "--quiet", "--allow-existing", f"--python={sys.executable}"]
            session.run_install(*venv, str(folder))
            install = ["uv", "pip", "install", "--quiet", "--exact", f"--python={folder}"]
            session.run_install(*install, *packages)
            installed.write_text(wanted, encoding="utf-8")
    _use(session, folder)


def _use(session: nox.Session, folder: Path) -> None:
    """Have what a session runs come from a virtual environment first."""
    session.env["VIRTUAL_ENV"] = str(folder)
    session.env["PATH"] = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])


def _development(session: nox.Session) -> None:
    """Use the environment of all packages but Covalent, in the versions of the lock."""
    groups = _groups("test", "lint", "types", "build")
    _shared(session, "development", *EDITABLE, *groups, f"--constraint={LOCK}")


def _with_covalent(session: nox.Session) -> None:
    """Use the environment of all packages, in the newest versions that Covalent allows."""
    _shared(session, "covalent", *WITH_COVALENT, *_groups("test"))


def _run(
    session: nox.Session, *command: str, codes: Sequence[int] = (0,), **environment: str
) -> None:
    """Run a program of the session's environment, its own or a shared one."""
    path = session.env.get("PATH") or session.bin
    program = shutil.which(command[0], path=path) or command[0]
    session.run(program, *command[1:], env=environment, success_codes=codes, external=True)


def _pytest(session: nox.Session, *tests: str, **environment: str) -> None:
    """Run tests, a file on each core; what comes after ``--`` on nox's command line is added."""
    # Beside another session there is no core to spare.
    cores = "0" if session.parallel else "logical"
    options = [f"--numprocesses={cores}", "--dist=loadfile", "--no-loadscope-reorder"]
    _one_process(session, *options, *tests, **environment)


def _one_process(session: nox.Session, *tests: str, **environment: str) -> None:
    """Run tests one after the other, and say which of them took the time."""
    command = ["pytest", "--durations=15", *tests, *session.posargs]
    if session.name in os.environ.get("COVERAGE", "").split(","):
        environment = {**environment, "COVERAGE_FILE": str(COVERED)}
        command = ["coverage", "run", "-m", *command]
    _run(session, *command, **environment)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _development(session)
    _run(session, "ruff", "check")
    _run(session, "ruff", "format", "--check")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check the annotations of all packages, strictly."""
    _development(session)
    _run(session, "mypy", *SOURCES)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests that need no server, and kill nothing; arguments go to pytest."""
    _development(session)
    _pytest(session, *NOT_EVERY_DAY)


@nox.session(venv_backend="none")
def server(session: nox.Session) -> None:
    """Have servers come and go, and talk to our client, Node, and who breaks the protocol."""
    _development(session)
    _pytest(session, *SERVERS, *NO_PAGES)


@nox.session(venv_backend="none")
def processes(session: nox.Session) -> None:
    """Start workers and owners, kill them, and see that nothing is lost or left over."""
    _development(session)
    _pytest(session, TWO, *PROCESSES, *FILE_SYSTEMS)


@nox.session(venv_backend="none")
def web(session: nox.Session) -> None:
    """Use the page in Chromium; ``PICTURES=docs/pictures`` takes those of docs/web.md anew."""
    packages = (f"--editable={CORE}[quacc]", f"--editable={WEB}", *_groups("test", "browser"))
    _shared(session, "browser", *packages, f"--constraint={LOCK}")
    _one_process(session, "tests/page")


@nox.session(venv_backend="none")
def vasp(session: nox.Session) -> None:
    """VASP's stand-in and Quantum ESPRESSO, end to end, and the checks before submission."""
    _development(session)
    _pytest(session, *VASP, *PAGES, *FEW_ON_PARSL, DIFFERENTIAL_CASES="200")


@nox.session(venv_backend="none")
def vasp_on_parsl(session: nox.Session) -> None:
    """Run VASP's stand-in and Quantum ESPRESSO on Parsl, whatever the engine has to do with it."""
    _development(session)
    _pytest(session, "tests/vasp", "-k", "parsl")


@nox.session(venv_backend="none")
def kit(session: nox.Session) -> None:
    """Run the conformance kit on engines that are broken, and jobs through thousands of lives."""
    _development(session)
    _one_process(session, "tests/jobs/test_simulation.py", CRYSTALMATH_LIVES="1000")
    # A process for each of the long files, which run the kit in others.
    _one_process(session, "tests/kit", "--numprocesses=3", "--dist=loadfile")


@nox.session(venv_backend="none")
def guide(session: nox.Session) -> None:
    """Run all of the kit on the guide's batch engine."""
    _development(session)
    _one_process(session, "tests/kit/test_guide.py", GUIDE="whole")


@nox.session(venv_backend="none")
@nox.parametrize("what", [nox.param(each, id=each) for each in DRAWS])
def drawn(session: nox.Session, what: str) -> None:
    """Draw more lives, VASP jobs or messages to a server than each landing."""
    _development(session)
    tests, number = DRAWS[what]
    _one_process(session, tests, **number)


@nox.session(venv_backend="none")
def same(session: nox.Session) -> None:
    """Compare what recipes of quacc give through us with what they give bare."""
    _development(session)
    _pytest(session, "tests/same")


@nox.session(venv_backend="none")
@nox.parametrize("part", [nox.param(each, id=each) for each in CLUSTER])
def slurm(session: nox.Session, part: str) -> None:
    """Run jobs on a Slurm cluster of three hosts, which the tests make of this machine."""
    _development(session)
    # One cluster for all of them.
    _one_process(session, *CLUSTER[part])


@nox.session(venv_backend="none")
@nox.parametrize("engine", [nox.param(name, id=name) for name in ENGINES])
def contract(session: nox.Session, engine: str) -> None:
    """Run the conformance kit on an engine, and the other tests that it alone has."""
    own_kit, more = ENGINES[engine]
    (_with_covalent if engine == "covalent" else _development)(session)
    _one_process(session, *own_kit)
    if more:
        _one_process(session, *more)


@nox.session(python=["3.12", "3.13"])
@nox.parametrize("part", [nox.param(each, id=each) for each in ("tests", "servers")])
def pythons(session: nox.Session, part: str) -> None:
    """Run the tests on the other Pythons: those of `tests`, and of `server` and `processes`."""
    _install(session, *EDITABLE, *_groups("test"), f"--constraint={LOCK}")
    chosen = {
        "tests": NOT_EVERY_DAY,
        "servers": ["tests/server", "tests/client", *PROCESSES, *NO_PAGES],
    }
    _pytest(session, TWO, *chosen[part])


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the metadata allows."""
    lowest = [f"--editable={CORE}[quacc,testing]", f"--editable={PARSL}"]
    _install(session, "--resolution=lowest-direct", *lowest, *_groups("test"))
    _pytest(
        session,
        TWO,
        "tests/core",
        "tests/processes",
        "tests/client/test_client.py",
        "tests/server",
    )


@nox.session
def store(session: nox.Session) -> None:
    """Run the store's tests on SQLAlchemy 2.0; the lock has 2.1, `minimums` the oldest."""
    _install(session, f"--editable={CORE}", *_groups("test"), "sqlalchemy==2.0.*")
    _pytest(session, *STORE)


@nox.session(venv_backend="none")
def postgresql(session: nox.Session) -> None:
    """Run the store's tests on a PostgreSQL server that they start, with SQLAlchemy 2.1 and 1.4."""
    tests = [STORE[0], *POSTGRESQL, "-k", "postgresql"]
    for use in (_development, _with_covalent):
        use(session)
        _pytest(session, *tests, CRYSTALMATH_TEST_POSTGRESQL="1")


@nox.session(venv_backend="none")
def potentials(session: nox.Session) -> None:
    """Have each worker load CHGNet once, with Debian's torch, which is for CPUs alone."""
    torch = DEBIANS / "torch"
    if not torch.exists():
        session.error(f"{torch} is missing: apt-get install python3-torch")
    folder = ROOT / ".nox" / "potentials"
    # Debian's torch is for Debian's Python, which may be another than that of the other sessions.
    venv = ["uv", "venv", "--quiet", "--allow-existing", "--system-site-packages"]
    session.run_install(*venv, "--python=/usr/bin/python3", str(folder))
    # uv would fetch torch again, and 3 GB for CUDA with it.
    override = folder / "without-torch.txt"
    override.write_text("torch; sys_platform == 'never'\n", encoding="ascii")
    packages = [f"--editable={CORE}[quacc,testing]", f"--editable={PARSL}", "chgnet>=0.4.2"]
    install = ["uv", "pip", "install", "--quiet", f"--python={folder}", f"--override={override}"]
    session.run_install(*install, *packages, *_groups("test"))
    _use(session, folder)
    _one_process(session, *POTENTIALS)
    _one_process(session, "tests/processes/test_worker.py", "-k", "torch")


@nox.session(default=False, venv_backend="none")
def own(session: nox.Session) -> None:
    """Run quacc's own tests bare and as jobs; ``-- QUACC/tests/core/recipes/emt_recipes``."""
    if not session.posargs:
        session.skip("quacc's distribution has no tests: name some in a checkout of its release")
    _development(session)
    passed = Path(session.create_tmp()).resolve() / "passed"
    command = ["pytest", "--config-file=/dev/null", "--import-mode=importlib"]
    # As quacc has it; and its warnings are no concern of ours.
    for plugin in ("no:warnings", "no:cacheprovider", "same.own_tests"):
        command += ["-p", plugin]
    for way in ("bare", "runner", "client"):
        # What fails bare is quacc's, or wants what is not here; it is not run another way.
        codes = [0, 1] if way == "bare" else [0]
        arguments = [f"--through={way}", f"--passed={passed}", *session.posargs]
        _run(session, *command, *arguments, codes=codes, PYTHONPATH="tests")


@nox.session
def build(session: nox.Session) -> None:
    """Build a wheel of each distribution, from its source distribution, for who installs them."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    for package in PACKAGES:
        folder = WHEELS / Path(package).name
        session.run("uv", "build", "--quiet", f"--out-dir={folder}", package)


@nox.session(reuse_venv=False, requires=["build"])
def together(session: nox.Session) -> None:
    """Install all engines in one environment, and run a job on each."""
    core, *engines = (next((WHEELS / Path(each).name).glob("*.whl")) for each in PACKAGES)
    session.install(f"{core}[testing]", *map(str, engines), *_groups("test"))
    session.run("uv", "pip", "check")
    home = Path(session.create_tmp()).resolve() / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "config.toml").write_text("[engines.covalent]\nautostart = true\n", encoding="ascii")
    environment = {"CRYSTALMATH_HOME": str(home)}
    listed = session.run("crystalmath", "engines", "--json", env=environment, silent=True)
    found = {each["name"] for each in json.loads(str(listed))["engines"] if each["loads"]}
    if found != set(ENGINES):
        session.error(f"{', '.join(ENGINES)} should be here, and should load: {listed}")
    for engine in ENGINES:
        job = ["emt.core.relax_job", "examples/Cu.poscar", f"--engine={engine}"]
        session.run("crystalmath", "run", *job, env=environment)
    session.install(DASK_APART)
    _pytest(session, *STORE, *KEYS, *APART, "tests/web")


@nox.session(requires=["build"])
def wheels(session: nox.Session) -> None:
    """Use wheels, of ours and of strangers, in environments of their own."""
    _install(session, *_groups("build", "test"))
    session.run("pytest", "tests/wheels", *session.posargs, env={"WHEELS": str(WHEELS)})


@nox.session(default=False, venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Show which branches of core the sessions reached that ``COVERAGE`` names."""
    _development(session)
    session.env["COVERAGE_FILE"] = str(COVERED)
    # What a killed process left is no data; the rest counts.
    _run(session, "coverage", "combine", "--quiet", codes=[0, 1])
    _run(session, "coverage", "report", "--ignore-errors", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the lock anew, and say if it was stale; ``-- --upgrade`` takes the newest versions."""
    path = ROOT / LOCK
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = Path(session.create_tmp()).resolve() / "requirements.in"
    wanted.write_text("\n".join(EDITABLE), encoding="utf-8")
    others = [f"crystalmath-{Path(package).name}" for package in (PARSL, PSIJ, DASK, WEB, MCP, TOP)]
    ours = [f"--no-emit-package={name}" for name in ("crystalmath", *others)]
    groups = [f"--group={name}" for name in ("test", "lint", "types", "build", "browser")]
    session.run(
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version=3.11",
        "--custom-compile-command=nox -s lock",
        f"--output-file={path}",
        *ours,
        *groups,
        *session.posargs,
        str(wanted),
    )
    if path.read_text(encoding="utf-8") != before and not session.posargs:
        session.error(f"{LOCK} did not fit pyproject.toml any more; it is new now: commit it")


@nox.session(default=False, venv_backend="none", requires=LANDING)
def landing(session: nox.Session) -> None:
    """Run what each landing has to pass beside the default sessions."""


def _slice(number: int) -> None:
    named = [*LANDING, *SLICES[number]]
    sessions = sorted(named, key=[*LONGEST, *named].index)

    @nox.session(name=f"slice-{number}", default=False, venv_backend="none", requires=sessions)
    def slice_of_deep(session: nox.Session) -> None:
        """Run what each landing has to pass, and one of the parts of `deep`, by turns."""


for each in range(len(SLICES)):
    _slice(each)


@nox.session(
    default=False, venv_backend="none", requires=[f"slice-{each}" for each in range(len(SLICES))]
)
def deep(session: nox.Session) -> None:
    """Run all that CI runs by turns, as before a release."""
