"""What a handler says of its parameters to type checkers is what its method's schema says."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from crystalmath.models.filters import FilterParams
from crystalmath.models.submission import SubmitParams
from crystalmath.server.methods import METHODS
from crystalmath.server.rpc.shapes import JobIdParams, JobIdsParams, NoParams

#: What modules import for type checkers alone.
IMPORTED = {
    one.__name__: one
    for one in (Mapping, FilterParams, SubmitParams, JobIdParams, JobIdsParams, NoParams)
}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def of_schema(schema):
    """Describe a schema: what kinds of values it allows, and what is in them."""
    if "anyOf" in schema:
        return any_of(of_schema(each) for each in schema["anyOf"])
    if isinstance(schema["type"], list):
        return any_of(of_schema({**schema, "type": each}) for each in schema["type"])
    if schema["type"] == "array":
        return {"array": of_schema(schema["items"])}
    if "properties" in schema:
        assert schema["additionalProperties"] is False
        required = set(schema.get("required", ()))
        named = {name: of_schema(each) for name, each in schema["properties"].items()}
        return {"required": required, "properties": named}
    if schema["type"] == "object":
        values = schema.get("additionalProperties")
        return {"object": of_schema(values) if values else "any"}
    return schema["type"]


def of_type(hint):
    """Describe a type likewise."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Required or origin is NotRequired:
        return of_type(*args)
    if origin is UnionType:
        return any_of(map(of_type, args))
    if origin is list:
        return {"array": of_type(*args)}
    if origin is Mapping:
        assert args[0] is str
        return {"object": "any" if args[1] is Any else of_type(args[1])}
    if not is_typeddict(hint):
        return PLAIN[hint]
    hints = get_type_hints(hint, localns=IMPORTED, include_extras=True)
    return {
        "required": {name for name in hints if is_required(hint, name, hints[name])},
        "properties": {name: of_type(each) for name, each in hints.items()},
    }


def any_of(described):
    """Describe a choice; that of null is left out, which is the same as none."""
    kinds = sorted((each for each in described if each != "null"), key=str)
    return {"any of": kinds} if len(kinds) > 1 else kinds[0]


def is_required(record, name, hint):
    # Where annotations are text, the class itself has not seen these two.
    if get_origin(hint) in {Required, NotRequired}:
        return get_origin(hint) is Required
    return name in record.__required_keys__


@pytest.mark.parametrize("name", sorted(METHODS))
def test_parameters_have_the_types_that_their_schema_says(name):
    method = METHODS[name]
    function = method.handler.__wrapped__
    written = function.__annotations__["params"]
    params = {**IMPORTED, **function.__globals__}[written]
    assert is_typeddict(params)
    assert params.__name__ == written
    assert of_type(params) == of_schema(method.params)
    # They reach the handler without those that are null.
    hints = get_type_hints(params, localns=IMPORTED).values()
    assert not any(NoneType in get_args(hint) for hint in hints)
