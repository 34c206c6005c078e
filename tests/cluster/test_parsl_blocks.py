"""Parsl's pilot jobs on Slurm: jobs over several of their nodes, and when one gets no more work."""

import pytest

from cluster.shared_home import SharedHome
from conftest import AL, eventually

CLUSTER = """
[clusters.slurm]
engine = "parsl"
scheduler = "slurm"
walltime = "00:10:00"
"""
TWO_NODES = 'nodes = 2\nmpi = "srun"\n'
ON_ITS_NODES = "$PARSL_MPI_PREFIX hostname; echo $QUACC_VASP_PARALLEL_CMD | tr ' ' _"


@pytest.fixture
def there(slurm, home, lab):
    with SharedHome(slurm, home) as there:
        yield there


def lines(there, job):
    """Return what a job has printed."""
    there.completed(job)
    return there.run("result", job)["result"]["lines"]


def test_jobs_share_the_nodes_of_a_block_which_ends_when_it_is_idle(slurm, there, tmp_path):
    there.configure(f"{CLUSTER}{TWO_NODES}max_idletime = 4\n")
    both = there.submit(
        "run_command",
        *("--nodes=2", "--ranks=4", "--cores=1"),
        command=["sh", "-c", ON_ITS_NODES],
    )
    *hosts, launcher = lines(there, both)
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
        there.submit("run_command", command=["sh", "-c", meet, *names])
        for names in (("one", "other"), ("other", "one"))
    )
    assert {*lines(there, one), *lines(there, other)} == {"node1", "node2"}
    # A block that was idle for too long between them may have to go.
    eventually(lambda: len(slurm.queue()) <= 1)
    eventually(lambda: not slurm.queue())

    again = there.submit("run_command", command=["hostname"])
    assert lines(there, again) in (["node1"], ["node2"])
    assert there.status(again)["attempt"] == 1


def test_nothing_is_alive_on_any_node_when_cancelled_is_told(slurm, there):
    there.configure(CLUSTER + TWO_NODES)
    job = there.submit(
        "run_command",
        *("--nodes=2", "--ranks=2"),
        command=["sh", "-c", "$PARSL_MPI_PREFIX sleep 6062"],
    )
    eventually(lambda: all(slurm.sleeping(6062)), 300)
    there.run("cancel", job)
    there.reached(job, "cancelled")
    assert slurm.sleeping(6062) == [[], []]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--nodes=3",), "has 2 nodes, not 3"),
        (("--walltime=10m",), "lasts 600 s"),
        (("--gpus=1",), "cannot honour 'gpus_per_rank'"),
    ],
)
def test_what_no_block_can_hold_is_refused(there, asked, said):
    there.configure(CLUSTER + TWO_NODES)
    refused = there.run("submit", "lab_recipes.value", AL, "--cluster=slurm", *asked, check=False)
    assert said in refused["error"]


def test_a_block_that_ends_too_soon_for_a_job_gets_no_more(slurm, there, tmp_path):
    # The first block ends in two minutes.
    soon = "CRYSTALMATH_ALLOCATION_ENDS=$(($(date +%s) + 120))"
    there.configure(
        CLUSTER + f"worker_init = '''if mkdir {tmp_path}/old 2>/dev/null; then {soon}; fi'''\n"
    )
    assert lines(there, there.submit("run_command", command=["true"])) == []
    (old,) = slurm.queue()
    timed = there.submit("run_command", "--walltime=2m", command=["hostname"])
    assert lines(there, timed)
    assert there.status(timed)["attempt"] == 1
    eventually(lambda: old not in slurm.queue())
