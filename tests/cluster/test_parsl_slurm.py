"""Parsl on Slurm: pilot jobs, on nodes that their owner cannot see."""

import json
import sys
from pathlib import Path

import pytest

from cluster.test_psij import lose_state
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
            *CRYSTALMATH, *arguments, cwd=ROOT, timeout=more.pop("timeout", 300), **more
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


@pytest.fixture
def running(there, lab, tmp_path):
    """Yield a job that runs for as long as it is in its first attempt."""
    go = tmp_path / "go"
    path = f"path={json.dumps(str(go))}"
    job = submit(there, "lab_recipes.wait_for", "examples/Al.poscar", "--param", path)
    eventually(lambda: status(there, job)["status"] == "running", 300)
    yield job
    go.touch()


def ends_in_its_second_attempt(there, job, go):
    eventually(lambda: status(there, job)["attempt"] == 2, 300)
    go.touch()
    assert there("wait", job).returncode == 0
    assert status(there, job)["attempt"] == 2


def test_a_block_that_is_cancelled_loses_its_attempt_which_runs_again(
    slurm, there, running, tmp_path
):
    (block,) = slurm.queue()
    slurm.run("scancel", block)
    ends_in_its_second_attempt(there, running, tmp_path / "go")
    eventually(lambda: block not in slurm.queue())


def test_a_node_that_loses_its_power_loses_its_attempt_which_runs_again(
    slurm, there, running, tmp_path
):
    node = slurm.run("squeue", "--noheader", "--format=%N").stdout.strip()
    slurm.power_off(node)
    ends_in_its_second_attempt(there, running, tmp_path / "go")


def test_nothing_else_of_the_users_ends_once_slurms_ids_begin_again(
    slurm, there, lab, tmp_path, running
):
    (pilot,) = slurm.queue()
    lose_state(slurm)
    own = []
    while pilot not in own:
        done = slurm.run("sbatch", "--parsable", "--hold", "--job-name=own", "--wrap=sleep 900")
        own.append(done.stdout.strip())
    there("cancel", running)
    eventually(lambda: status(there, running)["status"] == "cancelled")
    there("stop", "--cancel")
    assert set(own) <= set(slurm.queue())


def test_a_cluster_whose_commands_fail_is_asked_three_times(slurm, there, home):
    before = set(slurm.run("squeue", "--noheader", "--states=all", "--format=%i").stdout.split())
    (home / "config.toml").write_text(f"{CLUSTER}worker_init = 'module load nosuch || exit 1'\n")
    job = submit(there, "emt.core.static_job", "examples/Al.poscar")
    eventually(lambda: status(there, job)["status"] == "failed", 300)
    assert status(there, job)["error"].endswith("module: command not found")
    asked = slurm.run("squeue", "--noheader", "--states=all", "--format=%i").stdout.split()
    assert len(set(asked) - before) == 3
