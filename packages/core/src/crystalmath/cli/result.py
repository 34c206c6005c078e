"""``crystalmath result``: what a job gave."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from crystalmath.cli.shared import output
from crystalmath.cli.shared.job_filters import JobId, any_client, find
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations

if TYPE_CHECKING:
    from crystalmath.client import Job

__all__ = ["result"]


def result(job_id: JobId, *, as_json: Json = False) -> int:
    """Print a job's result; with --json the whole of what the recipe returned.

    Exits 1 where there is none: the job failed, was cancelled, or has not ended.
    """
    with any_client() as client:
        job = client.job(find(client, job_id))
        if as_json:
            # The stored text goes out as it is: reading 20 MB to write them again helps nobody.
            _splice(job, client.result_json(job.job_id) or b"null")
        else:
            failed = job.state.value == "failed"
            _print_result(job, client.traceback(job.job_id) if failed else None)
    return 0 if job.state.value == "completed" else 1


def _splice(job: Job, raw: bytes) -> None:
    import json

    document = job.document()
    del document["result"]
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
        output.note(f"job {job.job_id} is {job.state.value}; it has no result yet")
        return
    if job.state.value == "completed":
        where = (job.summary or {}).get("work_dir") or job.work_dir
        pairs = [*output.summary_fields(job), ("work dir", where), ("job", job.job_id)]
        output.write(output.fields(pairs))
        if said := job.without_files():
            output.note(f"{said}, and of the result what you see")
        return
    output.note(f"job {job.job_id} {output.ENDED[job.state.value]}")
    if job.error and job.state.value != "cancelled":
        output.note(f"error: {output.printable(job.error)}")
    if traceback:
        output.note(output.printable(traceback.rstrip()))
