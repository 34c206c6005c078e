"""Draw figures: in a terminal with Braille dots, into a PNG or SVG file with matplotlib."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.text import Text


#: The distances between marks, times a power of ten.
_STEPS = (1.0, 2.0, 5.0)
#: The most marks on a logarithmic axis; more are thinned out.
_MOST_LOG_MARKS = 6
#: The part of a range that is added on either side, so that no point lies on the frame.
_MARGIN = 0.05


@frozen
class Curve:
    """Points, and a line through them."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = field(default=True, kw_only=True)
    points: bool = field(default=True, kw_only=True)
    #: The number of the curve that shares its colour with this one; default: none.
    of: int | None = field(default=None, kw_only=True)


@frozen
class Panel:
    """Curves in one frame."""

    x_label: str
    y_label: str
    curves: Sequence[Curve]
    title: str = field(default="", kw_only=True)
    log_y: bool = field(default=False, kw_only=True)
    #: The texts at 0, 1, 2, ... if x are not numbers.
    x_names: Sequence[str] = field(default=(), kw_only=True)


@frozen
class Marks:
    """An axis from `low` to `high`, with places and their texts."""

    low: float
    high: float
    places: Sequence[float]
    texts: Sequence[str]


def linear_marks(values: Sequence[float], most: int) -> Marks:
    """Choose round numbers across a range, with enough digits to differ."""
    low, high = min(values), max(values)
    margin = (high - low) * _MARGIN or abs(low) * _MARGIN or 1.0
    low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    sizes = [factor * power * scale for scale in (0.1, 1, 10) for factor in _STEPS]
    wide = next(place for place, size in enumerate(sizes) if (high - low) / size <= most)
    # If the range lies between two marks of this step, take the next smaller step.
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


#: The shapes differ as well as the colours, for terminals without colours.
_POINTS = "●▲■◆○△□◇"
_COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue", "white", "bright_black")
#: The dots of a Braille character, by row and column, in the bits of its code point.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
_TALL, _WIDE = 4, 2
#: The distance between marks of the axes, in lines and columns.
_MARK_HEIGHT = 3
_MARK_WIDTH = 14
_LEAST_WIDTH = 10


