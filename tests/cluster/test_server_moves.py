"""A server that has died is followed by one on another login node, which follows its jobs."""

import subprocess

import pytest

from cluster.shared_home import LEASE_S, SharedHome
from cluster.slurm_cluster import LOGIN, LOGIN2
from conftest import eventually

pytest.importorskip("psij")

CONFIGURATION = f"""
[jobs]
lease_s = {LEASE_S}

[storage]
network = true

[clusters.psij]
engine = "psij"
scheduler = "slurm"

[clusters.parsl]
engine = "parsl"
scheduler = "slurm"
workers_per_node = 2
max_blocks = 2
"""
#: Notes when it begins and when it ends, and waits between for a file.
SCRIPT = "echo begin >> {notes}; until [ -e {go} ]; do sleep 0.1; done; echo end >> {notes}"


class Hosts(SharedHome):
    """Jobs that the second login node submits, and files that they note their ends in."""

    def __init__(self, slurm, home):
        super().__init__(slurm, home, CONFIGURATION)
        self.notes = home / "notes"
        self.notes.mkdir()
        self.go = home / "go"

    def noting(self, cluster):
        """Submit a job on the second login node, and give its key."""
        name = f"{cluster}-{len(list(self.notes.iterdir()))}"
        (self.notes / name).touch()
        command = ["sh", "-c", SCRIPT.format(notes=self.notes / name, go=self.go)]
        self.submit("run_command", f"--key={name}", cluster=cluster, on=LOGIN2, command=command)
        return name

    def begun(self, cluster, count):
        """Submit jobs, and wait until they have begun."""
        names = [self.noting(cluster) for _ in range(count)]
        eventually(lambda: all((self.notes / name).read_text() for name in names), 300)
        return names

    def waiting_blocks(self):
        """List Parsl's pilot jobs that wait, by Slurm's ids; they are named after it."""
        told = self.slurm.run("squeue", "--noheader", "--states=PENDING", "--format=%j %i").stdout
        rows = [line.split() for line in told.splitlines()]
        return [row[-1] for row in rows if row[0].startswith("parsl")]

    def jobs(self, host):
        listed = self.run("list", on=host)["jobs"]
        return {job["key"]: (job["status"], job["attempt"]) for job in listed}


@pytest.fixture
def hosts(slurm, home, lab):
    with Hosts(slurm, home) as hosts:
        yield hosts
        hosts.go.touch()


def power_off(hosts):
    hosts.slurm.power_off(LOGIN2)


@pytest.mark.parametrize("strike", [Hosts.kill_server, power_off])
def test_jobs_of_a_dead_server_are_taken_over_on_another_host(hosts, strike):
    """Two of each engine run, and two wait; each runs to its end once, and as its first attempt."""
    names = [*hosts.begun("psij", 2), *hosts.begun("parsl", 2)]
    names += [hosts.noting(cluster) for cluster in ("psij", "psij", "parsl", "parsl")]
    eventually(lambda: len(hosts.waiting_blocks()) == 1, 300)
    (block,) = hosts.waiting_blocks()
    assert hosts.server()["host"] == LOGIN2
    strike(hosts)

    # Who looks is answered at once, and told how another server comes.
    assert {state for state, _ in hosts.jobs(LOGIN).values()} == {"pending", "running"}
    # As somebody does who has read that the other one is gone.
    server = hosts.start("serve", stderr=subprocess.PIPE)
    said = server.stderr.readline()
    assert f"for {LEASE_S} s" in said, said
    eventually(lambda: hosts.server()["host"] == LOGIN)
    eventually(lambda: block not in hosts.waiting_blocks(), message="its pilot job waits")
    hosts.go.touch()
    eventually(
        lambda: {state for state, _ in hosts.jobs(LOGIN).values()} == {"completed"},
        timeout=600,
        message="the jobs did not complete",
    )
    assert hosts.jobs(LOGIN) == dict.fromkeys(names, ("completed", 1))
    assert {name: (hosts.notes / name).read_text() for name in names} == dict.fromkeys(
        names, "begin\nend\n"
    )
    hosts.text("stop")
    server.communicate(timeout=300)
    eventually(lambda: not hosts.left(), 300, "something is left over")
