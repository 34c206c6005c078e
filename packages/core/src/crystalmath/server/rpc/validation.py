"""Holds the parameters of a call against their declared JSON Schema.

Only what our declarations use of JSON Schema is known here. What is wrong is told in the words of
people who write calls, which no general validator does.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from crystalmath.errors import InvalidJob, UnknownJob, shown

__all__ = ["checked"]


def checked(params: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters that were given; ``null`` is the same as none.

    Parameters
    ----------
    params : mapping
        As they came.
    schema : mapping
        The JSON Schema of an object.

    Raises
    ------
    InvalidJob
        One is not known, missing, or of another type than declared.
    UnknownJob
        A job's id is no string.
    """
    if not isinstance(params, Mapping):
        raise InvalidJob(f"the parameters must be an object, not {shown(params)}")
    return _object(params, schema, "")


def _object(params: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = schema["properties"]
    for name in params:
        if name not in known:
            short = str(name)[:80]  # to look for one that is like it would take minutes
            raise InvalidJob(
                f"{shown(where + short)} is not a known parameter{_hint(short, known)}"
            )
    for name in schema.get("required", ()):
        if params.get(name) is None:
            _refuse_format(None, known[name])
            raise InvalidJob(f"{where + name!r} is missing")
    given = {name: value for name, value in params.items() if value is not None}
    for name, value in given.items():
        _check(value, known[name], where + name)
    return given


def _hint(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}" if known else "; it takes none"


def _check(value: object, schema: Mapping[str, Any], where: str) -> None:
    if not _fits(value, schema):
        _refuse_format(value, schema)
        # What may be a password is not shown.
        what = type(value).__name__ if schema.get("writeOnly") else shown(value)
        raise InvalidJob(f"{shown(where)} must be {_words(schema)}, not {what}")
    if isinstance(value, Mapping) and "properties" in schema:
        _object(value, schema, f"{where}.")
    elif isinstance(value, Mapping) and "additionalProperties" in schema:
        for name, item in value.items():
            _check(item, schema["additionalProperties"], f"{where}.{name}")
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            _check(item, schema["items"], f"{where}[{index}]")


def _refuse_format(value: object, schema: Mapping[str, Any]) -> None:
    """Refuse what has a refusal of its own wherever it stands."""
    if schema.get("format") == "job-id":
        raise UnknownJob(value)
    if schema.get("format") == "recipe" and value is not None:
        from crystalmath.recipes.lookup import check_name

        check_name(value)


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_fits_wholly(value, one) for one in schema["anyOf"])
    kind = schema.get("type")
    if kind is not None and not _TYPES[kind](value, schema):
        return False
    return "enum" not in schema or value in schema["enum"]


def _fits_wholly(value: object, schema: Mapping[str, Any]) -> bool:
    try:
        _check(value, schema, "")
    except InvalidJob:
        return False
    return True


def _number(value: object, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return bool(least <= value <= most and value > schema.get("exclusiveMinimum", -math.inf))


def _integer(value: object, schema: Mapping[str, Any]) -> bool:
    return type(value) is int and _number(value, schema)


def _array(value: object, schema: Mapping[str, Any]) -> bool:
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    return isinstance(value, list) and least <= len(value) <= most


_TYPES: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "string": lambda value, schema: (
        isinstance(value, str) and len(value) >= schema.get("minLength", 0)
    ),
    "boolean": lambda value, _: isinstance(value, bool),
    "integer": _integer,
    "number": _number,
    "object": lambda value, _: isinstance(value, Mapping),
    "array": _array,
}


def _words(schema: Mapping[str, Any]) -> str:
    """Say what a schema asks for."""
    if "anyOf" in schema:
        return " or ".join(_words(one) for one in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kind = schema["type"]
    if kind in {"integer", "number"}:
        return f"{'a whole number' if kind == 'integer' else 'a number'}{_range(schema)}"
    if kind == "array":
        least = " that is not empty" if schema.get("minItems") else ""
        most = f" of at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"a list{least}{most}"
    return {
        "string": "a string that is not empty" if schema.get("minLength") else "a string",
        "boolean": "true or false",
        "object": "an object",
    }[str(kind)]


def _range(schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}"
    if "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    return f" of at least {schema['minimum']}" if "minimum" in schema else ""
