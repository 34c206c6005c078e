"""How a record declares its fields, and what follows from that: names on the wire, JSON Schemas.

A field is an ordinary field of attrs, or of a dataclass, whose metadata come from :func:`about`;
:func:`optional` makes one of attrs. What stands in a record is what a job can have; nothing here
makes code, so a reader and mypy see what attrs sees.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from attrs import AttrsInstance

#: A JSON Schema. Units and limits of a field stand in it once.
Schema: TypeAlias = Mapping[str, Any]

ABOUT = "crystalmath"
_P = ParamSpec("_P")
_Record = TypeVar("_Record")


class Limits:
    """What stands beside a type in ``Annotated``: limits and formats, in words of JSON Schema."""

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
    told = {"description": value.pop("description")} if "description" in value else {}
    return {"anyOf": [value, {"type": "null"}], **told}


def reference(name: str) -> dict[str, Any]:
    """Refer to a schema that OpenRPC lists under its ``components``."""
    return {"$ref": f"#/components/schemas/{name}"}


class Option(NamedTuple):
    """A field's option on the command line, what stands for its value in the help, and the help."""

    name: str
    metavar: str
    help: str


class About(NamedTuple):
    """What a field says of itself, beside its type and default.

    Its text says what it is, with its unit; its schema has its limits. It may have another name on
    the `wire`. Another value of a `hashed` one makes it another job. Answers tell what is `shown`,
    the job database has what is `stored`, and an answer always has a value of what is `known`,
    whatever the default says.
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
    return lambda *told, **more: {ABOUT: make(*told, **more)}


#: Make the metadata of a field; see :class:`About`.
about = _metadata(About)


def optional(doc: str, schema: Schema, option: Option | None = None, **more: Any) -> Any:
    """Make a field of attrs that may be left out, by default ``None``.

    What there is `more` is of :class:`About`, or of ``attrs.field``. It is no place for a
    converter, whose types mypy sees in ``attrs.field`` itself.
    """
    from attrs import field

    of_field = {name: more.pop(name) for name in [*more] if name not in About._fields}
    if "factory" not in of_field:
        of_field.setdefault("default", None)
    return field(metadata=about(doc, schema, option=option, **more), **of_field)


class Field(NamedTuple):
    """A field as its record declares it; the default is ``None`` where it is required."""

    name: str
    wire: str
    about: About
    required: bool
    default: Any

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of a value, with its documentation."""
        return {**self.about.schema, "description": self.about.doc}


@lru_cache
def declared(record: type[Any]) -> tuple[Field, ...]:
    """Return the fields of a record."""
    return tuple(
        Field(
            name=one.name,
            wire=one.metadata[ABOUT].wire or one.name,
            about=one.metadata[ABOUT],
            required=one.default is missing,
            default=None if one.default is missing else _default(one.default),
        )
        for one, missing in _members(record)
    )


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
    """Add to a record's docstring what its fields say of themselves, as numpydoc writes it."""
    types = {one.name: one.type for one, _ in _members(record)}
    told = (
        f"{one.name} : {types[one.name]}\n    {one.about.doc[:1].upper()}{one.about.doc[1:]}."
        for one in declared(record)  # type: ignore[arg-type]
    )
    own = inspect.cleandoc(record.__doc__ or "")
    record.__doc__ = "\n".join([own, "", "Parameters", "-" * 10, *told])
    return record


# --- on the wire -----------------------------------------------------------------------------


def properties(record: type[Any], *, answer: bool = False) -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas of a record's fields by their names on the wire.

    In an `answer` a field is ``null`` where there is no value; in a request ``null`` is the same as
    none.
    """
    return {
        one.wire: nullable(one.schema) if answer and _may_be_null(one) else one.schema
        for one in declared(record)  # type: ignore[arg-type]
        if one.about.shown
    }


def _may_be_null(one: Field) -> bool:
    return not one.required and one.default is None and not one.about.known


def to_wire(
    record: AttrsInstance, *, defaults: bool = True, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Write what a record shows, or `only` some, by its names on the wire; `defaults`: all."""
    return {
        one.wire: plain(value)
        for one in declared(type(record))
        if one.about.shown and (only is None or one.wire in only)
        for value in (getattr(record, one.name),)
        if defaults or value != one.default
    }


def from_wire(record: type[AttrsInstance], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a record from what was sent, without unknown ones."""
    return {
        one.name: document[one.wire]
        for one in declared(record)
        if document.get(one.wire) is not None
    }


_JSON = (str, int, float, bool)


def plain(value: object) -> Any:
    """Return a field's value as JSON can hold it."""
    # Most are one of these; to ask abstract classes takes ten times that.
    kind = type(value)
    if value is None or kind in _JSON:
        return value
    if kind is dict or isinstance(value, Mapping):
        return dict(value)  # type: ignore[call-overload]
    if isinstance(value, Enum | PurePath):
        return value.value if isinstance(value, Enum) else str(value)
    if hasattr(kind, "__attrs_attrs__"):
        return to_wire(value, defaults=False)  # type: ignore[arg-type]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
