"""JSON of what may be large, written in pieces: the encoder lets no other thread run meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: So many items of a list are written at once: as many positions take some milliseconds.
_SLICE = 1_000
#: And so many characters of a text.
_STRETCH = 2**16
_CONTAINERS = (dict, list, tuple)


def json_text(value: object, *, compact: bool = False, sort_keys: bool = False) -> str:
    """Write what ``json.dumps`` writes.

    A structure of 400,000 atoms takes half a second, in which a server answers others.

    Parameters
    ----------
    value : object
        What JSON can hold.
    compact : bool
        Without blanks.
    sort_keys : bool
        Members by their names.

    Raises
    ------
    ValueError
        A number is not finite.
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
