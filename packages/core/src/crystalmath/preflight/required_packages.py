"""Find the packages beside quacc that one of its recipes needs.

quacc's recipes name them in a decorator, ``@requires(has_phonopy, "...")``, with
``has_phonopy = bool(find_spec("phonopy"))`` in the module. The source of the recipe is read, and
that of the functions it calls with any parameters. Nothing is imported.
"""

from __future__ import annotations

import ast
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from crystalmath.models import Finding
from crystalmath.recipes.lookup import is_quaccs
from crystalmath.recipes.source import locate, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.recipes.lookup import Recipe

#: How many calls are followed: a flow calls a flow that all programs share.
_DEEP = 3


def check_packages(
    recipe: Recipe, environment: Mapping[str, str], *, certain: bool
) -> list[Finding]:
    """Return findings about packages that a recipe needs and that are not installed."""
    if not is_quaccs(recipe.name):
        return []
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    function = recipe.name.rpartition(".")[2]
    missing: dict[str, str | None] = {}
    for need in _needs(recipe.file, function, _DEEP):
        for package in need.packages:
            # A package without its parent needs no finding of its own.
            if not _is_there(package, paths) and not any(
                package.startswith(f"{parent}.") for parent in missing
            ):
                missing.setdefault(package, need.remedy)
    return [
        Finding(
            severity="error" if certain else "warning",
            code="package_missing",
            message=f"{recipe.name} needs the package {package}, which is not installed"
            + ("" if certain else " here, and perhaps not where the job will run"),
            source=f"the recipe {recipe.name}",
            remedy=remedy,
        )
        for package, remedy in missing.items()
    ]


@frozen
class _Need:
    packages: tuple[str, ...]
    remedy: str | None


@frozen
class _Function:
    needs: tuple[_Need, ...]
    #: The names in its module of functions that it calls in any case.
    calls: tuple[str, ...]


@frozen
class _Source:
    functions: dict[str, _Function] = field(factory=dict)
    #: Name -> module and name there.
    imports: dict[str, tuple[str, str]] = field(factory=dict)


def _needs(file: str, function: str, deep: int) -> Iterator[_Need]:
    source = _source(file)
    known = source.functions.get(function)
    if known is None or not deep:
        return
    yield from known.needs
    for name in known.calls:
        if name in source.functions and name != function:
            yield from _needs(file, name, deep - 1)
        elif name in source.imports:
            module, there = source.imports[name]
            if other := _file_of(module):
                yield from _needs(other, there, deep - 1)


def _source(file: str) -> _Source:
    try:
        status = Path(file).stat()
        return _read(file, status.st_mtime_ns, status.st_size)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return _Source()  # the lookup reports what is wrong with the file


@functools.lru_cache(maxsize=256)
def _read(file: str, mtime_ns: int, size: int) -> _Source:
    # Time and size are the cache's key: quacc may be updated.
    del mtime_ns, size
    source = _Source()
    known: dict[str, tuple[str, ...]] = {}
    for node in parse(file).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if (packages := _packages(node.value, known)) is not None:
                known[node.targets[0].id] = packages
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                source.imports[alias.asname or alias.name] = (node.module, alias.name)
        elif isinstance(node, ast.FunctionDef):
            needs = [_need(each, known) for each in node.decorator_list]
            source.functions[node.name] = _Function(
                tuple(need for need in needs if need is not None), tuple(_calls(node.body))
            )
    return source


def _need(decorator: ast.expr, known: Mapping[str, tuple[str, ...]]) -> _Need | None:
    if not isinstance(decorator, ast.Call) or not _is_called(decorator, "requires"):
        return None
    packages = _packages(decorator.args[0], known) if decorator.args else None
    if packages is None:
        return None
    remedy = decorator.args[1] if len(decorator.args) > 1 else None
    if isinstance(remedy, ast.Constant) and isinstance(remedy.value, str):
        return _Need(packages, remedy.value)
    return _Need(packages, None)


def _packages(node: ast.expr, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the packages that an expression needs to be true; ``None`` for another expression."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        parts = [_packages(value, known) for value in node.values]
        return tuple(package for part in parts if part for package in part) or None
    if not isinstance(node, ast.Call) or len(node.args) != 1:
        return None
    if _is_called(node, "bool"):
        return _packages(node.args[0], known)
    name = node.args[0]
    if _is_called(node, "find_spec") and isinstance(name, ast.Constant):
        return (str(name.value),)
    return None


def _is_called(node: ast.Call, name: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == name


def _calls(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Yield the functions that plain statements call, so that they are called in any case."""
    for statement in body:
        if isinstance(statement, ast.Return | ast.Assign | ast.Expr):
            value = statement.value
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                yield value.func.id
        elif any(isinstance(node, ast.Return | ast.Raise) for node in ast.walk(statement)):
            return  # the function may end here


def _file_of(module: str) -> str | None:
    spec = locate(module) if module.startswith("quacc.") else None
    return spec.origin if spec is not None and spec.has_location else None


def _is_there(package: str, paths: Sequence[str]) -> bool:
    top = package.partition(".")[0]
    # The job's own PYTHONPATH, which this process does not have.
    if any(Path(folder, name).exists() for folder in paths for name in (top, f"{top}.py")):
        return True
    return locate(package) is not None
