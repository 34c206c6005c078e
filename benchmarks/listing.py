"""Measure lists with filters, sort and totals in the store among many jobs.

python benchmarks/listing.py [JOBS]   (default 100,000; a home of its own, removed afterwards)
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from typing import Any

from attrs import evolve

from crystalmath.jobs.changes import Change
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.quacc.store import JobStore, NewJob

_METALS = ("Cu", "Al", "Ag", "Au", "Ni", "Pd", "Pt", "Fe", "Ti")
_ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "steps are left out": {"steps": False},
    "what lists show": {"steps": False, "superseded": False},
    "a label": {"label": {"project": "alloys"}},
    "two labels": {"label": {"project": "alloys", "encut": "500"}},
    "part of the name": {"name": "encut=500"},
    "a group of recipes": {"recipe": "emt"},
    "elements": {"elements": ["Cu", "O"]},
    "a formula": {"formula": "Cu2O"},
    "energies": {"energy_min": -30.0, "energy_max": -10.0},
    "a state and not a label": {"state": "completed", "exclude": {"label": {"encut": "500"}}},
    "all of it": {
        "name": "encut",
        "recipe": "emt",
        "elements": ["O"],
        "label": {"project": "alloys"},
        "exclude": {"state": ["failed"]},
    },
}


def main(count: int) -> None:
    """Fill a store, and print what ten lists of 50 jobs with totals take, the median in ms.

    At first after a change, which counts the totals anew, and again, when nothing has happened.
    """
    with tempfile.TemporaryDirectory() as home, JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        _fill(store, count)
        chance = random.Random(2)
        for sort in (None, "-created_at", "energy_ev", "energy_per_atom_ev", "name"):
            for name, filters in _ASKED.items():
                first, again = [], []
                for _ in range(10):
                    store.insert([_job(chance)])
                    first.append(_list(store, sort, filters))
                    again.append(_list(store, sort, filters))
                spent = f"{sorted(first)[5] * 1e3:7.1f} {sorted(again)[5] * 1e3:7.1f}"
                print(f"{spent} ms  sorted by {sort}, filtered by {name}")


def _list(store: JobStore, sort: str | None, filters: dict[str, Any]) -> float:
    # CPU time alone, so that other work of the machine is not measured.
    begun = time.process_time()
    store.steps([job.job_id for job in store.list(limit=50, sort=sort, **filters)])
    store.totals(**filters)
    return time.process_time() - begun


def _fill(store: JobStore, count: int) -> None:
    chance = random.Random(1)
    for done in range(0, count, 1000):
        jobs = [_job(chance) for _ in range(min(1000, count - done))]
        # Nearly all are steps of flows, 50 of each.
        flows = [job.job_id for job in jobs[::51]]
        jobs = [
            evolve(job, parents=[{"job_id": flows[at // 51], "role": "flow", "step": str(at)}])
            if at % 51
            else job
            for at, job in enumerate(jobs)
        ]
        store.insert(jobs)
        ends = [_ended(job, chance) for job in jobs]
        store.apply(ends)
        failed = [end.job_id for end in ends if end.state is JobState.FAILED]
        again = [[{"job_id": job_id, "role": "retry"}] for job_id in failed]
        store.insert([evolve(_job(chance), parents=parents) for parents in again])


def _job(chance: random.Random) -> NewJob:
    formula = f"{chance.choice(_METALS)}{chance.randint(2, 8)}O{chance.randint(2, 8)}"
    encut = str(chance.choice([400, 500, 600]))
    recipe = chance.choice(["emt.core.static_job", "vasp.core.relax_job"])
    return NewJob(
        job_id=generate_job_id(),
        recipe=f"quacc.recipes.{recipe}",
        engine=chance.choice(["local", "parsl"]),
        spec_hash="0" * 64,
        specification="{}",
        created_at=time.time(),
        formula=formula,
        name=f"{formula}/POSCAR encut={encut}",
        labels={"project": chance.choice(["alloys", "oxides"]), "encut": encut},
    )


def _ended(job: NewJob, chance: random.Random) -> Change:
    if chance.randrange(10) == 0:
        error = "SCF did not converge"
        return Change(job_id=job.job_id, state=JobState.FAILED, at=time.time(), error=error)
    summary = {"energy_ev": -50 * chance.random(), "natoms": 4, "max_force_ev_ang": 0.01}
    return Change(job_id=job.job_id, state=JobState.COMPLETED, at=time.time(), summary=summary)


if __name__ == "__main__":
    os.nice(10)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
