"""Schemas follow from types; those that are written out beside a record agree with it."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - schemas are made of annotations
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    get_type_hints,
)

import attrs
import pytest

from crystalmath.errors import Finding
from crystalmath.models.fields import Limits
from crystalmath.models.job import Job, JobState, Pseudopotential
from crystalmath.models.job_notes import FindingDocument
from crystalmath.server.handlers import METHODS
from crystalmath.wire.answers import Potcar
from crystalmath.wire.schemas import schema_of

pytestmark = pytest.mark.server

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


@pytest.mark.parametrize(
    ("written", "record"), [(FindingDocument, Finding), (Potcar, Pseudopotential)]
)
def test_what_is_written_out_of_an_answer_is_what_the_record_has(written, record):
    assert get_type_hints(written) == get_type_hints(record)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_request_has_no_other_keys_than_declared(name):
    assert METHODS[name].params["additionalProperties"] is False
