"""The PSI/J engine on Slurm: one job, one allocation, and Slurm's word for what became of it."""

import json
import sys
from pathlib import Path

import pytest

from conftest import LAB, eventually
from crystalmath.engines import schedulers

pytest.importorskip("psij")

COMMAND = (sys.executable, "-m", "crystalmath")
ROOT = Path(__file__).parents[2]
AL = ROOT / "examples/Al.poscar"


class Login:
    """Commands on the login node, whose server goes when its node does."""

    def __init__(self, cluster, home):
        self.cluster, self.home = cluster, home
        self.environment = {
            "CRYSTALMATH_HOME": str(home),
            "CRYSTALMATH_RECIPES": "lab_recipes",
            "PYTHONPATH": str(LAB),
        }

    def run(self, *arguments, check=True, timeout=300):
        command = [*COMMAND, *arguments, "--json"]
        done = self.cluster.run(*command, env=self.environment, check=check, timeout=timeout)
        return json.loads(done.stdout)

    def submit(self, recipe, *options, **parameters):
        told = [f"--param={key}={json.dumps(value)}" for key, value in parameters.items()]
        return self.run("submit", recipe, str(AL), "--cluster=slurm", *told, *options)["job_id"]

    def status(self, job_id):
        return self.run("status", job_id, check=False)

    def state(self, job_id):
        return self.status(job_id)["status"]

    def reached(self, job_id, *states, timeout=300):
        eventually(lambda: self.state(job_id) in states, timeout)
        return self.status(job_id)


@pytest.fixture
def login(slurm, home):
    (home / "config.toml").write_text(
        '[jobs]\nlease_s = 30\n[clusters.slurm]\nengine = "psij"\nscheduler = "slurm"\n',
        encoding="ascii",
    )
    login = Login(slurm, home)
    yield login
    slurm.run(*COMMAND, "stop", "--cancel", env=login.environment, check=False)


def test_a_job_runs_in_an_allocation(slurm, login):
    told = login.run("run", "emt.core.relax_job", str(AL), "--cluster=slurm")
    assert told["status"] == "completed"
    assert told["result"]["energy_ev"] == pytest.approx(-0.0060063, abs=1e-6)
    eventually(lambda: not slurm.queue())


def test_ranks_run_on_both_nodes(slurm, login):
    """What a job asks for is what `srun` finds."""
    asked = ("--nodes=2", "--ranks=4", "--memory=200MB", "--queue=main", "--name=two")
    job_id = login.submit("lab_recipes.run_command", *asked, command=["srun", "hostname"])
    assert login.reached(job_id, "completed", "failed")["status"] == "completed"
    assert login.run("result", job_id)["result"]["lines"] == ["node1", "node1", "node2", "node2"]


def test_the_names_of_other_jobs_may_hold_ends_of_lines(slurm):
    name = "a\nb|c\n"
    slurm.run("sbatch", "--hold", f"--job-name={name}", "--wrap=true")
    told = schedulers.slurm_rows(slurm.run(*schedulers.SQUEUE).stdout)
    assert [job.state for job in told if job.name == name] == ["PENDING"]
    slurm.run("scancel", f"--name={name}")


def test_the_reason_for_which_a_job_waits_is_told(slurm, login):
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=test")
    job_id = login.submit("lab_recipes.value")
    eventually(lambda: "Nodes" in str(login.status(job_id).get("reason")))
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=resume")
    assert login.reached(job_id, "completed", "failed")["status"] == "completed"


def test_a_job_whose_time_is_up_fails_with_the_schedulers_word(slurm, login):
    job_id = login.submit("lab_recipes.long_sleep")
    login.reached(job_id, "running")
    (native,) = slurm.queue()
    # The limit has a resolution of a minute; Slurm itself is asked to end it as at its limit.
    slurm.run("scontrol", "update", f"jobid={native}", "timelimit=1")
    told = login.reached(job_id, "failed")
    assert "TIMEOUT" in told["error"]


def test_a_node_that_loses_its_power_costs_an_attempt(slurm, login, tmp_path):
    count = tmp_path / "count"
    job_id = login.submit("lab_recipes.count_and_sleep", path=str(count))
    eventually(lambda: has_run(count), 300)
    node = slurm.run("squeue", "--noheader", "--format=%N").stdout.strip()
    slurm.power_off(node)
    told = login.reached(job_id, "completed", "failed")
    assert told["status"] == "completed"
    assert count.read_text() == "xx"


def has_run(count):
    """Tell whether a job has left its mark, and not only opened the file for it."""
    return count.exists() and count.read_text() == "x"


def test_nothing_is_alive_on_any_node_when_cancelled_is_told(slurm, login):
    asked = ("--nodes=2", "--ranks=2")
    command = ["srun", "sleep", "6061"]
    job_id = login.submit("lab_recipes.run_command", *asked, command=command)
    eventually(lambda: all(sleeps(slurm, node) for node in ("node1", "node2")), 300)
    login.run("cancel", job_id)
    login.reached(job_id, "cancelled")
    assert not [sleeps(slurm, node) for node in ("node1", "node2") if sleeps(slurm, node)]
    eventually(lambda: not slurm.queue())


def sleeps(slurm, node):
    # Not `srun`, nor what starts it.
    return [each for each in slurm.processes(node).values() if each.endswith("/sleep 6061")]


