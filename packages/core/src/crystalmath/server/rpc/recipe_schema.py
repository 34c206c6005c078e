"""A recipe's arguments as JSON Schema, as far as its source tells."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

from crystalmath.models.schemas import described
from crystalmath.recipes.arguments import structure_argument

if TYPE_CHECKING:
    import inspect

    from crystalmath.recipes.lookup import Recipe

_Schema = dict[str, Any]


def parameters_schema(recipe: Recipe) -> _Schema | None:
    """Return the JSON Schema of the parameters of a recipe.

    The argument that gets the structure is left out. A default that JSON cannot write stands as
    text in ``x-default``, an annotation in ``x-annotation``; what it means in JSON is told where
    all of it has a meaning there.
    """
    if recipe.signature is None:
        return None
    first = structure_argument(recipe)
    arguments = [item for item in recipe.signature.parameters.values() if item is not first]
    by_name = ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")
    named = [item for item in arguments if item.kind.name in by_name]
    told = described(recipe.docstring or "")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            item.name: _type(item) | _default(item) | told.get(item.name, {}) for item in named
        },
        "required": [item.name for item in named if item.default is item.empty],
        "additionalProperties": any(item.kind is item.VAR_KEYWORD for item in arguments),
    }


def _default(argument: inspect.Parameter) -> _Schema:
    if argument.default is argument.empty:
        return {}
    text = repr(argument.default)
    try:
        value = ast.literal_eval(text)
        # As JSON has it: a tuple becomes a list.
        return {"default": json.loads(json.dumps(value, allow_nan=False))}
    except (ValueError, TypeError, SyntaxError):
        return {"x-default": text}


def _type(argument: inspect.Parameter) -> _Schema:
    if argument.annotation is argument.empty:
        return {}
    text = repr(argument.annotation)
    try:
        meaning = _meaning(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError):  # a note in words
        meaning = {}
    return {**meaning, "x-annotation": text}


_NAMES = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "dict": "object",
    "list": "array",
    "tuple": "array",
}


def _meaning(node: ast.expr) -> _Schema:
    """Return which JSON an annotation takes; nothing where it takes what JSON does not know."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a reference forward
            return _meaning(ast.parse(node.value, mode="eval").body)
        return {"type": "null"} if node.value is None else {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right])
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
    if isinstance(node, ast.Subscript) and name in {"Literal", "Optional", "Union"}:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return _enum(parts)
        return _union([*parts, *([ast.Constant(None)] if name == "Optional" else [])])
    return {"type": _NAMES[name]} if name in _NAMES else {}


def _enum(nodes: list[ast.expr]) -> _Schema:
    try:
        values = [ast.literal_eval(node) for node in nodes]
        json.dumps(values, allow_nan=False)
    except (ValueError, TypeError):  # a name, as of an enum's member; bytes
        return {}
    return {"enum": values}


def _union(nodes: list[ast.expr]) -> _Schema:
    parts = [_meaning(node) for node in nodes]
    if not all(parts):
        return {}
    kinds = [kind for part in parts for kind in _listed(part.get("type", "enum"))]
    if "enum" in kinds or any("anyOf" in part for part in parts):
        return {"anyOf": parts}
    return {"type": list(dict.fromkeys(kinds))}


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]
