"""JSON Schemas of requests and answers, from their types.

The type is the declaration: a `TypedDict` here or beside its handler, or a record. ``Annotated``
adds a description (a text), limits (`Limits`), or a record. A mapping is written from that record;
a `TypedDict` has the record's fields beside its own.
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

#: The types that schemas refer to, by their names in the OpenRPC document.
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


def schema_of(hint: Any, *, request: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a type, as annotations write it.

    A request has only declared keys; an answer may gain others in later releases.
    """
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if hint in _NAMES:
        return reference(_NAMES[hint])
    if is_typeddict(hint) or attrs.has(hint) or dataclasses.is_dataclass(hint):
        return _object(hint, request=request)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"type": "string", "enum": [member.value for member in hint]}
    return _of_generic(hint, get_origin(hint), get_args(hint), request=request)


def _of_generic(hint: Any, origin: Any, args: tuple[Any, ...], *, request: bool) -> dict[str, Any]:
    if origin is Annotated:
        schema = _annotated(args, request=request)
    elif origin in {Required, NotRequired}:
        schema = schema_of(args[0], request=request)
    elif origin is Literal:
        schema = {"const": args[0]} if len(args) == 1 else {"type": "string", "enum": list(args)}
    elif origin in {Union, UnionType}:
        # In a request, null is the same as a missing value.
        parts = [part for part in args if part is not NoneType or not request]
        schema = _union([schema_of(part, request=request) for part in parts])
    elif issubclass(origin or hint, Mapping):
        values = schema_of(args[1], request=request) if args else {}
        schema = {"type": "object"} | ({"additionalProperties": values} if values else {})
    else:
        schema = array(schema_of(args[0], request=request) if args else {})
    return schema


def _annotated(args: tuple[Any, ...], *, request: bool) -> dict[str, Any]:
    records = [note for note in args[1:] if isinstance(note, type)]
    if is_typeddict(args[0]) and records:
        schema = _object(*records, args[0], request=request)
    elif records:
        schema = _union([schema_of(record, request=request) for record in records])
    else:
        schema = schema_of(args[0], request=request)
    for note in args[1:]:
        if isinstance(note, str):
            schema |= {"description": note}
        elif isinstance(note, Limits):
            schema |= note.schema
    return schema


def _union(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    some = [one for one in schemas if one != {"type": "null"}]
    schema = some[0] if len(some) == 1 else {"anyOf": some}
    if len(some) == len(schemas):
        return schema
    return nullable(schema) if len(some) == 1 else {"anyOf": [*some, {"type": "null"}]}


@lru_cache
def _fields(hint: Any, *, request: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the schemas of the fields of a type, and the names of the required ones."""
    if not is_typeddict(hint):
        return _of_record(hint, request=request)
    hints = get_type_hints(hint, include_extras=True)
    schemas = {name: schema_of(kind, request=request) for name, kind in hints.items()}
    # `__required_keys__` does not know of `Required` in annotations that are text.
    required = [
        name
        for name, kind in hints.items()
        if get_origin(kind) is Required
        or (get_origin(kind) is not NotRequired and name in hint.__required_keys__)
    ]
    if hint is answers.Specification:  # a copy of `Submission` for type checkers
        declared_there = properties(Submission, answer=True)
        schemas |= {name: declared_there[name] for name in schemas if name in declared_there}
        required += [name for name in declared_there if name in schemas and name not in required]
    return schemas, required


def _of_record(record: Any, *, request: bool) -> tuple[dict[str, Any], list[str]]:
    of = dataclasses if dataclasses.is_dataclass(record) else attrs
    fields = of.fields(record)
    if any(ABOUT in one.metadata for one in fields):
        schemas = properties(record, answer=not request)
        required = {one.wire for one in declared(record) if one.required or not request}
        return schemas, [name for name in schemas if name in required]
    descriptions = described(inspect.getdoc(record) or "")
    hints = get_type_hints(record, include_extras=True)
    schemas = {
        one.name: {**schema_of(hints[one.name]), **descriptions.get(one.name, {})} for one in fields
    }
    return schemas, list(schemas)


def _object(*parts: Any, request: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for schemas, required in (_fields(part, request=request) for part in parts):
        schema["properties"] |= schemas
        schema["required"] += required
    return {**schema, "additionalProperties": False} if request else schema


_SECTION = re.compile(
    r"^Parameters\n-{3,}\n(.*?)(?=^\w[^\n]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL
)
_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \w+)*)(?: *: *(.*))?$")


def described(docstring: str) -> dict[str, dict[str, str]]:
    """Return the descriptions of parameters in a docstring of numpydoc's form."""
    section = _SECTION.search(docstring)
    descriptions: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in section[1].splitlines() if section else ():
        if entry := _ENTRY.match(line):
            lines = []
            descriptions |= dict.fromkeys(entry[1].split(", "), lines)
        elif line.strip():
            lines.append(line.strip())
    return {name: {"description": " ".join(lines)} for name, lines in descriptions.items() if lines}


#: The schemas of the parameters of ``jobs.submit``.
SUBMISSION = properties(Submission)


def fields_of(declared: Any) -> dict[str, Any]:
    """Return the schemas of the fields of a `TypedDict` in a request, by their names."""
    return _fields(declared, request=True)[0]


@lru_cache
def components() -> dict[str, dict[str, Any]]:
    """Return the named schemas, which others refer to."""
    return {name: _object(declared, request=False) for name, declared in _NAMED.items()}
