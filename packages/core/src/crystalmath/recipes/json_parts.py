"""A part of a JSON text, found without decoding the rest: to decode 20 MB stalls every thread."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TEXT = re.compile(_STRING, re.DOTALL)
_MARK = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_ATOM = re.compile(rb"[^\s,\]}]+")
_BLANK = re.compile(rb"[\s,:]*")
#: So many names are told where one is not there.
_TOLD = 20


def json_part(text: bytes, field: str, way: str = "") -> bytes:
    """Return the JSON text of a part.

    Parameters
    ----------
    text : bytes
        A whole JSON text.
    field : str
        Names and numbers of members, with dots between them: ``results.energy``, ``static.0``.
    way : str
        By which names the text itself was reached, for messages.

    Raises
    ------
    InvalidJob
        There is no such part; the message names what there is in its place.
    """
    start, end = _after(text, 0), len(text.rstrip())
    left = field
    while left:
        names = []
        for name, begin, stop in _members(text, start):
            if left == name or left.startswith(f"{name}."):
                start, end, left = begin, stop, left[len(name) + 1 :]
                way = f"{way}.{name}" if way else name
                break
            names.append(name)
        else:
            raise no_field(way, left, names)
    return text[start:end]


def no_field(way: str, left: str, names: Sequence[str]) -> InvalidJob:
    """Return the error that says which fields there are in place of one."""
    there = f"there are {', '.join(names[:_TOLD])}" if names else "nothing is in it"
    more = ", ..." if len(names) > _TOLD else ""
    place = shown(way) if way else "the result"
    return InvalidJob(f"{place} has no field {shown(left)}; {there}{more}")


def _members(text: bytes, start: int) -> Iterator[tuple[str, int, int]]:
    """Go through the members of an object or a list, from where it begins."""
    kind = text[start : start + 1]
    if kind not in {b"{", b"["}:
        return
    at, number = _after(text, start + 1), 0
    while text[at : at + 1] not in {b"}", b"]"}:
        name = str(number)
        if kind == b"{":
            end = _end(text, at)
            name = json.loads(text[at:end])
            at = _after(text, end)
        end = _end(text, at)
        yield name, at, end
        at, number = _after(text, end), number + 1


def _after(text: bytes, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None  # noqa: S101 - it matches nothing, too
    return found.end()


def _end(text: bytes, at: int) -> int:
    """Find where a value ends."""
    first = text[at : at + 1]
    if first not in {b"{", b"["}:
        found = (_TEXT if first == b'"' else _ATOM).match(text, at)
        assert found is not None  # noqa: S101 - our worker wrote JSON
        return found.end()
    depth = 0
    for mark in _MARK.finditer(text, at):
        token = mark[0]
        if token in {b"{", b"["}:
            depth += 1
        elif token in {b"}", b"]"}:
            depth -= 1
            if not depth:
                return mark.end()
    raise InvalidJob("the stored result is no whole JSON")
