"""What developers and CI run: ``nox`` for every day, ``nox --list`` for the rest."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nox

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
SOURCES = [f"{package}/src" for package in (CORE, PARSL, COVALENT, PSIJ, DASK)]
#: What the tests run on: the source tree, so that an environment can be used again.
EDITABLE = [f"--editable={CORE}[postgresql,quacc,tables,testing]", f"--editable={PARSL}"]
#: The same where the lock is not used: with pyarrow and atomate2, uv settles on a pyzmq of 2021,
#: which cannot be built any more.
UNLOCKED = [f"--editable={CORE}[quacc,testing]", f"--editable={PARSL}"]
#: Where the session `build` leaves a wheel of each distribution.
WHEELS = ROOT / ".nox/.cache/wheels"
#: Where the sessions that `COVERAGE` names leave what ran, for the session `coverage`: each process
#: a file, whose name begins so.
COVERED = ROOT / ".nox/.cache/coverage/data"
STORE = ["tests/core/test_store.py", "tests/core/test_store_database.py"]
#: Tests that need a server, or a client that starts one.
SERVERS = ["tests/server", "tests/client", "tests/protocol"]
#: Tests in which workers, owners and what they leave are started, killed and taken over.
PROCESSES = ["tests/processes", "tests/engines/test_local_kills.py"]
#: VASP and Quantum ESPRESSO, and warm children that import quacc.
VASP = ["tests/preflight", "tests/vasp", "tests/espresso"]
#: Pages that are typed in from top to bottom, and take more than some seconds.
PAGES = [f"tests/client/test_{page}_page.py" for page in ("convergence", "readme", "screening")]
KIT = ["--config-file=tests/contract/pytest.ini"]

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
#: Engine -> what brings it beside core, how pytest runs the kit on it, and its other tests.
ENGINES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "local": ([], [*KIT, "tests/contract/test_local.py"], []),
    "parsl": ([PARSL], [*KIT, "tests/contract/test_parsl.py"], DEATHS),
    "covalent": (
        [COVALENT],
        [*KIT, "tests/contract/test_covalent.py"],
        ["tests/engines/test_covalent.py"],
    ),
    "psij": ([PSIJ], [*KIT, "tests/contract/test_psij.py"], SCRIPTS),
    # As its author would, with a configuration of its own.
    "dask": ([DASK], [f"--config-file={DASK}/pyproject.toml", f"{DASK}/tests"], []),
}

# Users have bytecode; without it every worker and every cold start is three times as slow.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _groups(*names: str) -> list[str]:
    return list(
        nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), *names)
    )


def _install(session: nox.Session, *arguments: str) -> None:
    """Install just this: an environment that is used again keeps nothing else."""
    session.install("--exact", *arguments)


def _development(session: nox.Session, *groups: str) -> None:
    """Install the packages as source trees, and the versions of the lock."""
    _install(session, *EDITABLE, *_groups(*groups), f"--constraint={LOCK}")


def _pytest(session: nox.Session, *tests: str, **environment: str) -> None:
    """Run tests, a file on each core; what comes after ``--`` on nox's command line is added."""
    # Beside another session there is no core to spare.
    cores = "0" if session.parallel else "logical"
    options = [f"--numprocesses={cores}", "--dist=loadfile", "--no-loadscope-reorder"]
    command = ["pytest", *options, *tests, *session.posargs]
    if session.name in os.environ.get("COVERAGE", "").split(","):
        environment = {**environment, "COVERAGE_FILE": str(COVERED)}
        command = ["coverage", "run", "-m", *command]
    session.run(*command, env=environment)


def _wheel(package: str) -> str:
    """Give the wheel that the session `build` has made of a package."""
    (wheel,) = (WHEELS / Path(package).name).glob("*.whl")
    return str(wheel)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _install(session, *_groups("lint"), f"--constraint={LOCK}")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the annotations of all packages, strictly."""
    _development(session, "types")
    session.run("mypy", *SOURCES)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need no server, and kill nothing; arguments go to pytest."""
    _development(session, "test")
    elsewhere = [*DEATHS, *PROCESSES, *SERVERS, *VASP]
    _pytest(session, *[f"--ignore={folder}" for folder in elsewhere])


