"""``crystalmath reread``: read the calculations of a failed job again."""

from __future__ import annotations

from typing import Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, connected
from crystalmath.cli.shared.submission_options import PlaceOptions, with_place


@with_place
def reread(
    job_id: JobId,
    *,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            metavar="K=V",
            help="A setting of quacc, other this time, as CHECK_CONVERGENCE=False; repeated.",
        ),
    ] = None,
    options: PlaceOptions,
    as_json: Json = False,
) -> int:
    """Read a failed job's calculations again, as a new job.

    For a job whose program (VASP, pw.x) came to its end, and whose output could not be read, or was
    refused, as one that did not converge. The recipe is called again, and in the place of the
    program its files are given which it wrote then. Nothing is computed: where the recipe would
    start another calculation, it fails.
    """
    settings = dict(_read(text) for text in setting or ())
    with connected() as client:
        future = client.reread(client.find(job_id), settings=settings, **options)
        told = future.info().state.value
    if as_json:
        output.write_json({"job_id": future.job_id, "status": told, "error": None})
    else:
        output.write(future.job_id)
    return 0


def _read(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name = name.removeprefix("QUACC_")
    if not equals or not name.isidentifier() or not name.isupper():
        raise typer.BadParameter(
            f"{text!r} is no SETTING=VALUE, as CHECK_CONVERGENCE=False", param_hint="--setting"
        )
    return name, value
