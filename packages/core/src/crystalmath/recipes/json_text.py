"""JSON text that may be large: written in pieces, and parts of it found without decoding the rest.

The encoder and the decoder of 20 MB would let no other thread run meanwhile.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: So many items of a list are written at once: as many positions take some milliseconds.
_SLICE = 1_000
#: And so many characters of a text.
_STRETCH = 2**16
_CONTAINERS = (dict, list, tuple)


def json_text(value: object, *, compact: bool = False, sort_keys: bool = False) -> str:
    """Write what ``json.dumps`` writes.

    A structure of 400,000 atoms takes half a second, in which a server answers others.

    Raises `ValueError`: a number is not finite.
    """
    return "".join(json_pieces(value, compact=compact, sort_keys=sort_keys))


def json_pieces(value: object, *, compact: bool = False, sort_keys: bool = False) -> Iterator[str]:
    """Write what :func:`json_text` writes, one piece after the other."""
    separators = (",", ":") if compact else (", ", ": ")
    encoder = json.JSONEncoder(allow_nan=False, separators=separators, sort_keys=sort_keys)
    return _pieces(value, encoder) if _is_long(value) else iter((encoder.encode(value),))


def _is_long(value: object) -> bool:
    """Return whether some list or text is: in a small document most of the time would be ours."""
    inside: list[object] = [value]
    while inside:
        each = inside.pop()
        if isinstance(each, dict):
            inside.extend(each.values())
        elif isinstance(each, list | tuple):
            if len(each) > _SLICE:
                return True
            inside.extend(each)
        elif _is_divided(each):
            return True
    return False


def _is_divided(value: object) -> bool:
    """Return whether it is not written at once."""
    return isinstance(value, _CONTAINERS) or (isinstance(value, str) and len(value) > _STRETCH)


def _pieces(value: object, encoder: json.JSONEncoder) -> Iterator[str]:
    """Write it piece by piece: to join what was joined takes as long as to write it."""
    if isinstance(value, dict) and all(type(name) is str for name in value):
        yield "{"
        for number, name in enumerate(sorted(value) if encoder.sort_keys else value):
            comma = encoder.item_separator if number else ""
            yield f"{comma}{encoder.encode(name)}{encoder.key_separator}"
            yield from _pieces(value[name], encoder)
        yield "}"
    elif isinstance(value, list | tuple) and len(value) > _SLICE:
        yield "["
        for start in range(0, len(value), _SLICE):
            comma = encoder.item_separator if start else ""
            yield comma + encoder.encode(value[start : start + _SLICE])[1:-1]
        yield "]"
    elif isinstance(value, list | tuple) and any(map(_is_divided, value)):
        yield "["
        for number, each in enumerate(value):
            if number:
                yield encoder.item_separator
            yield from _pieces(each, encoder)
        yield "]"
    elif isinstance(value, str) and _is_divided(value):
        yield '"'
        for start in range(0, len(value), _STRETCH):
            yield encoder.encode(value[start : start + _STRETCH])[1:-1]
        yield '"'
    else:
        yield encoder.encode(value)


_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TEXT = re.compile(_STRING, re.DOTALL)
_MARK = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_ATOM = re.compile(rb"[^\s,\]}]+")
_BLANK = re.compile(rb"[\s,:]*")
#: So many names are told where one is not there.
_TOLD = 20


def json_part(text: bytes, field: str, way: str = "") -> bytes:
    """Return the JSON text of a part.

    Raises `InvalidJob`: there is no such part; the message names what there is in its place.
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
