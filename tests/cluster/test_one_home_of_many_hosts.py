"""One home that several hosts see: one of them serves, the others read in it.

The hosts have no network file system, but all else of a cluster: names, boots and processes of
their own. ``[storage] network`` says that the home is on one.
"""

import json
import subprocess

import pytest

from cluster.shared_home import COMMAND, SharedHome
from conftest import AL


@pytest.fixture
def hosts(slurm, home, lab):
    with SharedHome(slurm, home, "[storage]\nnetwork = true\n") as hosts:
        yield hosts


def test_other_hosts_read_in_the_home_and_name_the_host_that_serves(hosts, home, tmp_path):
    job_id = hosts.submit("chatter", cluster="local", count=2)
    hosts.run("wait", job_id)
    running = hosts.submit("wait_for", cluster="local", path=f"{tmp_path}/go")
    hosts.reached(running, "running")
    assert hosts.server()["host"] == "login"

    # Reading: at once, by whatever host.
    for host in ("node1", "node2"):
        listed = {job["job_id"] for job in hosts.run("list", on=host)["jobs"]}
        assert listed == {job_id, running}
        assert hosts.state(job_id, on=host) == "completed"
        assert hosts.state(running, on=host) == "running"
        assert hosts.run("result", job_id, on=host)["result"] == {}
        assert hosts.text("path", job_id, on=host).startswith(f"{home}/jobs/{job_id}/")
        assert hosts.text("logs", job_id, on=host) == "line 0\nline 1\n"

    # Changing: only on the host that serves, which the others name.
    submit = ("submit", "lab_recipes.value", AL)
    for command in (submit, ("cancel", running), ("retry", job_id), ("prune", job_id, "--yes")):
        refused = hosts.run(*command, on="node1", check=False)
        assert refused["code"] == "served_elsewhere", (command, refused)
        assert "on login (version" in refused["error"]
        assert f"remotes add login login --home {home}" in refused["error"]
    assert {job["job_id"] for job in hosts.run("list")["jobs"]} == {job_id, running}
    assert hosts.state(running, on="node2") == "running"
    # A command that waits there sees the end.
    waiting = hosts.start("wait", running, "--json", on="node2", stdout=subprocess.PIPE)
    assert hosts.run("cancel", running)["cancelled"] is True
    (ended,) = json.loads(waiting.communicate(timeout=300)[0])["jobs"]
    assert ended["status"] == "cancelled"
    assert hosts.server()["host"] == "login"


def test_a_batch_script_runs_jobs_beside_the_server(hosts, home, slurm, tmp_path):
    first = hosts.submit("value", cluster="local")
    script = tmp_path / "run.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=1 --nodelist=node1\n"
        f"{' '.join(COMMAND)} run lab_recipes.where {AL} --label in=script --json\n"
    )
    waits = ("--wait", "--export=ALL", f"--output={tmp_path}/output", "--error=/dev/null")
    # Beside it another node writes to the same database, and the server does.
    other = hosts.start(
        "run", "lab_recipes.where", AL, "--json", on="node2", stdout=subprocess.PIPE
    )
    slurm.run("sbatch", *waits, script)
    ran = json.loads((tmp_path / "output").read_text())
    also = json.loads(other.communicate(timeout=300)[0])
    assert (ran["status"], also["status"]) == ("completed", "completed")
    for job, node in ((ran, "node1"), (also, "node2")):
        claim = json.loads((home / "jobs" / job["job_id"] / "1.claim").read_text().splitlines()[0])
        assert claim["host"] == node
    # The server tells of all of them, and is still the one.
    listed = {job["job_id"] for job in hosts.run("list")["jobs"]}
    assert listed == {first, ran["job_id"], also["job_id"]}
    assert hosts.server()["host"] == "login"


def test_a_database_of_one_host_is_read_there_alone(hosts, slurm):
    database = "/dev/shm/own/jobs.sqlite"  # each host has its own
    hosts.configure(f'[storage]\nnetwork = true\ndatabase = "{database}"\n')
    job_id = hosts.submit("value", cluster="local")
    hosts.run("wait", job_id)
    for command in (("status", job_id), ("list",), ("run", "lab_recipes.value", AL)):
        refused = hosts.run(*command, on="node1", check=False)
        assert refused["code"] == "served_elsewhere", (command, refused)
        assert "crystalmath --on login" in refused["error"]
    assert slurm.run("ls", database, on="node1", check=False).returncode
    answer = hosts.run("doctor", on="node1", check=False)
    checks = {check["name"]: check for check in answer["checks"]}
    assert "of this host alone" in checks["storage"]["message"]
    assert checks["server"]["state"] == "error"
    assert "crystalmath --on login" in checks["server"]["message"]
