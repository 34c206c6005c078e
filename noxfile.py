"""What developers and CI run: ``nox`` for every day, ``nox --list`` for the rest.

``noxfile.toml`` declares the sessions; those that need more than command lines stand here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nox
from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parent
DECLARED: dict[str, Any] = tomllib.loads((ROOT / "noxfile.toml").read_text(encoding="utf-8"))
LISTS: dict[str, list[str]] = DECLARED["lists"]
PACKAGES = LISTS["packages"]
LOCK = "requirements-dev.lock"
#: The session `build` leaves a wheel of each distribution here.
WHEELS = ROOT / ".nox/.cache/wheels"
#: Each process that `coverage` measures leaves a file here, whose name begins so.
COVERED = ROOT / ".nox/.cache/coverage/data"

# The first that runs sessions side by side (`-j 2`), as `.ci/run` has it.
nox.needs_version = ">=2026.8.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True
nox.options.error_on_missing_interpreters = "CI" in os.environ
nox.options.sessions = DECLARED["default"]

# Users have bytecode; without it every worker and every cold start is three times as slow.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _expand(words: Iterable[str]) -> Iterator[str]:
    """Yield words, with the lists that some of them name in their place."""
    for word in words:
        if word[0] == "@":
            yield from _expand(LISTS[word[1:]])
        elif word[0] == "!":
            yield from (f"--ignore={path}" for path in _expand(LISTS[word[1:]]))
        else:
            yield word


def _use(session: nox.Session, name: str) -> None:
    """Install a shared environment if its packages have changed, and run in it from now on."""
    declared = DECLARED["environments"][name]
    debian = declared.get("debian")
    if debian and not Path(debian["folder"]).exists():
        session.error(f"{debian['folder']} is missing: apt-get install {debian['package']}")
    folder = ROOT / ".nox" / name
    packages = list(_expand(declared["install"]))
    files = [LOCK, "pyproject.toml", *(f"{package}/pyproject.toml" for package in PACKAGES)]
    # The build of an editable package brings the libraries of the page.
    files += ["packages/web/hatch_build.py", "packages/web/package-lock.json"]
    wanted = "\n".join([*packages, *((ROOT / file).read_text(encoding="utf-8") for file in files)])
    installed = folder / "installed.txt"
    # Sessions run side by side, and an installer removes files for a moment that others use.
    with FileLock(f"{folder}.lock"):
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            options = declared.get("venv", [f"--python={sys.executable}"])
            session.run_install("uv", "venv", "--quiet", "--allow-existing", *options, str(folder))
            session.run_install("uv", "pip", "install", "--quiet", f"--python={folder}", *packages)
            installed.write_text(wanted, encoding="utf-8")
    session.env["VIRTUAL_ENV"] = str(folder)
    session.env["PATH"] = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])


def _run(session: nox.Session, line: str, codes: Sequence[int] = (0,)) -> None:
    """Run a command line as ``noxfile.toml`` has them, in the environment of the session."""
    # Beside another session there is no core to spare.
    cores = "0" if session.parallel else "logical"
    words = [word.format(cores=cores, wheels=WHEELS) for word in _expand(shlex.split(line))]
    environment = {}
    while "=" in words[0]:
        name, _, environment[name] = words.pop(0).partition("=")
    if words[0] == "pytest":
        words = ["pytest", "--durations=15", *words[1:], *session.posargs]
        if session.name in os.environ.get("COVERAGE", "").split(","):
            words = ["coverage", "run", "-m", *words]
            environment["COVERAGE_FILE"] = str(COVERED)
    program = shutil.which(words[0], path=session.env.get("PATH") or session.bin) or words[0]
    session.run(program, *words[1:], env=environment, success_codes=codes, external=True)


def _make_session(name: str, declared: dict[str, Any]) -> None:
    """Make a declared session, or one for each of its cases."""
    cases = declared.get("cases", {})

    def work(session: nox.Session, case: str | None = None) -> None:
        terms = {**declared, **cases.get(case, {})}
        if "install" in terms:
            session.install(*_expand(terms["install"]))
        for environment in terms.get("environments", [None]):
            if environment:
                _use(session, environment)
            for line in terms.get("run", []):
                _run(session, line)

    work.__doc__ = declared["help"]
    if cases:
        work = nox.parametrize("case", [nox.param(each, id=each) for each in cases])(work)
    options = {key: declared[key] for key in ("default", "python", "requires") if key in declared}
    nox.session(name=name, venv_backend=None if "install" in declared else "none", **options)(work)


for _name, _declared in DECLARED["sessions"].items():
    _make_session(_name, _declared)


@nox.session(default=False, venv_backend="none")
def own(session: nox.Session) -> None:
    """Run quacc's own tests bare and as jobs; ``-- QUACC/tests/core/recipes/emt_recipes``."""
    if not session.posargs:
        session.skip("quacc's distribution has no tests: name some in a checkout of its release")
    _use(session, "development")
    passed = shlex.quote(f"{Path(session.create_tmp()).resolve()}/passed")
    for way in ("bare", "runner", "client"):
        # A test that fails bare is quacc's concern, or lacks a program: it runs bare alone.
        codes = [0, 1] if way == "bare" else [0]
        _run(session, f"PYTHONPATH=tests pytest @own --through={way} --passed={passed}", codes)


