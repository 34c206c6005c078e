"""Schemas follow from types; those that are written out beside a record agree with it."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - schemas are made of annotations
from types import NoneType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    get_args,
    get_type_hints,
)

import attrs
import pytest

from crystalmath.errors import Finding
from crystalmath.models.answers import Potcar
from crystalmath.models.fields import Limits, properties
from crystalmath.models.filters import ExcludeParams, FilterParams, JobFilter
from crystalmath.models.job import Job, JobState, Pseudopotential
from crystalmath.models.job_notes import FindingDocument
from crystalmath.models.retry import ChangeParams, Retry
from crystalmath.models.schemas import schema_of
from crystalmath.models.submission import Submission, SubmitParams
from crystalmath.server.methods import METHODS

Size = Annotated[int, Limits(minimum=0), "in bytes"]


class Part(TypedDict):
    """What others extend."""

    size: Size
    place: NotRequired[Annotated[str, "where it is"]]


class Whole(Part, total=False):
    """Both kinds of keys, from a class with each kind of totality."""

    kind: Required[Literal["a", "b"] | None]
    last: Size | None
    job: Annotated[Mapping[str, Any], Job]
    parts: list[Part]
    states: dict[str, JobState]


@attrs.frozen
class Record:
    """A record.

    Parameters
    ----------
    low, high : float
        Its ends,
        in eV.
    note : str, optional
        What it is.
    """

    low: float
    high: float
    note: str | None = None


def test_a_schema_says_what_its_type_says():
    part = {
        "type": "object",
        "properties": {
            "size": {"type": "integer", "minimum": 0, "description": "in bytes"},
            "place": {"type": "string", "description": "where it is"},
        },
        "required": ["size"],
    }
    assert schema_of(Part) == part
    whole = schema_of(Whole, request=True)
    states = {"type": "string", "enum": [state.value for state in JobState]}
    assert whole == {
        "type": "object",
        "properties": {
            **part["properties"],
            # In a request null is the same as none.
            "kind": {"type": "string", "enum": ["a", "b"]},
            "last": {"type": "integer", "minimum": 0, "description": "in bytes"},
            "job": {"$ref": "#/components/schemas/Job"},
            "parts": {"type": "array", "items": {**part, "additionalProperties": False}},
            "states": {"type": "object", "additionalProperties": states},
        },
        "required": ["size", "kind"],
        "additionalProperties": False,
    }
    answered = schema_of(Whole)["properties"]
    assert answered["kind"] == {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]}
    assert answered["last"]["type"] == ["integer", "null"]
    ends = {"type": "number", "description": "Its ends, in eV."}
    assert schema_of(Record)["properties"] == {
        "low": ends,
        "high": ends,
        "note": {"type": ["string", "null"], "description": "What it is."},
    }


def kinds(schema):
    """Tell which kinds of values a schema allows, and what is in them; null is the same as none."""
    if "anyOf" in schema:
        return frozenset().union(*map(kinds, schema["anyOf"]))
    named = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return frozenset((kind, kinds_within(kind, schema)) for kind in named if kind != "null")


def kinds_within(kind, schema):
    if kind == "array":
        return kinds(schema["items"])
    if kind == "object" and "properties" in schema:
        return frozenset((name, kinds(each)) for name, each in schema["properties"].items())
    values = schema.get("additionalProperties")
    return kinds(values) if values else None


@pytest.mark.parametrize(
    ("written", "record"),
    [
        (SubmitParams, Submission),
        (ChangeParams, Retry),
        (FilterParams, JobFilter),
        (ExcludeParams, JobFilter),
    ],
)
def test_what_is_written_out_for_type_checkers_is_what_the_record_declares(written, record):
    declared = properties(record)
    hints = get_type_hints(written)
    assert (hints.keys() == declared.keys()) == (written is not ExcludeParams)
    for name, hint in hints.items():
        if name != "exclude":  # the record leaves open what is in it
            assert kinds(schema_of(hint)) == kinds(declared[name]), name
        # They reach the handler without those that are null.
        assert NoneType not in get_args(hint), name


@pytest.mark.parametrize(
    ("written", "record"), [(FindingDocument, Finding), (Potcar, Pseudopotential)]
)
def test_what_is_written_out_of_an_answer_is_what_the_record_has(written, record):
    told = {name: hint.__forward_arg__ for name, hint in written.__annotations__.items()}
    assert told == record.__annotations__


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_request_has_no_other_keys_than_declared(name):
    assert METHODS[name].params["additionalProperties"] is False
