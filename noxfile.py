"""What developers and CI run: ``nox`` for every day, ``nox --list`` for the rest."""

from __future__ import annotations

import os
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
SOURCES = ["packages/core/src", "packages/engine-parsl/src"]

# Users have bytecode; without it every worker and every cold start is three times as slow.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _install(session: nox.Session, group: str, *packages: str) -> None:
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), group)
    session.install(*packages, *groups)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the annotations of both packages, strictly."""
    _install(session, "types", CORE, PARSL)
    session.run("mypy", *SOURCES)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests against the installed packages; arguments go to pytest."""
    _install(session, "test", CORE, PARSL)
    session.run("pytest", *session.posargs)


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
    session.run("pytest", "tests/core/test_store.py", *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build source distributions and wheels, and use the wheels in an environment of their own."""
    _install(session, "build")
    built = Path(session.create_tmp()).resolve()
    for old in built.glob("crystalmath*"):
        old.unlink()
    for package in (CORE, PARSL):
        session.run("python", "-m", "build", "--installer=uv", f"--outdir={built}", package)
    fresh = built / "fresh"
    session.run("uv", "venv", "--clear", f"--python={session.python or 'python'}", str(fresh))
    found = sorted(map(str, built.glob("*.whl")))
    session.run("uv", "pip", "install", f"--python={fresh}", *found)
    command = str(fresh / "bin" / "crystalmath")
    home = {"CRYSTALMATH_HOME": str(built / "home")}
    session.run(command, "--help", env=home, external=True)
    session.run(command, "engines", "--json", env=home, external=True)
