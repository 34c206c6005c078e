"""JSON of what may be large: text written in pieces and read in parts, and arrays.

To encode or decode 20 MB at once would let no other thread run meanwhile.
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

#: So many items of a list are written at once: as many positions take some milliseconds.
_SLICE = 1_000
#: And so many characters of a text.
_STRETCH = 2**16
#: A text of so many characters keeps the interpreter for a millisecond when it is copied.
_HUGE = 2**20
#: How long others have the interpreter to themselves after that, in seconds.
_PAUSE_S = 0.005
_CONTAINERS = (dict, list, tuple)
_NUMBERS = frozenset((int, float))


def json_text(value: object, *, compact: bool = False, sort_keys: bool = False) -> str:
    """Write what ``json.dumps`` writes; `ValueError`: a number is not finite.

    A structure of 400,000 atoms takes half a second, in which a server answers others.
    """
    pieces = [*json_pieces(value, compact=compact, sort_keys=sort_keys)]
    with one_at_a_time(sum(map(len, pieces))):
        return "".join(pieces)


def json_pieces(value: object, *, compact: bool = False, sort_keys: bool = False) -> Iterator[str]:
    """Write what :func:`json_text` writes, one piece after the other."""
    separators = (",", ":") if compact else (", ", ": ")
    encoder = json.JSONEncoder(allow_nan=False, separators=separators, sort_keys=sort_keys)
    return _pieces(value, encoder) if is_long(value) else iter((encoder.encode(value),))


def is_long(value: object) -> bool:
    """Return whether a list or a text in a document is written in pieces."""
    if isinstance(value, str):
        return len(value) > _STRETCH
    if isinstance(value, dict):
        return any(map(is_long, value.values()))
    if isinstance(value, list | tuple):
        # Most lists are of numbers alone.
        return len(value) > _SLICE or (
            not _NUMBERS.issuperset(map(type, value)) and any(map(is_long, value))
        )
    return False


_copying = threading.Lock()


@contextlib.contextmanager
def one_at_a_time(size: int) -> Iterator[None]:
    """Copy or read a text of so many characters at once, in one thread at a time.

    No other thread runs meanwhile, for 20 to 45 ms with 30 MB. A server's event loop needs the
    interpreter several times to answer a request: the pause after that lets it do so.
    """
    if size < _HUGE:
        yield
        return
    with _copying:
        yield
        time.sleep(_PAUSE_S)


def is_in(part: str, text: str) -> bool:
    """Return whether a text has a short part, looked for in one stretch after the other."""
    starts = range(0, len(text), _STRETCH)
    return any(text.find(part, at, at + _STRETCH + len(part)) >= 0 for at in starts)


def _is_divided(value: object) -> bool:
    """Return whether it is not written at once."""
    return isinstance(value, _CONTAINERS) or is_long(value)


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
    elif isinstance(value, str) and is_long(value):
        yield '"'
        for start in range(0, len(value), _STRETCH):
            yield encoder.encode(value[start : start + _STRETCH])[1:-1]
        yield '"'
    else:
        yield encoder.encode(value)


#: So many names are told where one is not there.
_TOLD = 20


def json_part(text: bytes, field: str, way: str = "") -> bytes:
    """Return the JSON text of a part; `InvalidJob` names what there is in its place.

    All of the text is decoded: what is large of a result its index finds.
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
    """Return with which name a field goes on, the way so far with it, and what is left then.

    `InvalidJob` names what there is in its place.
    """
    for name in names:
        if f"{field}.".startswith(f"{name}."):
            return name, f"{way}.{name}" if way else name, field[len(name) + 1 :]
    names = [name for name in names if name[:1] != "@"]  # that is how monty marks a type
    there = f"there are {', '.join(names[:_TOLD])}" if names else "nothing is in it"
    more = ", ..." if len(names) > _TOLD else ""
    place = shown(way) if way else "the result"
    raise InvalidJob(f"{place} has no field {shown(field)}; {there}{more}")


#: So many items are converted at once, in which no other thread runs.
_ARRAY_SLICE = 10_000
_MAX_DIMENSIONS = 8
_DOUBLE = 8  # bytes
#: Characters that an array of texts may have in any case, and else for each that is not padding.
_SMALL = 2**22
_PADDING = 16

# What may be an item of each kind of array; a string among numbers spells one that is not finite.
_ITEM_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "c": {int, float},
    "U": {str},
}


#: Spells the type of an array; numpy puts the text together anew, in some twenty calls.
dtype_text = functools.lru_cache(str)


def array_items(values: np.ndarray) -> list[Any]:
    """Return the flat items of an array as JSON can hold them.

    Complex numbers become pairs of neighbours (real, imaginary); what is not finite is spelled.

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
    """Return ``numpy.asarray`` of nested lists, slice by slice; `ValueError`: they are ragged."""
    import numpy as np

    if not isinstance(rows, list) or len(rows) <= _ARRAY_SLICE:
        return np.asarray(rows)
    starts = range(0, len(rows), _ARRAY_SLICE)
    return np.concatenate([np.asarray(rows[start : start + _ARRAY_SLICE]) for start in starts])


def array_from(shape: Any, dtype: Any, items: Any, *, finite: bool = True) -> np.ndarray:
    """Build an array from a shape, a type and flat items, after checking that they agree.

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
    if kind.kind == "U":  # an itemsize such as <U1000000000 would be allocated for each item
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

    `ValueError`: the array would take far more memory than its texts.
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


#: So many parts of a place are in a message.
_SHOWN = 10


def place_name(place: tuple[Any, ...]) -> str:
    """Spell a place in nested parameters, ``opt_params.optimizer``."""
    text = ""
    for part in place[:_SHOWN]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if part != "" else ""
    return text.lstrip(".") + ("..." if len(place) > _SHOWN else "")


def structure_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the structure of an encoded specification, as ``jobs.submit`` takes it.

    Of a job that waits for it, it is the reference to another job.
    """
    atoms = body["atoms"]
    if not atoms or "@module" not in atoms:
        return atoms or None
    # A step of a flow may hold a structure as the result of another step has it.
    return {"format": "ase-json", "data": atoms.get("data") or atoms["atoms_json"]}
