"""Parsl on Slurm: pilot jobs, on nodes that their owner cannot see."""

import pytest

from cluster.shared_home import LEASE_S, SharedHome
from conftest import AL, eventually

CLUSTER = f"""
[jobs]
lease_s = {LEASE_S}

[clusters.slurm]
engine = "parsl"
scheduler = "slurm"
queue = "main"
walltime = "00:10:00"
"""


@pytest.fixture
def there(slurm, home):
    with SharedHome(slurm, home, CLUSTER) as there:
        yield there


def test_the_readmes_job_runs(slurm, there):
    told = there.run("run", "emt.core.relax_job", AL, "--cluster=slurm")
    assert told["status"] == "completed"
    assert told["result"]["energy_ev"] == pytest.approx(-0.0060063, abs=1e-7)
    there.text("stop")
    eventually(lambda: not slurm.queue())


@pytest.fixture
def running(there, lab, tmp_path):
    """Yield a job that runs for as long as it is in its first attempt."""
    go = tmp_path / "go"
    job = there.submit("wait_for", path=str(go))
    there.reached(job, "running")
    yield job
    go.touch()


def ends_in_its_second_attempt(there, job, go):
    eventually(lambda: there.status(job)["attempt"] == 2, 300)
    go.touch()
    there.text("wait", job)
    assert there.status(job)["attempt"] == 2


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
    slurm.lose_state()
    own = []
    while pilot not in own:
        done = slurm.run("sbatch", "--parsable", "--hold", "--job-name=own", "--wrap=sleep 900")
        own.append(done.stdout.strip())
    there.run("cancel", running)
    there.reached(running, "cancelled")
    there.text("stop", "--cancel")
    assert set(own) <= set(slurm.queue())


def test_a_cluster_whose_commands_fail_is_asked_three_times(slurm, there):
    before = set(slurm.run("squeue", "--noheader", "--states=all", "--format=%i").stdout.split())
    there.configure(f"{CLUSTER}worker_init = 'module load nosuch || exit 1'\n")
    job = there.run("submit", "emt.core.static_job", AL, "--cluster=slurm")["job_id"]
    assert there.reached(job, "failed")["error"].endswith("module: command not found")
    asked = slurm.run("squeue", "--noheader", "--states=all", "--format=%i").stdout.split()
    assert len(set(asked) - before) == 3
