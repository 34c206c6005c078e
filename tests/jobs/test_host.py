"""Hosts that change their names, containers that are killed, and nodes that are copies."""

import json
import os
import subprocess
import sys
import uuid

import pytest

from conftest import eventually
from crystalmath import processes
from server.home_server import HomeServer

pytestmark = [
    pytest.mark.server,
    pytest.mark.by_turns,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make containers"),
]

BOOT_ID = "/proc/sys/kernel/random/boot_id"
MACHINE_ID = "/etc/machine-id"

#: What a server does every few seconds.
TAKE_OVER = """
from crystalmath.service import JobService
with JobService() as service:
    print(service.abandoned(), service.take_over())
"""


class Box:
    """A container: namespaces of their own, for as long as it is not killed.

    Parameters
    ----------
    name : str
        Its host name.
    namespaces : sequence of str
        As options of ``unshare``.
    files : mapping of str to pathlib.Path
        What stands there in the place of these files.
    """

    def __init__(self, name, namespaces=("--uts", "--pid", "--mount-proc"), files=None):
        binds = [f"mount --bind {there} {here}" for here, there in (files or {}).items()]
        script = " && ".join([f"hostname {name}", *binds, "echo ready", "exec sleep 1000"])
        self.process = subprocess.Popen(
            ["unshare", *namespaces, "--fork", "--kill-child", "sh", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        (self.pid,) = processes.children(self.process.pid)
        self.inside = ("nsenter", "--target", str(self.pid), "--all")

    def run(self, *command):
        subprocess.run([*self.inside, *command], check=True)

    def kill(self):
        """Kill it, and all that is in it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        eventually(lambda: processes.start_time(self.pid) is None)


@pytest.fixture
def box():
    """Make containers that are killed at the end."""
    boxes = []

    def make(*arguments, **options):
        boxes.append(Box(*arguments, **options))
        return boxes[-1]

    yield make
    for each in boxes:
        each.kill()


@pytest.fixture
def home_of(tmp_path):
    """Yield the one home, as it is seen from a container."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    servers = []

    def give(inside=()):
        servers.append(HomeServer(home, light=True, inside=inside))
        return servers[-1]

    yield give
    for server in servers:
        processes.end_processes(server.living)
        if server.process:
            server.process.wait(60)


@pytest.fixture
def cell(tmp_path):
    path = tmp_path / "Al.json"
    from ase.build import bulk

    bulk("Al").write(path)
    return str(path)


def told(answer, code=0):
    """Return what a command said with `--json`."""
    assert answer.returncode == code, answer
    return json.loads(answer.stdout)


def submit(server, cell, go):
    """Submit a job that waits for a file; return when it runs."""
    name = "lab_recipes.wait_for"
    answer = told(server.run("submit", name, cell, "--param", f"path={go}", "--json"))
    job_id = answer["job_id"]
    claim = server.home / "jobs" / job_id / "1.claim"
    eventually(claim.exists, message=server.log())
    eventually(lambda: status(server, job_id)["status"] == "running")
    return job_id


def status(server, job_id):
    return told(server.run("status", job_id, "--json"))


def test_a_host_may_change_its_name(box, home_of, cell, go):
    host = box("first", namespaces=("--uts",))
    server = home_of(host.inside)
    server.spawn()
    job_id = submit(server, cell, go)
    host.run("hostname", "second")
    assert status(server, job_id)["status"] == "running"
    other = submit_only(server, cell)
    server.kill()
    host.run("hostname", "third")
    go.touch()
    waited = told(server.run("wait", job_id, other, "--json"))
    assert [job["status"] for job in waited["jobs"]] == ["completed", "completed"]
    assert told(server.run("stop", "--json"))["stopped"]


def submit_only(server, cell):
    answer = server.run("submit", "lab_recipes.value", cell, "--param", "number=1", "--json")
    return told(answer)["job_id"]


def test_a_container_that_was_killed_is_followed_by_the_next(box, home_of, cell, go):
    first = box("app")
    server = home_of(first.inside)
    server.spawn()
    job_id = submit(server, cell, go)
    first.kill()
    second = home_of(box("app").inside)
    go.touch()
    waited = told(second.run("wait", job_id, "--json"))
    assert waited["jobs"][0]["status"] == "completed"
    assert status(second, job_id)["attempt"] == 2
    assert told(second.run("stop", "--json"))["stopped"]
    assert list((second.home / "jobs" / ".identities").iterdir()) == []


def test_one_container_leaves_the_jobs_of_another_alone(box, home_of, cell, go):
    """Neither sees the processes of the other; both are alive."""
    keep_apart(box("app").inside, box("app").inside, home_of, cell, go)


@pytest.mark.parametrize("same", [set(), {MACHINE_ID}, {BOOT_ID}], ids=["none", "machine", "boot"])
def test_nodes_that_are_copies_leave_each_others_jobs_alone(box, home_of, cell, go, tmp_path, same):
    def node(number):
        texts = {MACHINE_ID: f"{number:032x}\n", BOOT_ID: f"{uuid.UUID(int=number)}\n"}
        files = {}
        for path, text in texts.items():
            if path not in same:
                files[path] = tmp_path / f"{number}-{os.path.basename(path)}"
                files[path].write_text(text)
        return box("node", namespaces=("--uts", "--mount"), files=files).inside

    keep_apart(node(1), node(2), home_of, cell, go)


def keep_apart(one, other, home_of, cell, go):
    """Run a job in a script on one, while a server on the other looks for what nobody follows."""
    here = home_of(one)
    command = ["crystalmath", "run", "lab_recipes.wait_for", cell, "--param", f"path={go}"]
    script = subprocess.Popen(
        [*one, sys.executable, "-m", *command, "--json"],
        env=here.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    jobs = here.home / "jobs"
    eventually(lambda: list(jobs.glob("*/1.claim")), message="it does not begin")
    (job_id,) = [path.parent.name for path in jobs.glob("*/1.claim")]
    there = home_of(other)
    there.spawn()
    mine = submit_only(there, cell)
    assert told(there.run("wait", mine, "--json"))["jobs"][0]["status"] == "completed"
    taken = subprocess.run(
        [*other, sys.executable, "-c", TAKE_OVER],
        env=there.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert taken.stdout.strip() == "set() []"
    seen = status(there, job_id)
    assert (seen["status"], seen["attempt"]) == ("running", 1)
    go.touch()
    out, err = script.communicate(timeout=60)
    assert script.returncode == 0, err
    assert json.loads(out)["status"] == "completed"
    assert status(there, job_id)["attempt"] == 1
    assert told(there.run("stop", "--json"))["stopped"]
