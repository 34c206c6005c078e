"""Tables of jobs: with the usual columns, with chosen columns, and as CSV."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from crystalmath.cli.shared import output
from crystalmath.models.job_notes import in_tree, step_of, told_steps
from crystalmath.models.written import force_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rich.table import Table

    from crystalmath.wire.answers import JobDocument, ProgressDocument

_PROGRESS = ("IONIC", "SCF")
_FORCE = "FORCE/(eV/Å)"
_COLUMNS = (
    *("REMOTE", "NAME", "STATE", "RECIPE", "ENGINE", "RESOURCES", "STEPS", *_PROGRESS),
    *("ENERGY/eV", _FORCE, "AGE", "ID", "SUPERSEDED BY"),
)
#: Columns that are left out if all their cells are empty: most jobs are of one home and ask for no
#: resources, only flows have steps, only running jobs have progress, superseded jobs are hidden.
_OPTIONAL = ("REMOTE", "RESOURCES", "STEPS", *_PROGRESS, _FORCE, "SUPERSEDED BY")
#: The columns that shrink to fit the line, in this order, and the widths that they keep.
_GIVE_WAY = (
    ("RESOURCES", 10),
    ("RECIPE", 10),
    ("ENGINE", 8),
    ("NAME", 8),
    ("RECIPE", 6),
    ("ENGINE", 6),
)
#: The part that is kept from the beginning of a cell; names end with the swept values.
_BEGINNING = {"NAME": 0.3, "RECIPE": 0.0, "ENGINE": 1.0}

_RIGHT = (*_PROGRESS, "ENERGY/eV", _FORCE, "AGE")

#: The cells of each column.
_Cells: TypeAlias = "dict[str, Sequence[str]]"


def usual(
    jobs: Sequence[JobDocument],
    width: int,
    progress: Mapping[str, ProgressDocument | None] | None = None,
    steps: Collection[str] = (),
) -> str:
    """Return a table of jobs with the usual columns, at most `width` characters wide.

    Jobs whose ids are in `steps` are shown as a tree below their flows.
    """
    reached = progress or {}
    rows = []
    for is_below, group in groupby(jobs, lambda job: job["job_id"] in steps):
        together = list(group)
        names = [step_or_name(job) for job in together]
        tree = in_tree(names) if is_below else ([name] for name in names)
        for job, (*above, own) in zip(together, tree, strict=True):
            indent = "  " * is_below
            rows += [("", indent + line, *[""] * (len(_COLUMNS) - 2)) for line in above]
            rows.append(_row(job, reached.get(job["job_id"]), indent + own))
    columns: _Cells = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    columns = {name: each for name, each in columns.items() if name not in _OPTIONAL or any(each)}
    padded = [_padded(name, cells) for name, cells in _fitted(columns, width).items()]
    head, *lines = ("  ".join(row).rstrip() for row in zip(*padded, strict=True))
    if sys.stdout.isatty():
        head = f"\x1b[1m{head}\x1b[0m"
    return "\n".join([head, *lines])


def _padded(name: str, cells: Sequence[str]) -> list[str]:
    """Return the cells of a column padded to one width, with numbers aligned to the right."""
    texts = [name, *map(output.printable, cells)]
    widths = [_width(text) for text in texts]
    blanks = [" " * (max(widths) - width) for width in widths]
    pairs = zip(texts, blanks, strict=True)
    return [blank + text if name in _RIGHT else text + blank for text, blank in pairs]


def step_or_name(job: JobDocument) -> str:
    """Return the name of a step in its flow, else the job's own."""
    step = step_of(job["parents"])
    return step[1] if step else job["name"] or ""


def _row(job: JobDocument, reached: ProgressDocument | None, name: str) -> tuple[str, ...]:
    energy = (job["result"] or {}).get("energy_ev")
    force = ionic = electronic = None
    if reached is not None:
        energy, force = reached["energy_ev"], reached["max_force_ev_ang"]
        ionic, electronic = reached["ionic_step"], reached["electronic_step"]
    return (
        str(job.get("remote") or ""),
        name,
        _state(job),
        output.short_recipe(job["recipe"]),
        job["engine"],
        output.resources(job).replace(", ", " "),
        told_steps(job["steps"]) if job["steps"] else "",
        "" if ionic is None else str(ionic),
        "" if electronic is None else str(electronic),
        "" if energy is None else f"{energy:.4f}",
        "" if force is None else force_text(force),
        output.age(job["created_at"]),
        job["job_id"][:8],
        (job["superseded_by"] or "")[:8],
    )


