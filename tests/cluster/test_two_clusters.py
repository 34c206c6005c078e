"""Two clusters of two engines, and one more, in one server of one home, at once."""

import json
import sys
from pathlib import Path

import pytest
from ase.io import read

from conftest import LAB, eventually
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.recipes import codec
from same.comparing import assert_same

pytest.importorskip("parsl")
pytest.importorskip("psij")

ROOT = Path(__file__).parents[2]
CRYSTALMATH = (sys.executable, "-m", "crystalmath")
CONFIG = """
[jobs]
lease_s = 60

[flows]
on_cluster = ["*"]

[clusters.blocks]
engine = "parsl"
scheduler = "slurm"
walltime = "00:20:00"
workers_per_node = 2
cores_per_node = 1

[clusters.allocations]
engine = "psij"
scheduler = "slurm"
walltime = "00:20:00"
"""
#: With slabs of few atoms.
SLABS = {"max_index": 1, "min_slab_size": 3.0, "min_length_width": 2.0, "max_normal_search": 1}
FLOW = ("emt.slabs.bulk_to_slabs_flow", "examples/Cu.poscar", "--param=run_static=False")
#: Of the configuration file, and one that every engine has.
CLUSTERS = {"blocks": "parsl", "allocations": "psij", "local": "local"}


class Home:
    def __init__(self, cluster, home):
        self.cluster = cluster
        self.environment = {
            "CRYSTALMATH_HOME": str(home),
            "CRYSTALMATH_RECIPES": "lab_recipes",
            "PYTHONPATH": str(LAB),
        }

    def run(self, *arguments, check=True):
        command = [*CRYSTALMATH, *arguments, "--json"]
        told = self.cluster.run(*command, env=self.environment, cwd=ROOT, check=check, timeout=600)
        return json.loads(told.stdout)

    def submit(self, cluster, recipe, *options):
        asked = ("submit", f"lab_recipes.{recipe}", "examples/Al.poscar", "--cluster", cluster)
        return self.run(*asked, *options)["job_id"]

    def states(self, jobs):
        told = self.run("list", "--limit", "100")["jobs"]
        states = {job["job_id"]: job["status"] for job in told}
        return {cluster: states[job] for cluster, job in jobs.items()}


@pytest.fixture
def there(slurm, home):
    (home / "config.toml").write_text(CONFIG)
    there = Home(slurm, home)
    yield there
    slurm.run(*CRYSTALMATH, "stop", "--cancel", env=there.environment, check=False, timeout=600)


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
def test_jobs_run_and_end_on_each_whatever_becomes_of_the_server(
    slurm, there, home, tmp_path, monkeypatch
):
    go = tmp_path / "go"
    waits = {
        cluster: there.submit(cluster, "wait_for", f"--param=path={go}") for cluster in CLUSTERS
    }
    sleeps = {cluster: there.submit(cluster, "long_sleep") for cluster in CLUSTERS}
    both = [waits, sleeps]
    running = dict.fromkeys(CLUSTERS, "running")
    eventually(lambda: all(there.states(jobs) == running for jobs in both), timeout=240)
    for cluster, engine in CLUSTERS.items():
        told = there.run("list", "--cluster", cluster)["jobs"]
        assert {job["job_id"] for job in told} == {waits[cluster], sleeps[cluster]}
        assert {job["engine"] for job in told} == {engine}
    # Those that are cancelled, one on each, take nobody with them.
    there.run("cancel", *sleeps.values())
    eventually(lambda: there.states(sleeps) == dict.fromkeys(CLUSTERS, "cancelled"), timeout=120)
    assert there.states(waits) == running
    # The server is killed with a job running on each, and the next one follows them all.
    pid = json.loads((home / "server" / "lock").read_text())["pid"]
    slurm.run("kill", "-9", str(pid))
    value = {cluster: there.submit(cluster, "value") for cluster in CLUSTERS}
    asked = ("submit", *FLOW, f"--param=make_slabs_kwargs={json.dumps(SLABS)}", "--cluster")
    flows = {cluster: there.run(*asked, cluster)["job_id"] for cluster in ("blocks", "allocations")}
    assert json.loads((home / "server" / "lock").read_text())["pid"] != pid
    assert there.states(waits) == running
    go.touch()
    done = dict.fromkeys(CLUSTERS, "completed")
    eventually(lambda: there.states(waits) == there.states(value) == done, timeout=240)
    for job in waits.values():
        assert there.run("status", job)["attempt"] == 1
    # Flows, whose bodies run there, too, return what they return bare.
    eventually(lambda: there.states(flows) == dict.fromkeys(flows, "completed"), timeout=600)
    from quacc.recipes.emt.slabs import bulk_to_slabs_flow

    monkeypatch.chdir(tmp_path)
    copper = read(ROOT / "examples/Cu.poscar")
    bare = bulk_to_slabs_flow(copper, run_static=False, make_slabs_kwargs=SLABS)
    for cluster, job in flows.items():
        told = there.run("status", job)
        assert told["steps"] == {"completed": len(bare["relax"])}
        directory = RunDirectory(home / "jobs" / job)
        assert_same(codec.decode_result(directory.payload(told["attempt"])), bare, cluster)
    there.run("stop")
    eventually(lambda: not slurm.queue())
