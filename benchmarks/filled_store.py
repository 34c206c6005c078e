"""Finished jobs for the job database, so that a benchmark does not begin with an empty one."""

from __future__ import annotations

import time

from crystalmath import config
from crystalmath.jobs.changes import Change
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.quacc.store import JobStore, NewJob

__all__ = ["fill"]

_SUMMARY = {"energy_ev": -0.0057, "max_force_ev_ang": 0.0, "formula": "Cu", "work_dir": "/nowhere"}


def fill(count: int) -> None:
    """Record so many completed jobs in the configured database."""
    config.home().mkdir(parents=True, exist_ok=True)
    with JobStore(config.load().database_url) as store:
        for done in range(0, count, 500):
            jobs = [_job() for _ in range(min(500, count - done))]
            store.insert(jobs)
            store.apply([_completed(job) for job in jobs])


def _job() -> NewJob:
    return NewJob(
        job_id=generate_job_id(),
        recipe="quacc.recipes.emt.core.static_job",
        engine="local",
        spec_hash="0" * 64,
        specification="{}" + " " * 1000,
        created_at=time.time(),
        formula="Cu",
        name="Cu.poscar",
        labels={"project": "benchmark"},
    )


def _completed(job: NewJob) -> Change:
    return Change(job_id=job.job_id, state=JobState.COMPLETED, at=time.time(), summary=_SUMMARY)
