"""Reads the records of jobs, their progress and inputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import server
from crystalmath.client.client_errors import raise_answered
from crystalmath.client.transport import chosen, filters_document, ids_of, pages, parts, records
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Inputs, Job, Progress
from crystalmath.models.filters import choosing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crystalmath.client.transport import JobsLike
    from crystalmath.models import Filters

#: Jobs of one request for progress, without and with the histories of their ionic steps.
PROGRESS_BATCH, HISTORIES_BATCH = 200, 20


def list_jobs(
    ask: server.Ask, filters: Filters, *, sort: str | None = None, limit: int | None = None
) -> Iterator[Job]:
    """Yield the jobs that fit filters, fetched page by page."""
    yield from map(Job.read, pages(ask, limit, {"sort": sort, **filters_document(filters)}))


def named_jobs(ask: server.Ask, job_ids: JobsLike) -> list[Job]:
    """Return the records of jobs in the order of their ids (`UnknownJob` if there is none)."""
    return [*map(Job.read, records(ask, ids_of(job_ids)))]


def selected_jobs(
    ask: server.Ask,
    job_ids: JobsLike | None,
    filters: Filters,
    sort: str | None,
) -> Iterable[Job]:
    """Return the jobs that fit filters, or those of some ids that do, sorted if need be."""
    if job_ids is None:
        return list_jobs(ask, filters, sort=sort)
    ids = chosen(ask, job_ids, filters) or []
    jobs = named_jobs(ask, ids)
    if sort is None:
        return jobs
    # An id may name a step of a flow or an earlier try, which lists leave out by default.
    every_job: Filters = {**filters, "steps": True, "all_tries": True}
    wanted = {job.job_id for job in jobs}
    return (job for job in list_jobs(ask, every_job, sort=sort) if job.job_id in wanted)


def ids_to_wait_for(ask: server.Ask, job_ids: JobsLike | None, filters: Filters) -> list[str]:
    """Return the ids of jobs to wait for; `InvalidJob`: there are neither ids nor filters."""
    if job_ids is None and not choosing(filters_document(filters)):
        raise InvalidJob("nothing says which jobs to wait for; name them, or give filters")
    named = chosen(ask, job_ids, filters)
    return [job.job_id for job in list_jobs(ask, filters)] if named is None else named


def write_inputs(ask: server.Ask, job_id: str, directory: str | os.PathLike[str]) -> list[Path]:
    """Write a folder from which a job's calculation runs; see :meth:`.Client.export_inputs`."""
    from crystalmath.models.inputs import input_files, write_texts

    params = {"job_id": job_id, "shell": True}
    scripts = ask(server.JOBS_SCRIPT, **params)
    inputs = Inputs.read(ask(server.JOBS_INPUTS, job_id=job_id)["inputs"])
    texts = input_files(inputs, os.fspath(directory))
    texts[Path(directory, "run.py")] = scripts["script"]
    if scripts["shell"] is not None:
        texts[Path(directory, "run.sh")] = scripts["shell"]
    return write_texts(texts, "--inputs")


def read_progress(
    ask: server.Ask, job_ids: JobsLike, *, history: bool
) -> dict[str, Progress | None]:
    """Return the progress of jobs by their ids; see :meth:`.Client.progress`."""
    progress: dict[str, Progress | None] = {}
    for part in parts(ids_of(job_ids), HISTORIES_BATCH if history else PROGRESS_BATCH):
        for job in ask(server.JOBS_PROGRESS, job_ids=part, history=history)["jobs"]:
            raise_answered(job)
            document = job["progress"]
            progress[job["job_id"]] = None if document is None else Progress.read(document)
    return progress


def show_structure(client: Any, job_id: str) -> Any:
    """Return the structure of a job as the first installed viewer draws it."""
    from crystalmath import entry_points_of

    for viewer in entry_points_of("crystalmath.viewers"):
        return viewer.load()(client, job_id)
    raise CrystalMathError(
        "crystalmath-web, which draws structures, is not installed: install it beside "
        "crystalmath (pip install ./packages/web in a clone)"
    )
