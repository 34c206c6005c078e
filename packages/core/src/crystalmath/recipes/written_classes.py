"""What the source of a library's classes and functions says, read without importing them."""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING, Any

from crystalmath.recipes.source import find_spec, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Which calculator a family of recipes hands its further parameters to.
CALCULATORS = {
    "emt": ("ase.calculators.emt", "EMT"),
    "lj": ("ase.calculators.lj", "LennardJones"),
    "tblite": ("tblite.ase", "TBLite"),
}

_Definition = ast.ClassDef | ast.FunctionDef


@functools.cache
def defaults_of(module: str, name: str) -> Mapping[str, Any] | None:
    """Return the parameters that a calculator's class names as its own, with their defaults."""
    found = definition(module, name)
    for node in [] if found is None else found.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == "default_parameters":
            try:
                return dict(ast.literal_eval(node.value))
            except (ValueError, TypeError):
                return None
    return None


@functools.cache
def arguments_of(
    module: str, name: str, method: str | None = None, *, others: bool = False
) -> tuple[str, ...]:
    """Return the arguments of a function, or of a class's method, without the first.

    Parameters
    ----------
    module, name : str
        Where the function or the class is.
    method : str, optional
        The class's method.
    others : bool
        Whether it may take others, too; else it has none where it does.
    """
    found = definition(module, name)
    if method is not None and found is not None:
        inner = [node for node in found.body if isinstance(node, ast.FunctionDef)]
        found = next((node for node in inner if node.name == method), None)
    if not isinstance(found, ast.FunctionDef) or (found.args.kwarg is not None and not others):
        return ()
    return tuple(item.arg for item in (*found.args.args, *found.args.kwonlyargs))[1:]


@functools.cache
def keys_of(module: str, name: str) -> tuple[str, ...]:
    """Return the keys of a table, or a list, that a module's source spells out; else none."""
    for node in _statements(module):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == name:
            inside = node.value
            keys = list(inside.keys) if isinstance(inside, ast.Dict) else []
            keys += inside.elts if isinstance(inside, ast.List) else []
            return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))
    return ()


def definition(module: str, name: str) -> _Definition | None:
    """Return what defines a class or a function, of a module that is not imported for it."""
    for node in _statements(module):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return node
    return None


def _statements(module: str) -> list[ast.stmt]:
    path = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:number]), path)
        if spec is None:
            return []
        path = spec.submodule_search_locations
    assert spec is not None  # noqa: S101 - a name has a part
    if not spec.origin or not spec.origin.endswith(".py"):
        return []
    try:
        return parse(spec.origin).body
    except (OSError, SyntaxError, ValueError):
        return []
