"""Which programs a user's recipe may use, by what its source imports."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

from crystalmath.recipes.source import find_spec, parse
from crystalmath.worker.imports import Edited, signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["imports_any", "reading_once"]

#: As ``import_module()`` takes it.
_NAMED = re.compile(r"\w+(\.\w+)+")


_Question: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...]]
_answers: ContextVar[dict[_Question, bool] | None] = ContextVar("answers", default=None)


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Have each question of this thread answered once meanwhile: a batch has mostly one recipe."""
    token = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(token)


def imports_any(module: str, wanted: Sequence[str], roots: Sequence[str]) -> bool:
    """Tell whether a module imports any of some packages; nothing is imported.

    Imports within functions count, names of modules in text, and what other modules import that it
    imports itself: those below the same roots, and those that are not installed.

    Parameters
    ----------
    module : str
        Full dotted name.
    wanted : sequence of str
        The packages that are looked for.
    roots : sequence of str
        Packages whose own modules are followed wherever they are.
    """
    known, question = _answers.get(), (module, tuple(wanted), tuple(roots))
    if known is None:
        return _imports_any(*question)
    if question not in known:
        known[question] = _imports_any(*question)
    return known[question]


def _imports_any(module: str, wanted: tuple[str, ...], roots: tuple[str, ...]) -> bool:
    queue, seen = [module], {module}
    follow: dict[str, bool] = {}
    while queue:
        imported, named = _imports(queue.pop())
        if any(_is_below(name, wanted) for name in imported | named):
            return True
        for name in imported:
            top = name.partition(".")[0]
            if top not in follow:
                follow[top] = _is_edited(top, _edited(roots))
            if name not in seen and follow[top]:
                seen.add(name)
                queue.append(name)
    return False


def _is_below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


_NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
_edited = functools.cache(Edited)


def _is_edited(top: str, edited: Edited) -> bool:
    if top in sys.stdlib_module_names:
        return False
    spec = find_spec(top, None)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return any(edited.covers(top, place) for place in places if place)


def _imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Name all that a module imports, modules and what is in them, and what its text may name."""
    spec = _find(module)
    file = spec.origin if spec else None
    if spec is None or file is None or not file.endswith((".py", ".pyw")):
        return _NOTHING
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
def _read(
    file: str, package: str, signature: tuple[int, ...]
) -> tuple[frozenset[str], frozenset[str]]:
    del signature  # part of the key: a module that was mended is read again
    try:
        tree = parse(file)
        return frozenset(_names(tree, package)), frozenset(_texts(tree))
    except (OSError, SyntaxError, ValueError, RecursionError):
        # Whoever looks up or imports the recipe says what is wrong with it.
        return _NOTHING


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


def _texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and _NAMED.fullmatch(text):
            yield text
