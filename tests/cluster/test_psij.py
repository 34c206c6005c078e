"""The PSI/J engine on Slurm: one job, one allocation, and Slurm's word for what became of it."""

import pytest

from cluster.shared_home import COMMAND, LEASE_S, SharedHome
from conftest import AL, eventually
from crystalmath.engines import schedulers

pytest.importorskip("psij")

CONFIGURATION = f"""
[jobs]
lease_s = {LEASE_S}

[clusters.slurm]
engine = "psij"
scheduler = "slurm"
"""


@pytest.fixture
def login(slurm, home, with_quacc):
    """Yield commands on the login node, whose server ends when the node does."""
    with SharedHome(slurm, home, CONFIGURATION) as login:
        yield login


def test_a_job_runs_in_an_allocation(slurm, login):
    told = login.run("run", "emt.core.relax_job", AL, "--cluster=slurm")
    assert told["status"] == "completed"
    assert told["result"]["energy_ev"] == pytest.approx(-0.0060063, abs=1e-6)
    eventually(lambda: not slurm.queue())


def test_ranks_run_on_both_nodes(slurm, login):
    """What a job asks for is what `srun` finds."""
    asked = ("--nodes=2", "--ranks=4", "--memory=200MB", "--queue=main", "--name=two")
    job_id = login.submit("run_command", *asked, command=["srun", "hostname"])
    login.completed(job_id)
    assert login.run("result", job_id)["result"]["lines"] == ["node1", "node1", "node2", "node2"]


def test_the_names_of_other_jobs_may_hold_ends_of_lines(slurm):
    name = "a\nb|c\n"
    slurm.run("sbatch", "--hold", f"--job-name={name}", "--wrap=true")
    told = schedulers.slurm_rows(slurm.run(*schedulers.SQUEUE).stdout)
    assert [job.state for job in told if job.name == name] == ["PENDING"]
    slurm.run("scancel", f"--name={name}")


def test_the_reason_for_which_a_job_waits_is_told(slurm, login):
    slurm.drain()
    job_id = login.submit("value")
    eventually(lambda: "Nodes" in str(login.status(job_id).get("reason")))
    slurm.resume()
    login.completed(job_id)


def test_a_job_whose_time_is_up_fails_with_the_schedulers_word(slurm, login):
    job_id = login.submit("long_sleep")
    login.reached(job_id, "running")
    (native,) = slurm.queue()
    # The limit has a resolution of a minute; Slurm itself is asked to end it as at its limit.
    slurm.run("scontrol", "update", f"jobid={native}", "timelimit=1")
    told = login.reached(job_id, "failed")
    assert "TIMEOUT" in told["error"]


def test_a_node_that_loses_its_power_costs_an_attempt(slurm, login, tmp_path):
    count = tmp_path / "count"
    job_id = login.submit("count_and_sleep", path=str(count))
    eventually(lambda: has_run(count), 300)
    node = slurm.run("squeue", "--noheader", "--format=%N").stdout.strip()
    slurm.power_off(node)
    login.completed(job_id)
    assert count.read_text() == "xx"


def has_run(count):
    """Tell whether a job has left its mark, and not only opened the file for it."""
    return count.exists() and count.read_text() == "x"


def test_nothing_is_alive_on_any_node_when_cancelled_is_told(slurm, login):
    asked = ("--nodes=2", "--ranks=2")
    command = ["srun", "sleep", "6061"]
    job_id = login.submit("run_command", *asked, command=command)
    eventually(lambda: all(slurm.sleeping(6061)), 300)
    login.run("cancel", job_id)
    login.reached(job_id, "cancelled")
    assert slurm.sleeping(6061) == [[], []]
    eventually(lambda: not slurm.queue())


def test_a_cancel_of_a_waiting_job_leaves_the_queue(slurm, login):
    slurm.drain()
    job_id = login.submit("value")
    eventually(slurm.queue)
    login.run("cancel", job_id)
    assert login.reached(job_id, "cancelled")["status"] == "cancelled"
    eventually(lambda: not slurm.queue())


def test_allocations_are_found_again_after_the_server_was_killed(slurm, login, tmp_path):
    go = tmp_path / "go"
    running = login.submit("wait_for", path=str(go))
    login.reached(running, "running")
    slurm.drain()
    waiting = login.submit("value")
    eventually(lambda: len(slurm.queue()) == 2)
    login.kill_server()
    before = slurm.queue()
    assert login.state(waiting) == "pending"
    go.touch()
    login.completed(running)
    assert set(slurm.queue()) <= set(before)
    slurm.resume()
    login.completed(waiting)
    # A job has ended before Slurm has put its allocation away.
    eventually(lambda: not slurm.queue())


def test_a_refusal_fails_that_job_alone(slurm, login):
    wrong = login.submit("value", "--queue=nowhere")
    right = login.submit("value")
    assert "invalid partition" in login.reached(wrong, "failed")["error"]
    login.completed(right)


def test_an_allocation_that_somebody_else_ends_costs_an_attempt(slurm, login, tmp_path):
    count = tmp_path / "count"
    job_id = login.submit("count_and_sleep", path=str(count))
    eventually(lambda: has_run(count), 300)
    slurm.run("scancel", *slurm.queue())
    login.completed(job_id)
    assert count.read_text() == "xx"


def test_a_cancel_hits_no_other_work_once_slurms_ids_begin_again(slurm, login):
    slurm.lose_state()  # small ids
    jobs = [login.submit("long_sleep")]
    login.reached(jobs[0], "running")
    slurm.drain()
    jobs += [login.submit("long_sleep") for _ in range(3)]
    eventually(lambda: len(slurm.queue()) == 4)
    ours = slurm.queue()
    # Nobody hands anything over before other work has those ids.
    login.kill_server()
    slurm.lose_state()
    for _ in ours:
        slurm.run("sbatch", "--job-name=my own", "--hold", "--wrap=sleep 6062")
    assert set(ours) == set(slurm.queue())
    login.submit("value")  # starts a server
    for job_id in jobs:
        login.run("cancel", job_id)
    for job_id in jobs:
        assert login.reached(job_id, "cancelled")["status"] == "cancelled"
    login.text("stop", "--cancel", timeout=120)
    names = slurm.run("squeue", "--noheader", "--format=%j").stdout.splitlines()
    assert names == ["my own"] * len(ours)


def test_a_munge_that_is_down_for_a_while_fails_no_job(slurm, login):
    first = login.submit("value")
    login.reached(first, "completed")
    slurm.run("pkill", "munged")
    job_id = login.submit("value")
    eventually(lambda: "authentication error" in str(login.status(job_id).get("reason")), 60)
    slurm.start_munge()
    login.completed(job_id)


def test_stop_cancel_ends_while_slurm_cannot_be_told_and_the_next_server_tells_it(slurm, login):
    slurm.drain()
    job_id = login.submit("value")
    eventually(slurm.queue)
    slurm.run("pkill", "munged")
    try:
        stop = (*COMMAND, "stop", "--cancel")
        done = slurm.run(*stop, check=False, timeout=100)
        assert done.returncode == 1, done.stderr
        assert "not over: 1 jobs, which the next server goes on to cancel" in done.stderr
        assert f"not over: {job_id}: trying again: " in done.stderr
        again = slurm.run(*stop, check=False, timeout=100)
        assert (again.returncode, job_id in again.stderr) == (1, True)
    finally:
        slurm.start_munge()
    assert len(slurm.queue()) == 1
    login.submit("value")  # starts a server
    login.reached(job_id, "cancelled", timeout=60)
    eventually(lambda: len(slurm.queue()) == 1)
