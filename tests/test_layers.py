"""Imports between our modules run one way (docs/architecture.md, "The house")."""

from __future__ import annotations

import ast
import re
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "packages/core/src"
#: Words that names had before they were the field's terms, and what says the same.
WORDS = {
    "bear": "allow for",
    "bears": "allow for",
    "hear": "receive, listen",
    "heard": "receive, listen",
    "hears": "receive, listen",
    "news": "event, change",
    "patience": "timeout",
    "sight": "snapshot; an engine's word is a Sighting",
    "tend": "reconcile, adopt",
    "tends": "reconcile, adopt",
}
#: Those of them that no comment and no docstring has either; the others are plain English there.
TOLD = re.compile(r"\b(hears?|news|patience|tends?|leave_behind)\b", re.IGNORECASE)

# Top to bottom. A module belongs to the longest name that it begins with.
LAYERS = [
    ["crystalmath.__main__"],
    ["crystalmath.cli", "crystalmath.testing"],
    ["crystalmath.client"],
    ["crystalmath.remotes"],
    ["crystalmath.server"],
    ["crystalmath.archive"],
    ["crystalmath.service"],
    ["crystalmath.submitting"],
    ["crystalmath.running"],
    ["crystalmath.reading"],
    # The host's own plugins use what an outsider's may use.
    [
        "crystalmath.engines.local",
        "crystalmath.preflight.preflight_plugin",
        "crystalmath.programs",
        "crystalmath.progress.progress_plugin",
    ],
    ["crystalmath.preflight"],
    ["crystalmath.quacc", "crystalmath.engines", "crystalmath.hookspecs"],
    ["crystalmath.worker"],
    ["crystalmath.progress"],
    ["crystalmath.store"],
    ["crystalmath.jobs"],
    ["crystalmath.plugins", "crystalmath.wire"],
    ["crystalmath.recipes"],
    [
        "crystalmath.config",
        "crystalmath.models",
        "crystalmath._permissions",
        "crystalmath._storage",
        "crystalmath.errors",
        "crystalmath.flow",
        "crystalmath.batch",
        "crystalmath.processes",
        "crystalmath",
    ],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def _modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = list(path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _layer(module: str) -> str:
    parts = module.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next(name for name in names if name in RANK)


class _Imports(ast.NodeVisitor):
    """Collect what a module imports: inside functions, and for type checkers alone, too."""

    def __init__(
        self, module: str, *, is_package: bool, modules: Mapping[str, Path] | None = None
    ) -> None:
        self.package = module if is_package else module.rpartition(".")[0]
        self.modules = MODULES if modules is None else modules
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names if alias.name in self.modules}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            parent = ".".join(parts[: len(parts) - node.level + 1])
            base = f"{parent}.{base}".rstrip(".")
        for alias in node.names:
            name = f"{base}.{alias.name}"
            if name in self.modules:
                self.found.add(name)
            elif base in self.modules:
                self.found.add(base)


def _imports(module: str) -> set[str]:
    path = MODULES[module]
    visitor = _Imports(module, is_package=path.name == "__init__.py")
    visitor.visit(parse(path))
    return visitor.found - {module}


def test_the_walk_sees_the_source() -> None:
    assert "crystalmath.errors" in _imports("crystalmath.config")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_its_own_layer_and_those_below(module: str) -> None:
    layer = _layer(module)
    # What has no layer of its own must not slip to the bottom unseen.
    placed = module in RANK or layer != "crystalmath"
    assert placed, f"{module} has no place in LAYERS"
    upward = {name for name in _imports(module) if RANK[_layer(name)] < RANK[layer]}
    assert not upward


def test_nothing_imports_the_hosts_own_plugins() -> None:
    own = {"crystalmath.engines.local", "crystalmath.preflight.preflight_plugin"}
    own |= {name for name in MODULES if name.startswith("crystalmath.programs.")}
    users = {name for name in MODULES if _imports(name) & own}
    # A program's own modules.
    assert not {name for name in users if not name.startswith("crystalmath.programs.")}


def test_an_engine_uses_only_what_is_for_engines() -> None:
    allowed = {"crystalmath", "crystalmath.quacc", "crystalmath.worker"}
    allowed |= {f"crystalmath.{name}" for name in ("hookspecs", "models", "errors", "processes")}
    allowed |= {f"crystalmath.quacc.{name}" for name in ("engine", "runner")}
    # A process of its own, which ends with its owner.
    allowed |= {f"crystalmath.engines{name}" for name in ("", ".agent", ".guard")}
    # Commands of batch systems.
    allowed.add("crystalmath.engines.schedulers")
    # Whether the owner of what an engine left behind is alive.
    allowed.add("crystalmath.jobs.identities")
    for path in (ROOT / "packages").glob("engine-*/src/**/*.py"):
        visitor = _Imports("outside.module", is_package=False)
        visitor.visit(parse(path))
        assert visitor.found <= allowed, path


def test_a_file_name_says_what_is_inside_and_occurs_once() -> None:
    # A command's file is named as the command, a handler's as its methods, a file of the contract
    # as the topic that `conform` tells, and some names are promised.
    elsewhere = {"cli", "handlers", "contract", "quacc", "versions"}
    files = [path for path in MODULES.values() if path.parent.name not in elsewhere]
    names = [path.name for path in files if not path.name.startswith("__")]
    assert sorted(names) == sorted(set(names))


def test_at_the_top_stands_only_what_outsiders_import() -> None:
    top = {path.name for path in (SOURCE / "crystalmath").glob("*.py")}
    public = {"batch.py", "hookspecs.py", "errors.py", "config.py", "flow.py", "processes.py"}
    own = {"_permissions.py", "_storage.py"}
    assert top == public | {"__init__.py", "__main__.py", *own}


def _names(tree: ast.AST) -> set[str]:
    """Collect what a module calls things that are its own to name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _prose(path: Path, tree: ast.AST) -> str:
    """Return the comments and docstrings of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    return "\n".join([*docs, *(one.string for one in tokens if one.type == tokenize.COMMENT)])


def test_names_are_the_terms_of_the_field() -> None:
    assert _words("hear_all_NEWS_AtOnce") == {"hear", "all", "news", "at", "once"}
    odd = {}
    for path in (ROOT / "packages").glob("*/src/**/*.py"):
        tree = parse(path)
        # Authors of engines know the contract's tests by their names.
        names = {name for name in _names(tree) if not name.startswith("test_")}
        said = {name for name in names if _words(name) & WORDS.keys()}
        said |= set(TOLD.findall(_prose(path, tree)))
        if said:
            odd[str(path)] = said
    assert not odd, f"rather: {WORDS}"


def _imports_of_files(roots: list[Path]) -> dict[str, set[str]]:
    """Return what each module below some source folders imports of the others.

    A package's ``__init__`` gathers what its modules hold, so it is no user of its own modules.
    """
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for root in roots
        for path in root.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {}
    for name, path in files.items():
        visitor = _Imports(name, is_package=False, modules=files)
        visitor.visit(parse(path))
        graph[name] = visitor.found - {name}
    return graph


def test_imports_of_no_distribution_go_round_in_a_circle() -> None:
    roots = [*(ROOT / "packages").glob("*/src"), *(ROOT / "examples").glob("*/src")]
    graph = _imports_of_files(roots)
    packages = {name.partition(".")[0] for name in graph}
    engines = {f"crystalmath_engine_{name}" for name in ("parsl", "covalent", "psij", "dask")}
    assert {"crystalmath", "crystalmath_web", "crystalmath_mcp", "crystalmath_top"} <= packages
    assert engines <= packages
    TopologicalSorter(graph).prepare()


def test_the_page_lists_all_rooms_from_top_to_bottom() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)
    assert sorted(rooms) == sorted(file.parent.name for file in SOURCE.glob("*/*/__init__.py"))
    ranks = [RANK[f"crystalmath.{room}"] for room in rooms]
    assert ranks == sorted(ranks)
