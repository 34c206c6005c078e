"""Declarations of the fields of records, with their names on the wire and JSON Schemas.

A field is an ordinary field of attrs, or of a dataclass, whose metadata come from :func:`about`;
:func:`optional` makes one of attrs. Nothing here generates code: a reader and mypy see the same
fields as attrs.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from attrs import AttrsInstance

#: A JSON Schema. Units and limits of a field stand in it once.
Schema: TypeAlias = Mapping[str, Any]

ABOUT = "crystalmath"
_P = ParamSpec("_P")
_Record = TypeVar("_Record")


class Limits:
    """Limits and formats beside a type in ``Annotated``, in words of JSON Schema."""

    def __init__(self, **schema: Any) -> None:
        self.schema = schema


def array(items: Schema, **more: Any) -> dict[str, Any]:
    """Make the schema of a list."""
    return {"type": "array", "items": items, **more}


def nullable(schema: Schema) -> dict[str, Any]:
    """Make the schema of a value that may be ``null``."""
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    value = dict(schema)
    description = {key: value.pop(key) for key in ("description",) if key in value}
    return {"anyOf": [value, {"type": "null"}], **description}


def reference(name: str) -> dict[str, Any]:
    """Refer to a schema that OpenRPC lists under its ``components``."""
    return {"$ref": f"#/components/schemas/{name}"}


class Option(NamedTuple):
    """A field's option on the command line, with the placeholder of its value and the help."""

    name: str
    metavar: str
    help: str


class About(NamedTuple):
    """The description of a field, beside its type and default.

    The text `doc` explains the field and its unit; the schema has its limits. The field may have
    another name on the `wire`. Another value of a `hashed` field makes another job. Answers contain
    the `shown` fields, and the job database the `stored` ones. A `known` field is never null in an
    answer, whatever its default.
    """

    doc: str
    schema: Schema
    wire: str | None = None
    hashed: bool = False
    shown: bool = True
    stored: bool = True
    known: bool = False
    option: Option | None = None


def _metadata(make: Callable[_P, About]) -> Callable[_P, dict[str, About]]:
    return lambda *terms, **more: {ABOUT: make(*terms, **more)}


#: Make the metadata of a field; see :class:`About`.
about = _metadata(About)


def optional(doc: str, schema: Schema, option: Option | None = None, **more: Any) -> Any:
    """Make a field of attrs that may be left out, by default ``None``.

    Further arguments are those of :class:`About` and of ``attrs.field``. A field with a converter
    calls ``attrs.field`` itself, as only then mypy sees the types of the converter.
    """
    from attrs import field

    of_field = {name: more.pop(name) for name in [*more] if name not in About._fields}
    if "factory" not in of_field:
        of_field.setdefault("default", None)
    return field(metadata=about(doc, schema, option=option, **more), **of_field)


class Field(NamedTuple):
    """A field as its record declares it; a required one has the default ``None``."""

    name: str
    wire: str
    about: About
    required: bool
    default: Any

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of a value, with its documentation."""
        return {**self.about.schema, "description": self.about.doc}


_declared: dict[type[Any], tuple[Field, ...]] = {}


def declared(record: type[Any]) -> tuple[Field, ...]:
    """Return the fields of a record."""
    if record not in _declared:
        _declared[record] = tuple(
            Field(
                name=one.name,
                wire=one.metadata[ABOUT].wire or one.name,
                about=one.metadata[ABOUT],
                required=one.default is missing,
                default=None if one.default is missing else _default(one.default),
            )
            for one, missing in _members(record)
        )
    return _declared[record]


def _members(record: type[Any]) -> Iterator[tuple[Any, object]]:
    """Yield the fields of a record, each with its default if it has none."""
    if dataclasses.is_dataclass(record):
        yield from ((one, dataclasses.MISSING) for one in dataclasses.fields(record))
        return
    from attrs import NOTHING, fields  # 8 ms, for which `crystalmath list` does not wait

    yield from ((one, NOTHING) for one in fields(record))


def _default(default: Any) -> Any:
    return default.factory() if hasattr(default, "factory") else default


def documented(record: type[_Record]) -> type[_Record]:
    """Add the descriptions of a record's fields to its docstring, in the form of numpydoc."""
    types = {one.name: one.type for one, _ in _members(record)}
    parameters = (
        f"{one.name} : {types[one.name]}\n    {one.about.doc[:1].upper()}{one.about.doc[1:]}."
        for one in declared(record)
    )
    own = inspect.cleandoc(record.__doc__ or "")
    record.__doc__ = "\n".join([own, "", "Parameters", "-" * 10, *parameters])
    return record


# --- on the wire -----------------------------------------------------------------------------


def properties(record: type[Any], *, answer: bool = False) -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas of a record's fields by their names on the wire.

    In an `answer` a field without a value is ``null``; a request may leave it out or send ``null``.
    """
    return {
        one.wire: nullable(one.schema) if answer and _may_be_null(one) else one.schema
        for one in declared(record)
        if one.about.shown
    }


def _may_be_null(one: Field) -> bool:
    return not one.required and one.default is None and not one.about.known


def to_wire(
    record: AttrsInstance, *, defaults: bool = True, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Write the shown fields of a record, or `only` some; without `defaults` no unset ones."""
    return {
        one.wire: plain(value)
        for one in declared(type(record))
        if one.about.shown and (only is None or one.wire in only)
        for value in (getattr(record, one.name),)
        if defaults or value != one.default
    }


def from_wire(record: type[AttrsInstance], document: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arguments of a record from a document; leave out unknown keys."""
    return {
        one.name: document[one.wire]
        for one in declared(record)
        if document.get(one.wire) is not None
    }


_JSON = (str, int, float, bool)


def plain(value: object) -> Any:
    """Return a field's value as JSON can hold it."""
    # Most values have one of these types; abstract classes answer ten times slower.
    kind = type(value)
    if value is None or kind in _JSON:
        return value
    if isinstance(value, dict | Mapping):
        return dict(value)
    if isinstance(value, Enum | PurePath):
        return value.value if isinstance(value, Enum) else str(value)
    if hasattr(kind, "__attrs_attrs__"):
        return to_wire(cast("AttrsInstance", value), defaults=False)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
