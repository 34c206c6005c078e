"""One home that several hosts see: one of them serves, the others read in it and ask through it.

The hosts have no network file system, but all else of a cluster: names, boots and processes of
their own. ``[storage] network`` says that the home is on one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import LAB, LIGHT, eventually

COMMAND = (sys.executable, "-m", "crystalmath")
AL = Path(__file__).parents[2] / "examples/Al.poscar"


class Hosts:
    """Commands on any host, with one home."""

    def __init__(self, cluster, home):
        self.cluster, self.home = cluster, home
        self.environment = {
            "CRYSTALMATH_HOME": str(home),
            "CRYSTALMATH_RECIPES": "lab_recipes",
            "PYTHONPATH": os.pathsep.join([str(LIGHT), str(LAB)]),
        }

    def run(self, host, *arguments, check=True):
        command = [*COMMAND, *arguments, "--json"]
        done = self.cluster.run(*command, on=host, env=self.environment, check=check, timeout=300)
        return json.loads(done.stdout)

    def start(self, host, *arguments):
        """Start a command that is to be waited for later."""
        return subprocess.Popen(
            self.cluster.command(*COMMAND, *arguments, "--json", on=host),
            env=self.cluster.environment | self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self, host, *arguments):
        command = [*COMMAND, *arguments]
        return self.cluster.run(*command, on=host, env=self.environment, timeout=300).stdout

    def state(self, host, job_id):
        return self.run(host, "status", job_id, check=False)["status"]

    def server(self):
        return json.loads((self.home / "server" / "lock").read_text())


@pytest.fixture
def hosts(slurm, home):
    (home / "config.toml").write_text("[storage]\nnetwork = true\n", encoding="ascii")
    hosts = Hosts(slurm, home)
    yield hosts
    slurm.run(*COMMAND, "stop", "--cancel", env=hosts.environment, check=False)


def test_other_hosts_read_in_the_home_and_ask_through_it(hosts, home, tmp_path):
    done = hosts.run("login", "submit", "lab_recipes.chatter", str(AL), "--param=count=2")
    job_id = done["job_id"]
    hosts.run("login", "wait", job_id)
    assert hosts.server()["host"] == "login"

    # Reading: at once, by whatever host.
    for host in ("node1", "node2"):
        assert [job["job_id"] for job in hosts.run(host, "list")["jobs"]] == [job_id]
        assert hosts.state(host, job_id) == "completed"
        assert hosts.run(host, "result", job_id)["result"] == {}
        assert hosts.said(host, "path", job_id).startswith(f"{home}/jobs/{job_id}/")
        assert hosts.said(host, "logs", job_id) == "line 0\nline 1\n"

    # What is submitted on a node runs where the server is; a key gives the same job again.
    asked = ("submit", "lab_recipes.wait_for", str(AL), f"--param=path={tmp_path}/go", "--key=k")
    there = hosts.run("node1", *asked)["job_id"]
    assert hosts.run("node2", *asked)["job_id"] == there
    eventually(lambda: hosts.state("node2", there) == "running")
    claim = json.loads((home / "jobs" / there / "1.claim").read_text().splitlines()[0])
    assert claim["host"] == "login"
    assert hosts.run("node2", "cancel", there)["cancelled"] is True
    assert hosts.run("node1", "wait", there, check=False)["jobs"][0]["status"] == "cancelled"
    refused = hosts.run("node1", "submit", "lab_recipes.nothing", str(AL), check=False)
    assert "lab_recipes.nothing" in refused["error"]

    # One server for all hosts, and nothing is left in the inbox.
    assert hosts.server()["host"] == "login"
    # The server throws a request away once it has answered it.
    eventually(lambda: not list((home / "server" / "inbox").iterdir()), 60)


def test_a_batch_script_runs_jobs_beside_the_server(hosts, home, slurm, tmp_path):
    first = hosts.run("login", "submit", "lab_recipes.value", str(AL))["job_id"]
    script = tmp_path / "run.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=1 --nodelist=node1\n"
        f"{' '.join(COMMAND)} run lab_recipes.where {AL} --label in=script --json\n"
    )
    waits = ("--wait", "--export=ALL", f"--output={tmp_path}/output", "--error=/dev/null")
    # Beside it another node writes to the same database, and the server does.
    other = hosts.start("node2", "run", "lab_recipes.where", str(AL))
    slurm.run("sbatch", *waits, script, env=hosts.environment, timeout=300)
    ran = json.loads((tmp_path / "output").read_text())
    also = json.loads(other.communicate(timeout=300)[0])
    assert (ran["status"], also["status"]) == ("completed", "completed")
    for job, node in ((ran, "node1"), (also, "node2")):
        claim = json.loads((home / "jobs" / job["job_id"] / "1.claim").read_text().splitlines()[0])
        assert claim["host"] == node
    # The server tells of all of them, and is still the one.
    listed = {job["job_id"] for job in hosts.run("login", "list")["jobs"]}
    assert listed == {first, ran["job_id"], also["job_id"]}
    assert hosts.server()["host"] == "login"


def test_a_request_outlives_the_server(hosts, home):
    hosts.run("login", "submit", "lab_recipes.value", str(AL))
    hosts.cluster.run("kill", "-STOP", str(hosts.server()["pid"]))
    asking = hosts.start("node1", "submit", "lab_recipes.value", str(AL), "--label", "x=y")
    eventually(lambda: list((home / "server" / "inbox").glob("[!.]*.request")))
    hosts.cluster.run("kill", "-KILL", str(hosts.server()["pid"]))
    # As if it had been killed after it took it.
    (request,) = (home / "server" / "inbox").glob("[!.]*.request")
    request.rename(request.with_suffix(".taken"))
    hosts.run("login", "submit", "lab_recipes.value", str(AL))
    job_id = json.loads(asking.communicate(timeout=300)[0])["job_id"]
    (listed,) = hosts.run("node2", "list", "--label", "x=y")["jobs"]
    assert listed["job_id"] == job_id


def test_a_database_of_one_host_is_asked_there(hosts, home):
    database = "/dev/shm/own/jobs.sqlite"  # each host has its own
    (home / "config.toml").write_text(f'[storage]\nnetwork = true\ndatabase = "{database}"\n')
    job_id = hosts.run("login", "submit", "lab_recipes.value", str(AL))["job_id"]
    hosts.run("login", "wait", job_id)
    assert hosts.state("node1", job_id) == "completed"
    assert [job["job_id"] for job in hosts.run("node1", "list")["jobs"]] == [job_id]
    refused = hosts.run("node1", "run", "lab_recipes.value", str(AL), check=False)
    assert refused["code"] == "served_elsewhere"
    assert "submit the job, so that it runs there" in refused["error"]
    assert hosts.cluster.run("ls", database, on="node1", check=False).returncode
    checks = {check["name"]: check for check in hosts.run("node1", "doctor", check=False)["checks"]}
    assert "of this host alone" in checks["storage"]["message"]
    assert "sends requests as files there" in checks["server"]["message"]
