"""Draw a figure into a file, PNG or SVG, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from crystalmath.cli.shared.figure import Panel

#: What a file's name may end in.
FORMATS = (".png", ".svg")
#: The size of a panel, in inches, and the resolution of a PNG.
_WIDTH, _HEIGHT = 6.4, 4.0
_DPI = 150
_MARKERS = "o^sDv<>p"


def save(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels below each other and write the file.

    Raises
    ------
    CrystalMathError
        There is no matplotlib.
    """
    try:
        # Without pyplot, which would look for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CrystalMathError(
            f"{path} is drawn with matplotlib, which cannot be imported ({error}); install it: "
            "pip install 'crystalmath[plot]'; without --output it is drawn in the terminal"
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
    figure.savefig(path, dpi=_DPI)
