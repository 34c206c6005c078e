"""Parsl on Slurm: pilot jobs, on nodes that their owner cannot see."""

import json
import sys
from pathlib import Path

import pytest

from conftest import eventually

ROOT = Path(__file__).parents[2]
CRYSTALMATH = (sys.executable, "-m", "crystalmath")
CLUSTER = """
[jobs]
lease_s = 30

[clusters.slurm]
engine = "parsl"
scheduler = "slurm"
queue = "main"
walltime = "00:10:00"
"""


@pytest.fixture
def there(slurm, home):
    """Run commands on the login node, with a home that knows the cluster; stop its server."""
    (home / "config.toml").write_text(CLUSTER)

    def run(*arguments, **more):
        return slurm.run(
            *CRYSTALMATH, *arguments, cwd=ROOT, timeout=more.pop("timeout", 120), **more
        )

    yield run
    run("stop", check=False)


def submit(there, *arguments):
    return there("submit", *arguments, "--cluster", "slurm").stdout.strip()


def status(there, job):
    return json.loads(there("status", job, "--json", check=False).stdout)


def test_the_readmes_job_runs(slurm, there):
    done = there("run", "emt.core.relax_job", "examples/Al.poscar", "--cluster", "slurm", "--json")
    told = json.loads(done.stdout)
    assert told["status"] == "completed"
    assert told["result"]["energy_ev"] == pytest.approx(-0.0060063, abs=1e-7)
    there("stop")
    eventually(lambda: not slurm.queue())


def test_a_block_that_is_cancelled_loses_its_attempt_which_runs_again(slurm, there, lab):
    job = submit(there, "lab_recipes.long_sleep", "examples/Al.poscar", "--param", "seconds=8")
    eventually(lambda: status(there, job)["status"] == "running", timeout=60)
    (block,) = slurm.queue()
    slurm.run("scancel", block)
    assert there("wait", job).returncode == 0
    assert status(there, job)["attempt"] == 2
    assert block not in slurm.queue()


def test_a_node_that_loses_its_power_loses_its_attempt_which_runs_again(slurm, there, lab):
    job = submit(there, "lab_recipes.long_sleep", "examples/Al.poscar", "--param", "seconds=8")
    eventually(lambda: status(there, job)["status"] == "running", timeout=60)
    node = slurm.run("squeue", "--noheader", "--format=%N").stdout.strip()
    slurm.power_off(node)
    assert there("wait", job, timeout=200).returncode == 0
    assert status(there, job)["attempt"] == 2
