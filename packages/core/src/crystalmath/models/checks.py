"""Checks of parameters of a call, and of values of a record, against their declarations.

They cover the part of JSON Schema that our declarations use. Unlike a general validator's, their
messages are for people who write calls: they name the value, its place, and the values that are
allowed there.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, UnknownJob, did_you_mean, shown
from crystalmath.models.fields import declared, plain
from crystalmath.models.resources import Resources, check_resources

if TYPE_CHECKING:
    from attrs import AttrsInstance

_VALUES = "additionalProperties"
#: The most wrong parameters that one answer reports.
_MOST_WRONG = 100


def check_fields(record: AttrsInstance, names: Collection[str]) -> None:
    """Check fields of a record; `InvalidJob` names the field as on the wire."""
    for one in declared(type(record)):
        if one.name not in names:
            continue
        value = getattr(record, one.name)
        # Most fields have their default. A value of another type, as True for 1, is only equal.
        if type(value) is not type(one.default) or value != one.default:
            # A path would be taken for text, so only resources are made plain.
            checkable = plain(value) if isinstance(value, Resources) else value
            _check(checkable, one.about.schema, one.wire)
            if isinstance(value, Resources):
                check_resources(value)
            if isinstance(value, int) and abs(value) > sys.float_info.max:
                # JSON can write it; the database, and most clients, cannot read it.
                raise InvalidJob(f"{one.wire!r} must be a smaller number than {shown(value)}")


def checked(params: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against the schema of an object; return those that are not ``null``.

    `InvalidJob`: a parameter is unknown, missing, or of another type than declared. `UnknownJob`:
    a job's id is no string.
    """
    if not isinstance(params, Mapping):
        raise InvalidJob(f"the parameters must be an object, not {shown(params)}")
    return _object(params, schema, "")


def sifted(params: object, schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[InvalidJob]]:
    """Return the parameters that :func:`checked` would take, and the errors of the others.

    At most a hundred errors are returned. `InvalidJob`: the parameters are no object.
    """
    if not isinstance(params, Mapping):
        raise InvalidJob(f"the parameters must be an object, not {shown(params)}")
    fitting: dict[str, Any] = {}
    wrong: list[InvalidJob] = []
    missing = {name: None for name in schema.get("required", ()) if name not in params}
    for name, value in {**params, **missing}.items():
        needed = [name] if name in schema.get("required", ()) else []
        try:
            fitting |= _object({name: value}, {**schema, "required": needed}, "")
        except InvalidJob as error:
            wrong.append(error)
            if len(wrong) == _MOST_WRONG:
                break
    return fitting, wrong


def _object(params: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = schema["properties"]
    for name in params:
        if name not in known:
            hint = did_you_mean(name, known, None if known else "it takes none")
            unknown = InvalidJob(f"{shown(f'{where}{name}')} is not a known parameter; {hint}")
            raise unknown.at(f"{where}{name}")
    for name in schema.get("required", ()):
        if params.get(name) is None:
            _refuse_job_id(None, known[name])
            raise InvalidJob(f"{where + name!r} is missing").at(f"{where}{name}")
    present = {name: value for name, value in params.items() if value is not None}
    for name, value in present.items():
        _check(value, known[name], where + name)
    return present


def _check(value: object, schema: Mapping[str, Any], where: str) -> None:
    if not _fits(value, schema):
        _refuse_job_id(value, schema)
        wrong = f"{shown(where)} must be {_words(schema)}, not {_quoted(value, schema)}"
        raise InvalidJob(wrong).at(where)
    if "properties" in schema and isinstance(value, Mapping):
        _object(value, schema, f"{where}.")
    elif _VALUES in schema and isinstance(value, Mapping):
        if _fit_together(value, schema):
            return
        for name, item in value.items():
            _check_name(name, schema.get("propertyNames"), where)
            _check(item, schema[_VALUES], f"{where}.{name}")
    elif "items" in schema and isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, schema["items"], f"{where}[{index}]")


def _fit_together(value: Mapping[Any, Any], schema: Mapping[str, Any]) -> bool:
    """Check all names and values of an environment at once.

    Each submission brings an environment; to check a hundred variables one by one took a third of
    its time.
    """
    formats = [schema.get(part, {}).get("format") for part in ("propertyNames", _VALUES)]
    if formats != ["variable", "no-nul"]:
        return False
    try:
        names, values = "".join(value), "".join(value.values())
    except TypeError:  # one is no string
        return False
    return "" not in value and "=" not in names and "\0" not in names + values


def _check_name(name: object, schema: Mapping[str, Any] | None, where: str) -> None:
    if schema is not None and not _fits(name, schema):
        wrong = f"a name in {shown(where)} must be {_words(schema)}, not {shown(name)}"
        raise InvalidJob(wrong).at(where)


def _quoted(value: object, schema: Mapping[str, Any]) -> str:
    if not schema.get("writeOnly"):
        return shown(value)
    # The value may be a password.
    return "this one" if isinstance(value, str) else type(value).__name__


def _refuse_job_id(value: object, schema: Mapping[str, Any]) -> None:
    """Refuse a value that cannot be a job's id as an unknown job."""
    if schema.get("format") == "job-id":
        raise UnknownJob(value)


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        # The type alone rules out most alternatives, without the cost of an error.
        return any(_fits(value, one) and _fits_wholly(value, one) for one in schema["anyOf"])
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


def _string(value: object, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, str):
        return False
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    fits, _ = _FORMATS.get(schema.get("format", ""), (None, ""))
    return least <= len(value) <= most and (fits is None or fits(value))


#: The formats of strings that are checked, each with the words for a message.
_FORMATS: dict[str, tuple[Callable[[str], bool], str]] = {
    "printable": (str.isprintable, "printable characters"),
    "option": (
        lambda text: re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", text, re.ASCII) is not None,
        "the name of an option without its dashes",
    ),
    "no-nul": (lambda text: "\0" not in text, "a string without NUL"),
    "variable": (
        lambda text: text != "" and not {"=", "\0"} & set(text),
        "the name of an environment variable",
    ),
}
_TYPES: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "string": _string,
    "boolean": lambda value, _: isinstance(value, bool),
    "integer": _integer,
    "number": _number,
    "object": lambda value, schema: (
        isinstance(value, Mapping) and len(value) <= schema.get("maxProperties", math.inf)
    ),
    "array": _array,
}


def _words(schema: Mapping[str, Any]) -> str:
    """Return the words for the values that a schema allows."""
    if "anyOf" in schema:
        return " or ".join(_words(one) for one in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kind = schema["type"]
    if kind in {"integer", "number"}:
        return f"{'a whole number' if kind == 'integer' else 'a number'}{_range(schema)}"
    if kind == "array":
        least = " that is not empty" if schema.get("minItems") else ""
        return f"a list{least}{_most('maxItems', schema)}"
    return {
        "string": _text(schema),
        "boolean": "true or false",
        "object": f"an object{_most('maxProperties', schema)}",
    }[str(kind)]


def _most(limit: str, schema: Mapping[str, Any]) -> str:
    return f" of at most {schema[limit]}" if limit in schema else ""


def _text(schema: Mapping[str, Any]) -> str:
    _, words = _FORMATS.get(schema.get("format", ""), (None, ""))
    if "maxLength" in schema:
        least = f"{schema['minLength']} to" if schema.get("minLength") else "at most"
        return f"a text of {least} {schema['maxLength']} {words or 'characters'}"
    return words or ("a string that is not empty" if schema.get("minLength") else "a string")


def _range(schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}"
    if "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    return f" of at least {schema['minimum']}" if "minimum" in schema else ""
