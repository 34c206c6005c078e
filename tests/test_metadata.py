"""What the distributions say about themselves is true and stands in one place."""

from __future__ import annotations

import ast
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import crystalmath
from conftest import parse, pytest_collection_modifyitems

ROOT = Path(__file__).parents[1]
PACKAGES = {
    tomllib.loads(path.read_text())["project"]["name"]: path.parent
    for path in (ROOT / "packages").glob("*/pyproject.toml")
}
FRONTS = ("mcp", "top", "web")
#: Import name -> distribution, where they differ.
PROVIDES = {
    "crystalmath_engine_covalent": "crystalmath-engine-covalent",
    "crystalmath_engine_parsl": "crystalmath-engine-parsl",
    "crystalmath_engine_psij": "crystalmath-engine-psij",
    "crystalmath_mcp": "crystalmath-mcp",
    "crystalmath_top": "crystalmath-top",
    "crystalmath_web": "crystalmath-web",
    "covalent_dispatcher": "covalent",
    "psij": "psij-python",
    "ruamel": "ruamel-yaml",
}


def _project(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((PACKAGES[name] / "pyproject.toml").read_text())
    return table["project"]


def _requirements(name: str) -> list[Requirement]:
    project = _project(name)
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(text) for group in [project["dependencies"], *extras] for text in group]


@pytest.fixture(params=sorted(PACKAGES))
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_all_distributions_are_here() -> None:
    engines = {f"crystalmath-engine-{name}" for name in ("parsl", "covalent", "psij")}
    fronts = {f"crystalmath-{name}" for name in FRONTS}
    assert {"crystalmath", *fronts, *engines} <= set(PACKAGES)


def test_one_version(package: str) -> None:
    if package not in {"crystalmath", "crystalmath-engine-parsl"}:
        name = package.replace("-", "_")
        pytest.importorskip(name, reason=f"{package} is not installed")
    assert distribution(package).version == crystalmath.__version__


def test_the_version_of_each_distribution_is_that_of_the_last_tag() -> None:
    tables = [tomllib.loads((path / "pyproject.toml").read_text()) for path in PACKAGES.values()]
    versions = [table["tool"]["hatch"]["version"] for table in tables]
    assert versions == [versions[0]] * len(versions)
    assert versions[0]["source"] == "vcs"
    assert all(table["project"]["dynamic"] == ["version"] for table in tables)


