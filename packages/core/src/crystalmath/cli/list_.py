"""``crystalmath list``: jobs as a table, once or live, or counted."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from crystalmath.cli.shared import completion, output
from crystalmath.cli.shared.job_filters import LabelFilter, StateFilter, any_client, states
from crystalmath.cli.shared.parameter_options import parse_labels
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations
from crystalmath.errors import ServerNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    from crystalmath.client import Client, Job

__all__ = ["list_jobs"]

#: How often a live list is renewed, in seconds.
_RENEW_S = 1.0
#: At least so many times as long as looking takes.
_REST = 4.0


def list_jobs(
    state: StateFilter = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="E", help="Only jobs of this engine.", autocompletion=completion.engines
        ),
    ] = None,
    label: LabelFilter = None,
    error: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only jobs whose error contains this.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many at most; 0 for all.")
    ] = 50,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show them live, until Ctrl-C.")] = False,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Count them by state, and failures by their error."),
    ] = False,
    as_json: Json = False,
) -> int:
    """List jobs, the newest first."""
    if watch and (summary or as_json):
        raise typer.BadParameter("goes with neither --summary nor --json", param_hint="--watch")
    filters = {
        "state": states(state),
        "engine": engine,
        "labels": parse_labels(label or ()) or None,
        "error": error,
    }
    if watch:
        return _watch(filters, limit)
    with any_client() as client:
        if summary:
            return _summary(client, filters, as_json=as_json)
        jobs = _jobs(client, filters, limit)
        cut = len(jobs) == limit and not as_json
        more = _total(client, filters) - len(jobs) if cut else 0
    if as_json:
        output.write_json({"jobs": [job.document() for job in jobs], "error": None})
    elif jobs:
        output.show(_table(jobs))
        if more:
            output.note(f"{more} more; --limit 0 shows all, --summary counts them")
    else:
        output.note("no jobs")
    return 0


def _jobs(client: Client, filters: Mapping[str, Any], limit: int) -> list[Job]:
    return list(client.list(**filters, limit=limit or None))


def _total(client: Client, filters: Mapping[str, Any]) -> int:
    return sum(client.summary(**filters)["states"].values())


# --- the table -------------------------------------------------------------------------------

_COLUMNS = ("NAME", "STATE", "RECIPE", "ENGINE", "RESOURCES", "ENERGY/eV", "AGE", "ID")
#: What gives way where a line is too narrow, in this order, and how many columns it keeps.
_GIVE_WAY = (
    ("RESOURCES", 10),
    ("RECIPE", 10),
    ("ENGINE", 8),
    ("NAME", 8),
    ("RECIPE", 6),
    ("ENGINE", 6),
)
#: How much of these is kept at the beginning; swept values stand at the end of a name.
_BEGINNING = {"NAME": 0.3, "RECIPE": 0.0, "ENGINE": 1.0}

#: The cells of each column.
_Cells: TypeAlias = "dict[str, Sequence[str]]"


def _table(jobs: Sequence[Job]) -> Table:
    rows = zip(*map(_row, jobs), strict=True)
    columns: _Cells = dict(zip(_COLUMNS, rows, strict=True))
    if not any(columns["RESOURCES"]):  # most ask for none
        del columns["RESOURCES"]
    cells = _fitted(columns, output.width())
    whole = [column for column in cells if column != "NAME"]
    return output.grid(
        list(cells), zip(*cells.values(), strict=True), right=("ENERGY/eV", "AGE"), whole=whole
    )


def _row(job: Job) -> tuple[str, ...]:
    energy = (job.summary or {}).get("energy_ev")
    return (
        job.name or "",
        _state(job),
        output.short_recipe(job.recipe),
        job.engine,
        output.resources(job).replace(", ", " "),
        "" if energy is None else f"{energy:.4f}",
        output.age(job.created_at),
        job.job_id[:8],
    )


def _state(job: Job) -> str:
    """Tell a job's state, and whether its files are there."""
    files = {"all": "removed", "gone": "gone"}.get(job.removed or "")
    return f"{job.state.value}, {files}" if files else job.state.value


