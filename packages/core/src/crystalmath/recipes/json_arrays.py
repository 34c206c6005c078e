"""Arrays as JSON: a shape, a type and flat items, checked before anything is allocated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: So many items are converted at once, in which no other thread runs.
_SLICE = 10_000
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
    for start in range(0, len(flat), _SLICE):
        items += flat[start : start + _SLICE].tolist()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        items = [item if math.isfinite(item) else repr(item) for item in items]
    return items


def array_of(rows: Any) -> np.ndarray:
    """Return what ``numpy.asarray`` makes of nested lists, a slice of many rows at a time.

    Raises `ValueError`: they are ragged.
    """
    import numpy as np

    if not isinstance(rows, list) or len(rows) <= _SLICE:
        return np.asarray(rows)
    starts = range(0, len(rows), _SLICE)
    return np.concatenate([np.asarray(rows[start : start + _SLICE]) for start in starts])


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
        for start in range(0, len(items), _SLICE):
            flat[start : start + _SLICE] = items[start : start + _SLICE]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the items of an array are not of type {dtype!r}: {error}") from error
    if finite and flat.dtype.kind == "f" and not np.isfinite(flat).all():
        raise ValueError("an array holds numbers that are not finite")
    return (flat.view(kind) if kind.kind == "c" else flat).reshape(tuple(shape))


def text_width(items: list[str]) -> int:
    """Return the length of the longest text of an array.

    Raises `ValueError`: each item takes as much memory as the longest, which would be far more than
    the texts.
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
