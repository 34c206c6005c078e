"""``crystalmath wait``: wait until jobs have ended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobIds, Json, any_client
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crystalmath.client import Client, Job


@with_filters
def wait(job_ids: JobIds = None, *, filters: dict[str, Any], as_json: Json = False) -> int:
    """Wait until jobs have ended, and show how far they are.

    Jobs are named, or chosen by filters.
    Ctrl-C ends the waiting, not the jobs. Exits 0 if all of them completed, else 1.
    """
    if not job_ids and not filters:
        raise typer.BadParameter("name jobs, or choose them with --label, --state or others")
    with any_client() as client:
        wanted = _chosen(client, job_ids or (), filters)
        jobs = {job.job_id: job for job in client.wait(wanted, timeout=0)}
    with output.LiveLine("") as line:
        for job in jobs.values():
            _say(line, job)
        if not all(job.state.is_terminal() for job in jobs.values()):
            _follow(line, jobs)
    failed = [job_id for job_id in wanted if jobs[job_id].error and _failed(jobs[job_id])]
    if failed:
        output.note(f"all that is known of an error: crystalmath result {failed[0][:8]}")
    output.note(_counts(jobs.values()))
    if as_json:
        documents = [jobs[job_id].document() for job_id in wanted]
        output.write_json({"jobs": documents, "done": True, "error": None})
    return 0 if all(job.state.value == "completed" for job in jobs.values()) else 1


def _chosen(client: Client, prefixes: Sequence[str], filters: Mapping[str, Any]) -> list[str]:
    """Return the named jobs, the jobs that fit the filters, or those that do both."""
    named = list(dict.fromkeys(client.find(prefix) for prefix in prefixes))
    if not filters:
        return named
    found = [job.job_id for job in client.list(**filters)]
    chosen = [job_id for job_id in named if job_id in set(found)] if named else found
    if not chosen:
        raise CrystalMathError("there is no job that fits the filters")
    return chosen


def _follow(line: output.LiveLine, jobs: dict[str, Job]) -> None:
    """Keep jobs up to date until all have ended."""
    from crystalmath.client import connect

    unfinished = [job.job_id for job in jobs.values() if not job.state.is_terminal()]
    try:
        with connect() as client:
            line.update(_counts(jobs.values()))
            for job in client.wait(unfinished):
                jobs[job.job_id] = job
                _say(line, job)
                line.update(_counts(jobs.values()))
    except KeyboardInterrupt:
        line.say("no longer waiting; the jobs go on")
        raise


def _say(line: output.LiveLine, job: Job) -> None:
    if not job.state.is_terminal() or job.state.value == "completed":
        return
    error = f": {output.first_line(job.error)}" if job.error and _failed(job) else ""
    name = f" {job.name}" if job.name else ""
    line.say(output.printable(f"{job.job_id[:8]}{name} {job.state.value}{error}"))


def _failed(job: Job) -> bool:
    return job.state.value == "failed"


def _counts(jobs: Iterable[Job]) -> str:
    return output.counts(Counter(job.state.value for job in jobs))
