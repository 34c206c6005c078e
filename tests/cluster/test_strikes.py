"""Strikes by seed under the jobs of both engines on Slurm; see `strikes`.

The long run: ``STRIKE_RUNS=3 STRIKES=30 STRIKE_JOBS=60 nox -s slurm -- -k strike``.
"""

import os
import subprocess
import sys

import pytest

from cluster.strikes import COMMAND, Strikes, wrong
from conftest import LAB

RUNS = int(os.environ.get("STRIKE_RUNS", "1"))
STRIKES = int(os.environ.get("STRIKES", "5"))
JOBS = int(os.environ.get("STRIKE_JOBS", "12"))


@pytest.mark.parametrize("engine", ["parsl", "psij"])
@pytest.mark.parametrize("seed", range(1, RUNS + 1))
def test_no_strike_loses_a_job_or_has_it_run_twice(slurm, home, engine, seed):
    life = Strikes(slurm, home, engine, seed)
    try:
        assert life.live(STRIKES, JOBS) == {}, life.struck
    finally:
        slurm.run(*COMMAND, "stop", "--cancel", check=False)


def test_who_runs_a_job_twice_is_found(tmp_path):
    """The checker is no good if it finds nothing wrong with two that run one job at once."""
    path = tmp_path / "job-0"
    code = f"import lab_recipes; lab_recipes.alone(None, {str(path)!r}, 1)"
    environment = {**os.environ, "PYTHONPATH": str(LAB)}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    found = wrong({"job-0": ["completed", ""]}, {"job-0": path.read_text().split()})
    assert found == {"twice": ["job-0"], "overlapping": ["job-0"]}
    assert set(wrong({"job-0": ["pending", ""]}, {"job-0": [], "job-1": []})) == {"lost", "stuck"}