def _fitted(cells: _Cells, width: int) -> _Cells:
    """Make rows fit, so that ids stay whole: shorten recipes, engines and names.

    What all rows share is left out before a name is shortened.
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
        given = max(0, min(excess, widths.get(column, 0) - least))
        if given:
            widths[column] -= given
            excess -= given
    return widths


def _widths(cells: _Cells) -> dict[str, int]:
    from rich.cells import cell_len

    return {column: max(map(cell_len, (column, *texts))) for column, texts in cells.items()}


def _shortened(text: str, width: int, beginning: float) -> str:
    from rich.cells import cell_len, set_cell_size  # some characters take two columns

    if cell_len(text) <= width:
        return text
    head = int((width - 1) * beginning)
    tail = set_cell_size(text[::-1], width - 1 - head)[::-1]
    return f"{set_cell_size(text, head).rstrip()}…{tail.lstrip()}"


# --- live ------------------------------------------------------------------------------------


def _watch(filters: Mapping[str, Any], limit: int) -> int:
    try:
        if sys.stdout.isatty():
            _live(filters, limit)
        else:
            _repeat(filters, limit)
    except KeyboardInterrupt:
        return 0
    return 0


def _look(
    client: Client, filters: Mapping[str, Any], most: int
) -> tuple[list[Job], dict[str, int]]:
    """Give jobs, and all counted by state; where not all have room, first those that run."""
    counts: dict[str, int] = client.summary(**filters)["states"]
    if not most or sum(counts.values()) <= most:
        return _jobs(client, filters, most), counts
    jobs: list[Job] = []
    others = [state for state, count in counts.items() if count and state != "running"]
    for wanted in (["running"] if counts.get("running") else [], others):
        if wanted and len(jobs) < most:
            jobs += _jobs(client, {**filters, "state": wanted}, most - len(jobs))
    return jobs, counts


def _renewed(
    filters: Mapping[str, Any], limit: Callable[[], int]
) -> Iterator[tuple[list[Job], dict[str, int]]]:
    """Look at the jobs again and again, whatever becomes of the server."""
    from crystalmath.client.client_errors import ConnectionLost

    while True:
        with contextlib.suppress(ServerNotRunning, ConnectionLost), any_client() as client:
            while True:
                begun = time.monotonic()
                yield _look(client, filters, limit())
                # Whoever has very many must not keep the server busy by looking on.
                time.sleep(max(_RENEW_S, _REST * (time.monotonic() - begun)))
        time.sleep(_RENEW_S)


def _live(filters: Mapping[str, Any], limit: int) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, console=output.console()) as live:

        def most() -> int:
            rows = max(1, live.console.height - 3)  # the header, the counts, and the cursor's line
            return min(limit or rows, rows)

        for jobs, counts in _renewed(filters, most):
            told = Text(output.counts(counts))
            live.update(Group(_table(jobs), told) if jobs else told, refresh=True)


def _repeat(filters: Mapping[str, Any], limit: int) -> None:
    """Where there is no terminal: print the table again when something has changed."""
    shown = None
    for jobs, counts in _renewed(filters, lambda: limit):
        if (seen := ([(job.job_id, job.revision) for job in jobs], counts)) != shown:
            shown = seen
            if jobs:
                output.show(_table(jobs))
            output.write(f"{output.counts(counts)}\n")
            sys.stdout.flush()


# --- counted ---------------------------------------------------------------------------------


def _summary(client: Client, filters: Mapping[str, Any], *, as_json: bool) -> int:
    counted = client.summary(**filters)
    if as_json:
        output.write_json({"states": counted["states"], "errors": counted["errors"], "error": None})
        return 0
    if not any(counted["states"].values()):
        output.note("no jobs")
    for state, count in counted["states"].items():
        if count:
            output.write(f"{count:8} {state}")
    if counted["errors"]:
        output.write("\nfailed, by error:")
    for group in counted["errors"]:
        # The rest, such as the last lines of a program, is for `crystalmath result`.
        text = output.first_line(group["error"])
        ids = ", ".join(job_id[:8] for job_id in group["job_ids"])
        more = ", ..." if group["count"] > len(group["job_ids"]) else ""
        output.write(f"{group['count']:8} {text}\n{'':8} {ids}{more}")
    return 0
