"""A server that has died is followed by one on another login node, which follows its jobs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.slurm_cluster import LOGIN, LOGIN2
from conftest import LAB, LIGHT, eventually

pytest.importorskip("psij")

COMMAND = (sys.executable, "-m", "crystalmath")
AL = str(Path(__file__).parents[2] / "examples/Al.poscar")
#: Long enough for a beat in half of it, also where many share two cores, in seconds.
LEASE_S = 30
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


class Hosts:
    """Commands on both login nodes, with one home."""

    def __init__(self, slurm, home):
        self.slurm, self.home = slurm, home
        (home / "config.toml").write_text(CONFIGURATION, encoding="ascii")
        self.notes = home / "notes"
        self.notes.mkdir()
        self.go = home / "go"
        self.environment = {
            "CRYSTALMATH_HOME": str(home),
            "CRYSTALMATH_RECIPES": "lab_recipes",
            "PYTHONPATH": os.pathsep.join([str(LIGHT), str(LAB)]),
        }

    def run(self, host, *arguments, check=True):
        command = [*COMMAND, *arguments, "--json"]
        done = self.slurm.run(*command, on=host, env=self.environment, check=check, timeout=300)
        return json.loads(done.stdout)

    def submit(self, cluster):
        """Submit a job on the second login node, and give its key."""
        name = f"{cluster}-{len(list(self.notes.iterdir()))}"
        (self.notes / name).touch()
        command = ["sh", "-c", SCRIPT.format(notes=self.notes / name, go=self.go)]
        told = (f"--param=command={json.dumps(command)}", f"--key={name}")
        self.run(LOGIN2, "submit", "lab_recipes.run_command", AL, f"--cluster={cluster}", *told)
        return name

    def begun(self, cluster, count):
        """Submit jobs, and wait until they have begun."""
        names = [self.submit(cluster) for _ in range(count)]
        eventually(lambda: all((self.notes / name).read_text() for name in names), 300)
        return names

    def waiting_blocks(self):
        """List Parsl's pilot jobs that wait, by Slurm's ids; they are named after it."""
        told = self.slurm.run("squeue", "--noheader", "--states=PENDING", "--format=%j %i").stdout
        rows = [line.split() for line in told.splitlines()]
        return [row[-1] for row in rows if row[0].startswith("parsl")]

    def jobs(self, host):
        listed = self.run(host, "list")["jobs"]
        return {job["key"]: (job["status"], job["attempt"]) for job in listed}

    def serve(self, host):
        """Start a server as somebody does who has read that the other one is gone."""
        return subprocess.Popen(
            self.slurm.command(*COMMAND, "serve", on=host),
            env=self.slurm.environment | self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def server(self):
        """Return who serves the home; its name is being written for a moment."""
        return json.loads((self.home / "server" / "lock").read_text() or '{"host": null}')

    def left(self):
        """Name what is left of jobs, on any host."""
        found = [f"allocation {each}" for each in self.slurm.queue()]
        for host in self.slurm.hosts:
            commands = self.slurm.processes(host).values()
            ours = ("crystalmath", "interchange", "process_worker_pool")
            found += [f"{host}: {each}" for each in commands if any(word in each for word in ours)]
        return found


@pytest.fixture
def hosts(slurm, home):
    hosts = Hosts(slurm, home)
    yield hosts
    hosts.go.touch()
    slurm.run(*COMMAND, "stop", "--cancel", env=hosts.environment, check=False)


def kill_server(hosts):
    hosts.slurm.run("kill", "-KILL", str(hosts.server()["pid"]), on=LOGIN2)


def power_off(hosts):
    hosts.slurm.power_off(LOGIN2)


@pytest.mark.parametrize("strike", [kill_server, power_off])
def test_jobs_of_a_dead_server_are_taken_over_on_another_host(hosts, strike):
    """Two of each engine run, and two wait; each runs to its end once, and as its first attempt."""
    names = [*hosts.begun("psij", 2), *hosts.begun("parsl", 2)]
    names += [hosts.submit(cluster) for cluster in ("psij", "psij", "parsl", "parsl")]
    eventually(lambda: len(hosts.waiting_blocks()) == 1, 300)
    (block,) = hosts.waiting_blocks()
    assert hosts.server()["host"] == LOGIN2
    strike(hosts)

    # Who looks is answered at once, and told how another server comes.
    assert {state for state, _ in hosts.jobs(LOGIN).values()} == {"pending", "running"}
    server = hosts.serve(LOGIN)
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
    hosts.run(LOGIN, "stop")
    server.communicate(timeout=300)
    eventually(lambda: not hosts.left(), 300, "something is left over")
