"""Two clusters of two engines, and one more, in one server of one home, at once."""

import json
from pathlib import Path

import pytest
from ase.io import read

from cluster.shared_home import SharedHome
from conftest import eventually
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.recipes import codec
from same.comparing import assert_same

pytest.importorskip("parsl")
pytest.importorskip("psij")

COPPER = Path(__file__).parents[2] / "examples/Cu.poscar"
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
FLOW = ("emt.slabs.bulk_to_slabs_flow", COPPER, "--param=run_static=False")
#: Of the configuration file, and one that every engine has.
CLUSTERS = {"blocks": "parsl", "allocations": "psij", "local": "local"}


@pytest.fixture
def there(slurm, home, with_quacc):
    with SharedHome(slurm, home, CONFIG) as there:
        yield there


def states(there, jobs):
    """Return the states of jobs, each by its cluster."""
    listed = {job["job_id"]: job["status"] for job in there.run("list", "--limit", "100")["jobs"]}
    return {cluster: listed[job] for cluster, job in jobs.items()}


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
def test_jobs_run_and_end_on_each_whatever_becomes_of_the_server(
    slurm, there, home, tmp_path, monkeypatch
):
    go = tmp_path / "go"
    waits = {each: there.submit("wait_for", cluster=each, path=str(go)) for each in CLUSTERS}
    sleeps = {each: there.submit("long_sleep", cluster=each) for each in CLUSTERS}
    both = [waits, sleeps]
    running = dict.fromkeys(CLUSTERS, "running")
    eventually(lambda: all(states(there, jobs) == running for jobs in both), timeout=240)
    for cluster, engine in CLUSTERS.items():
        told = there.run("list", "--cluster", cluster)["jobs"]
        assert {job["job_id"] for job in told} == {waits[cluster], sleeps[cluster]}
        assert {job["engine"] for job in told} == {engine}
    # Those that are cancelled, one on each, take nobody with them.
    there.run("cancel", *sleeps.values())
    eventually(lambda: states(there, sleeps) == dict.fromkeys(CLUSTERS, "cancelled"), timeout=120)
    assert states(there, waits) == running
    # The server is killed with a job running on each, and the next one follows them all.
    pid = there.server()["pid"]
    there.kill_server()
    value = {each: there.submit("value", cluster=each) for each in CLUSTERS}
    asked = ("submit", *FLOW, f"--param=make_slabs_kwargs={json.dumps(SLABS)}", "--cluster")
    flows = {cluster: there.run(*asked, cluster)["job_id"] for cluster in ("blocks", "allocations")}
    assert there.server()["pid"] != pid
    assert states(there, waits) == running
    go.touch()
    done = dict.fromkeys(CLUSTERS, "completed")
    eventually(lambda: states(there, waits) == states(there, value) == done, timeout=240)
    for job in waits.values():
        assert there.run("status", job)["attempt"] == 1
    # Flows, whose bodies run there, too, return what they return bare.
    eventually(lambda: states(there, flows) == dict.fromkeys(flows, "completed"), timeout=600)
    from quacc.recipes.emt.slabs import bulk_to_slabs_flow

    monkeypatch.chdir(tmp_path)
    copper = read(COPPER)
    bare = bulk_to_slabs_flow(copper, run_static=False, make_slabs_kwargs=SLABS)
    for cluster, job in flows.items():
        told = there.run("status", job)
        assert told["steps"] == {"completed": len(bare["relax"])}
        directory = RunDirectory(home / "jobs" / job)
        assert_same(codec.decode_result(directory.payload(told["attempt"])), bare, cluster)
    there.text("stop")
    eventually(lambda: not slurm.queue())
