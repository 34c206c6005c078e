"""One home that several hosts see: one of them serves, the others read in it.

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


def test_other_hosts_read_in_the_home_and_name_the_host_that_serves(hosts, home, tmp_path):
    done = hosts.run("login", "submit", "lab_recipes.chatter", str(AL), "--param=count=2")
    job_id = done["job_id"]
    hosts.run("login", "wait", job_id)
    asked = ("submit", "lab_recipes.wait_for", str(AL), f"--param=path={tmp_path}/go")
    running = hosts.run("login", *asked)["job_id"]
    eventually(lambda: hosts.state("login", running) == "running")
    assert hosts.server()["host"] == "login"

    # Reading: at once, by whatever host.
    for host in ("node1", "node2"):
        assert {job["job_id"] for job in hosts.run(host, "list")["jobs"]} == {job_id, running}
        assert hosts.state(host, job_id) == "completed"
        assert hosts.state(host, running) == "running"
        assert hosts.run(host, "result", job_id)["result"] == {}
        assert hosts.said(host, "path", job_id).startswith(f"{home}/jobs/{job_id}/")
        assert hosts.said(host, "logs", job_id) == "line 0\nline 1\n"

    # Changing: only on the host that serves, which the others name.
    for command in (asked, ("cancel", running), ("retry", job_id), ("prune", job_id, "--yes")):
        refused = hosts.run("node1", *command, check=False)
        assert refused["code"] == "served_elsewhere", (command, refused)
        assert "on login (version" in refused["error"]
        assert f"remotes add login --ssh login --home {home}" in refused["error"]
    assert {job["job_id"] for job in hosts.run("login", "list")["jobs"]} == {job_id, running}
    assert hosts.state("node2", running) == "running"
    # A command that waits there sees the end.
    waiting = hosts.start("node2", "wait", running)
    assert hosts.run("login", "cancel", running)["cancelled"] is True
    (ended,) = json.loads(waiting.communicate(timeout=300)[0])["jobs"]
    assert ended["status"] == "cancelled"
    assert hosts.server()["host"] == "login"


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


def test_a_database_of_one_host_is_read_there_alone(hosts, home):
    database = "/dev/shm/own/jobs.sqlite"  # each host has its own
    (home / "config.toml").write_text(f'[storage]\nnetwork = true\ndatabase = "{database}"\n')
    job_id = hosts.run("login", "submit", "lab_recipes.value", str(AL))["job_id"]
    hosts.run("login", "wait", job_id)
    for command in (("status", job_id), ("list",), ("run", "lab_recipes.value", str(AL))):
        refused = hosts.run("node1", *command, check=False)
        assert refused["code"] == "served_elsewhere", (command, refused)
        assert "crystalmath --on login" in refused["error"]
    assert hosts.cluster.run("ls", database, on="node1", check=False).returncode
    checks = {check["name"]: check for check in hosts.run("node1", "doctor", check=False)["checks"]}
    assert "of this host alone" in checks["storage"]["message"]
    assert checks["server"]["state"] == "error"
    assert "crystalmath --on login" in checks["server"]["message"]