def draw(panel: Panel, width: int, height: int) -> list[Text]:
    """Return the lines of text of a panel."""
    from rich.text import Text

    curves = [_log(curve) for curve in panel.curves] if panel.log_y else list(panel.curves)
    ys = [y for curve in curves for y in curve.y]
    most = max(2, height // _MARK_HEIGHT)
    y_marks = log_marks(ys) if panel.log_y else linear_marks(ys, most)
    gutter = max(map(len, y_marks.texts), default=0) + 2
    columns = max(_LEAST_WIDTH, width - gutter - 1)
    x_marks = _x_marks(panel, curves, max(2, columns // _MARK_WIDTH))
    canvas = _Canvas(x_marks, y_marks, columns, height)
    for number, curve in enumerate(curves):
        canvas.add(curve, (number if curve.of is None else curve.of) % len(_POINTS))
    at = {
        canvas.row(place): text for place, text in zip(y_marks.places, y_marks.texts, strict=True)
    }
    lines = [Text(panel.title, style="bold")] if panel.title else []
    lines.append(Text(panel.y_label, style="bold"))
    for row, inside in enumerate(canvas.lines()):
        text = at.get(row, "")
        edge = f"{text:>{gutter - 1}}{'┤' if text else '│'}"
        lines.append(Text(edge).append_text(inside))
    lines += [Text(line) for line in _below(canvas, x_marks, gutter)]
    lines.append(Text(panel.x_label.rjust(gutter + columns), style="bold"))
    if any(curve.name for curve in curves):
        lines += _legend(curves, width)
    return lines


def _log(curve: Curve) -> Curve:
    kept = [(x, math.log10(y)) for x, y in zip(curve.x, curve.y, strict=True) if y > 0]
    return evolve(curve, x=[x for x, _ in kept], y=[y for _, y in kept])


def _x_marks(panel: Panel, curves: Sequence[Curve], most: int) -> Marks:
    if not panel.x_names:
        return linear_marks([x for curve in curves for x in curve.x], most)
    places = range(len(panel.x_names))
    return Marks(-0.5, len(places) - 0.5, places, panel.x_names)


class _Canvas:
    def __init__(self, x: Marks, y: Marks, columns: int, rows: int) -> None:
        self._x, self._y = x, y
        self._columns, self._rows = columns, rows
        self._dots = [[0] * columns for _ in range(rows)]
        self._style: dict[tuple[int, int], int] = {}
        self._points: dict[tuple[int, int], int] = {}

    def column(self, x: float) -> int:
        return self._dot(x, 0.0)[0] // _WIDE

    def row(self, y: float) -> int:
        return self._dot(self._x.low, y)[1] // _TALL

    def _dot(self, x: float, y: float) -> tuple[int, int]:
        across = (x - self._x.low) / (self._x.high - self._x.low)
        down = (self._y.high - y) / (self._y.high - self._y.low)
        wide, tall = self._columns * _WIDE - 1, self._rows * _TALL - 1
        return round(across * wide), min(max(round(down * tall), 0), tall)

    def add(self, curve: Curve, number: int) -> None:
        dots = [self._dot(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
        if curve.line:
            for begin, end in itertools.pairwise(dots):
                self._line(begin, end, number)
        if curve.points:
            self._points.update({(y // _TALL, x // _WIDE): number for x, y in dots})

    def _line(self, begin: tuple[int, int], end: tuple[int, int], number: int) -> None:
        length = max(abs(end[0] - begin[0]), abs(end[1] - begin[1]), 1)
        for step in range(length + 1):
            x = round(begin[0] + (end[0] - begin[0]) * step / length)
            y = round(begin[1] + (end[1] - begin[1]) * step / length)
            row, column = y // _TALL, x // _WIDE
            self._dots[row][column] |= _DOTS[y % _TALL][x % _WIDE]
            self._style[row, column] = number

    def lines(self) -> Iterator[Text]:
        from rich.text import Text

        for row in range(self._rows):
            line = Text()
            for column in range(self._columns):
                place = (row, column)
                if place in self._points:
                    number = self._points[place]
                    line.append(_POINTS[number], style=_COLOURS[number])
                elif dots := self._dots[row][column]:
                    line.append(chr(_BRAILLE + dots), style=_COLOURS[self._style[place]])
                else:
                    line.append(" ")
            line.rstrip()
            yield line


def _below(canvas: _Canvas, marks: Marks, gutter: int) -> tuple[str, str]:
    """Return the lower edge of the frame, and the texts of its marks as far as they fit."""
    width = canvas.column(marks.high) + 1
    edge, texts = ["─"] * width, [" "] * width
    free = 0
    for place, text in zip(marks.places, marks.texts, strict=True):
        at = canvas.column(place)
        edge[at] = "┬"
        begin = min(max(at - len(text) // 2, 0), max(width - len(text), 0))
        if begin >= free and begin + len(text) <= width:
            texts[begin : begin + len(text)] = text
            free = begin + len(text) + 1
    return " " * (gutter - 1) + "└" + "".join(edge), (" " * gutter + "".join(texts)).rstrip()


def _legend(curves: Sequence[Curve], width: int) -> list[Text]:
    from rich.text import Text

    entries = []
    for number, curve in enumerate(curves):
        if curve.name:
            style = _COLOURS[number % len(_POINTS)]
            mark = _POINTS[number % len(_POINTS)] if curve.points else "─"
            entries.append(Text(f"{mark} ", style=style).append(curve.name, style="default"))
    lines = [Text("  ")]
    for entry in entries:
        if lines[-1].cell_len + entry.cell_len > width and lines[-1].plain.strip():
            lines.append(Text("  "))
        lines[-1].append_text(entry).append("   ")
    for line in lines:
        line.rstrip()
    return lines


#: The endings of file names that are supported.
FORMATS = (".png", ".svg")
#: The size of a panel, in inches, and the resolution of a PNG.
_WIDTH, _HEIGHT = 6.4, 4.0
_DPI = 150
_MARKERS = "o^sDv<>p"


def save(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels below each other and write the file."""
    try:
        # pyplot would look for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CrystalMathError(
            f"writing {path} needs matplotlib, which cannot be imported ({error}); install it: "
            "pip install 'crystalmath[plot]'; without --output the figure is drawn in the terminal"
        ) from error
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False).flat, panels, strict=True):
        for number, curve in enumerate(panel.curves):
            axes.plot(
                curve.x,
                curve.y,
                label=curve.name or None,
                color=f"C{number if curve.of is None else curve.of}",
                marker=_MARKERS[number % len(_MARKERS)] if curve.points else "",
                linestyle="-" if curve.line else "",
            )
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        axes.set_title(panel.title)
        axes.ticklabel_format(useOffset=False)
        if panel.log_y:
            axes.set_yscale("log")
        if panel.x_names:
            axes.set_xticks(range(len(panel.x_names)), panel.x_names)
        if any(curve.name for curve in panel.curves):
            axes.legend()
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise CrystalMathError(f"{path} cannot be written: {error.strerror or error}") from error
