"""JSON of large documents: text in pieces, parts of a text, and arrays.

Encoding or decoding 20 MB at once would block all other threads.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import numpy as np

#: The most items of a list that are written at once: 1,000 positions take some milliseconds.
_SLICE = 1_000
#: The most characters of a text that are written at once.
_STRETCH = 2**16
#: Copying a text of this length blocks the interpreter for a millisecond.
_HUGE = 2**20
#: How long other threads have the interpreter to themselves after a copy, in seconds.
_PAUSE_S = 0.005
_CONTAINERS = (dict, list, tuple)
_NUMBERS = frozenset((int, float))


def json_text(value: object, *, compact: bool = False, sort_keys: bool = False) -> str:
    """Return the text of ``json.dumps``; `ValueError`: a number is not finite.

    A structure of 400,000 atoms takes half a second, and a server answers others meanwhile.
    """
    pieces = [*json_pieces(value, compact=compact, sort_keys=sort_keys)]
    with one_at_a_time(sum(map(len, pieces))):
        return "".join(pieces)


def json_pieces(value: object, *, compact: bool = False, sort_keys: bool = False) -> Iterator[str]:
    """Yield the pieces of the text of :func:`json_text`."""
    separators = (",", ":") if compact else (", ", ": ")
    encoder = json.JSONEncoder(allow_nan=False, separators=separators, sort_keys=sort_keys)
    return _pieces(value, encoder) if is_long(value) else iter((encoder.encode(value),))


def is_long(value: object) -> bool:
    """Return whether a document holds a list or a text that is written in pieces."""
    if isinstance(value, str):
        return len(value) > _STRETCH
    if isinstance(value, dict):
        return any(map(is_long, value.values()))
    if isinstance(value, list | tuple):
        # Most lists hold numbers alone.
        return len(value) > _SLICE or (
            not _NUMBERS.issuperset(map(type, value)) and any(map(is_long, value))
        )
    return False


_copying = threading.Lock()


@contextlib.contextmanager
def one_at_a_time(size: int) -> Iterator[None]:
    """Let one thread at a time copy or read a text of a `size`, in characters.

    No other thread runs meanwhile, for 20 to 45 ms with 30 MB. The pause afterwards lets a server's
    event loop answer a request, which needs the interpreter several times.
    """
    if size < _HUGE:
        yield
        return
    with _copying:
        yield
        time.sleep(_PAUSE_S)


def is_in(part: str, text: str) -> bool:
    """Return whether a text has a short part, searching one stretch after the other."""
    starts = range(0, len(text), _STRETCH)
    return any(text.find(part, at, at + _STRETCH + len(part)) >= 0 for at in starts)


def _is_divided(value: object) -> bool:
    """Return whether a member of a list is written in pieces."""
    return isinstance(value, _CONTAINERS) or is_long(value)


def _pieces(value: object, encoder: json.JSONEncoder) -> Iterator[str]:
    """Yield the text piece by piece: joining pieces at each level would take as long again."""
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
    elif isinstance(value, str) and is_long(value):
        yield '"'
        for start in range(0, len(value), _STRETCH):
            yield encoder.encode(value[start : start + _STRETCH])[1:-1]
        yield '"'
    else:
        yield encoder.encode(value)


#: The most names of fields in the message about one that is missing.
_MOST_NAMES = 20


def json_part(text: bytes, field: str, way: str = "") -> bytes:
    """Return the JSON text of a field; `InvalidJob` names the fields that exist.

    All of the text is decoded; the index of a result finds the large parts.
    """
    if not field:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob("the stored result is no whole JSON") from error
    while field:
        named = enumerate(value) if isinstance(value, list) else ()
        members = value if isinstance(value, dict) else {str(at): item for at, item in named}
        name, way, field = next_name(way, field, members)
        value = members[name]
    return json.dumps(value, separators=(",", ":")).encode()


def next_name(way: str, field: str, names: Collection[str]) -> tuple[str, str, str]:
    """Return the first name of a field, the way with that name, and the rest of the field.

    `InvalidJob` names the fields that exist.
    """
    for name in names:
        if f"{field}.".startswith(f"{name}."):
            return name, f"{way}.{name}" if way else name, field[len(name) + 1 :]
    names = [name for name in names if name[:1] != "@"]  # monty marks types with it
    there = f"there are {', '.join(names[:_MOST_NAMES])}" if names else "nothing is in it"
    more = ", ..." if len(names) > _MOST_NAMES else ""
    place = shown(way) if way else "the result"
    raise InvalidJob(f"{place} has no field {shown(field)}; {there}{more}")


#: The most items of an array that are converted at once, while no other thread runs.
_ARRAY_SLICE = 10_000
_MAX_DIMENSIONS = 8
_DOUBLE = 8  # bytes
#: An array of texts may take this number of characters, or 16 for each character in it.
_SMALL = 2**22
_PADDING = 16

# The types of items by the kind of array; a string among numbers spells one that is not finite.
_ITEM_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "c": {int, float},
    "U": {str},
}


#: Return the name of an array's type. It is cached: numpy needs some twenty calls.
dtype_text = functools.lru_cache(str)


def array_items(values: np.ndarray) -> list[Any]:
    """Return the flat items of an array as JSON can hold them.

    Complex numbers become pairs of neighbours (real, imaginary), and numbers that are not finite
    become strings.

    Raises `TypeError`: the items are no numbers, truth values or strings.
    """
    import numpy as np

    if values.dtype.kind not in "biufcU":
        raise TypeError(f"an array of {values.dtype} cannot be written as JSON")
    flat = np.ascontiguousarray(values).ravel()
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    if flat.dtype.kind == "f" and flat.dtype.itemsize > _DOUBLE:  # longdouble has no JSON form
        flat = flat.astype(float)
    items: list[Any] = []
    for start in range(0, len(flat), _ARRAY_SLICE):
        items += flat[start : start + _ARRAY_SLICE].tolist()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        items = [item if math.isfinite(item) else repr(item) for item in items]
    return items


def array_of(rows: Any) -> np.ndarray:
    """Return nested lists as an array, made slice by slice; `ValueError`: they are ragged."""
    import numpy as np

    if not isinstance(rows, list) or len(rows) <= _ARRAY_SLICE:
        return np.asarray(rows)
    starts = range(0, len(rows), _ARRAY_SLICE)
    return np.concatenate([np.asarray(rows[start : start + _ARRAY_SLICE]) for start in starts])


def array_from(shape: Any, dtype: Any, items: Any, *, finite: bool = True) -> np.ndarray:
    """Build an array from a shape, a type and flat items.

    Raises `ValueError`: they do not agree, or the type is none of numbers, truth values and
    strings.
    """
    import numpy as np

    if not isinstance(dtype, str) or not isinstance(items, list) or not _is_shape(shape):
        raise ValueError("an array needs a shape, a type and a flat list of items")
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{dtype!r} is no array type") from error
    if kind.kind not in "biufcU" or kind.fields is not None or kind.subdtype is not None:
        raise ValueError(f"arrays of {dtype!r} are not permitted")
    count = math.prod(shape) * (2 if kind.kind == "c" else 1)
    if count != len(items):
        raise ValueError(f"an array of shape {list(shape)} does not have {len(items)} items")
    _check_items(kind.kind, items, finite=finite)
    flat_kind = np.dtype(f"f{kind.itemsize // 2}") if kind.kind == "c" else kind
    if kind.kind == "U":  # numpy would allocate an itemsize such as <U1000000000 for each item
        flat_kind = np.dtype(f"U{text_width(items)}")
    try:
        flat = np.empty(len(items), dtype=flat_kind)
        for start in range(0, len(items), _ARRAY_SLICE):
            flat[start : start + _ARRAY_SLICE] = items[start : start + _ARRAY_SLICE]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the items of an array are not of type {dtype!r}: {error}") from error
    if finite and flat.dtype.kind == "f" and not np.isfinite(flat).all():
        raise ValueError("an array holds numbers that are not finite")
    return (flat.view(kind) if kind.kind == "c" else flat).reshape(tuple(shape))


def text_width(items: list[str]) -> int:
    """Return the length of the longest text of an array.

    Raises `ValueError`: the array would take far more memory than its texts.
    """
    width = max(map(len, items), default=1) or 1
    if width * len(items) > max(_SMALL, _PADDING * sum(map(len, items))):
        raise ValueError(f"{len(items)} texts of up to {width} characters take too much memory")
    return width


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, (list, tuple))
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(length) is int and 0 <= length < 2**40 for length in shape)
    )


def _check_items(kind: str, items: list[Any], *, finite: bool) -> None:
    wanted = _ITEM_TYPES[kind]
    strange = set(map(type, items)) - wanted
    if not finite and kind in "fc":
        strange -= {str}
    if strange:
        names = ", ".join(sorted(item.__name__ for item in strange))
        raise ValueError(f"an array of kind {kind!r} holds items of type {names}")


#: The most parts of a place in a message.
_SHOWN = 10


def place_name(place: tuple[Any, ...]) -> str:
    """Spell a place in nested parameters, ``opt_params.optimizer``."""
    text = ""
    for part in place[:_SHOWN]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if part != "" else ""
    return text.lstrip(".") + ("..." if len(place) > _SHOWN else "")


def structure_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the structure of an encoded specification, as ``jobs.submit`` takes it.

    For a job that waits for its structure, it is the reference to another job.
    """
    atoms = body["atoms"]
    if not atoms or "@module" not in atoms:
        return atoms or None
    # A step of a flow may hold a structure in the form of another step's result.
    return {"format": "ase-json", "data": atoms.get("data") or atoms["atoms_json"]}
