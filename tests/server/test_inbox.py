"""A home whose server is on another host: jobs are read in the home, and asked for through it.

That the server is elsewhere is written into its lock; tests/cluster has hosts that are.
"""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import eventually
from crystalmath import processes
from crystalmath.client import ConnectionLost, other_host
from crystalmath.client.other_host import OtherHost
from crystalmath.server import inbox
from crystalmath.server.endpoint import Place, Server
from server.home_server import CELL

pytestmark = pytest.mark.server

ALUMINIUM = str(Path(__file__).parents[2] / "examples" / "Al.poscar")


def written(place, **changes):
    """Change in its lock where the server is; give what the lock said."""
    text = place.lock.read_text()
    place.lock.write_text(json.dumps({**json.loads(text), **changes}))
    return text


@pytest.fixture
def elsewhere(server):
    """Yield a home that is served, by what its lock says, on another host."""
    server.start()
    eventually(server.place.inbox.is_dir)
    text = written(server.place, host="login", boot_id="theirs", machine_id="theirs")
    yield server
    server.place.lock.write_text(text)


def ask(server, *arguments):
    answer = server.run(*arguments, "--json")
    assert answer.stdout, answer.stderr
    return json.loads(answer.stdout)


def test_other_hosts_read_in_the_home_and_ask_through_its_inbox(elsewhere, go):
    waits = ("submit", "lab_recipes.wait_for", ALUMINIUM, f"--param=path={go}", "--engine=local")
    job_id = ask(elsewhere, *waits)["job_id"]
    eventually(lambda: ask(elsewhere, "status", job_id)["status"] == "running")
    # It is the server's, and not of the process that asked.
    owner = json.loads((elsewhere.home / "jobs" / job_id / "spec").read_text().splitlines()[0])
    assert owner["owner"]["pid"] == elsewhere.process.pid
    assert ask(elsewhere, "cancel", job_id)["cancelled"] is True
    (job,) = ask(elsewhere, "wait", job_id)["jobs"]
    assert job["status"] == "cancelled"
    assert [job["job_id"] for job in ask(elsewhere, "list")["jobs"]] == [job_id]
    refused = ask(elsewhere, "submit", "lab_recipes.nothing", ALUMINIUM)
    assert (refused["status"], refused["code"]) == ("error", "invalid_job")
    # The server throws a request away once its answer is there.
    eventually(lambda: not list(elsewhere.place.inbox.iterdir()))


@pytest.mark.parametrize("command", ["cancel", "retry", "reread"])
def test_what_changes_something_is_left_to_the_server(elsewhere, command):
    job_id = ask(elsewhere, "submit", "lab_recipes.value", ALUMINIUM)["job_id"]
    ask(elsewhere, "wait", job_id)
    elsewhere.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as pool:
            asking = pool.submit(ask, elsewhere, command, job_id)
            requests = eventually(lambda: [*elsewhere.place.inbox.glob("[!.]*.request")])
            message = json.loads(requests[0].read_text())
            elsewhere.process.send_signal(signal.SIGCONT)
            asking.result()
    finally:
        elsewhere.process.send_signal(signal.SIGCONT)
    assert message["method"].startswith(f"jobs.{command}")


def test_a_request_that_a_killed_server_had_taken_is_the_next_ones(server):
    server.start()
    eventually(server.place.inbox.is_dir)
    server.kill()
    asked = {"recipe": "lab_recipes.value", "structure": CELL, "engine": "local", "key": "k"}
    names = [f"{number:032x}" for number in range(5)]
    for name, message in zip(
        names,
        (
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "jobs.submit", "params": asked}),
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "jobs.submit", "params": asked}),
            "no message",
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "jobs.retry", "params": {}}),
            json.dumps(
                {"jsonrpc": "2.0", "id": 1, "method": "clusters.check", "params": {"cluster": "a"}}
            ),
        ),
        strict=True,
    ):
        (server.place.inbox / f"{name}.taken").write_text(message)
    # It was killed as it answered; and what nobody can read keeps none of the others back.
    draft = server.place.inbox / f".{names[3]}.answer"
    draft.write_text("half")
    os.utime(draft, (0, 0))
    (server.place.inbox / "folder.taken").mkdir()
    server.start()
    answers = [server.place.inbox / f"{name}.answer" for name in names]
    eventually(lambda: all(file.exists() for file in answers), message=server.log())
    (server.place.inbox / "folder.taken").rmdir()
    first, second, wrong, *several = (json.loads(file.read_text()) for file in answers)
    assert first["result"]["job_id"] == second["result"]["job_id"]
    assert wrong["error"]["code"] == -32700
    # They may have made a job, which they would make again.
    assert {each["error"]["data"]["code"] for each in several} == {"unknown_outcome"}
    assert {file.stat().st_mode & 0o777 for file in answers} == {0o600}
    eventually(lambda: sorted(os.listdir(server.place.inbox)) == sorted(f.name for f in answers))


