"""``crystalmath inputs``: what the programs of a job get, or got."""

from __future__ import annotations

from typing import Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, any_client
from crystalmath.cli.shared.inputs_output import (
    Diff,
    document,
    show,
    show_differences,
    write,
)


def inputs(
    job_id: JobId,
    *,
    directory: Annotated[
        str | None,
        typer.Option("--dir", metavar="DIR", help="Write the files into this folder."),
    ] = None,
    diff: Diff = None,
    as_json: Json = False,
) -> int:
    """Show what a job's programs get, before and after it ran.

    Once the job has written input files, these are shown; before, and of calculators that write
    none, what its recipe tells. Beside each line stands who has set it, as the recipe says with the
    presets of now. Of POTCARs the titles are shown.
    """
    with any_client() as client:
        found = client.inputs(client.find(job_id))
        other = None if diff is None else client.inputs(client.find(diff))
    paths = write(found, directory, "--dir") if directory else []
    if as_json:
        output.write_json({**document(found, other), "error": None})
        return 0
    if other is not None:
        show_differences(found, other)
    elif not directory:
        show(found)
    for path in paths:
        output.write(output.printable(f"wrote {path}"))
    return 0
