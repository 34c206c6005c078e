"""quacc's recipes of TorchSim in batches, with Lennard-Jones, which needs no weights."""

import json
import os
import subprocess
import sys

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.models import JobState, Submission
from crystalmath.service import JobService

pytest.importorskip("torch_sim", reason="TorchSim is not installed")
JOBS, BAD = 24, (5, 17)
PARAMETERS = {
    "model_type": "LennardJonesModel",
    "model_path": "",
    "optimizer": "fire",
    "max_steps": 300,
    "model_kwargs": {"sigma": 3.405, "epsilon": 0.0104, "cutoff": 6.0},
    "convergence_fn_kwargs": {"force_tol": 0.01},
}
#: The same energies by one call of the recipe in plain Python.
CALL = """
import json, sys
import torch_sim
from quacc.recipes.torchsim.core import relax_job
from test_torchsim import PARAMETERS, structures
parameters = {**PARAMETERS, "optimizer": torch_sim.Optimizer.fire}
print(json.dumps(relax_job(structures(), **parameters)["output"]["energy"]))
"""


def structures():
    """Make cells of four and eight atoms, each a little other."""
    cells = [bulk("Ar", a=5.26, cubic=True).repeat((1 + n % 2, 1, 1)) for n in range(JOBS)]
    for seed, cell in enumerate(cells):
        cell.rattle(0.1, seed=seed)
    return cells


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return the energies of one call, in eV."""
    folder = tmp_path_factory.mktemp("bare")
    own = {"PYTHONPATH": os.path.dirname(__file__), "QUACC_WORKFLOW_ENGINE": "None"}
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        cwd=folder,
        env={**os.environ, **own, "QUACC_RESULTS_DIR": str(folder)},
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_jobs_of_one_structure_each_are_relaxed_by_few_calls(home, bare):
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    cells = structures()
    for number in BAD:
        cells[number].set_cell([0.0, 0.0, 0.0])  # TorchSim cannot invert it, and refuses the call
    asked = [
        Submission(
            recipe="quacc.recipes.torchsim.core.relax_job", atoms=[cell], parameters=PARAMETERS
        )
        for cell in cells
    ]
    with JobService(config.load()) as service:
        jobs = [answer.job_id for answer in service.submit_many(asked)]
        ended = {job.job_id: job for job in service.wait(jobs) if job.state.is_terminal()}
        for number, job_id in enumerate(jobs):
            job = ended[job_id]
            if number in BAD:
                assert job.state is JobState.FAILED
                assert "singular" in job.error
                continue
            assert job.state is JobState.COMPLETED, job.error
            assert job.summary["energy_ev"] == pytest.approx(bare[number], abs=1e-6)
            result = service.result(job_id)
            assert [len(atoms) for atoms in result["atoms"]] == [len(cells[number])]
            assert len(result["output"]["forces"][0]) == len(cells[number])
        assert max(job.summary["batch"] for job in ended.values() if "batch" in (job.summary or {}))
