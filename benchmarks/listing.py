"""Measure lists with filters, sort and totals in the store among many jobs.

python benchmarks/listing.py [JOBS ...]   (default 100,000; homes of their own, removed afterwards)

`python benchmarks/listing.py 10000 1000000` shows what grows with the number of jobs.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.jobs.changes import Change
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.quacc.store import JobStore, NewJob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def main(counts: Sequence[int]) -> None:
    """Print the median of ten lists of 50 jobs, of their totals, and of other reads, in ms.

    Totals are counted at first after a change, and again, when nothing has happened. With several
    numbers of jobs the last column is the ratio of the last one to the first one.
    """
    by_count = [_measured(count) for count in counts]
    print("".join(f"{count:>10}" for count in counts), "    ratio")
    for name in by_count[0]:
        spent = [one[name] for one in by_count]
        ratio = spent[-1] / max(spent[0], 1e-6)
        print("".join(f"{one * 1e3:10.1f}" for one in spent), f"{ratio:9.1f}  {name}")


def _measured(count: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home, JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        begun = time.time()
        fill(store, count)
        chance = random.Random(2)
        store.list(limit=1, elements=["Cu"])  # the first one imports the elements
        for name, filters in _ASKED.items():
            figures[f"the first totals, filtered by {name}"] = _spent(store.totals, **filters)
        for sort in (None, "-created_at", "energy_ev", "energy_per_atom_ev", "name"):
            for name, filters in _ASKED.items():
                pages, first, again = [], [], []
                for _ in range(10):
                    store.insert([_job(chance)])
                    pages.append(_spent(_list, store, sort, filters))
                    first.append(_spent(store.totals, **filters))
                    again.append(_spent(store.totals, **filters))
                figures[f"a page sorted by {sort}, filtered by {name}"] = sorted(pages)[5]
                if sort is None:
                    figures[f"totals, filtered by {name}"] = sorted(first)[5]
                    figures[f"the same totals, filtered by {name}"] = sorted(again)[5]
        jobs = [_job(chance) for _ in range(1000)]
        figures["1,000 submissions"] = _spent(store.insert, jobs)
        figures["1,000 ends"] = _spent(store.apply, [_ended(job, chance) for job in jobs])
        figures["the last jobs to fail"] = _spent(store.failures, 10)
        period = {"start": begun, "end": begun + 1.0, "bucket_s": 1.0}
        figures["rates of the first second"] = _spent(
            store.counts, [JobState.COMPLETED, JobState.FAILED], **period
        )
        figures["counts and errors"] = _spent(store.summary)
        figures["facets"] = _spent(store.facets)
        store.insert([_job(chance)])
        figures["facets after a submission"] = _spent(store.facets)
    return figures


def _list(store: JobStore, sort: str | None, filters: dict[str, Any]) -> None:
    store.steps([job.job_id for job in store.list(limit=50, sort=sort, **filters)])


def _spent(read: Callable[..., object], *args: Any, **kwargs: Any) -> float:
    # CPU time alone, so that other work of the machine is not measured.
    begun = time.process_time()
    read(*args, **kwargs)
    return time.process_time() - begun


def fill(store: JobStore, count: int) -> None:
    """Put so many jobs on record: steps of flows, nearly all of which have ended."""
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
    main([int(count) for count in sys.argv[1:]] or [100_000])
