"""Hosts that see nothing of each other but the home: nodes that fall silent."""

import json
import sys
from pathlib import Path

import pytest

from conftest import LAB, eventually

pytest.importorskip("psij")

COMMAND = (sys.executable, "-m", "crystalmath")
AL = Path(__file__).parents[2] / "examples/Al.poscar"
#: Long enough for a beat in half of it, also where many share two cores, in seconds.
LEASE_S = 30
CONFIGURATION = f"""
[jobs]
lease_s = {LEASE_S}

[clusters.psij]
engine = "psij"
scheduler = "slurm"

[clusters.parsl]
engine = "parsl"
scheduler = "slurm"
"""


class Home:
    """Commands of a home that all hosts see."""

    def __init__(self, slurm, path):
        self.slurm = slurm
        (path / "config.toml").write_text(CONFIGURATION, encoding="ascii")
        self.environment = {"CRYSTALMATH_RECIPES": "lab_recipes", "PYTHONPATH": str(LAB)}
        self.notes = path / "notes"

    def run(self, *arguments, check=True):
        done = self.slurm.run(
            *COMMAND, *arguments, "--json", env=self.environment, check=check, timeout=300
        )
        return json.loads(done.stdout)

    def submit(self, cluster, seconds):
        told = (f"--param=path={json.dumps(str(self.notes))}", f"--param=seconds={seconds}")
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
        """Wait for the end of a job, and give it with what was noted of its attempts."""
        states = {"completed", "failed", "cancelled"}
        eventually(lambda: self.status(job)["status"] in states, 600)
        return self.status(job), self.notes.read_text().split()

    def left(self):
        """Name what is left of jobs, on any host."""
        found = [f"allocation {each}" for each in self.slurm.queue()]
        for host in self.slurm.hosts:
            commands = self.slurm.processes(host).values()
            found += [f"{host}: {each}" for each in commands if "crystalmath" in each]
        return found


@pytest.fixture
def shared(slurm, home):
    made = Home(slurm, home)
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
