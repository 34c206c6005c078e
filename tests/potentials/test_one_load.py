"""A machine-learned potential is loaded once by each worker, whichever engine has the jobs."""

import json
import os
import subprocess
import sys

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.models import JobState, Submission
from crystalmath.service import JobService

pytest.importorskip("chgnet", reason="CHGNet is not installed")
JOBS = 20
#: The same energies by a loop in plain Python.
LOOP = """
import json, sys
from ase.build import bulk
from potential_recipes import chgnet_static
energies = []
for seed in range(int(sys.argv[2])):
    cell = bulk("Cu", cubic=True)
    cell.rattle(0.02, seed=seed)
    energies.append(chgnet_static(cell, sys.argv[1])["energy"])
print(json.dumps(energies))
"""


@pytest.fixture
def structures():
    """Make cells of four atoms of copper, each a little other."""
    cells = [bulk("Cu", cubic=True) for _ in range(JOBS)]
    for seed, cell in enumerate(cells):
        cell.rattle(0.02, seed=seed)
    return cells


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return the energies of a loop, in eV."""
    command = [sys.executable, "-c", LOOP, str(tmp_path_factory.mktemp("bare") / "loads")]
    threads = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(JOBS)],
        env={**os.environ, **threads},
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("engine", ["local", "parsl"])
def test_each_worker_loads_a_potential_once(
    lab, home, monkeypatch, tmp_path, structures, bare, engine, workers
):
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "potential_recipes")
    (home / "config.toml").write_text(f"[engines.{engine}]\nworkers = {workers}\n")
    loads = tmp_path / "loads"
    asked = [
        Submission(
            recipe="potential_recipes.chgnet_static",
            atoms=cell,
            parameters={"loads": str(loads)},
            engine=engine,
        )
        for cell in structures
    ]
    with JobService(config.load()) as service:
        jobs = [answer.job_id for answer in service.submit_many(asked)]
        ended = [job for job in service.wait(jobs) if job.state.is_terminal()]
        assert {job.state for job in ended} == {JobState.COMPLETED}, [job.error for job in ended]
        results = [service.result(job) for job in jobs]
    processes = loads.read_text().split()
    assert len(processes) == len({*processes}) <= workers
    assert {str(result["pid"]) for result in results} == {*processes}
    assert [result["energy"] for result in results] == pytest.approx(bare, abs=1e-5)
