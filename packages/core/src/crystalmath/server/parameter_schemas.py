"""The JSON Schema of a recipe's parameters, from its source and from what its program reads."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

from crystalmath.recipes.arguments import structure_argument
from crystalmath.recipes.lookup import family_of, is_quaccs
from crystalmath.wire.schemas import described

if TYPE_CHECKING:
    import inspect
    from collections.abc import Iterable, Mapping

    from crystalmath.recipes.lookup import Recipe

#: The types of the tags in ASE's lists of tags of INCAR.
_INCAR = {
    "float": "number",
    "exp": "number",
    "int": "integer",
    "bool": "boolean",
    "string": "string",
    "list_int": "array",
    "list_bool": "array",
    "list_float": "array",
    "special": None,
}
_WRITER = ("ase.io.espresso", "write_espresso_in")


def parameters_schema(recipe: Recipe, *, members: bool = False) -> dict[str, Any] | None:
    """Return the JSON Schema of the parameters of a recipe.

    The argument that gets the structure is left out. ``x-default`` has a default that JSON cannot
    express as text, and ``x-annotation`` the annotation. The schema has a type if the whole
    annotation has a meaning in JSON. With `members`, tables have ``properties``, numbers
    ``x-unit``, ``preset`` has the program of its presets as ``x-program``, and ``x-keywords`` has
    the further parameters that the recipe's program reads.
    """
    if recipe.signature is None:
        return None
    first = structure_argument(recipe)
    arguments = [item for item in recipe.signature.parameters.values() if item is not first]
    by_name = ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")
    named = [item for item in arguments if item.kind.name in by_name]
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": _properties(named, described(recipe.docstring or "")),
        "required": [item.name for item in named if item.default is item.empty],
        "additionalProperties": any(item.kind is item.VAR_KEYWORD for item in arguments),
    }
    if members and is_quaccs(recipe.name):
        _add_members(recipe, schema["properties"])
        if schema["additionalProperties"]:
            schema["x-keywords"] = _keywords(recipe)
    return schema


def _properties(
    arguments: Iterable[inspect.Parameter], descriptions: Mapping[str, dict[str, str]]
) -> dict[str, Any]:
    return {
        item.name: _type(item) | _default(item) | descriptions.get(item.name, {})
        for item in arguments
    }


# --- members of tables, and further parameters ----------------------------------------------------


def _add_members(recipe: Recipe, properties: dict[str, Any]) -> None:
    from crystalmath.errors import InvalidJob
    from crystalmath.preflight.programs_here import program_of
    from crystalmath.preflight.unread_parameters import members_of, named_jobs
    from crystalmath.recipes.lookup import look_up

    for name, schema in properties.items():
        schema.update(_unit(name))
        inner: dict[str, Any] = {}
        for item, docstring in members_of(recipe, name):
            # A function cannot be sent.
            if "Callable" not in repr(item.annotation) and item.kind is not item.VAR_KEYWORD:
                inner |= _properties([item], described(f"{docstring}\n"))
                inner[item.name] |= _unit(item.name)
        if inner:
            schema.update({"type": "object", "properties": inner})
    if "preset" in properties and (program := program_of(recipe.name)) is not None:
        properties["preset"]["x-program"] = program.files.title
    jobs = {}
    for name, full in named_jobs(recipe).items() if "job_params" in properties else ():
        try:
            job = parameters_schema(look_up(full), members=True)
        except InvalidJob:  # the docstring may be about another release
            continue
        if job is not None:
            jobs[name] = {"type": "object", "properties": job["properties"]}
    if jobs:
        properties["job_params"] |= {"type": "object", "properties": jobs}


def _keywords(recipe: Recipe) -> dict[str, Any]:
    """Return the schemas of parameters that a recipe passes to its calculator, by their names."""
    from crystalmath.preflight.espresso_parameters import namelists_of, program_of_recipe
    from crystalmath.recipes.source import CALCULATORS, defaults_of, documented, keys_of, notes_of

    family = family_of(recipe.name)
    known: dict[str, Any] = {}
    if family == "vasp":
        for kind, due in _INCAR.items():
            lists = ("ase.calculators.vasp.create_input", f"{kind}_keys")
            for name in keys_of(*lists):
                note = notes_of(*lists).get(name)
                known[name] = {
                    **({"type": due} if due else {}),
                    **({"description": note} if note else {}),
                    **_unit(name),
                }
    elif family == "espresso" and (program := program_of_recipe(recipe.name)) is not None:
        tables = {
            namelist: {"type": "object", "properties": {key: _unit(key) for key in keys}}
            for namelist, keys in namelists_of(program).items()
        }
        arguments, docstring = documented(*_WRITER) if program == "pw" else ((), "")
        wanted = ("kpts", "koffset", "kspacing", "pseudopotentials", "crystal_coordinates")
        chosen = [item for item in arguments if item.name in wanted]
        known = _properties(chosen, described(docstring))
        for name in known:
            known[name] |= _unit(name)
        if tables:
            known["input_data"] = {"type": "object", "properties": tables}
    elif family in CALCULATORS:
        for name, value in (defaults_of(*CALCULATORS[family]) or {}).items():
            of_json = _NAMES.get(type(value).__name__)
            schema = {"type": of_json} if of_json else {}
            known[name] = {**schema, "default": value, **_unit(name)}
    return known


def _unit(name: str) -> dict[str, str]:
    from crystalmath.recipes.parameter_kinds import UNITS

    return {"x-unit": UNITS[name.lower()]} if name.lower() in UNITS else {}


# --- types and defaults ---------------------------------------------------------------------------


def _default(argument: inspect.Parameter) -> dict[str, Any]:
    if argument.default is argument.empty:
        return {}
    text = repr(argument.default)
    try:
        value = ast.literal_eval(text)
        # In JSON a tuple becomes a list.
        return {"default": json.loads(json.dumps(value, allow_nan=False))}
    except (ValueError, TypeError, SyntaxError):
        return {"x-default": text}


def _type(argument: inspect.Parameter) -> dict[str, Any]:
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


def _meaning(node: ast.expr) -> dict[str, Any]:
    """Return the JSON Schema of an annotation; empty if it takes values that JSON does not have."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a forward reference
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


def _enum(nodes: list[ast.expr]) -> dict[str, Any]:
    try:
        values = [ast.literal_eval(node) for node in nodes]
        json.dumps(values, allow_nan=False)
    except (ValueError, TypeError):  # a member of an enum, or bytes
        return {}
    return {"enum": values}


def _union(nodes: list[ast.expr]) -> dict[str, Any]:
    parts = [_meaning(node) for node in nodes]
    if not all(parts):
        return {}
    kinds = [kind for part in parts for kind in _listed(part.get("type", "enum"))]
    if "enum" in kinds or any("anyOf" in part for part in parts):
        return {"anyOf": parts}
    return {"type": list(dict.fromkeys(kinds))}


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]
