"""One home that several hosts see: one of them serves, the others read in it and ask through it.

The hosts have no network file system, but all else of a cluster: names, boots and processes of
their own. ``[storage] network`` says that the home is on one.
"""

import json
import subprocess

import pytest

from cluster.shared_home import COMMAND, SharedHome
from conftest import AL, eventually


@pytest.fixture
def hosts(slurm, home, lab):
    with SharedHome(slurm, home, "[storage]\nnetwork = true\n") as hosts:
        yield hosts


def test_other_hosts_read_in_the_home_and_ask_through_it(hosts, home, tmp_path):
    job_id = hosts.submit("chatter", cluster="local", count=2)
    hosts.run("wait", job_id)
    assert hosts.server()["host"] == "login"

    # Reading: at once, by whatever host.
    for host in ("node1", "node2"):
        assert [job["job_id"] for job in hosts.run("list", on=host)["jobs"]] == [job_id]
        assert hosts.state(job_id, on=host) == "completed"
        assert hosts.run("result", job_id, on=host)["result"] == {}
        assert hosts.text("path", job_id, on=host).startswith(f"{home}/jobs/{job_id}/")
        assert hosts.text("logs", job_id, on=host) == "line 0\nline 1\n"

    # What is submitted on a node runs where the server is; a key gives the same job again.
    asked = ("submit", "lab_recipes.wait_for", AL, f"--param=path={tmp_path}/go", "--key=k")
    there = hosts.run(*asked, on="node1")["job_id"]
    assert hosts.run(*asked, on="node2")["job_id"] == there
    eventually(lambda: hosts.state(there, on="node2") == "running")
    claim = json.loads((home / "jobs" / there / "1.claim").read_text().splitlines()[0])
    assert claim["host"] == "login"
    assert hosts.run("cancel", there, on="node2")["cancelled"] is True
    assert hosts.run("wait", there, on="node1", check=False)["jobs"][0]["status"] == "cancelled"
    refused = hosts.run("submit", "lab_recipes.nothing", AL, on="node1", check=False)
    assert "lab_recipes.nothing" in refused["error"]

    # One server for all hosts, and nothing is left in the inbox.
    assert hosts.server()["host"] == "login"
    # The server throws a request away once it has answered it.
    eventually(lambda: not list((home / "server" / "inbox").iterdir()), 60)


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


def test_a_request_outlives_the_server(hosts, home, slurm):
    hosts.submit("value", cluster="local")
    slurm.run("kill", "-STOP", hosts.server()["pid"])
    asked = ("submit", "lab_recipes.value", AL, "--label", "x=y", "--json")
    asking = hosts.start(*asked, on="node1", stdout=subprocess.PIPE)
    eventually(lambda: list((home / "server" / "inbox").glob("[!.]*.request")))
    hosts.kill_server()
    # As if it had been killed after it took it.
    (request,) = (home / "server" / "inbox").glob("[!.]*.request")
    request.rename(request.with_suffix(".taken"))
    hosts.submit("value", cluster="local")
    job_id = json.loads(asking.communicate(timeout=300)[0])["job_id"]
    (listed,) = hosts.run("list", "--label", "x=y", on="node2")["jobs"]
    assert listed["job_id"] == job_id


def test_a_database_of_one_host_is_asked_there(hosts, home, slurm):
    database = "/dev/shm/own/jobs.sqlite"  # each host has its own
    (home / "config.toml").write_text(f'[storage]\nnetwork = true\ndatabase = "{database}"\n')
    job_id = hosts.submit("value", cluster="local")
    hosts.run("wait", job_id)
    assert hosts.state(job_id, on="node1") == "completed"
    assert [job["job_id"] for job in hosts.run("list", on="node1")["jobs"]] == [job_id]
    refused = hosts.run("run", "lab_recipes.value", AL, on="node1", check=False)
    assert refused["code"] == "served_elsewhere"
    assert "submit the job, so that it runs there" in refused["error"]
    assert slurm.run("ls", database, on="node1", check=False).returncode
    told = hosts.run("doctor", on="node1", check=False)["checks"]
    checks = {check["name"]: check for check in told}
    assert "of this host alone" in checks["storage"]["message"]
    assert "sends requests as files there" in checks["server"]["message"]
