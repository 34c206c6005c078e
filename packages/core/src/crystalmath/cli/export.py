"""``crystalmath export``: jobs with parameters, results and geometries as a table in a file."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads annotations
from typing import Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.job_filters import any_client, with_filters
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations

__all__ = ["export"]


@with_filters
def export(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A new file: .csv, .jsonl, .extxyz, .db (ASE's) or .parquet."
        ),
    ],
    *,
    filters: dict[str, Any],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Which columns: name,params.kpts,results.gibbs_energy; else all."
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Sort as crystalmath list does."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many jobs at most; 0 for all.")
    ] = 0,
    as_json: Json = False,
) -> int:
    """Write jobs as a table: record, labels, parameters, energies, results, geometry.

    Columns of labels are labels.NAME, of parameters params.NAME, and what a recipe gives is named
    as the recipe names it (results.energy). Units are eV, Å and s. Parquet needs pyarrow:
    pip install 'crystalmath[tables]'.
    """
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    with any_client() as client:
        written, left = client.export(
            file, columns=names, sort=sort, limit=limit or None, **filters
        )
    if as_json:
        output.write_json(
            {"file": str(file.absolute()), "jobs": written, "left_out": left, "error": None}
        )
        return 0
    told = f"; {left} without a geometry left out" if left else ""
    output.note(f"{written} job{'s' if written != 1 else ''} written to {file}{told}")
    return 0
