"""``crystalmath import``: take in jobs that another home has archived."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads annotations
from typing import Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client


def import_jobs(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What crystalmath export --archive has written.")
    ],
    *,
    as_json: Json = False,
) -> int:
    """Take in the jobs of an archive, with all their files.

    Prints how many, with --json also their ids. Jobs that are here already stay as they are. Where
    anything in the archive is not as it should be, nothing is taken in.
    """
    with any_client() as client:
        taken = client.import_archive(file)
    if as_json:
        output.write_json({**taken, "error": None})
        return 0
    count, known = len(taken["job_ids"]), len(taken["known"])
    there = f"; {known} were here already" if known else ""
    output.write(f"{count} job{'s' if count != 1 else ''} taken in{there}")
    return 0