def test_a_cancel_of_a_waiting_job_leaves_the_queue(slurm, login):
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=test")
    job_id = login.submit("lab_recipes.value")
    eventually(slurm.queue)
    login.run("cancel", job_id)
    assert login.reached(job_id, "cancelled")["status"] == "cancelled"
    eventually(lambda: not slurm.queue())


def test_allocations_are_found_again_after_the_server_was_killed(slurm, login, tmp_path):
    go = tmp_path / "go"
    running = login.submit("lab_recipes.wait_for", path=str(go))
    login.reached(running, "running")
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=test")
    waiting = login.submit("lab_recipes.value")
    eventually(lambda: len(slurm.queue()) == 2)
    server = json.loads((login.home / "server" / "lock").read_text())["pid"]
    slurm.run("kill", "-9", server)
    before = slurm.queue()
    assert login.state(waiting) == "pending"
    go.touch()
    assert login.reached(running, "completed", "failed")["status"] == "completed"
    assert set(slurm.queue()) <= set(before)
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=resume")
    assert login.reached(waiting, "completed", "failed")["status"] == "completed"
    # A job has ended before Slurm has put its allocation away.
    eventually(lambda: not slurm.queue())


def test_a_refusal_fails_that_job_alone(slurm, login):
    wrong = login.submit("lab_recipes.value", "--queue=nowhere")
    right = login.submit("lab_recipes.value")
    assert "invalid partition" in login.reached(wrong, "failed")["error"]
    assert login.reached(right, "completed", "failed")["status"] == "completed"


def test_an_allocation_that_somebody_else_ends_costs_an_attempt(slurm, login, tmp_path):
    count = tmp_path / "count"
    job_id = login.submit("lab_recipes.count_and_sleep", path=str(count))
    eventually(lambda: has_run(count), 300)
    slurm.run("scancel", *slurm.queue())
    assert login.reached(job_id, "completed", "failed")["status"] == "completed"
    assert count.read_text() == "xx"


def lose_state(slurm):
    """Have the controller begin anew, with job 1, as after the loss of its disk."""
    slurm.run("pkill", "slurmctld")
    eventually(lambda: slurm.run("pgrep", "slurmctld", check=False).returncode == 1)
    slurm.run("sh", "-c", f"rm -rf {slurm.folder}/state/*")
    # As its console has it: the first process of the host collects it.
    slurm.run("sh", "-c", "setsid slurmctld -D >/dev/null 2>&1 </dev/null &")
    slurm.wait_for_nodes()


def test_a_cancel_hits_no_other_work_once_slurms_ids_begin_again(slurm, login):
    lose_state(slurm)  # small ids
    jobs = [login.submit("lab_recipes.long_sleep")]
    login.reached(jobs[0], "running")
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=test")
    jobs += [login.submit("lab_recipes.long_sleep") for _ in range(3)]
    eventually(lambda: len(slurm.queue()) == 4)
    ours = slurm.queue()
    # Nobody hands anything over before other work has those ids.
    slurm.run("kill", "-9", json.loads((login.home / "server" / "lock").read_text())["pid"])
    lose_state(slurm)
    for _ in ours:
        slurm.run("sbatch", "--job-name=my own", "--hold", "--wrap=sleep 6062")
    assert set(ours) == set(slurm.queue())
    login.submit("lab_recipes.value")  # starts a server
    for job_id in jobs:
        login.run("cancel", job_id)
    for job_id in jobs:
        assert login.reached(job_id, "cancelled")["status"] == "cancelled"
    slurm.run(*COMMAND, "stop", "--cancel", env=login.environment, timeout=120)
    names = slurm.run("squeue", "--noheader", "--format=%j").stdout.splitlines()
    assert names == ["my own"] * len(ours)


def test_a_munge_that_is_down_for_a_while_fails_no_job(slurm, login):
    first = login.submit("lab_recipes.value")
    login.reached(first, "completed")
    slurm.run("pkill", "munged")
    job_id = login.submit("lab_recipes.value")
    eventually(lambda: "authentication error" in str(login.status(job_id).get("reason")), 60)
    start_munge(slurm)
    assert login.reached(job_id, "completed", "failed")["status"] == "completed"


def start_munge(slurm):
    folder = slurm.folder / "munge"
    names = ("key", "socket", "pid", "seed", "log")
    files = [f"--{name if name == 'socket' else name + '-file'}={folder / name}" for name in names]
    slurm.run("munged", "--force", *files)


def test_stop_cancel_ends_while_slurm_cannot_be_told_and_the_next_server_tells_it(slurm, login):
    slurm.run("scontrol", "update", "nodename=node[1-2]", "state=drain", "reason=test")
    job_id = login.submit("lab_recipes.value")
    eventually(slurm.queue)
    slurm.run("pkill", "munged")
    try:
        stop = (*COMMAND, "stop", "--cancel")
        done = slurm.run(*stop, env=login.environment, check=False, timeout=100)
        assert done.returncode == 1, done.stderr
        assert "not over: 1 jobs, which the next server goes on to cancel" in done.stderr
        assert f"not over: {job_id}: trying again: " in done.stderr
        again = slurm.run(*stop, env=login.environment, check=False, timeout=100)
        assert (again.returncode, job_id in again.stderr) == (1, True)
    finally:
        start_munge(slurm)
    assert len(slurm.queue()) == 1
    login.submit("lab_recipes.value")  # starts a server
    login.reached(job_id, "cancelled", timeout=60)
    eventually(lambda: len(slurm.queue()) == 1)
