"""``crystalmath result``: what a job gave."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - Typer reads annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, home_reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models.job import Job


def result(
    job_id: JobId,
    *,
    field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this part of what the recipe returned: results.energy."
        ),
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the final geometry to a new file, with energy and forces where its format "
            "has them: out.extxyz, POSCAR, out.cif.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Print a job's result, with --json the whole of it.

    Exits 1 where there is none: the job failed, was cancelled, or has not ended.
    """
    if structure is not None and (field is not None or as_json):
        other = "--json" if as_json else "--field"
        raise typer.BadParameter(f"does not go with {other}", param_hint="--structure")
    with home_reader() as home:
        document = home.ask("jobs.status", job_id=home.find(job_id))
        job_id, state = document["job_id"], document["status"]
        if as_json:
            # The stored text goes out as it is: reading 20 MB to write them again helps nobody.
            _splice(document, home.result_json(job_id, field) or b"null")
            return 0 if state == "completed" else 1
        from crystalmath.errors import InvalidJob
        from crystalmath.models.job import Job

        job = Job.read(document)
        if state != "completed" and (field is not None or structure is not None):
            raise InvalidJob(_without_result(job))
        if field is not None:
            _print_field(home.result_json(job_id, field) or b"null")
        elif structure is not None:
            _write_structure(job_id, home.result_json(job_id, brief=True) or b"null", structure)
        else:
            failed = home.ask("jobs.result", job_id=job_id) if state == "failed" else {}
            _print_result(job, failed.get("traceback"))
    return 0 if state == "completed" else 1


def _without_result(job: Job) -> str:
    if not job.state.is_terminal():
        return f"job {job.job_id} is {job.state.value}; it has no result yet"
    told = f"job {job.job_id} {job.state.ended}, and has no result"
    return f"{told}; 'crystalmath result {job.job_id[:8]}' tells why"


def _print_field(raw: bytes) -> None:
    """Print a text as it is, and all else as JSON."""
    import json

    text = raw.decode()
    output.write(output.printable(json.loads(text)) if text.startswith('"') else text)


def _write_structure(job_id: str, raw: bytes, path: Path) -> None:
    import json

    import ase.io
    from ase.io.formats import UnknownFileTypeError

    from crystalmath.errors import InvalidJob
    from crystalmath.recipes.summary import final_atoms

    if path.exists():
        raise InvalidJob(f"{path} is there already; remove it, or write another file")
    atoms = final_atoms(json.loads(raw))
    if atoms is None:
        raise InvalidJob(f"the result of job {job_id} has no structure")
    try:
        ase.io.write(path, atoms)
    except (UnknownFileTypeError, ValueError, NotImplementedError) as error:
        path.unlink(missing_ok=True)
        raise InvalidJob(
            f"{path} cannot be written: {error}; name a file that ASE writes"
        ) from error
    output.note(f"{atoms.get_chemical_formula()} written to {path}")


def _splice(job: Mapping[str, Any], raw: bytes) -> None:
    import json

    document = {name: value for name, value in job.items() if name != "result"}
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(json.dumps(document, allow_nan=False).encode()[:-1] + b', "result": ')
    out.write(raw)
    out.write(b"}\n")
    out.flush()


def _print_result(job: Job, traceback: str | None) -> None:
    for warning in job.warnings:
        output.note(output.printable(f"warning: {output.sentence(warning)}"))
    if not job.state.is_terminal():
        output.note(_without_result(job))
        return
    if job.state.value == "completed":
        where = (job.summary or {}).get("work_dir") or job.work_dir
        pairs = [*output.summary_fields(job.document()), ("work dir", where), ("job", job.job_id)]
        output.write(output.fields(pairs))
        if said := job.without_files():
            output.note(f"{said}, and of the result what you see")
        return
    output.note(f"job {job.job_id} {job.state.ended}")
    if job.error and job.state.value != "cancelled":
        output.note(f"error: {output.printable(job.error)}")
    if traceback:
        output.note(output.printable(traceback.rstrip()))
