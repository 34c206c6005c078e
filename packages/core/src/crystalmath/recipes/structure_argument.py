"""Whether a recipe takes a structure first, as its source tells; nothing of it is imported."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Literal, TypeAlias

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from crystalmath.recipes.lookup import Recipe

#: ``None`` where the source cannot tell.
Taken: TypeAlias = Literal["required", "optional", "none"] | None

POSITIONAL = frozenset(
    (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
)

#: What an annotation may name that is never a structure: Python's own types, and quacc's for files.
_PLAIN = frozenset(("None", "bool", "int", "float", "complex", "str", "bytes")) | {
    *("Path", "PathLike", "Literal", "Optional", "Union"),
    *("CopyFiles", "SourceDirectory", "Filenames"),
}
_LISTS = frozenset(("list", "tuple", "Sequence", "Iterable"))
_TABLES = frozenset(("dict", "Mapping"))


def structure_taken(recipe: Recipe) -> Taken:
    """Return whether a recipe's first argument is a structure.

    It is not where the annotation names only plain types, as ``copy_files: CopyFiles | None`` does,
    or where there is no positional argument. Without an annotation the first argument is the
    structure; with a default it may be left out.
    """
    if recipe.signature is None:
        return None
    first = next(
        (item for item in recipe.signature.parameters.values() if item.kind in POSITIONAL), None
    )
    if first is None:
        return "none"
    if first.kind is inspect.Parameter.VAR_POSITIONAL:
        return "optional"
    if first.name != "atoms" and _is_plain(first):
        return "none"
    return "required" if first.default is inspect.Parameter.empty else "optional"


def structure_argument(recipe: Recipe) -> inspect.Parameter | None:
    """Return the argument that gets the structure, if there is one by name."""
    if recipe.signature is None or structure_taken(recipe) == "none":
        return None
    first = next(item for item in recipe.signature.parameters.values() if item.kind in POSITIONAL)
    return None if first.kind is inspect.Parameter.VAR_POSITIONAL else first


def check_structure(recipe: Recipe, *, given: bool) -> None:
    """Refuse a structure for a recipe that takes none, and none for one that needs it.

    Raises
    ------
    InvalidJob
        The message names the recipe's first argument.
    """
    taken = structure_taken(recipe)
    if taken == "required" and not given:
        first = structure_argument(recipe)
        name = f", its first argument {first.name!r}" if first else ""
        raise InvalidJob(f"the recipe {recipe.name} needs a structure{name}, and none was given")
    if taken == "none" and given:
        arguments = recipe.signature.parameters if recipe.signature else {}
        first_name = next(iter(arguments), None)
        begins = f"; its arguments begin with {first_name!r}" if first_name else ""
        raise InvalidJob(f"the recipe {recipe.name} takes no structure{begins}; leave it out")


def _is_plain(argument: inspect.Parameter) -> bool:
    if argument.annotation is inspect.Parameter.empty:
        return False
    try:
        return _names_plain(ast.parse(repr(argument.annotation), mode="eval").body)
    except (SyntaxError, SystemError):  # a note in words; SystemError: see recipes.source
        return False


def _names_plain(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a reference forward
            return _names_plain(ast.parse(node.value, mode="eval").body)
        return node.value is None
    if isinstance(node, ast.BinOp):
        return _names_plain(node.left) and _names_plain(node.right)
    if isinstance(node, ast.Subscript):
        name = _last(node.value)
        if name in _TABLES or name == "Literal":
            return True
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return name in _PLAIN | _LISTS and all(map(_names_plain, parts))
    return _last(node) in _PLAIN | _TABLES


def _last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
