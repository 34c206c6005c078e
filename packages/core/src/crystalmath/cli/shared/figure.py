"""What is to be drawn, whoever draws it, and where the marks of its axes are."""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003 - attrs reads annotations

from attrs import field, frozen

#: Distances between marks, in powers of ten.
_STEPS = (1.0, 2.0, 5.0)
#: More marks than these on a logarithmic axis are thinned out.
_MOST_LOG_MARKS = 6
#: A range is widened by so much on either side, so that no point lies on the frame.
_MARGIN = 0.05


@frozen
class Curve:
    """Points, and a line through them.

    Parameters
    ----------
    name : str
        What the legend calls it.
    x, y : sequence of float
        Where the points are.
    line : bool
        Connect them.
    points : bool
        Mark them.
    of : int, optional
        The number of the curve whose colour it has; default: one of its own.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = field(default=True, kw_only=True)
    points: bool = field(default=True, kw_only=True)
    of: int | None = field(default=None, kw_only=True)


@frozen
class Panel:
    """Curves in one frame.

    Parameters
    ----------
    x_label, y_label : str
        What is drawn, with its unit.
    curves : sequence of Curve
        At least one, with at least one point.
    title : str
        What stands above; may be empty.
    log_y : bool
        Draw the logarithm of what is positive.
    x_names : sequence of str
        What stands at 0, 1, 2, ... where x are no numbers.
    """

    x_label: str
    y_label: str
    curves: Sequence[Curve]
    title: str = field(default="", kw_only=True)
    log_y: bool = field(default=False, kw_only=True)
    x_names: Sequence[str] = field(default=(), kw_only=True)


@frozen
class Marks:
    """An axis from `low` to `high`, with places and their texts."""

    low: float
    high: float
    places: Sequence[float]
    texts: Sequence[str]


def linear_marks(values: Sequence[float], most: int) -> Marks:
    """Choose round numbers across a range, with as many digits as tell them apart."""
    low, high = min(values), max(values)
    margin = (high - low) * _MARGIN or abs(low) * _MARGIN or 1.0
    low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    sizes = [factor * power * scale for scale in (0.1, 1, 10) for factor in _STEPS]
    wide = next(place for place, size in enumerate(sizes) if (high - low) / size <= most)
    # Between two marks of the step that is wide enough there may be all; then the one below.
    for step in (sizes[wide], sizes[wide - 1]):
        numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
        if numbers:
            break
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    places = [number * step for number in numbers]
    return Marks(low, high, places, [f"{place:.{digits}f}" for place in places])


def log_marks(exponents: Sequence[float]) -> Marks:
    """Choose round numbers across a range of powers of ten, given by their exponents."""
    low, high = min(exponents), max(exponents)
    margin = max((high - low) * _MARGIN, 0.05)
    low, high = low - margin, high + margin
    whole = range(math.floor(low), math.ceil(high) + 1)
    for factors in (_STEPS, _STEPS[:1]):
        numbers = [factor * 10.0**exponent for exponent in whole for factor in factors]
        inside = [number for number in numbers if low <= math.log10(number) <= high]
        if 0 < len(inside) <= _MOST_LOG_MARKS:
            break
    places = [math.log10(number) for number in inside]
    return Marks(low, high, places, [f"{number:g}" for number in inside])
