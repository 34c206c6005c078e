"""JSON Schemas of requests and answers, from their types.

The type is the declaration: a `TypedDict` here or beside its handler, or a record. What stands
beside a type in ``Annotated`` describes it (a text), has its limits (`Limits`), or is the record
that a mapping is written from, or whose fields a `TypedDict` has beside its own.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import attrs

from crystalmath.errors import Finding
from crystalmath.models.fields import (
    ABOUT,
    Limits,
    array,
    declared,
    nullable,
    properties,
    reference,
)
from crystalmath.models.inputs import Inputs, Preset, Setting, StepCheck, StepInputs
from crystalmath.models.job import Job, Pseudopotential
from crystalmath.models.job_notes import FindingDocument, Parent
from crystalmath.models.submission import Submission
from crystalmath.wire import answers

#: What schemas refer to, by its name in the OpenRPC document.
_NAMED: dict[str, Any] = {
    "Change": answers.Change,
    "Event": answers.Event,
    "Finding": Finding,
    "Inputs": Inputs,
    "Job": Job,
    "JobProgress": answers.JobProgress,
    "Numbers": answers.Numbers,
    "Parent": Parent,
    "Potcar": Pseudopotential,
    "Preset": Preset,
    "Refusal": answers.Refusal,
    "Setting": Setting,
    "StepCheck": StepCheck,
    "StepInputs": StepInputs,
    "Submitted": answers.SubmittedJob,
    "Summary": answers.Summary,
}
_NAMES = {declared: name for name, declared in _NAMED.items()}
_NAMES |= {FindingDocument: "Finding", answers.Potcar: "Potcar"}

_PLAIN: dict[Any, dict[str, Any]] = {
    Any: {},
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    float: {"type": "number"},
    int: {"type": "integer"},
    object: {},
    str: {"type": "string"},
}


def schema_of(  # noqa: PLR0911 - each kind of type has its own
    hint: Any, *, request: bool = False
) -> dict[str, Any]:
    """Return the JSON Schema of a type, as annotations write it.

    A request has no other keys than declared; an answer may gain some in later releases.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if hint in _NAMES:
        return reference(_NAMES[hint])
    if origin in {Required, NotRequired}:
        return schema_of(args[0], request=request)
    if origin is Annotated:
        return _annotated(args, request=request)
    if origin is Literal:
        return {"const": args[0]} if len(args) == 1 else {"type": "string", "enum": list(args)}
    if origin in {Union, UnionType}:
        # In a request null is the same as none.
        parts = [one for one in args if one is not NoneType or not request]
        return _union([schema_of(one, request=request) for one in parts])
    if is_typeddict(hint) or attrs.has(hint) or dataclasses.is_dataclass(hint):
        return _object(hint, request=request)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"type": "string", "enum": [one.value for one in hint]}
    if issubclass(origin or hint, Mapping):
        values = schema_of(args[1], request=request) if args else {}
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    return array(schema_of(args[0], request=request) if args else {})


def _annotated(args: tuple[Any, ...], *, request: bool) -> dict[str, Any]:
    records = [told for told in args[1:] if isinstance(told, type)]
    if is_typeddict(args[0]) and records:
        schema = _object(*records, args[0], request=request)
    elif records:
        schema = _union([schema_of(record, request=request) for record in records])
    else:
        schema = schema_of(args[0], request=request)
    for told in args[1:]:
        if isinstance(told, str):
            schema |= {"description": told}
        elif isinstance(told, Limits):
            schema |= told.schema
    return schema


def _union(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    some = [one for one in schemas if one != {"type": "null"}]
    schema = some[0] if len(some) == 1 else {"anyOf": some}
    if len(some) == len(schemas):
        return schema
    return nullable(schema) if len(some) == 1 else {"anyOf": [*some, {"type": "null"}]}


@lru_cache
def _fields(hint: Any, *, request: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the schemas of the fields of a type, and which of them are always there."""
    if not is_typeddict(hint):
        return _of_record(hint, request=request)
    hints = get_type_hints(hint, include_extras=True)
    found = {name: schema_of(kind, request=request) for name, kind in hints.items()}
    # Where annotations are text, the class itself has not seen what stands around them.
    required = [
        name
        for name, kind in hints.items()
        if get_origin(kind) is Required
        or (get_origin(kind) is not NotRequired and name in hint.__required_keys__)
    ]
    if hint is answers.Specification:  # written out for type checkers
        schemas = properties(Submission, answer=True)
        found |= {name: schemas[name] for name in found if name in schemas}
        required += [name for name in schemas if name in found and name not in required]
    return found, required


def _of_record(record: Any, *, request: bool) -> tuple[dict[str, Any], list[str]]:
    of = dataclasses if dataclasses.is_dataclass(record) else attrs
    fields = of.fields(record)
    if any(ABOUT in one.metadata for one in fields):
        found = properties(record, answer=not request)
        needed = {one.wire for one in declared(record) if one.required or not request}
        return found, [name for name in found if name in needed]
    told = described(inspect.getdoc(record) or "")
    hints = get_type_hints(record, include_extras=True)
    found = {one.name: {**schema_of(hints[one.name]), **told.get(one.name, {})} for one in fields}
    return found, list(found)


def _object(*parts: Any, request: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for found, required in (_fields(part, request=request) for part in parts):
        schema["properties"] |= found
        schema["required"] += required
    return {**schema, "additionalProperties": False} if request else schema


_SECTION = re.compile(
    r"^Parameters\n-{3,}\n(.*?)(?=^\w[^\n]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL
)
_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \w+)*)(?: *: *(.*))?$")


def described(docstring: str) -> dict[str, dict[str, str]]:
    """Read what a docstring in numpydoc form says of the parameters."""
    section = _SECTION.search(docstring)
    told: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in section[1].splitlines() if section else ():
        if entry := _ENTRY.match(line):
            lines = []
            told |= dict.fromkeys(entry[1].split(", "), lines)
        elif line.strip():
            lines.append(line.strip())
    return {name: {"description": " ".join(lines)} for name, lines in told.items() if lines}


#: What ``jobs.submit`` takes.
SUBMISSION = properties(Submission)


def fields_of(declared: Any) -> dict[str, Any]:
    """Return the schemas of what is in a `TypedDict` by its names, as a request brings them."""
    return _fields(declared, request=True)[0]


@lru_cache
def components() -> dict[str, dict[str, Any]]:
    """Return the schemas that others refer to, by their names."""
    return {name: _object(declared, request=False) for name, declared in _NAMED.items()}
