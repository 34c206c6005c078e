"""``crystalmath list``: jobs as a table, once or live, or counted."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from crystalmath.cli.shared import job_table, output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.errors import CrystalMathError, InvalidJob, ServerNotRunning, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    from crystalmath.client import Client, Job
    from crystalmath.models import Progress

    _Progress: TypeAlias = Mapping[str, Progress | None]
    _Look: TypeAlias = tuple[list[Job], dict[str, int], _Progress]

#: How often a live list is renewed, in seconds.
_RENEW_S = 1.0
#: At least so many times as long as looking takes.
_REST = 4.0
#: Of so many running jobs it is told how far they have come; a screen has room for fewer.
_FOLLOWED = 200


@with_filters
def list_jobs(
    *,
    filters: dict[str, Any],
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many at most; 0 for all.")
    ] = 50,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Sort by a column, such as energy_ev; with a minus before it from the largest: "
            "--sort -created_at, as without it.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Which columns: name,labels.encut,energy_ev. A mistyped one is told which there "
            "are.",
        ),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write comma-separated values, unrounded.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show them live, until Ctrl-C; of those that run also how far they have come.",
        ),
    ] = False,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Count them by state, and failures by their error."),
    ] = False,
    as_json: Json = False,
) -> int:
    """List jobs, the newest first, and tell how many there are.

    Written to a file or a pipe, lines are as long as they need to be.
    """
    for option, given, others in (
        ("--watch", watch, {"--summary": summary, "--json": as_json, "--csv": csv}),
        ("--csv", csv, {"--summary": summary, "--json": as_json}),
        ("--columns", columns is not None, {"--summary": summary, "--json": as_json}),
        ("--sort", sort is not None, {"--summary": summary}),
    ):
        for other in (name for name, too in others.items() if given and too):
            raise typer.BadParameter(f"does not go with {other}", param_hint=option)
    names = None if columns is None else _columns(columns)
    wanted = {**filters, "sort": _sort(sort)}
    if watch:
        return _watch(wanted, limit, names)
    with any_client() as client:
        if summary:
            return _summary(client, filters, as_json=as_json)
        jobs = _jobs(client, wanted, limit)
        full = 0 < limit == len(jobs)
        totals = client.totals(**filters) if full or as_json else {}
    more = sum(totals.values()) - len(jobs) if full else 0
    if as_json:
        documents = [job.document() for job in jobs]
        output.write_json({"jobs": documents, "totals": totals, "error": None})
    elif csv:
        job_table.write_csv(jobs, names or job_table.CSV_COLUMNS)
    elif jobs:
        _show(jobs, names)
    else:
        output.note("no jobs")
    if more and not as_json:
        output.note(f"{more} more; --limit 0 shows all; {output.counts(totals)}")
    return 0


def _columns(text: str) -> list[str]:
    from crystalmath.models.columns import read_columns

    try:
        return read_columns(text)
    except InvalidJob as error:
        raise typer.BadParameter(str(error), param_hint="--columns") from error


def _sort(text: str | None) -> str | None:
    from crystalmath.models.filters import SORTED_BY

    if text is not None and (name := text.removeprefix("-")) not in SORTED_BY:
        raise typer.BadParameter(
            f"jobs are not sorted by {text!r}; {did_you_mean(name, SORTED_BY)}",
            param_hint="--sort",
        )
    return text


def _jobs(client: Client, wanted: Mapping[str, Any], limit: int) -> list[Job]:
    return list(client.list(**wanted, limit=limit or None))


def _show(
    jobs: Sequence[Job], names: Sequence[str] | None, progress: _Progress | None = None
) -> None:
    width = output.full_width()
    output.show(_laid_out(jobs, names, width or output.console().width, progress), width)


def _laid_out(
    jobs: Sequence[Job], names: Sequence[str] | None, width: int, progress: _Progress | None = None
) -> Table:
    if names is None:
        return job_table.usual(jobs, width, progress)
    return job_table.chosen(jobs, names)


# --- live ------------------------------------------------------------------------------------


def _watch(wanted: Mapping[str, Any], limit: int, names: Sequence[str] | None) -> int:
    try:
        if sys.stdout.isatty():
            _live(wanted, limit, names)
        else:
            _repeat(wanted, limit, names)
    except KeyboardInterrupt:
        return 0
    return 0


def _look(client: Client, wanted: Mapping[str, Any], most: int) -> _Look:
    """Give jobs, all counted by state, and how far those have come that run."""
    jobs, counts = _jobs_and_counts(client, wanted, most)
    running = [job.job_id for job in jobs if job.state.value == "running"]
    try:
        return jobs, counts, client.progress(running[:_FOLLOWED])
    except CrystalMathError:  # what it would add is not worth the list
        return jobs, counts, {}


def _jobs_and_counts(
    client: Client, wanted: Mapping[str, Any], most: int
) -> tuple[list[Job], dict[str, int]]:
    """Give jobs, and all counted by state; where not all have room, first those that run."""
    counts = client.totals(**{name: value for name, value in wanted.items() if name != "sort"})
    if wanted["sort"] or not most or sum(counts.values()) <= most:
        return _jobs(client, wanted, most), counts
    jobs: list[Job] = []
    others = [state for state, count in counts.items() if count and state != "running"]
    for states in (["running"] if counts.get("running") else [], others):
        if states and len(jobs) < most:
            jobs += _jobs(client, {**wanted, "state": states}, most - len(jobs))
    return jobs, counts


def _renewed(wanted: Mapping[str, Any], limit: Callable[[], int]) -> Iterator[_Look]:
    """Look at the jobs again and again, whatever becomes of the server."""
    from crystalmath.client.client_errors import ConnectionLost

    while True:
        with contextlib.suppress(ServerNotRunning, ConnectionLost), any_client() as client:
            while True:
                begun = time.monotonic()
                yield _look(client, wanted, limit())
                # Whoever has very many must not keep the server busy by looking on.
                time.sleep(max(_RENEW_S, _REST * (time.monotonic() - begun)))
        time.sleep(_RENEW_S)


def _live(wanted: Mapping[str, Any], limit: int, names: Sequence[str] | None) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, console=output.console()) as live:

        def most() -> int:
            rows = max(1, live.console.height - 3)  # the header, the counts, and the cursor's line
            return min(limit or rows, rows)

        for jobs, counts, progress in _renewed(wanted, most):
            told = Text(output.counts(counts))
            shown = _laid_out(jobs, names, live.console.width, progress) if jobs else None
            live.update(Group(shown, told) if shown else told, refresh=True)


def _repeat(wanted: Mapping[str, Any], limit: int, names: Sequence[str] | None) -> None:
    """Where there is no terminal: print the table again when something has changed."""
    shown = None
    for jobs, counts, progress in _renewed(wanted, lambda: limit):
        if (seen := ([(job.job_id, job.revision) for job in jobs], counts)) != shown:
            shown = seen
            if jobs:
                _show(jobs, names, progress)
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
