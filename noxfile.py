"""What developers and CI run: ``nox`` for every day, ``nox --list`` for the rest."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = "CI" in os.environ
# The tests come last: pytest's closing line is what one wants to see.
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
CORE = "./packages/core"
PARSL = "./packages/engine-parsl"
COVALENT = "./packages/engine-covalent"
DASK = "./examples/engine-dask"
SOURCES = [f"{package}/src" for package in (CORE, PARSL, COVALENT, DASK)]
STORE = ["tests/core/test_store.py", "tests/core/test_store_database.py"]
#: Tests in which servers come and go.
SERVERS = [
    "tests/client/test_remote.py",
    "tests/server/test_daemon.py",
    "tests/server/test_environment.py",
]
#: VASP and Quantum ESPRESSO, and warm children that import quacc.
VASP = ["tests/preflight", "tests/vasp", "tests/espresso"]
KIT = ["--config-file=tests/contract/pytest.ini"]

#: Engine -> what brings it beside core, how pytest runs the kit on it, and its other tests.
ENGINES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "local": ([], [*KIT, "tests/contract/test_local.py"], []),
    "parsl": ([PARSL], [*KIT, "tests/contract/test_parsl.py"], ["tests/engines/test_parsl.py"]),
    "covalent": (
        [COVALENT],
        [*KIT, "tests/contract/test_covalent.py"],
        ["tests/engines/test_covalent.py"],
    ),
    # As its author would, with a configuration of its own.
    "dask": ([DASK], [f"--config-file={DASK}/pyproject.toml", f"{DASK}/tests"], []),
}

# Users have bytecode; without it every worker and every cold start is three times as slow.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _install(session: nox.Session, group: str, *packages: str) -> None:
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), group)
    session.install(*packages, *groups)


def _wheels(session: nox.Session, *packages: str) -> list[str]:
    """Build wheels, from source distributions."""
    wheels = []
    for package in packages:
        folder = Path(session.create_tmp()).resolve() / Path(package).name
        shutil.rmtree(folder, ignore_errors=True)
        session.run("uv", "build", "--quiet", f"--out-dir={folder}", package)
        wheels += map(str, folder.glob("*.whl"))
    return wheels


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the annotations of all packages, strictly."""
    _install(session, "types", f"{CORE}[testing]", PARSL)
    session.run("mypy", *SOURCES)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests against the installed packages; arguments go to pytest."""
    _install(session, "test", f"{CORE}[testing]", PARSL)
    # The deaths of Parsl's processes take minutes: they are part of the session `contract(parsl)`.
    elsewhere = ["tests/engines/test_parsl.py", *SERVERS, *VASP]
    session.run("pytest", *[f"--ignore={file}" for file in elsewhere], *session.posargs)


@nox.session(python=["3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run all tests on the other Pythons."""
    tests(session)


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
    _install(session, "test", CORE, f"sqlalchemy=={sqlalchemy}")
    session.run("pytest", *STORE, *session.posargs)


@nox.session(venv_backend="uv")
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the metadata allows."""
    packages = [f"{CORE}[quacc,testing]", PARSL]
    _install(session, "test", "--resolution=lowest-direct", *packages)
    more = ["tests/engines/test_engines.py", "tests/client/test_client.py", "tests/server"]
    session.run("pytest", "tests/core", *more, *session.posargs)


@nox.session
def kit(session: nox.Session) -> None:
    """Run the conformance kit on engines that are broken, and see it find that."""
    _install(session, "test", f"{CORE}[quacc,testing]", PARSL)
    session.run("pytest", "tests/kit", *session.posargs)


@nox.session
def server(session: nox.Session) -> None:
    """Have servers come and go, and talk to Node and to clients that break the protocol."""
    _install(session, "test", f"{CORE}[quacc,testing]", PARSL)
    session.run("pytest", "tests/protocol", *SERVERS, *session.posargs)


@nox.session
def vasp(session: nox.Session) -> None:
    """VASP's stand-in and Quantum ESPRESSO, end to end, and the checks before submission."""
    _install(session, "test", f"{CORE}[quacc,testing]", PARSL, "quacc[atomate2]")
    cases = os.environ.get("DIFFERENTIAL_CASES", "2000")
    session.run("pytest", *VASP, *session.posargs, env={"DIFFERENTIAL_CASES": cases})


@nox.session(venv_backend="uv")
@nox.parametrize("engine", [nox.param(name, id=name) for name in ENGINES])
def contract(session: nox.Session, engine: str) -> None:
    """Run the conformance kit on an engine, as it is installed from wheels."""
    packages, own_kit, more = ENGINES[engine]
    core, *others = _wheels(session, CORE, *packages)
    session.install(f"{core}[quacc,testing]", *others)
    session.run("pytest", *own_kit, *session.posargs)
    if more:
        _install(session, "test")
        session.run("pytest", *more, *session.posargs)


@nox.session(venv_backend="uv")
def together(session: nox.Session) -> None:
    """Install all engines in one environment, and run a job on each."""
    _install(session, "test", f"{CORE}[testing]", PARSL, COVALENT, DASK)
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
    session.run("pytest", *STORE, *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """Use wheels, of ours and of strangers, in environments of their own."""
    _install(session, "build")
    _install(session, "test")
    session.run("pytest", "tests/wheels", *session.posargs)
