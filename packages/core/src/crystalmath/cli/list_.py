"""``crystalmath list``, ``progress`` and ``counts``: tables of jobs, once or live, and counts."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from crystalmath import server
from crystalmath.cli.shared import job_table, output
from crystalmath.cli.shared.common_arguments import (
    JobIds,
    Json,
    chosen_jobs,
    home_reader,
    tell_unserved,
    unserved,
)
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.config import remote_name
from crystalmath.errors import CrystalMathError, InvalidJob, did_you_mean
from crystalmath.models.job_notes import step_of, told_steps
from crystalmath.models.written import force_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from crystalmath.client.home_reader import HomeReader
    from crystalmath.wire.answers import JobDocument, ProgressDocument

    _Progress: TypeAlias = Mapping[str, ProgressDocument | None]
    _Look: TypeAlias = tuple[list[JobDocument], Mapping[str, int], _Progress]


#: The shortest interval at which a live list is renewed, in seconds.
_RENEW_S = 1.0
#: The shortest pause between two looks, in multiples of the time that a look took.
_REST = 4.0
#: The most running jobs whose progress a live list shows; a screen has room for fewer.
_FOLLOWED = 200
#: The most flows, and the most jobs, in one request for steps and for progress.
_FLOWS, _READ = 1000, 200


@with_filters
def list_jobs(
    *,
    filters: dict[str, Any],
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="The most jobs; 0 for all.")] = 50,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Sort by a column, such as energy_ev; a minus before it sorts from the largest. "
            "Default: -created_at.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="The columns: name,labels_encut,energy_ev. An unknown name lists the valid ones.",
        ),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write comma-separated values, unrounded.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show the steps of each flow below it, in their order.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Show the table live until Ctrl-C, with the progress of running jobs."
        ),
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Count the jobs by state, and the failures by error.")
    ] = False,
    as_json: Json = False,
) -> int:
    """List jobs, the newest first, and count the others.

    On a terminal, lines are shortened to its width; in a file or a pipe they stay whole.
    """
    for option, is_set, others in (
        ("--watch", watch, {"--summary": summary, "--json": as_json, "--csv": csv}),
        ("--csv", csv, {"--summary": summary, "--json": as_json}),
        ("--columns", columns is not None, {"--summary": summary, "--json": as_json}),
        ("--sort", sort is not None, {"--summary": summary}),
        ("--tree", tree, {"--watch": watch, "--summary": summary, "--steps": "steps" in filters}),
    ):
        for other in (name for name, too in others.items() if is_set and too):
            output.refuse(f"does not go with {other}", option)
    names = None if columns is None else _columns(columns)
    wanted = {**filters, "sort": _sort(sort)}
    if watch:
        return _watch(wanted, limit, names)
    with home_reader() as home:
        if summary:
            return _summary(home, filters, as_json=as_json)
        jobs, totals = _listed(home, wanted, limit, counted=as_json)
        full = 0 < limit == len(jobs)
        count = len(jobs)
        listed = {job["job_id"] for job in jobs}
        if tree:
            jobs = _with_steps(home, jobs)
        meant = "" if jobs or as_json or csv else _unknown(home, filters)
    more = sum(totals.values()) - count if full else 0
    if as_json:
        output.write_json({"jobs": jobs, "totals": totals})
    elif csv:
        job_table.write_csv(jobs, names)
    elif jobs:
        _show(jobs, names, steps={job["job_id"] for job in jobs} - listed)
        tell_unserved(jobs)
    else:
        output.note(f"no jobs{meant}")
    if more and not as_json:
        output.note(f"{more} more; --limit 0 shows all; {output.counts(totals)}")
    return 0


def _listed(
    home: HomeReader, wanted: Mapping[str, Any], limit: int, *, counted: bool
) -> tuple[list[JobDocument], Mapping[str, int]]:
    """Return jobs, and the counts of all by state if there are as many as the limit."""
    # Counting takes time if there are many jobs, and asking again if a remote is far away.
    if counted or remote_name():
        return home.listed(limit or None, **wanted)
    jobs = list(home.jobs(limit or None, **wanted))
    filters = {name: value for name, value in wanted.items() if name != "sort"}
    return jobs, _totals(home, filters) if 0 < limit == len(jobs) else {}


def _unknown(home: HomeReader, filters: Mapping[str, Any]) -> str:
    """Return the end of a message: no job has the recipe or a label, and a similar one."""
    recipe, labels = filters.get("recipe"), filters.get("labels", {})
    if recipe is None and not labels:
        return ""

    def near(name: str, known: Collection[str]) -> str:
        hint = did_you_mean(name, known, "")
        return f"; {hint}" * bool(hint)

    found = home.ask(server.JOBS_FACETS, limit=1000, steps=True)
    if recipe is not None:
        listed = (one["values"] for one in found["facets"] if one["filter"] == "recipe")
        names = [output.short_recipe(each["value"]) for values in listed for each in values]
        groups = {name[:at] for name in names for at, mark in enumerate(name) if mark == "."}
        short = output.short_recipe(recipe)
        if short not in {*names, *groups}:
            return f"; none on record has the recipe {recipe!r}{near(short, [*names, *groups])}"
    facets = [one for one in found["facets"] if one["filter"] == "labels"]
    if found["more"] or any(one["more"] for one in facets):
        return ""  # there are too many to know
    pairs = [f"{one['label']}={each['value']}" for one in facets for each in one["values"]]
    for name, value in labels.items():
        if (pair := f"{name}={value}") not in pairs:
            return f"; none on record has the label {pair}{near(pair, pairs)}"
    return ""  # other filters leave none


def _with_steps(home: HomeReader, jobs: Sequence[JobDocument], **which: str) -> list[JobDocument]:
    """Insert below each flow its matching steps that are not listed yet, in their order."""
    from crystalmath.client.transport import parts

    there = {job["job_id"] for job in jobs}
    below: dict[str, list[JobDocument]] = {job["job_id"]: [] for job in jobs if job.get("steps")}
    again = {one["job_id"] for one in jobs if any(p["role"] == "retry" for p in one["parents"])}
    for part in parts([one for one in below if one not in again], _FLOWS):
        for job in home.jobs(None, parent=part, **which):
            flow, _ = step_of(job["parents"]) or ("", "")
            below[flow].append(job)
    for flow in again & below.keys():  # it has also taken over steps of another flow
        below[flow] = [*home.jobs(None, parent=flow, **which)]
    listed: list[JobDocument] = []
    for job in jobs:
        steps = reversed(below.get(job["job_id"], ()))
        listed += [job, *(step for step in steps if step["job_id"] not in there)]
    return listed


def _columns(text: str) -> list[str]:
    from crystalmath.models.columns import read_columns

    try:
        return read_columns(text)
    except InvalidJob as error:
        output.refuse(str(error), "--columns")


def _sort(text: str | None) -> str | None:
    if text is None:
        return None
    from crystalmath.models.columns import SORTED_BY, no_column

    if (name := text.removeprefix("-")) not in SORTED_BY:
        output.refuse(f"jobs are not sorted by {text!r}; {no_column(name, SORTED_BY)}", "--sort")
    return text


def _show(
    jobs: Sequence[JobDocument],
    names: Sequence[str] | None,
    progress: _Progress | None = None,
    steps: Collection[str] = (),
) -> None:
    width = output.full_width()
    if names is None:
        width = width or shutil.get_terminal_size().columns
        sys.stdout.write(job_table.usual(jobs, width, progress, steps) + "\n")
    else:
        output.show(job_table.chosen(jobs, names), width)


# --- live ------------------------------------------------------------------------------------


def _watch(wanted: Mapping[str, Any], limit: int, names: Sequence[str] | None) -> int:
    with contextlib.suppress(KeyboardInterrupt):
        (_live if sys.stdout.isatty() else _repeat)(wanted, limit, names)
    return 0


def _look(home: HomeReader, wanted: Mapping[str, Any], most: int) -> _Look:
    """Return jobs, the counts of all by state, and the progress of the running ones."""
    jobs, counts = _jobs_and_counts(home, wanted, most)
    running = [job["job_id"] for job in jobs if job["status"] == "running"]
    try:
        reached = _reached(home, running[:_FOLLOWED])
    except CrystalMathError:  # the list is worth showing without progress
        reached = {}
    return jobs, counts, reached


def _reached(home: HomeReader, job_ids: Sequence[str]) -> _Progress:
    """Return the progress of jobs by their ids."""
    from crystalmath.client.transport import parts

    every = (home.ask(server.JOBS_PROGRESS, job_ids=part) for part in parts(job_ids, _READ))
    return {one["job_id"]: one["progress"] for answer in every for one in answer["jobs"]}


def _jobs_and_counts(
    home: HomeReader, wanted: Mapping[str, Any], most: int
) -> tuple[list[JobDocument], Mapping[str, int]]:
    """Return jobs and the counts of all by state; without room for all, running jobs first."""
    filters = {name: value for name, value in wanted.items() if name != "sort"}
    counts = _totals(home, filters)
    if wanted["sort"] or not most or sum(counts.values()) <= most:
        return list(home.jobs(most or None, **wanted)), counts
    jobs: list[JobDocument] = []
    others = [state for state, count in counts.items() if count and state != "running"]
    for states in (["running"] if counts.get("running") else [], others):
        if states and len(jobs) < most:
            jobs += home.jobs(most - len(jobs), **{**wanted, "state": states})
    return jobs, counts


def _totals(home: HomeReader, filters: Mapping[str, Any]) -> Mapping[str, int]:
    """Count all jobs by state."""
    return home.ask(server.JOBS_LIST, limit=0, totals=True, **filters)["totals"] or {}


def _renewed(wanted: Mapping[str, Any], limit: Callable[[], int]) -> Iterator[_Look]:
    """Read the jobs at intervals, also across restarts of the server."""
    from crystalmath.client.client_errors import ConnectionLost

    with home_reader() as home:
        while True:
            begun = time.monotonic()
            with contextlib.suppress(ConnectionLost):
                yield _look(home, wanted, limit())
            # A slow look at very many jobs must not keep the server busy.
            time.sleep(max(_RENEW_S, _REST * (time.monotonic() - begun)))


def _live(wanted: Mapping[str, Any], limit: int, names: Sequence[str] | None) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, console=output.console()) as live:

        def most() -> int:
            # Room for the header, the counts, the note about the server, and the cursor.
            rows = max(1, live.console.height - 4)
            return min(limit or rows, rows)

        for jobs, counts, progress in _renewed(wanted, most):
            footer = Text("\n".join(filter(None, [output.counts(counts), unserved(jobs)])))
            shown: list[RenderableType] = []
            if jobs and names is None:
                table = job_table.usual(jobs, live.console.width, progress)
                shown = [Text.from_ansi(table, no_wrap=True)]
            elif jobs and names is not None:
                shown = [job_table.chosen(jobs, names)]
            live.update(Group(*shown, footer), refresh=True)


def _repeat(wanted: Mapping[str, Any], limit: int, names: Sequence[str] | None) -> None:
    """Print the table again after each change, for output that is no terminal."""
    shown = None
    for jobs, counts, progress in _renewed(wanted, lambda: limit):
        if (seen := ([(job["job_id"], job["revision"]) for job in jobs], counts)) != shown:
            shown = seen
            if jobs:
                _show(jobs, names, progress)
            output.write(f"{output.counts(counts)}\n")
            sys.stdout.flush()


# --- how far they are ------------------------------------------------------------------------

_NUMBERS = ("CALC", "IONIC", "SCF", "ENERGY/eV", "FORCE/(eV/Å)", "AGE")
_HEADERS = ("REMOTE", "ID", "NAME", "STATE", "STEPS", "PROGRAM", *_NUMBERS)
#: The marks of a flow's bar.
_BAR = 10
#: The columns that are shortened to fit the line.
_SHORTENED = ("NAME", "PROGRAM")


@with_filters
def progress(job_ids: JobIds = None, *, filters: dict[str, Any], as_json: Json = False) -> int:
    """Show the progress of calculations: steps, energy, force.

    Without ids and --state it shows all running jobs. Values are read from the output files of
    VASP, Quantum ESPRESSO's pw.x, and ASE's optimizers and dynamics. CALC counts the calculations
    of a job, IONIC and SCF its ionic and electronic steps; AGE is the time since the last output.
    Ended jobs show their last values. A flow is shown by its running steps.
    """
    with home_reader() as home:
        if job_ids or "state" in filters:
            jobs = chosen_jobs(home, job_ids, filters)
        else:
            jobs = [*home.jobs(None, **filters, state="running")]
        jobs = _with_steps(home, jobs, state="running")
        reached = _reached(home, [job["job_id"] for job in jobs])
    if as_json:
        names = ("remote", "job_id", "status", "error", "steps", "parents")
        documents = [{name: job[name] for name in names if name in job} for job in jobs]
        entries = [{**each, "progress": reached[each["job_id"]]} for each in documents]
        return output.write_json({"jobs": entries})
    if not jobs:
        output.note("no running jobs")
        return 0
    rows = zip(*(_progress_row(job, reached[job["job_id"]]) for job in jobs), strict=True)
    columns = dict(zip(_HEADERS, rows, strict=True))
    for header in ("REMOTE", "STEPS"):
        if not any(columns[header]):
            del columns[header]
    if set(columns["STATE"]) == {"running"}:  # as without ids
        del columns["STATE"]
    whole = [header for header in columns if header not in _SHORTENED]
    cells = zip(*columns.values(), strict=True)
    output.table(list(columns), cells, right=_NUMBERS, whole=whole)
    tell_unserved(jobs)
    return 0


def _progress_row(job: JobDocument, read: ProgressDocument | None) -> list[str]:
    bar = _bar(job["steps"]) if job["steps"] else ""
    remote = str(job.get("remote") or "")
    row = [remote, job["job_id"][:8], job_table.step_or_name(job), job["status"], bar]
    if read is None:
        return row + [""] * (1 + len(_NUMBERS))
    counts = (read["calculation"], read["ionic_step"], read["electronic_step"])
    energy, force = read["energy_ev"], read["max_force_ev_ang"]
    return [
        *row,
        read["program"],
        *("" if count is None else str(count) for count in counts),
        "" if energy is None else f"{energy:.4f}",
        "" if force is None else force_text(force),
        output.age(read["updated_at"]),
    ]


def _bar(steps: Mapping[str, int]) -> str:
    """Draw how many of a flow's steps have completed."""
    done = _BAR * steps.get("completed", 0) // sum(steps.values())
    return f"{'━' * done}{'─' * (_BAR - done)} {told_steps(steps)}"