def test_a_tree_that_nobody_installed_has_a_version(tmp_path: Path) -> None:
    site = _copied(tmp_path)
    code = f"import sys; sys.path = [{str(site)!r}, *sys.path]; import crystalmath; "
    command = [sys.executable, "-S", "-c", f"{code}print(crystalmath.build_version())"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "0.dev0\n"
    with pytest.raises(AttributeError, match="no attribute 'versions'"):
        operator.attrgetter("versions")(crystalmath)


def _build(site: Path) -> str:
    code = "import crystalmath; print(crystalmath.build_version())"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def _copied(site: Path) -> Path:
    package = site / "crystalmath"
    package.mkdir(parents=True)
    shutil.copy(crystalmath.__file__, package)
    return site


def test_builds_of_one_version_that_were_installed_differ(tmp_path: Path) -> None:
    site = _copied(tmp_path / "site")
    assert _build(site) == crystalmath.__version__
    record = site / f"crystalmath-{crystalmath.__version__}.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("crystalmath/a.py,sha256=A,1\ncrystalmath/b.py,sha256=B,1\n")
    first = _build(site)
    assert re.fullmatch(rf"{re.escape(crystalmath.__version__)}\+r[0-9a-f]{{8}}", first)
    # Another environment: compiled by its own interpreter, scripts of its own, another order.
    record.write_text(
        "../../../bin/crystalmath,sha256=X,9\ncrystalmath/b.py,sha256=B,1\n"
        "crystalmath/__pycache__/a.cpython-311.pyc,,\ncrystalmath/a.py,sha256=A,1\n"
    )
    assert _build(site) == first
    record.write_text("crystalmath/a.py,sha256=A,1\ncrystalmath/b.py,sha256=C,1\n")
    assert _build(site) != first


def test_the_mark_of_a_source_tree_is_its_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(clone), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    clone = tmp_path / "clone"
    site = _copied(clone / "packages")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    first = git("rev-parse", "HEAD")[:9]
    assert _build(site) == f"{crystalmath.__version__}+g{first}"
    git("worktree", "add", "--quiet", str(tmp_path / "tree"))
    git("commit", "--quiet", "--allow-empty", "--message", "two")
    second = git("rev-parse", "HEAD")[:9]
    git("pack-refs", "--all")
    assert _build(site) == f"{crystalmath.__version__}+g{second}"
    assert _build(tmp_path / "tree" / "packages") == f"{crystalmath.__version__}+g{first}"
    git("checkout", "--quiet", "--detach", "HEAD^")
    assert _build(site) == f"{crystalmath.__version__}+g{first}"


def test_another_distribution_asks_for_the_core_beside_it_with_quacc() -> None:
    for name in PACKAGES.keys() - {"crystalmath"}:
        (core,) = [item for item in _requirements(name) if item.name == "crystalmath"]
        assert "quacc" in core.extras
        assert core.specifier.contains(crystalmath.__version__, prereleases=True)


def test_python_versions(package: str) -> None:
    project = _project(package)
    assert project["requires-python"] == ">=3.11,<3.14"
    assert project["license"].split()[0] == "Apache-2.0"
    assert (PACKAGES[package] / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_entry_points() -> None:
    engines = {point.name: point for point in entry_points(group="crystalmath.engines")}
    assert {"local", "parsl"} <= set(engines)
    brought_by = {name: point.dist.name for name, point in engines.items() if point.dist}
    assert brought_by["local"] == "crystalmath"
    assert brought_by["parsl"] == "crystalmath-engine-parsl"
    plugins = {point.name for point in entry_points(group="crystalmath.plugins")}
    assert plugins >= {"recipes", "vasp", "espresso"}
    assert [point.value for point in entry_points(group="console_scripts", name="crystalmath")] == [
        "crystalmath.cli:main"
    ]


def test_every_dependency_is_explained(package: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    chapter = text.partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    explained = {
        canonicalize_name(name) for name in re.findall(r"^\| `([^`]+)`", chapter, re.MULTILINE)
    }
    wanted = {canonicalize_name(item.name) for item in _requirements(package)}
    assert wanted - {"crystalmath"} <= explained


def test_the_lock_has_all_that_is_asked_for() -> None:
    """``nox -s lock`` writes it; in CI it also finds what a dependency's dependency asks for."""
    text = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    asked = [Requirement(item) for group in groups.values() for item in group]
    for name in ("crystalmath", *(f"crystalmath-{one}" for one in ("engine-parsl", *FRONTS))):
        asked += [item for item in _requirements(name) if item.name != "crystalmath"]
    for item in asked:
        versions = locked.get(canonicalize_name(item.name), [])
        assert versions, f"{item} is not in the lock: nox -s lock"
        assert all(map(item.specifier.contains, versions)), f"{item}, and {versions} in the lock"
    assert "://" not in text


def test_every_import_is_a_dependency(package: str) -> None:
    allowed = {canonicalize_name(item.name) for item in _requirements(package)} | {package}
    # What quacc itself brings, used only where quacc is there.
    allowed |= {"pymatgen", "custodian"}
    for path in (PACKAGES[package] / "src").rglob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names:
                    known = canonicalize_name(PROVIDES.get(name, name))
                    assert known in allowed, f"{path} imports {name}"


def test_ci_runs_the_readmes_first_two_commands_word_for_word() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [
        line
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    # Debian's Python, and others, refuse pip outside a virtual environment.
    virtual = "python3 -m venv .venv && . .venv/bin/activate && "
    assert commands[0] == (
        f"{virtual}pip install uv && uv pip install ./packages/core ./packages/engine-parsl && "
        "crystalmath run emt.core.relax_job examples/Al.poscar --engine parsl"
    )
    assert commands[1] == f'{virtual}pip install "nox[uv]" && nox'
    # First of all, and where nothing else is installed.
    steps = re.findall(r"^(?:bare|step) .*$", ci, re.MULTILINE)
    assert [re.search(r"^bare \w+ '(.*)'$", step)[1] for step in steps[:2]] == commands[:2]


def test_the_sessions_name_lists_and_tests_that_exist() -> None:
    declared = tomllib.loads((ROOT / "noxfile.toml").read_text(encoding="utf-8"))
    terms = [*declared["environments"].values(), *declared["sessions"].values()]
    terms += [case for each in terms for case in each.get("cases", {}).values()]
    lines = [line for each in terms for key in ("install", "run") for line in each.get(key, [])]
    words = {word for line in lines for word in shlex.split(line)}
    words |= {word for entries in declared["lists"].values() for word in entries}
    missing = {word for word in words if word[0] in "@!" and word[1:] not in declared["lists"]}
    paths = {word.partition("::")[0] for word in words if word.startswith(("tests/", "./"))}
    assert not missing | {path for path in paths if not (ROOT / path).exists()}


def test_the_turns_of_ci_take_each_test_that_is_run_by_turns_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked, always = [
        [SimpleNamespace(get_closest_marker={"by_turns": mark}.get) for _ in range(7)]
        for mark in ("by_turns", None)
    ]
    config = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: None))
    taken: list[SimpleNamespace] = []
    for turn in ("0/3", "1/3", "2/3"):
        monkeypatch.setenv("TURN", turn)
        items = [*marked, *always]
        pytest_collection_modifyitems(config, items)
        assert items[-7:] == always
        taken += items[:-7]
    assert sorted(map(id, taken)) == sorted(map(id, marked))