@nox.session(python=["3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run the tests on the other Pythons, those with servers and killed processes, too."""
    _development(session, "test")
    elsewhere = [*DEATHS, *PAGES, *VASP]
    _pytest(session, "tests", *[f"--ignore={folder}" for folder in elsewhere])


@nox.session
@nox.parametrize(
    "sqlalchemy",
    [
        nox.param("1.4.37", id="1.4"),  # the oldest allowed
        nox.param("2.0.*", id="2.0"),
        nox.param("2.1.*", id="2.1"),
    ],
)
def store(session: nox.Session, sqlalchemy: str) -> None:
    """Run the store's tests on each SQLAlchemy that is supported."""
    _install(session, f"--editable={CORE}", *_groups("test"), f"sqlalchemy=={sqlalchemy}")
    _pytest(session, *STORE)


@nox.session
@nox.parametrize("sqlalchemy", [nox.param("1.4.37", id="1.4"), nox.param("2.1.*", id="2.1")])
def postgresql(session: nox.Session, sqlalchemy: str) -> None:
    """Run the store's tests on a PostgreSQL server, which they start (Debian's `postgresql`)."""
    core = f"--editable={CORE}[postgresql]"
    _install(session, core, *_groups("test"), f"sqlalchemy=={sqlalchemy}")
    tests = [STORE[0], "tests/core/test_store_postgresql.py", "-k", "postgresql"]
    _pytest(session, *tests, CRYSTALMATH_TEST_POSTGRESQL="1")


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the metadata allows."""
    _install(session, "--resolution=lowest-direct", *EDITABLE, *_groups("test"))
    _pytest(
        session,
        "tests/core",
        "tests/processes",
        "tests/client/test_client.py",
        "tests/server",
    )


@nox.session
def kit(session: nox.Session) -> None:
    """Run the conformance kit on engines that are broken, and jobs through thousands of lives."""
    _development(session, "test")
    lives = {"CRYSTALMATH_LIVES": "5000"}
    session.run("pytest", "tests/jobs/test_simulation.py", *session.posargs, env=lives)
    # One process: it runs the kit in six others.
    session.run("pytest", "tests/kit", *session.posargs)


@nox.session
def server(session: nox.Session) -> None:
    """Have servers come and go, and talk to our client, Node, and who breaks the protocol."""
    _development(session, "test")
    _pytest(session, *SERVERS, *[f"--ignore={page}" for page in PAGES])


@nox.session
def processes(session: nox.Session) -> None:
    """Start workers and owners, kill them, and see that nothing is lost or left over."""
    _development(session, "test")
    _pytest(session, *PROCESSES)


@nox.session
def vasp(session: nox.Session) -> None:
    """VASP's stand-in and Quantum ESPRESSO, end to end, and the checks before submission."""
    _install(session, *UNLOCKED, "quacc[atomate2]", *_groups("test"))
    cases = os.environ.get("DIFFERENTIAL_CASES", "2000")
    _pytest(session, *VASP, *PAGES, DIFFERENTIAL_CASES=cases)


@nox.session
def same(session: nox.Session) -> None:
    """Compare what recipes of quacc give through us with what they give bare."""
    _install(session, *UNLOCKED, "quacc[defects,phonons,tblite]", *_groups("test"))
    _pytest(session, "tests/same")


@nox.session(default=False)
def own(session: nox.Session) -> None:
    """Run quacc's own tests bare and as jobs; ``-- QUACC/tests/core/recipes/emt_recipes``."""
    if not session.posargs:
        session.skip("quacc's distribution has no tests: name some in a checkout of its release")
    _install(session, *UNLOCKED, "quacc[defects,phonons,tblite]", *_groups("test"))
    passed = Path(session.create_tmp()).resolve() / "passed"
    command = ["pytest", "--config-file=/dev/null", "--import-mode=importlib"]
    # As quacc has it; and its warnings are no concern of ours.
    for plugin in ("no:warnings", "no:cacheprovider", "same.own_tests"):
        command += ["-p", plugin]
    for way in ("bare", "runner", "client"):
        # What fails bare is quacc's, or wants what is not here; it is not run another way.
        codes = [0, 1] if way == "bare" else [0]
        arguments = [f"--through={way}", f"--passed={passed}", *session.posargs]
        session.run(*command, *arguments, env={"PYTHONPATH": "tests"}, success_codes=codes)


@nox.session
def slurm(session: nox.Session) -> None:
    """Run jobs on a Slurm cluster of three hosts, which the tests make of this machine."""
    # Without the lock: PSI/J holds psutil and packaging back.
    _install(session, *UNLOCKED, f"--editable={PSIJ}", *_groups("test"))
    # One cluster for all of them.
    session.run("pytest", "tests/cluster", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build a wheel of each distribution, from its source distribution, for who installs them."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    for package in (CORE, PARSL, COVALENT, PSIJ, DASK):
        folder = WHEELS / Path(package).name
        session.run("uv", "build", "--quiet", f"--out-dir={folder}", package)


@nox.session(reuse_venv=False, requires=["build"])
@nox.parametrize("engine", [nox.param(name, id=name) for name in ENGINES])
def contract(session: nox.Session, engine: str) -> None:
    """Run the conformance kit on an engine, as it is installed from wheels."""
    packages, own_kit, more = ENGINES[engine]
    session.install(f"{_wheel(CORE)}[quacc,testing]", *map(_wheel, packages))
    session.run("pytest", *own_kit, *session.posargs)
    if more:
        session.install(*_groups("test"))
        session.run("pytest", *more, *session.posargs)


@nox.session(reuse_venv=False, requires=["build"])
def together(session: nox.Session) -> None:
    """Install all engines in one environment, and run a job on each."""
    others = map(_wheel, (PARSL, COVALENT, PSIJ, DASK))
    session.install(f"{_wheel(CORE)}[testing]", *others, *_groups("test"))
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
    _pytest(session, *STORE, *KEYS)


@nox.session(requires=["build"])
def wheels(session: nox.Session) -> None:
    """Use wheels, of ours and of strangers, in environments of their own."""
    _install(session, *_groups("build", "test"))
    session.run("pytest", "tests/wheels", *session.posargs, env={"WHEELS": str(WHEELS)})


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Show which branches of core the sessions reached that ``COVERAGE`` names."""
    _install(session, *_groups("test"), f"--constraint={LOCK}")
    session.env["COVERAGE_FILE"] = str(COVERED)
    # What a killed process left is no data; the rest counts.
    session.run("coverage", "combine", "--quiet", success_codes=[0, 1])
    session.run("coverage", "report", "--ignore-errors", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the lock anew, and say if it was stale; ``-- --upgrade`` takes the newest versions."""
    path = ROOT / LOCK
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = Path(session.create_tmp()).resolve() / "requirements.in"
    wanted.write_text("\n".join(EDITABLE), encoding="utf-8")
    ours = [f"--no-emit-package={name}" for name in ("crystalmath", "crystalmath-engine-parsl")]
    groups = [f"--group={name}" for name in ("test", "lint", "types", "build")]
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
