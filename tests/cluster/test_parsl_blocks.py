"""Parsl's pilot jobs on Slurm: jobs over several of their nodes, and when one gets no more work."""

import json
import sys
from pathlib import Path

import pytest

from conftest import eventually

COMMAND = (sys.executable, "-m", "crystalmath")
AL = str(Path(__file__).parents[2] / "examples/Al.poscar")
CLUSTER = """
[clusters.slurm]
engine = "parsl"
scheduler = "slurm"
walltime = "00:10:00"
"""
ON_ITS_NODES = "$PARSL_MPI_PREFIX hostname; echo $QUACC_VASP_PARALLEL_CMD | tr ' ' _"


class There:
    """Commands on the login node, with a home that knows the cluster."""

    def __init__(self, slurm, home):
        self._slurm, self._home = slurm, home

    def configure(self, more):
        (self._home / "config.toml").write_text(CLUSTER + more)

    def run(self, *arguments, check=True):
        done = self._slurm.run(*COMMAND, *arguments, "--json", check=check, timeout=300)
        return json.loads(done.stdout or "null"), done.stderr

    def submit(self, recipe, *options, **parameters):
        told = [f"--param={key}={json.dumps(value)}" for key, value in parameters.items()]
        return self.run("submit", recipe, AL, "--cluster=slurm", *told, *options)[0]["job_id"]

    def status(self, job):
        return self.run("status", job, check=False)[0]

    def lines(self, job):
        eventually(lambda: self.status(job)["status"] in {"completed", "failed"}, 600)
        assert self.status(job)["status"] == "completed", self.status(job)
        return self.run("result", job)[0]["result"]["lines"]


@pytest.fixture
def there(slurm, home, lab):
    there = There(slurm, home)
    yield there
    there.run("stop", "--cancel", check=False)


def test_jobs_share_the_nodes_of_a_block_which_ends_when_it_is_idle(slurm, there, tmp_path):
    there.configure('nodes = 2\nmpi = "srun"\nmax_idletime = 4\n')
    both = there.submit(
        "lab_recipes.run_command",
        *("--nodes=2", "--ranks=4", "--cores=1"),
        command=["sh", "-c", ON_ITS_NODES],
    )
    *hosts, launcher = there.lines(both)
    assert hosts == ["node1", "node1", "node2", "node2"]
    words = launcher.split("_")
    assert words[:5] == ["srun", "--ntasks", "4", "--ntasks-per-node", "2"]
    assert words[-1] == "--cpus-per-task=1"

    # Each waits for the other, so they run at once; and each is on the node that is its own.
    meet = (
        f"touch {tmp_path}/$0; "
        f"while ! [ -e {tmp_path}/$1 ]; do sleep 0.2; done; $PARSL_MPI_PREFIX hostname"
    )
    one, other = (
        there.submit("lab_recipes.run_command", command=["sh", "-c", meet, *names])
        for names in (("one", "other"), ("other", "one"))
    )
    assert {*there.lines(one), *there.lines(other)} == {"node1", "node2"}
    # A block that was idle for too long between them may have to go.
    eventually(lambda: len(slurm.queue()) <= 1)
    eventually(lambda: not slurm.queue())

    again = there.submit("lab_recipes.run_command", command=["hostname"])
    assert there.lines(again) in (["node1"], ["node2"])
    assert there.status(again)["attempt"] == 1


def test_nothing_is_alive_on_any_node_when_cancelled_is_told(slurm, there):
    there.configure('nodes = 2\nmpi = "srun"\n')
    job = there.submit(
        "lab_recipes.run_command",
        *("--nodes=2", "--ranks=2"),
        command=["sh", "-c", "$PARSL_MPI_PREFIX sleep 6062"],
    )

    def sleeps():
        found = [slurm.processes(node).values() for node in ("node1", "node2")]
        return [[each for each in one if each.endswith("/sleep 6062")] for one in found]

    eventually(lambda: all(sleeps()), 300)
    there.run("cancel", job)
    eventually(lambda: there.status(job)["status"] == "cancelled")
    assert sleeps() == [[], []]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--nodes=3",), "has 2 nodes, not 3"),
        (("--walltime=10m",), "lasts 600 s"),
        (("--gpus=1",), "cannot honour 'gpus_per_rank'"),
    ],
)
def test_what_no_block_can_hold_is_refused(there, asked, said):
    there.configure('nodes = 2\nmpi = "srun"\n')
    refused, error = there.run(
        "submit", "lab_recipes.value", AL, "--cluster=slurm", *asked, check=False
    )
    assert said in error + json.dumps(refused)


def test_a_block_that_ends_too_soon_for_a_job_gets_no_more(slurm, there, tmp_path):
    # The first block ends in two minutes.
    soon = "CRYSTALMATH_ALLOCATION_ENDS=$(($(date +%s) + 120))"
    there.configure(f"worker_init = '''if mkdir {tmp_path}/old 2>/dev/null; then {soon}; fi'''\n")
    assert there.lines(there.submit("lab_recipes.run_command", command=["true"])) == []
    (old,) = slurm.queue()
    timed = there.submit("lab_recipes.run_command", "--walltime=2m", command=["hostname"])
    assert there.lines(timed)
    assert there.status(timed)["attempt"] == 1
    eventually(lambda: old not in slurm.queue())