def _state(job: JobDocument) -> str:
    """Return a job's state, with the jobs that it waits for, or the loss of its files."""
    remark = {"all": "removed", "gone": "gone"}.get(job["removed"] or "")
    if job["status"] == "pending" and (before := {one["job_id"] for one in output.awaited(job)}):
        remark = f"waits for {min(before)[:8] if len(before) == 1 else f'{len(before)} jobs'}"
    return f"{job['status']}, {remark}" if remark else job["status"]


def _fitted(cells: _Cells, width: int) -> _Cells:
    """Fit rows into a width by shorter recipes, engines and names; ids stay whole.

    A recipe or an engine that all rows share is left out before names are shortened.
    """
    for column in ("RECIPE", "ENGINE"):
        alike = len(cells["ID"]) > 1 and len(set(cells[column])) == 1
        if alike and _shrunk(cells, width)["NAME"] < _widths(cells)["NAME"]:
            cells = {name: texts for name, texts in cells.items() if name != column}
    widths = _shrunk(cells, width)
    return {
        column: [_shortened(cell, widths[column], _BEGINNING.get(column, 1.0)) for cell in texts]
        for column, texts in cells.items()
    }


def _shrunk(cells: _Cells, width: int) -> dict[str, int]:
    widths = _widths(cells)
    excess = sum(widths.values()) + 2 * (len(widths) - 1) - width
    for column, least in _GIVE_WAY:
        cut = max(0, min(excess, widths.get(column, 0) - least))
        if cut:
            widths[column] -= cut
            excess -= cut
    return widths


def _widths(cells: _Cells) -> dict[str, int]:
    return {column: max(map(_width, (column, *texts))) for column, texts in cells.items()}


def _shortened(text: str, width: int, beginning: float) -> str:
    if _width(text) <= width:
        return text
    head = int((width - 1) * beginning)
    tail = _cut(text[::-1], width - 1 - head)[::-1]
    return f"{_cut(text, head).rstrip()}…{tail.lstrip()}"


def _width(text: str) -> int:
    """Return the columns that a text takes; some characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # it takes long to import

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    if text.isascii():
        return text[:width]
    from rich.cells import set_cell_size

    return set_cell_size(text, width)


# --- chosen columns --------------------------------------------------------------------------


def chosen(jobs: Sequence[JobDocument], names: Sequence[str]) -> Table:
    """Return a table of named columns, with rounded numbers and local times."""
    rows = [
        [_cell(name, value) for name, value in zip(names, values, strict=True)]
        for values in _values(jobs, names)
    ]
    numbers = [name for name in names if name.endswith(("_ev", "_ang", "_s")) or name == "natoms"]
    return output.grid(names, rows, right=numbers, whole=["job_id", *numbers])


def _cell(name: str, value: Any) -> str:
    from crystalmath.models.columns import TIMES

    if value is None:
        return ""
    if name in TIMES:
        from datetime import datetime

        return f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}"
    if name == "recipe":
        return output.short_recipe(value)
    if isinstance(value, float):
        if name.endswith("_ev_ang"):
            return force_text(value)
        return f"{value:.1f}" if name.endswith("_s") else f"{value:.6f}"
    return " ".join(str(value).split())


def write_csv(jobs: Sequence[JobDocument], names: Sequence[str] | None) -> None:
    """Print jobs as comma-separated values after a line of column names."""
    import csv

    from crystalmath.models.columns import JOB_COLUMNS

    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = list(JOB_COLUMNS) if names is None else names
    writer.writerow(columns)
    writer.writerows(_values(jobs, columns))


def _values(jobs: Sequence[JobDocument], names: Sequence[str]) -> Iterator[list[Any]]:
    from crystalmath.models.columns import job_values
    from crystalmath.models.job import Job

    return (job_values(Job.read(job), names) for job in jobs)
