"""The commands that ask about jobs that were submitted before, and the one that stops them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli import output
from crystalmath.cli.submission import Json  # noqa: TC001 - Typer reads annotations

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService

__all__ = ["cancel", "list_jobs", "logs", "path", "result", "status"]

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or its beginning.")]


def list_jobs(
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only jobs in this state.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="E", help="Only jobs of this engine.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="K=V", help="Only jobs with this label; may be repeated."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many at most; 0 for all.")
    ] = 50,
    *,
    as_json: Json = False,
) -> int:
    """List jobs, the newest first."""
    from crystalmath.cli.parameters import parse_labels
    from crystalmath.quacc.runner import JobState
    from crystalmath.service import JobService

    if state is not None and state not in JobState.__members__:
        known = ", ".join(JobState.__members__)
        raise typer.BadParameter(f"{state!r} is no state; there are {known}", param_hint="--state")
    with JobService() as service:
        jobs = service.jobs(
            state=JobState(state) if state else None,
            engine=engine,
            label=parse_labels(label or ()) or None,
            limit=limit or None,
        )
    if as_json:
        output.write_json({"jobs": [output.status_document(job) for job in jobs], "error": None})
    elif jobs:
        output.table(_COLUMNS, map(_row, jobs), right=("ENERGY/eV", "AGE"), whole=_WHOLE)
    else:
        output.note("no jobs")
    return 0


_COLUMNS = ("NAME", "STATE", "RECIPE", "ENGINE", "ENERGY/eV", "AGE", "ID")
# What is shortened where a line is too narrow: the name and the recipe.
_WHOLE = ("STATE", "ENGINE", "ENERGY/eV", "AGE", "ID")


def _row(job: JobMetadata) -> tuple[str, ...]:
    energy = (job.summary or {}).get("energy_ev")
    return (
        job.name or "",
        job.state.value,
        output.short_recipe(job.recipe),
        job.engine,
        "" if energy is None else f"{energy:.4f}",
        output.age(job.created_at),
        job.job_id[:8],
    )


def status(job_id: JobId, *, as_json: Json = False) -> int:
    """Tell what became of a job."""
    from crystalmath.service import JobService

    with JobService() as service:
        job = service.job(service.find(job_id))
    if as_json:
        output.write_json(output.status_document(job))
    else:
        output.write(output.fields(_status_fields(job)))
    return 0


def _status_fields(job: JobMetadata) -> list[tuple[str, object]]:
    stopping = job.cancel_requested_at is not None and not job.state.is_terminal()
    return [
        ("state", f"{job.state.value} (being cancelled)" if stopping else job.state.value),
        ("reason", job.reason),
        ("error", None if job.state.value == "cancelled" else job.error),
        *output.summary_fields(job),
        ("name", job.name),
        ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
        ("recipe", output.short_recipe(job.recipe)),
        ("engine", f"{job.engine}, cluster {job.cluster}"),
        ("submitted", f"{output.age(job.created_at)} ago"),
        ("took", _took(job)),
        ("job", job.job_id),
    ]


def _took(job: JobMetadata) -> str | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return f"{job.finished_at - job.started_at:.1f} s"


def result(job_id: JobId, *, as_json: Json = False) -> int:
    """Print a job's result; with --json the whole of what the recipe returned.

    Exits 1 where there is none: the job failed, was cancelled, or has not ended.
    """
    from crystalmath.service import JobService

    with JobService() as service:
        job = service.job(service.find(job_id))
        if as_json:
            # The stored text goes out as it is: reading 20 MB to write them again helps nobody.
            _splice(job, service.result_json(job.job_id) or b"null")
        else:
            _print_result(job, service.work_directory(job.job_id))
    return 0 if job.state.value == "completed" else 1


def _splice(job: JobMetadata, raw: bytes) -> None:
    import json

    document = output.status_document(job)
    del document["result"]
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(json.dumps(document, allow_nan=False).encode()[:-1] + b', "result": ')
    out.write(raw)
    out.write(b"}\n")
    out.flush()


def _print_result(job: JobMetadata, work_dir: Path) -> None:
    if not job.state.is_terminal():
        output.note(f"job {job.job_id} is {job.state.value}; it has no result yet")
        return
    if job.state.value == "completed":
        where = (job.summary or {}).get("work_dir") or work_dir
        pairs = [*output.summary_fields(job), ("work dir", where), ("job", job.job_id)]
        output.write(output.fields(pairs))
        return
    output.note(f"job {job.job_id} {_ENDED[job.state.value]}")
    if job.error and job.state.value != "cancelled":
        output.note(f"error: {output.printable(job.error)}")
    if job.traceback:
        output.note(output.printable(job.traceback.rstrip()))


_ENDED = {"failed": "failed", "cancelled": "was cancelled", "completed": "had completed"}


def path(job_id: JobId, *, as_json: Json = False) -> int:
    """Print a job's work directory, whatever state it is in."""
    from crystalmath.service import JobService

    with JobService() as service:
        job_id = service.find(job_id)
        directory = service.work_directory(job_id)
    if as_json:
        output.write_json({"job_id": job_id, "path": str(directory)})
    else:
        output.write(str(directory))
    return 0


def cancel(job_id: JobId, *, as_json: Json = False) -> int:
    """Ask for a job to be stopped.

    It reads cancelled once none of its processes is alive. Exits 1 where it had ended before.
    """
    from crystalmath.service import JobService

    with JobService() as service:
        job_id = service.find(job_id)
        requested = service.cancel(job_id)
        job = service.job(job_id)
    error = None if requested else f"the job {_ENDED.get(job.state.value, job.state.value)} before"
    if as_json:
        output.write_json({"job_id": job_id, "cancelled": requested, "error": error})
    elif requested:
        output.write(f"cancellation of {job_id} requested")
    else:
        output.note(f"{job_id}: {error}; nothing was changed")
    return 0 if requested else 1


def logs(
    job_id: JobId,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="A file below the job's work directory, also FILE.gz."
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """Print what a job wrote: its log, or a file of its work directory."""
    from crystalmath.cli.files import find, read_chunks
    from crystalmath.service import JobService

    with JobService() as service:
        job_id = service.find(job_id)
        found = (
            _log(service, job_id) if file is None else find(service.work_directory(job_id), file)
        )
    if as_json:
        text = b"".join(read_chunks(found)).decode(errors="replace") if found else ""
        output.write_json({"job_id": job_id, "path": str(found or ""), "text": text})
    elif found is None:
        output.note(f"job {job_id} has written no log yet")
    else:
        sys.stdout.flush()
        for chunk in read_chunks(found):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return 0


def _log(service: JobService, job_id: str) -> Path | None:
    log = service.log_file(job_id)
    return log if log.is_file() else None
