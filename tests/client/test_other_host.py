"""A home whose server is on another host: jobs are read here, and changed only there.

The lock says that the server is on another host; tests/cluster has such hosts.
"""

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from crystalmath import build_version, config, processes
from crystalmath.cli.shared.health import server_checks
from crystalmath.client import ConnectionLost, connect
from crystalmath.errors import ServedElsewhere
from crystalmath.server.endpoint import Place, Server
from server.home_server import CELL

pytestmark = pytest.mark.server

ALUMINIUM = str(Path(__file__).parents[2] / "examples" / "Al.poscar")


def move_away(server):
    """Write into the lock that the server is on another host; return the lock's text."""
    text = server.place.lock.read_text()
    there = {"host": "login2.cluster", "boot_id": "theirs", "machine_id": "theirs"}
    server.place.lock.write_text(json.dumps({**json.loads(text), **there}))
    return text


@pytest.fixture
def elsewhere(server):
    """Yield a home with one completed job, whose server seems to be on another host."""
    server.start()
    server.finish(server.submit("value"))
    text = move_away(server)
    yield server
    server.place.lock.write_text(text)


def run(server, *arguments):
    """Run a command with --json; return its exit code and its document."""
    answer = server.run(*arguments, "--json")
    assert answer.stdout, answer.stderr
    return answer.returncode, json.loads(answer.stdout)


def contents(home):
    """Return the files of a home with their contents, without those of a busy server."""
    files = (file for file in home.rglob("*") if file.is_file())
    return {
        file.relative_to(home): file.read_bytes()
        for file in files
        if not {"server", "processes"} & set(file.relative_to(home).parts)
    }


def test_jobs_are_read_here_and_changed_only_by_the_host_of_the_server(elsewhere):
    (job,) = run(elsewhere, "list")[1]["jobs"]
    job_id = job["job_id"]
    before = contents(elsewhere.home)
    for command in (
        ["submit", "lab_recipes.value", ALUMINIUM, "--engine=local"],
        ["chain", ALUMINIUM, "--step", "a=lab_recipes.value"],
        ["cancel", job_id],
        ["retry", job_id],
        ["reread", job_id],
        ["prune", job_id, "--yes"],
        ["stop"],
    ):
        code, refused = run(elsewhere, *command)
        refused = refused if "code" in refused else refused["jobs"][0]
        assert (code, refused["code"]) == (1, "served_elsewhere"), (command, refused)
        for part in (
            f"the home {elsewhere.home} is served by process {elsewhere.process.pid}",
            " on login2.cluster (version ",
            "run the command there",
            "`crystalmath --on login2 ...`",
            f"`crystalmath remotes add login2 login2.cluster --home {elsewhere.home}`",
        ):
            assert part in refused["error"], (command, refused)
    for command in (
        ["status", job_id],
        ["show", job_id],
        ["result", job_id],
        ["wait", job_id],
        ["files", job_id],
        ["logs", job_id],
        ["counts"],
        ["progress", job_id],
        ["engines"],
        ["du"],
        ["check", "lab_recipes.value", ALUMINIUM],
    ):
        code, answer = run(elsewhere, *command)
        assert code == 0, (command, answer)
    assert run(elsewhere, "list")[1]["jobs"] == [job]
    assert contents(elsewhere.home) == before
    # Its job runs on this host, beside the server.
    code, checked = run(elsewhere, "clusters", "check", "local")
    assert (code, checked["status"]) == (0, "ok"), checked


def test_the_command_that_names_the_host_is_accepted(elsewhere):
    refused = run(elsewhere, "stop")[1]["error"]
    (command,) = re.findall("`crystalmath (remotes add .*?)`", refused)
    code, answer = run(elsewhere, *shlex.split(command))
    assert (code, answer["remote"]) == (0, "login2")
    (remote,) = run(elsewhere, "remotes")[1]["remotes"]
    assert (remote["ssh"], remote["home"]) == (["login2.cluster"], str(elsewhere.home))


def test_a_client_reads_here_until_the_server_has_ended(home):
    place = Place.of(home)
    place.make()
    identity = replace(processes.own_identity(), host="login2", boot_id="theirs", machine_id="b")
    server = Server(identity, socket="/socket", version=build_version(), started_at=0.0)
    place.lock.write_text(server.write())
    with connect() as client:
        assert list(client.list()) == []
        with pytest.raises(ServedElsewhere, match="is served by process .* on login2 .* since 19"):
            client.call("jobs.submit", {"recipe": "emt.core.static_job", "structure": CELL})
        (check,) = server_checks(config.load())
        assert (check.state, check.name) == ("ok", "server")
        assert "this host reads jobs in the home, and changes none" in check.message
        assert "crystalmath --on login2" in check.remedy
        place.lock.write_text("")
        with pytest.raises(ConnectionLost, match=r"on login2 .* has ended; connect again"):
            client.cancel("a")


def test_a_database_of_another_host_is_neither_read_nor_made(elsewhere, tmp_path):
    database = Path("/dev/shm") / f"{tmp_path.name}-{os.getpid()}" / "jobs.sqlite"
    if Path("/dev/shm").stat().st_dev == elsewhere.home.stat().st_dev:
        pytest.skip("this machine has one file system")
    (elsewhere.home / "config.toml").write_text(f'[storage]\ndatabase = "{database}"\n')
    for command in (["run", "lab_recipes.value", ALUMINIUM], ["list"], ["files", "a"]):
        code, refused = run(elsewhere, *command)
        assert (code, refused["code"]) == (1, "served_elsewhere"), refused
        assert f"the job database of {elsewhere.home} is on the host of the" in refused["error"]
        assert "`crystalmath --on login2 ...`" in refused["error"]
        assert not database.exists()
