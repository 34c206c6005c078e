"""Whether a user's recipe uses VASP or Quantum ESPRESSO, by what its source imports."""

from __future__ import annotations

import ast
import functools
import importlib.util
from typing import TYPE_CHECKING

from crystalmath.quacc.source import find_spec, parse
from crystalmath.worker.imports import signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["imports_any"]


def imports_any(module: str, wanted: Sequence[str], roots: Sequence[str]) -> bool:
    """Tell whether a module imports any of some packages; nothing is imported.

    Imports within functions count, and those of other modules below the same roots, which it
    imports itself.

    Parameters
    ----------
    module : str
        Full dotted name.
    wanted : sequence of str
        The packages that are looked for.
    roots : sequence of str
        Packages whose own modules are followed.
    """
    queue, seen = [module], {module}
    while queue:
        for name in _imports(queue.pop()):
            if _is_below(name, wanted):
                return True
            if name not in seen and _is_below(name, roots):
                seen.add(name)
                queue.append(name)
    return False


def _is_below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _imports(module: str) -> frozenset[str]:
    """Name all that a module may import: modules, and names of modules."""
    spec = _find(module)
    file = spec.origin if spec else None
    if spec is None or file is None or not file.endswith((".py", ".pyw")):
        return frozenset()
    package = module if spec.submodule_search_locations is not None else spec.parent
    return _read(file, package or "", signature(file))


def _find(module: str) -> ModuleSpec | None:
    path: Sequence[str] | None = None
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:depth]), path)
        path = spec.submodule_search_locations if spec else None
        if path is None:
            return spec if depth == len(parts) else None
    return spec


@functools.lru_cache(maxsize=1024)
def _read(file: str, package: str, signature: tuple[int, ...]) -> frozenset[str]:
    del signature  # part of the key: a module that was mended is read again
    try:
        return frozenset(_names(parse(file), package))
    except (OSError, SyntaxError, ValueError, RecursionError):
        # Whoever looks up or imports the recipe says what is wrong with it.
        return frozenset()


def _names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            try:
                home = importlib.util.resolve_name(name, package)
            except ImportError:  # more dots than there are packages
                continue
            yield home
            yield from (f"{home}.{alias.name}" for alias in node.names)
