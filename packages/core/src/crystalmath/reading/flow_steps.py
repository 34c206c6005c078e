"""The steps of a flow, read from the rows of its jobs: the try that counts, its entry, its link."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.models import JobState
from crystalmath.models.job_notes import awaited, repeated, step_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs

#: Characters that the name of a link to a step does not keep, and the length of that name.
_UNREADABLE = re.compile(r"[^\w.+-]", re.ASCII)
_LONGEST_LINK = 80


def taken_over(
    jobs: HomeJobs, parents: Iterable[Parent]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the completed steps that a retried flow keeps, and the id of the earlier flow."""
    origin = repeated(parents)
    if origin is None:
        return [], None
    header = json.loads(jobs.specification(origin).partition("\n")[0])
    entries = (header.get("flow") or {}).get("steps", ())
    earlier = [{**entry, "counted": False} for entry in entries if entry.get("taken_over")]
    usable = {
        job.job_id
        for job in jobs.some_jobs([entry["job_id"] for entry in earlier])
        if has_result(jobs, job)
    }
    kept = {entry["name"]: entry for entry in earlier if entry["job_id"] in usable}
    own = steps_by_name(jobs.some_jobs(jobs.step_ids(origin)))
    kept |= {
        name: step_entry(name, tries)
        for name, tries in own.items()
        if has_result(jobs, current_try(tries))
    }
    return [{**entry, "taken_over": True} for entry in kept.values()], origin


def has_result(jobs: HomeJobs, job: JobMetadata) -> bool:
    """Return whether a step has completed and its result is intact."""
    if job.state is not JobState.COMPLETED or job.without_files():
        return False
    try:
        return jobs.results.verify(job) is None
    except OSError:
        return True  # The error may be transient.


def steps_by_name(rows: Iterable[JobMetadata]) -> dict[str, list[JobMetadata]]:
    """Return the tries at each step of a flow, without those that never ran."""
    tries: dict[str, list[JobMetadata]] = {}
    for job in rows:
        of_flow = step_of(job.parents)
        if of_flow is not None and not _is_void(job):
            tries.setdefault(of_flow[1], []).append(job)
    return tries


def _is_void(job: JobMetadata) -> bool:
    """Return whether a step ended before its launch, without being cancelled."""
    ended = job.state.is_terminal() and job.state is not JobState.COMPLETED
    return ended and job.cancel_requested_at is None and bool(awaited(job.parents))


def current_try(tries: Sequence[JobMetadata]) -> JobMetadata:
    """Return the try that stands for a step; `tries` begins with the oldest."""
    completed = (job for job in reversed(tries) if job.state is JobState.COMPLETED)
    unfinished = (job for job in reversed(tries) if not job.state.is_terminal())
    return next(completed, None) or next(unfinished, None) or tries[-1]


def step_entry(name: str, tries: Sequence[JobMetadata]) -> dict[str, Any]:
    """Return a step's entry in the specification of the next pass."""
    job = current_try(tries)
    state = job.state.value
    if not job.state.is_terminal():
        state = "waiting" if job.waits else "launched"
    entry: dict[str, Any] = {"name": name, "job_id": job.job_id, "state": state}
    entry |= {"attempt": job.attempt, "error": job.error}
    # A retry may have other parameters than the call in the body: name the job of that call.
    origins = {each.job_id: repeated(each.parents) for each in tries}
    called = job.job_id
    while (origin := origins[called]) in origins:
        called = origin
    return entry if called == job.job_id else {**entry, "asked": called}


def link_steps(
    jobs: HomeJobs, flow: JobMetadata, own: Mapping[str, Sequence[JobMetadata]] | None = None
) -> None:
    """Link a flow's work directory to those of its steps, the kept ones included.

    `own` has the tries at its own steps where the caller has read them. Raises `OSError`.
    """
    if own is None:
        own = steps_by_name(jobs.some_jobs(jobs.step_ids(flow.job_id)))
    if repeated(flow.parents) is not None:
        children = jobs.children(flow.job_id)
        taken = [child["job_id"] for child in children if child["role"] == "taken"]
        own = {**steps_by_name(jobs.some_jobs(taken)), **own}
    jobs.directory(flow.job_id).link_steps(_links(jobs, own))


def _links(jobs: HomeJobs, steps: Mapping[str, Sequence[JobMetadata]]) -> dict[str, str]:
    """Return names of links, ``01-relax-Cu80``, and their targets, in the order of the calls."""
    in_order = sorted(steps.items(), key=lambda step: step[1][0].created_at)
    width = max(2, len(str(len(in_order))))
    links: dict[str, str] = {}
    for number, (name, tries) in enumerate(in_order, 1):
        job = current_try(tries)
        directory = jobs.directory(job.job_id)
        work = Path(directory.work(job.attempt))
        short = name.rpartition("/")[2].rpartition("#")[0].rpartition(".")[2].removesuffix("_job")
        parts = [f"{number:0{width}}", short, *([job.formula] if job.formula else ())]
        if work.is_dir() or directory.is_packed():
            own = _UNREADABLE.sub("_", "-".join(parts))[:_LONGEST_LINK]
            links[own] = f"../../{job.job_id}/{work.name}"
    return links
