"""``crystalmath counts``: how many jobs ended in which state over time."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, home_reader
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.models.timespans import read_timespan


@with_filters
def counts(
    *,
    filters: dict[str, Any],
    bucket: Annotated[
        str, typer.Option(metavar="TIME", help="The length of a bucket: 10m, 1h, 1d.")
    ] = "1h",
    last: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How far back: 2h, 7d. Default: 24 buckets."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Count the jobs that ended, by state and time.

    --state counts those that came to other states: pending are submissions, running beginnings.
    """
    bucket_s = _seconds(bucket, "--bucket")
    start = None if last is None else max(0.0, time.time() - _seconds(last, "--last"))
    with home_reader() as home:
        counted = home.ask("jobs.counts", bucket_s=bucket_s, start=start, **filters)
    if as_json:
        output.write_json(counted)
        return 0
    names = list(counted["states"])
    rows = [
        (_moment(one["at"], bucket_s), *(str(one["states"][name] or "") for name in names))
        for one in counted["buckets"]
    ]
    rows.append(("all", *(str(counted["states"][name]) for name in names)))
    headers = ("FROM", *(name.upper() for name in names))
    output.show(output.grid(headers, rows, right=headers[1:], whole=headers))
    return 0


def _seconds(text: str, option: str) -> float:
    seconds = read_timespan(text)
    if seconds is None or seconds < 1:
        raise typer.BadParameter(
            f"{text!r} is no span of time of a second or more; write 90s, 30m, 2h or 1d",
            param_hint=option,
        )
    return seconds


def _moment(epoch_s: float, bucket_s: float) -> str:
    """Write when a bucket begins, in local time, as exactly as buckets differ."""
    shown = "%Y-%m-%d %H:%M:%S" if bucket_s % 60 else "%Y-%m-%d %H:%M"
    return time.strftime(shown, time.localtime(epoch_s))
