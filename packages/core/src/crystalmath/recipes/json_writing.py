"""JSON of what may be large, written in pieces: the encoder lets no other thread run meanwhile."""

from __future__ import annotations

import json

__all__ = ["json_text"]

#: So many items of a list are written at once: as many positions take some milliseconds.
_SLICE = 2_000
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
    separators = (",", ":") if compact else (", ", ": ")
    encoder = json.JSONEncoder(allow_nan=False, separators=separators, sort_keys=sort_keys)
    return _written(value, encoder) if _is_long(value) else encoder.encode(value)


def _is_long(value: object) -> bool:
    """Tell whether some list in it is: in a small document most of the time would be ours."""
    inside: list[object] = [value]
    while inside:
        each = inside.pop()
        if isinstance(each, dict):
            inside.extend(each.values())
        elif isinstance(each, list | tuple):
            if len(each) > _SLICE:
                return True
            inside.extend(each)
    return False


def _written(value: object, encoder: json.JSONEncoder) -> str:
    comma, colon = encoder.item_separator, encoder.key_separator
    if isinstance(value, dict) and all(type(name) is str for name in value):
        names = sorted(value) if encoder.sort_keys else value
        members = (
            f"{encoder.encode(name)}{colon}{_written(value[name], encoder)}" for name in names
        )
        return f"{{{comma.join(members)}}}"
    if isinstance(value, list | tuple):
        if len(value) > _SLICE:
            starts = range(0, len(value), _SLICE)
            slices = (encoder.encode(value[start : start + _SLICE])[1:-1] for start in starts)
            return f"[{comma.join(slices)}]"
        if any(isinstance(each, _CONTAINERS) for each in value):
            return f"[{comma.join(_written(each, encoder) for each in value)}]"
    return encoder.encode(value)
