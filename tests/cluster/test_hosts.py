"""Hosts that see nothing of each other but the home: nodes that fall silent."""

import json
import sys
import time
from pathlib import Path

import pytest

from conftest import LAB, eventually

pytest.importorskip("psij")

COMMAND = (sys.executable, "-m", "crystalmath")
AL = Path(__file__).parents[2] / "examples/Al.poscar"
#: Long enough for a beat in half of it, also where many share two cores, in seconds.
LEASE_S = 30
CONFIGURATION = """
[jobs]
lease_s = {lease_s}

[clusters.psij]
engine = "psij"
scheduler = "slurm"

[clusters.parsl]
engine = "parsl"
scheduler = "slurm"
workers_per_node = 2
max_blocks = 1
"""


class Home:
    """Commands of a home that all hosts see."""

    def __init__(self, slurm, path, lease_s=LEASE_S):
        self.slurm = slurm
        (path / "config.toml").write_text(CONFIGURATION.format(lease_s=lease_s), encoding="ascii")
        self.environment = {"CRYSTALMATH_RECIPES": "lab_recipes", "PYTHONPATH": str(LAB)}
        self.notes = path / "notes"

    def run(self, *arguments, check=True):
        done = self.slurm.run(
            *COMMAND, *arguments, "--json", env=self.environment, check=check, timeout=300
        )
        return json.loads(done.stdout)

    def submit(self, cluster, seconds, notes=None):
        told = (
            f"--param=path={json.dumps(str(notes or self.notes))}",
            f"--param=seconds={seconds}",
        )
        return self.run("submit", "lab_recipes.alone", str(AL), f"--cluster={cluster}", *told)[
            "job_id"
        ]

    def running(self, cluster, seconds):
        """Submit a job, and give it and the node that it runs on."""
        job = self.submit(cluster, seconds)
        eventually(lambda: self.status(job)["status"] == "running" and self.notes.exists(), 300)
        return job, self.slurm.run("squeue", "--noheader", "--format=%N").stdout.strip()

    def status(self, job):
        return self.run("status", job, check=False)

    def ended(self, job):
        """Wait for the end of a job; return it, and what was noted of its attempts."""
        states = {"completed", "failed", "cancelled"}
        eventually(lambda: self.status(job)["status"] in states, 600)
        return self.status(job), self.notes.read_text().split() if self.notes.exists() else []

    def left(self):
        """Name what is left of jobs, on any host."""
        found = [f"allocation {each}" for each in self.slurm.queue()]
        for host in self.slurm.hosts:
            commands = self.slurm.processes(host).values()
            found += [f"{host}: {each}" for each in commands if "crystalmath" in each]
        return found


@pytest.fixture
def shared(request, slurm, home):
    made = Home(slurm, home, getattr(request, "param", LEASE_S))
    yield made
    slurm.run(*COMMAND, "stop", "--cancel", env=made.environment, check=False)
    eventually(lambda: not made.left(), message="something is left over")


@pytest.mark.parametrize("cluster", ["psij", "parsl"])
def test_a_job_whose_node_lost_its_cable_goes_on_and_runs_once(slurm, shared, cluster):
    """Slurm says NODE_FAIL, but the job lives, and its heart tells so."""
    job, node = shared.running(cluster, 60)
    slurm.pull_cable(node)
    eventually(lambda: slurm.node_states()[node].startswith("down"))
    told, noted = shared.ended(job)
    slurm.plug_cable(node)
    assert (told["status"], told["attempt"], noted) == ("completed", 1, ["end"])


def test_a_job_whose_node_lost_its_power_runs_again_once_its_lease_is_over(slurm, shared):
    job, node = shared.running("psij", 40)
    slurm.power_off(node)
    told, noted = shared.ended(job)
    assert (told["status"], told["attempt"], noted) == ("completed", 2, ["end"])


@pytest.mark.parametrize("has_own_time", [True, False], ids=["machine", "container"])
@pytest.mark.parametrize("shared", [3600], indirect=True)
def test_no_lease_is_waited_for_once_a_node_that_lost_its_power_has_booted(
    slurm, shared, home, has_own_time
):
    """Twelve jobs, of which some run in a pilot job and others in an allocation each."""
    notes = {}
    for number in range(12):
        file = home / f"notes-{number}"
        notes[shared.submit(("parsl", "psij")[number % 2], 20, file)] = file
    eventually(lambda: len(begun(slurm)) == 2 and all(begun(slurm).values()), 120)
    eventually(lambda: sum(file.exists() for file in notes.values()) == 4, 120)
    pilot = next(node for node, jobs in begun(slurm).items() if "parsl" in " ".join(jobs))
    slurm.power_off(pilot)
    zero = time.monotonic()
    time.sleep(6)
    slurm.power_on(pilot, has_own_time=has_own_time)
    told = [shared.ended(job)[0] for job in notes]
    took_s = time.monotonic() - zero
    assert {each["status"] for each in told} == {"completed"}, told
    assert sorted(each["attempt"] for each in told) == [1] * 10 + [2] * 2
    assert all(file.read_text() == "end\n" for file in notes.values())
    print(f"all twelve had completed after {took_s:.0f} s")


def begun(slurm):
    """List the names of the jobs that run on each node, as ``{"node1": ["..."]}``."""
    told = slurm.run("squeue", "--noheader", "--states=running", "--format=%N %j").stdout
    names = {}
    for line in told.splitlines():
        node, name = line.split(None, 1)
        names.setdefault(node, []).append(name)
    return names
