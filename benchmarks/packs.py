"""Measure packs: entries and bytes of no-op jobs, the time to pack, and results of packed jobs.

``python benchmarks/packs.py [JOBS]``; the run directories are written as a worker writes them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from crystalmath import config
from crystalmath.jobs.changes import Change
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.quacc.store import NewJob
from crystalmath.recipes import codec
from crystalmath.running.pruning import Choice
from crystalmath.service import JobService

_BODY = json.dumps({"atoms": {"numbers": [29], "positions": [[0.0, 0.0, 0.0]]}, "parameters": {}})
_READ = 1000


def main(count: int) -> None:
    """Print the figures."""
    with (
        tempfile.TemporaryDirectory() as home,
        JobService(config.load({"CRYSTALMATH_HOME": home})) as service,
    ):
        jobs = Path(home) / "jobs"
        jobs.mkdir(exist_ok=True)
        job_ids: list[str] = []
        for done in range(0, count, 1000):
            job_ids += _write(service, jobs, min(1000, count - done), done)
        print(f"{count} jobs: {_entries(jobs)} entries, {_size(jobs) / count:.0f} bytes each")
        before, listed = _seconds(service, job_ids), _listing(service)
        began = time.perf_counter()
        cursor = None
        while True:
            packed = at_once(service.pack(Choice(), cursor=cursor))
            if (cursor := packed.cursor) is None:
                break
        took = time.perf_counter() - began
        print(f"packed in {took:.1f} s, {1000 * took / count:.2f} ms each")
        print(f"{_entries(jobs)} entries, {_size(jobs) / count:.0f} bytes each")
        after = _seconds(service, job_ids)
        print(f"a result: {1000 * before:.2f} ms before, {1000 * after:.2f} ms packed")
        print(f"a list of {_READ}: {1000 * listed:.0f} ms before, ", end="")
        print(f"{1000 * _listing(service):.0f} ms packed")
        began = time.perf_counter()
        some = at_once(service.unpack(Choice(job_ids=job_ids[:: max(1, count // _READ)])))
        took = time.perf_counter() - began
        print(f"{len(some.job_ids)} jobs unpacked in {took:.1f} s")


def _write(service: JobService, jobs: Path, count: int, first: int) -> list[str]:
    ended: list[tuple[NewJob, Change]] = []
    for number in range(first, first + count):
        job_id, now = generate_job_id(), time.time()
        directory = RunDirectory(jobs / job_id)
        header = {
            "job_id": job_id,
            "attempt": 1,
            "recipe": "noop_recipes.noop",
            "engine": "local",
            "cluster": "local",
            "name": f"n{number}",
            "created_at": now,
            "environment": {"PATH": os.environ.get("PATH", "")},
        }
        directory.write_spec(header, _BODY)
        directory.claim_for(1, {"host": "node1", "pid": number // 100, "boot_id": "0" * 32})
        work = Path(directory.work(1))
        work.mkdir()
        summary = {"energy_ev": -1.0, "work_dir": str(work), "formula": "Cu"}
        stored = codec.stored_result({"value": number})
        content = {"state": "completed", "summary": summary, "started": now, "finished": now}
        directory.publish(1, {**content, **stored.sizes}, stored.data)
        row = NewJob(
            job_id=job_id,
            recipe="noop_recipes.noop",
            engine="local",
            spec_hash="0" * 64,
            specification=f"{json.dumps(header)}\n{_BODY}",
            created_at=now,
        )
        change = Change(job_id=job_id, state=JobState.COMPLETED, at=now, summary=summary)
        ended.append((row, change))
    service.record_ended(ended)
    return [row.job_id for row, _ in ended]


def _seconds(service: JobService, job_ids: list[str]) -> float:
    """Return how long a result takes, of jobs all over the home."""
    some = job_ids[:: max(1, len(job_ids) // _READ)]
    began = time.perf_counter()
    for job_id in some:
        service.result_json(job_id)
    return (time.perf_counter() - began) / len(some)


def _listing(service: JobService) -> float:
    """Return how long a list of jobs takes."""
    began = time.perf_counter()
    service.jobs(limit=_READ)
    return time.perf_counter() - began


def _entries(jobs: Path) -> int:
    return sum(len(folders) + len(files) for _, folders, files in os.walk(jobs))


def _size(jobs: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in jobs.rglob("*"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