@nox.session
def build(session: nox.Session) -> None:
    """Build a wheel of each distribution from its source distribution, as an index has them."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    for package in PACKAGES:
        session.run("uv", "build", "--quiet", f"--out-dir={WHEELS / Path(package).name}", package)


@nox.session(reuse_venv=False, requires=["build"])
def together(session: nox.Session) -> None:
    """Install all engines in one environment, and run a job on each."""
    core, *others = (next((WHEELS / Path(each).name).glob("*.whl")) for each in PACKAGES)
    session.install(f"{core}[testing]", *map(str, others), "--group=test")
    session.run("uv", "pip", "check")
    home = Path(session.create_tmp()).resolve() / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "config.toml").write_text("[engines.covalent]\nautostart = true\n", encoding="ascii")
    environment = {"CRYSTALMATH_HOME": str(home)}
    table = session.run("crystalmath", "engines", "--json", env=environment, silent=True)
    loaded = {engine["name"] for engine in json.loads(str(table))["engines"] if engine["loads"]}
    engines = list(DECLARED["sessions"]["contract"]["cases"])
    if loaded != set(engines):
        session.error(f"{', '.join(engines)} should be here, and should load: {table}")
    for engine in engines:
        job = ["emt.core.relax_job", "examples/Cu.poscar", f"--engine={engine}"]
        session.run("crystalmath", "run", *job, env=environment)
    session.install("./examples/engine-dask-apart")
    _run(session, "pytest @spread @store tests/together tests/web")


@nox.session(default=False, requires=["build"])
def release(session: nox.Session) -> None:
    """Check in dist/ what an index would get, install it on each Python; stop before uploading."""
    session.install("--group=build")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    again = Path(session.create_tmp()).resolve() / "again"
    shutil.rmtree(again, ignore_errors=True)
    sums = []
    for package in PACKAGES:
        if not package.startswith("./packages/"):
            continue  # examples are not released
        session.run("uv", "build", "--quiet", f"--out-dir={again}", package)
        for file in sorted((WHEELS / Path(package).name).glob("crystalmath*")):
            shutil.copy(file, dist)
            first, second = (
                hashlib.sha256(each.read_bytes()).hexdigest() for each in (file, again / file.name)
            )
            if first != second:
                session.error(f"{file.name} is not the same when it is built again")
            sums.append(f"{first}  {file.name}\n")
    files = [str(file) for file in sorted(dist.iterdir())]
    session.run("twine", "check", "--strict", *files)
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="ascii")
    _try_release(session, [file for file in files if file.endswith(".whl")])
    (core,) = dist.glob("crystalmath-*.whl")
    version = core.name.split("-")[1]
    cited = f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if "dev" in version:
        session.warn(f"this is {version}: `git tag vX.Y.Z` makes a release")
    elif not cited:
        session.error(f"CITATION.cff does not name {version}")
    session.log("to upload: twine upload dist/*.whl dist/*.tar.gz")


def _try_release(session: nox.Session, wheels: Sequence[str]) -> None:
    """Install wheels, and packages of others from the index, on each Python, and run a job."""
    work = Path(session.create_tmp()).resolve()
    core = next(file for file in wheels if "/crystalmath-" in file)
    # Covalent and SQLAlchemy 2 exclude each other: `together` installs its engine.
    others = [file for file in wheels if file != core and "_covalent-" not in file]
    for version in nox.project.python_versions(
        nox.project.load_toml("packages/core/pyproject.toml")
    ):
        find = ["uv", "python", "find", "--no-python-downloads", version]
        python = str(session.run(*find, silent=True, success_codes=[0, 2])).strip()
        if not Path(python).exists():
            session.warn(f"Python {version} is not installed here: nothing was tried on it")
            continue
        folder, environment = work / version, {"CRYSTALMATH_HOME": str(work / f"home-{version}")}
        shutil.rmtree(environment["CRYSTALMATH_HOME"], ignore_errors=True)
        session.run("uv", "venv", "--quiet", "--clear", f"--python={python}", str(folder))
        install = ["uv", "pip", "install", "--quiet", f"--python={folder}"]
        session.run(*install, f"{core}[quacc]", *others)
        session.run("uv", "pip", "check", f"--python={folder}")
        command = str(folder / "bin/crystalmath")
        job = ["run", "emt.core.relax_job", str(ROOT / "examples/Al.poscar"), "--engine=parsl"]
        session.run(command, *job, env=environment, external=True)


@nox.session(default=False, venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Show the branches of core that the sessions named by ``COVERAGE`` have reached."""
    _use(session, "development")
    session.env["COVERAGE_FILE"] = str(COVERED)
    # The file of a killed process may be damaged; the rest counts.
    _run(session, "coverage combine --quiet", codes=[0, 1])
    _run(session, f"coverage report --ignore-errors {shlex.join(session.posargs)}")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the lock anew; fail if it was stale; ``-- --upgrade`` takes the newest versions."""
    path = ROOT / LOCK
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = Path(session.create_tmp()).resolve() / "requirements.in"
    wanted.write_text("\n".join(_expand(["@editable"])), encoding="utf-8")
    options = [*_expand(["@lock"]), f"--output-file={path}", *session.posargs]
    session.run("uv", "pip", "compile", "--quiet", *options, str(wanted))
    if path.read_text(encoding="utf-8") != before and not session.posargs:
        session.error(f"{LOCK} did not fit pyproject.toml any more; it is new now: commit it")


def _make_groups(declared: dict[str, Any]) -> None:
    """Make `landing`, a session for each slice, and `deep`."""
    groups = {"landing": declared["landing"]}
    for number, part in enumerate(declared["slices"]):
        sessions = [*declared["landing"], *part]
        groups[f"slice-{number}"] = sorted(sessions, key=[*declared["longest"], *sessions].index)
    groups["deep"] = [name for name in groups if name != "landing"]
    for name, sessions in groups.items():
        text = declared["texts"][name.partition("-")[0]]
        _make_session(name, {"help": text, "requires": sessions, "default": False})


_make_groups(DECLARED["groups"])
