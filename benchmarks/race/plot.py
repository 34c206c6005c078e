"""Draw the table of a page: ``python benchmarks/race/plot.py docs/race.md docs/pictures/race.svg``.

A point for each contestant and task shows its jobs in a second, on a logarithmic scale where they
differ by more than a factor of ten.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from matplotlib import pyplot as plt
from race import COUNTS, read_table

TASKS = {
    "noop": "no-ops",
    "static": "statics by EMT",
    "slabs": "flows of slabs",
    "chgnet": "statics by CHGNet",
}
_TIME = re.compile(r"([\d.e+]+) s(?: for ([\d,]+))?")


def rates(text: str) -> dict[str, dict[str, float]]:
    """Return jobs in a second by contestant and task, from a page with the table."""
    found: dict[str, dict[str, float]] = {}
    for name, cells in read_table(text).items():
        for task, cell in cells.items():
            if task in TASKS and (time := _TIME.fullmatch(cell)):
                count = int(time[2].replace(",", "")) if time[2] else COUNTS[task]
                found.setdefault(name, {})[task] = count / float(time[1])
    return found


def main() -> None:
    """Draw the figure."""
    page, picture = map(Path, sys.argv[1:])
    by_name = rates(page.read_text(encoding="utf-8"))
    names = list(by_name)[::-1]
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "race", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, len(TASKS), figsize=(9, 3), sharey=True, layout="constrained")
    for panel, (task, title) in zip(panels, TASKS.items(), strict=True):
        for at, name in enumerate(names):
            if task in by_name[name]:
                color = "tab:red" if name.startswith("CrystalMath") else "tab:blue"
                panel.plot(by_name[name][task], at, "o", color=color)
        panel.set(title=title, yticks=range(len(names)), yticklabels=names)
        panel.margins(x=0.15)
        numbers = [found[task] for found in by_name.values() if task in found]
        if max(numbers) > 10 * min(numbers):
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter("{x:g}")
        else:
            panel.set_xlim(left=0)
        panel.grid(visible=True, alpha=0.3)
    figure.supxlabel("jobs in a second")
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