# --- counted ---------------------------------------------------------------------------------


def _summary(home: HomeReader, filters: Mapping[str, Any], *, as_json: bool) -> int:
    counted = home.ask(server.JOBS_SUMMARY, **filters)
    if as_json:
        return output.write_json({"states": counted["states"], "errors": counted["errors"]})
    if not any(counted["states"].values()):
        output.note("no jobs")
    for state, count in counted["states"].items():
        if count:
            output.write(f"{count:8} {state}")
    if counted["errors"]:
        output.write("\nfailed, by error:")
    for group in counted["errors"]:
        # `crystalmath result` shows the other lines, such as the end of a program's output.
        text = output.first_line(group["error"])
        ids = ", ".join(job_id[:8] for job_id in group["job_ids"])
        more = ", ..." if group["count"] > len(group["job_ids"]) else ""
        output.write(f"{group['count']:8} {text}\n{'':8} {ids}{more}")
    return 0


@with_filters
def counts(
    *,
    filters: dict[str, Any],
    bucket: Annotated[
        str, typer.Option(metavar="TIME", help="The length of an interval: 10m, 1h, 1d.")
    ] = "1h",
    last: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Count from this long ago: 2h, 7d. Default: 24 intervals."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Count the jobs that ended, by state and time.

    --state counts jobs by another state that they entered: pending counts submissions, running
    counts starts.
    """
    bucket_s = _seconds(bucket, "--bucket")
    start = None if last is None else max(0.0, time.time() - _seconds(last, "--last"))
    with home_reader() as home:
        counted = home.ask(server.JOBS_COUNTS, bucket_s=bucket_s, start=start, **filters)
    if as_json:
        return output.write_json(counted)
    names = list(counted["states"])
    rows = [
        (_moment(one["at"], bucket_s), *(str(one["states"][name] or "") for name in names))
        for one in counted["buckets"]
    ]
    rows.append(("all", *(str(counted["states"][name]) for name in names)))
    headers = ("FROM", *(name.upper() for name in names))
    output.table(headers, rows, right=headers[1:], whole=headers)
    return 0


def _seconds(text: str, option: str) -> float:
    from crystalmath.models.written import read_timespan

    seconds = read_timespan(text)
    if seconds is None or seconds < 1:
        output.refuse(
            f"{text!r} is not a time of at least one second; write 90s, 30m, 2h or 1d", option
        )
    return seconds


def _moment(epoch_s: float, bucket_s: float) -> str:
    """Return the start of a bucket in local time, with seconds if buckets need them."""
    shown = "%Y-%m-%d %H:%M:%S" if bucket_s % 60 else "%Y-%m-%d %H:%M"
    return time.strftime(shown, time.localtime(epoch_s))
