"""``crystalmath export`` and ``import``: jobs as a table, a script, inputs or an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import (
    Json,
    any_client,
    chosen,
    none_fits,
    require_choice,
)
from crystalmath.cli.shared.job_filters import with_filters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.client import Client


@with_filters
def export(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|ID...",
            help="A new file (.csv, .jsonl, .extxyz, .parquet, or .db of ASE), then ids, if not "
            "all jobs that match the filters. With --script or --inputs only one id; with "
            "--archive only ids.",
        ),
    ] = None,
    *,
    filters: dict[str, Any],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="The columns: name,params.kpts,results.gibbs_energy; default: all."
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V",
            help="Take the pure elements for formation energies from completed jobs with this "
            "label, instead of the written jobs.",
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort as in crystalmath list.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="The most jobs; 0 for all.")] = 0,
    script: Annotated[
        bool, typer.Option("--script", help="Print a job as a Python script that needs only quacc.")
    ] = False,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="DIR",
            help="Write the input files of a job, to run without CrystalMath.",
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FILE",
            help="Write ended jobs into a .zip for crystalmath import in another home; without "
            "POTCARs and environments.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write jobs as a table, a script, inputs or an archive.

    A table has records, labels, parameters, energies, results and geometries: crystalmath export
    alloys.csv --label project=alloys. Labels have the columns labels_NAME, parameters
    params.NAME, and results the names of the recipe (results.energy). Units are eV, Å and s.
    Parquet needs pyarrow: pip install 'crystalmath[tables]'.

    The columns formation_energy and e_above_hull (eV/atom) are written if --columns names them.
    The hull counts all jobs that match, also beyond --limit.
    """
    words = list(what or ())
    if sum((script, inputs is not None, archive is not None)) > 1:
        output.refuse("give one of --script, --inputs and --archive")
    if script or inputs is not None:
        return _one(words, inputs, as_json=as_json)
    if archive is not None:
        return _archive(words, archive, filters, as_json=as_json)
    if not words:
        output.refuse("name a file, such as alloys.csv", "FILE")
    file = Path(words.pop(0))
    with_steps = "steps" in filters
    of_label = None
    if references:
        from crystalmath.cli.shared.parameter_options import parse_labels

        of_label = parse_labels(references, "--references")
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    with any_client() as client:
        if filters and not words and not [*client.list(limit=1, **filters)]:
            raise none_fits(filters)
        which = {"job_ids": _named(client, words, filters)} if words else filters
        written, left = client.export(
            file, columns=names, references=of_label, sort=sort, limit=limit or None, **which
        )
    if as_json:
        return output.write_json({"file": str(file.absolute()), "jobs": written, "left_out": left})
    of_flows = "" if with_steps else " (of a flow, --steps writes the steps)"
    remark = f"; {left} without a geometry left out{of_flows}" if left else ""
    output.note(f"{output.counted(written)} written to {file}{remark}")
    return 0


def _named(client: Client, prefixes: Sequence[str], filters: dict[str, Any]) -> list[str]:
    """Return the ids of chosen jobs; with --steps each flow is followed by its steps."""
    with_steps = filters.pop("steps", None)
    ids = chosen(client, prefixes, filters) or []
    if not with_steps:
        return ids
    flows = ((job_id, reversed([*client.list(parent=job_id)])) for job_id in ids)
    return [each for job_id, steps in flows for each in (job_id, *(job.job_id for job in steps))]


def _one(prefixes: Sequence[str], directory: str | None, *, as_json: bool) -> int:
    """Print one job as a script, or write its input files into a folder."""
    if len(prefixes) != 1:
        output.refuse("name one job by its id", "ID")
    with any_client() as client:
        job_id = client.find(prefixes[0])
        if directory is None:
            text = client.script(job_id)
        else:
            paths = client.export_inputs(job_id, directory)
    if directory is None:
        if as_json:
            return output.write_json({"job_id": job_id, "script": text})
        output.write(text.rstrip("\n"))
        return 0
    if as_json:
        files = [str(path) for path in paths]
        output.write_json({"job_id": job_id, "files": files})
    for path in () if as_json else paths:
        output.write(f"wrote {path}")
    return 0


def _archive(prefixes: Sequence[str], file: Path, filters: dict[str, Any], *, as_json: bool) -> int:
    require_choice(prefixes, filters)
    with any_client() as client:
        named = chosen(client, prefixes, filters)
        which = filters if named is None else {"job_ids": named}
        written = client.write_archive(file, **which)
    count, left_out = written["jobs"], written["left_out"]
    if as_json:
        document = {"file": str(file.absolute()), "jobs": count, "left_out": left_out}
        return output.write_json(document)
    for each in left_out:
        output.note(f"left out {each}")
    output.note(f"{output.counted(count)} written to {file}")
    return 0


#: The number of jobs that are named.
_NAMED = 5


def import_jobs(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An archive from crystalmath export --archive.")
    ],
    *,
    as_json: Json = False,
) -> int:
    """Import the jobs of an archive, with all their files.

    Prints the number of jobs; --json also prints their ids. Jobs that this home already has stay
    unchanged. If the archive is damaged, nothing is imported. Jobs keep their keys, so that
    crystalmath submit --key finds them here; a key that another job has here stays with that job.
    """
    with any_client() as client:
        taken = client.import_archive(file)
    if as_json:
        return output.write_json(taken)
    count, known = len(taken["job_ids"]), len(taken["known"])
    there = f"; {known} were here already" if known else ""
    output.write(f"{output.counted(count)} taken in{there}")
    if without_key := taken["without_key"]:
        ids = ", ".join(job_id[:8] for job_id in without_key[:_NAMED])
        more = f" and {len(without_key) - _NAMED} more" if len(without_key) > _NAMED else ""
        output.note(f"without their keys, which other jobs have here: {ids}{more}")
    return 0
