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
#: A job's file, and what tells that this process, and that the other one, can begin.
ALONE = """
import pathlib, sys, time
import lab_recipes
path, mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
while not other.exists():
    time.sleep(0.01)
lab_recipes.alone(None, path, 2)
"""


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
    path, ready = tmp_path / "job-0", [tmp_path / "one", tmp_path / "other"]
    environment = {**os.environ, "PYTHONPATH": str(LAB)}
    both = [
        subprocess.Popen([sys.executable, "-c", ALONE, path, *those], env=environment)
        for those in (ready, ready[::-1])
    ]
    assert [each.wait() for each in both] == [0, 0]
    found = wrong({"job-0": ["completed", "", 1]}, {"job-0": path.read_text().split()})
    assert found == {"twice": ["job-0"], "overlapping": ["job-0"]}
    notes = {"job-0": [], "job-1": []}
    assert set(wrong({"job-0": ["pending", "", 1]}, notes)) == {"lost", "stuck"}


def test_what_strikes_bring_about_is_not_wrong():
    notes = {"job-0": ["end", "end"], "job-1": []}
    twice = {"job-0": ["completed", "", 2], "job-1": ["failed", "lost: it was killed", 2]}
    assert wrong(twice, notes) == {}
    once = {"job-0": ["completed", "", 1], "job-1": ["failed", "no luck", 1]}
    assert wrong(once, notes) == {"twice": ["job-0"], "failed": {"job-1": once["job-1"]}}