def test_an_inbox_that_cannot_be_opened_yet_is_opened_later(server):
    server.home.mkdir()
    server.place.make()
    server.place.inbox.write_text("in the way")
    server.start()
    eventually(lambda: "cannot look for requests of other hosts" in server.log())
    assert "File exists" in server.log()
    server.place.inbox.unlink()
    request = server.place.inbox / f"{1:032x}.request"
    eventually(server.place.inbox.is_dir)
    inbox.publish(request, b'{"jsonrpc": "2.0", "id": 1, "method": "system.version"}')
    eventually(request.with_suffix(".answer").exists)


@pytest.fixture
def taken(home, monkeypatch):
    """Return a server on another host that takes each request, and dies before it answers."""
    place = Place.of(home, {})
    place.make()
    place.inbox.mkdir(mode=0o700)
    monkeypatch.setattr(other_host, "TAKEN_S", 0.05)

    def publish(request, content):
        inbox.publish(request, content)
        request.rename(request.with_suffix(".taken"))

    monkeypatch.setattr(other_host, "publish", publish)
    identity = replace(processes.own_identity(), host="login", boot_id="theirs")
    dead = Server(identity=identity, socket="/socket", version="1", started_at=0.0)
    return OtherHost(place, dead)


def test_what_was_taken_and_not_answered_in_time_is_nobodys_to_begin_with(taken, home):
    with pytest.raises(ConnectionLost) as told:
        taken.call("jobs.cancel", {"job_id": "a"}, 0.05)
    assert "has taken jobs.cancel and not answered" in str(told.value)
    assert "list the jobs to see whether it was carried out" in str(told.value)
    assert "withdrawn" not in str(told.value)
    # The next server would have found it here.
    assert os.listdir(home / "server" / "inbox") == []


def test_what_was_taken_is_not_carried_out_once_who_asked_has_left(taken, home, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    here = SimpleNamespace(monotonic=time.monotonic, sleep=interrupt)
    monkeypatch.setattr("crystalmath.client.other_host.time", here)
    with pytest.raises(KeyboardInterrupt):
        taken.call("jobs.cancel", {"job_id": "a"})
    assert os.listdir(home / "server" / "inbox") == []


def test_a_job_is_not_run_beside_a_database_that_is_elsewhere(elsewhere, tmp_path):
    database = Path("/dev/shm") / f"{tmp_path.name}-{os.getpid()}" / "jobs.sqlite"
    if Path("/dev/shm").stat().st_dev == elsewhere.home.stat().st_dev:
        pytest.skip("this machine has one file system")
    (elsewhere.home / "config.toml").write_text(f'[storage]\ndatabase = "{database}"\n')
    refused = ask(elsewhere, "run", "lab_recipes.value", ALUMINIUM)
    assert refused["code"] == "served_elsewhere"
    assert "submit the job, so that it runs there" in refused["error"]
    assert not database.exists()
    # What this host cannot read it asks for.
    assert ask(elsewhere, "list")["jobs"] == []
    assert not database.exists()


def test_who_waits_for_a_server_whose_host_is_gone_is_told_what_to_do(server):
    server.home.mkdir()
    (server.home / "config.toml").write_text("[jobs]\nlease_s = 3\n")
    server.start()
    eventually(server.place.inbox.is_dir)
    text = server.place.lock.read_text()
    server.kill()
    server.place.lock.write_text(text)
    written(server.place, host="login", boot_id="theirs", machine_id="theirs")
    told = ask(server, "submit", "lab_recipes.value", ALUMINIUM)
    assert told["code"] == "connection_lost"
    assert f"nothing was heard of the process {server.process.pid} on login" in told["error"]
    assert "lease of 3 s" in told["error"]
    assert "jobs.submit was withdrawn" in told["error"]
    assert "`crystalmath serve` here takes its place" in told["error"]
    assert list(server.place.inbox.iterdir()) == []
    server.place.lock.unlink()
