"""Hosts that see nothing of each other but the home: nodes that fall silent."""

import time

import pytest

from cluster.shared_home import LEASE_S, SharedHome
from conftest import eventually

pytest.importorskip("psij")

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


class Jobs(SharedHome):
    """Jobs that note their beginnings and ends in files of the home."""

    @property
    def notes(self):
        return self.home / "notes"

    def alone(self, cluster, seconds, notes=None):
        path = str(notes or self.notes)
        return self.submit("alone", cluster=cluster, path=path, seconds=seconds)

    def running(self, cluster, seconds):
        """Submit a job, and give it and the node that it runs on."""
        job = self.alone(cluster, seconds)
        eventually(lambda: self.state(job) == "running" and self.notes.exists(), 300)
        return job, self.slurm.run("squeue", "--noheader", "--format=%N").stdout.strip()

    def ended(self, job):
        """Wait for the end of a job; return it, and what was noted of its attempts."""
        status = self.reached(job, timeout=600)
        return status, self.notes.read_text().split() if self.notes.exists() else []


@pytest.fixture
def shared(request, slurm, home, with_quacc):
    lease_s = getattr(request, "param", LEASE_S)
    with Jobs(slurm, home, CONFIGURATION.format(lease_s=lease_s)) as shared:
        yield shared
    eventually(lambda: not shared.left(), message="something is left over")


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
        notes[shared.alone(("parsl", "psij")[number % 2], 20, file)] = file
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
