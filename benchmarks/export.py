"""Measure the time and memory of exports of many results.

python benchmarks/export.py [JOBS]   (default 10,000 copies of one EMT job, in a home of its own)
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from ase.build import bulk
from attrs import evolve

from crystalmath import config
from crystalmath.client import in_process
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState, NewJob
from crystalmath.quacc.runner import generate_job_id
from crystalmath.quacc.store import JobStore

_FORMATS = ("jsonl", "csv", "extxyz", "parquet", "db")


def main(count: int) -> None:
    """Fill a home, and print for each format the seconds and the peak of memory so far."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["CRYSTALMATH_HOME"] = home
        with in_process() as client:
            slab = bulk("Cu", cubic=True) * (2, 2, 2)
            future = client.submit("emt.core.relax_job", slab, labels={"encut": "400"})
            future.result(600)
            _copy(future.job_id, count)
            for form in _FORMATS:
                begun = time.monotonic()
                client.export(f"{home}/table.{form}")
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                print(f"{form:8} {time.monotonic() - begun:6.1f} s, {peak} MB", flush=True)


def _copy(job_id: str, count: int) -> None:
    configured = config.load()
    with JobStore(configured.database_url) as store:
        one = store.get(job_id)
        terms = {name: getattr(one, name) for name in ("recipe", "engine", "formula", "labels")}
        new = NewJob(
            job_id=job_id,
            spec_hash="0",
            specification=store.specification(job_id),
            created_at=one.created_at,
            **terms,
        )
        jobs = [evolve(new, job_id=generate_job_id()) for _ in range(count - 1)]
        store.insert(jobs)
        done = JobState.COMPLETED
        store.apply(
            [Change(job_id=job.job_id, state=done, at=1.8e9, summary=one.summary) for job in jobs]
        )
    for job in jobs:
        folder = Path(configured.jobs_directory / job.job_id)
        folder.mkdir()
        shutil.copy(configured.jobs_directory / job_id / "1.outcome", folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
