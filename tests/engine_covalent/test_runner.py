"""What only Covalent can get wrong: its server, its statuses, its deaths."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from commands import piped
from conftest import eventually
from crystalmath import processes
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.models import Attempt, EngineSettings
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engines import describe_engines

pytest.importorskip("crystalmath_engine_covalent", reason="the Covalent engine is not installed")
from contract.covalent_server import MARK, Server, free_port
from crystalmath_engine_covalent import client, config
from crystalmath_engine_covalent.private import PrivateServer, Record

CU = bulk("Cu")
#: How long Covalent and its Dask cluster may take to anything on a starved machine, in seconds.
LONG_S = 240.0

on_covalent_start = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="`covalent start` runs no task on Python 3.13"
)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("covalent"), workers=2) as server:
        yield server


@pytest.fixture
def runner(server, home, lab):
    yield from use(server, home)


def use(server, home):
    options = f'[engines.covalent]\naddress = "{server.address}"\n'
    (home / "config.toml").write_text(options)
    runner: Any = get_runner("covalent")
    yield runner
    runner.close()


def finish(runner, *jobs, timeout=LONG_S):
    for job in jobs:
        eventually(lambda job=job: runner.get_status(job).is_terminal(), timeout)
    return [runner.get_status(job) for job in jobs]


def wait_running(runner, *jobs):
    for job in jobs:
        eventually(lambda job=job: runner.get_status(job) is JobState.RUNNING, LONG_S)


def attempt_of(home, job, handle=None):
    directory = home / "jobs" / job
    return Attempt(
        id=attempt_id(job, 1), job_id=job, directory=directory, cluster="local", handle=handle
    )


def cancel_on_the_page(server, handles):
    """Cancel dispatches as a person does on Covalent's page: until they read so.

    While Covalent hands a task to Dask it loses a cancel of it, and any cancel may make it fail.
    After that it may still give up, when it cannot connect to Dask in five seconds.
    """
    with client.Client(server.address) as page:
        for handle in handles:
            eventually(
                lambda handle=handle: status_of_task(page, handle) == "RUNNING",
                LONG_S,
                f"Covalent does not hand {handle} to Dask",
            )
        deadline, ask_at = time.monotonic() + LONG_S, 0.0
        while others := {
            each.id: each.status
            for each in page.find(handles).values()
            if each.status != "CANCELLED"
        }:
            assert time.monotonic() < deadline, f"Covalent does not cancel {others}"
            if time.monotonic() >= ask_at:
                for handle in others:
                    page.cancel(handle)
                ask_at = time.monotonic() + 6
            time.sleep(0.02)


def status_of_task(page, handle):
    """Tell what Covalent says of a dispatch's only task; it is RUNNING in Dask's queue, too."""
    manifest = json.loads(page._request("GET", f"/api/v2/dispatches/{handle}"))
    (task,) = manifest["lattice"]["transport_graph"]["nodes"]
    return task["metadata"]["status"]


PROBE = """
import json, os, sys
from pathlib import Path
from crystalmath.models import Attempt
from crystalmath.quacc import get_runner

job, handle = sys.argv[1], sys.argv[2] or None
directory = Path(os.environ["CRYSTALMATH_HOME"], "jobs", job)
runner = get_runner("covalent")
attempt = Attempt(
    id=f"{job}.1", job_id=job, directory=directory, cluster="local", handle=handle
)
sighting = runner.probe([attempt])[attempt.id]
print(sighting.state, sighting.reason)
runner.close()
assert "covalent" not in sys.modules
"""


def probe_elsewhere(job, handle=None):
    command = [sys.executable, "-c", PROBE, job, handle or ""]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


@on_covalent_start
def test_the_energy_and_a_handle_that_a_new_process_understands(runner, server, home, tmp_path):
    job = runner.submit("quacc.recipes.emt.core.relax_job", CU, "local")
    waiting = runner.submit("lab_recipes.wait_for", CU, "local", path=str(tmp_path / "go"))
    assert finish(runner, job) == [JobState.COMPLETED], runner.get_result(job)
    assert runner.get_result(job)["results"]["energy"] == pytest.approx(-0.0056815, abs=1e-6)

    wait_running(runner, waiting)
    handle = RunDirectory(home / "jobs" / waiting).read_handle(1)
    with client.Client(server.address) as connection:
        assert connection.find([handle])[handle].name.startswith(f"{waiting}.1")
    # By its handle, and by the attempt's id alone.
    assert probe_elsewhere(waiting, handle) == "queued None"
    assert probe_elsewhere(waiting) == "queued None"
    assert probe_elsewhere(str(uuid.uuid4())).startswith("gone ")
    (tmp_path / "go").touch()
    assert finish(runner, waiting) == [JobState.COMPLETED]
    eventually(lambda: probe_elsewhere(waiting, handle) == "gone COMPLETED", LONG_S)


def test_many_are_asked_for_with_few_requests(runner, home, monkeypatch):
    requests = []
    ask = client.Client._request
    monkeypatch.setattr(
        client.Client, "_request", lambda self, *what: requests.append(what) or ask(self, *what)
    )
    attempts = [attempt_of(home, str(uuid.uuid4())) for _ in range(300)]
    assert {each.state for each in runner.probe(attempts).values()} == {"gone"}
    assert len(requests) <= 5


@on_covalent_start
def test_a_task_that_failed_says_why(runner, home):
    attempt = attempt_of(home, str(uuid.uuid4()))
    runner.launch([attempt])
    wanted = re.compile("FAILED: FileNotFoundError: .*No such file")
    eventually(lambda: wanted.match(runner.probe([attempt])[attempt.id].reason or ""), LONG_S)


@on_covalent_start
def test_cancel_ends_the_processes(runner, tmp_path):
    pids = tmp_path / "pids"
    job = runner.submit("lab_recipes.sleeping_grandchild", CU, "local", pids=str(pids))
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2, LONG_S)
    tree = [int(pid) for pid in pids.read_text().split()]
    assert runner.cancel(job)
    eventually(lambda: runner.get_status(job) is JobState.CANCELLED, 60)
    assert [pid for pid in tree if processes.start_time(pid) is not None] == []


@on_covalent_start
def test_what_others_cancel_is_not_cancelled(runner, server, home, tmp_path):
    """Somebody cancels dispatches on Covalent's page: one that runs, and one in the queue."""
    go = tmp_path / "go"
    running = [runner.submit("lab_recipes.wait_for", CU, "local", path=str(go)) for _ in range(2)]
    wait_running(runner, *running)
    queued = runner.submit("lab_recipes.value", CU, "local")
    read = {job: RunDirectory(home / "jobs" / job).read_handle for job in (running[0], queued)}
    eventually(lambda: read[queued](1), LONG_S)
    cancel_on_the_page(server, [handle(1) for handle in read.values()])
    assert runner.get_status(running[0]) is JobState.RUNNING
    assert runner.get_status(queued) is JobState.PENDING
    go.touch()
    assert set(finish(runner, *running, queued)) == {JobState.COMPLETED}
    assert not RunDirectory(home / "jobs" / queued).claimed(2)


@on_covalent_start
def test_what_is_released_does_not_start(runner, home, tmp_path):
    go = tmp_path / "go"
    running = [runner.submit("lab_recipes.wait_for", CU, "local", path=str(go)) for _ in range(2)]
    wait_running(runner, *running)
    attempts = []
    for _ in range(5):
        job = str(uuid.uuid4())
        header, body = RunDirectory(home / "jobs" / running[0]).read_spec()
        attempt = attempt_of(home, job)
        attempt.directory.mkdir()
        RunDirectory(attempt.directory).write_spec({**header, "job_id": job}, body)
        attempts.append(attempt)
    handles = runner.launch(attempts)
    runner.release(attempts)
    sightings = runner.probe([attempt_of(home, a.job_id, handles[a.id]) for a in attempts])
    assert {sighting.state for sighting in sightings.values()} == {"gone"}
    go.touch()
    last = [runner.submit("lab_recipes.value", CU, "local") for _ in range(4)]
    assert set(finish(runner, *running, *last)) == {JobState.COMPLETED}
    assert not any(RunDirectory(attempt.directory).claimed(1) for attempt in attempts)


@on_covalent_start
def test_a_server_that_hangs_delays_and_does_not_falsify(
    runner, server, home, tmp_path, monkeypatch
):
    monkeypatch.setattr(client, "TIMEOUT_S", 1.0)
    go = tmp_path / "go"
    running = runner.submit("lab_recipes.wait_for", CU, "local", path=str(go))
    wait_running(runner, running)
    server.signal(signal.SIGSTOP)
    try:
        late = runner.submit("lab_recipes.value", CU, "local")
        with pytest.raises(EngineUnavailable, match="does not answer"):
            runner.probe([attempt_of(home, running)])
        assert runner.get_status(running) is JobState.RUNNING
        assert runner.get_status(late) is JobState.PENDING
        # The job is not the server's: it ends truthfully meanwhile.
        go.touch()
        assert finish(runner, running) == [JobState.COMPLETED]
    finally:
        server.signal(signal.SIGCONT)
    assert finish(runner, late) == [JobState.COMPLETED]
    assert not RunDirectory(home / "jobs" / late).claimed(2)


@on_covalent_start
def test_jobs_outlive_a_killed_server(home, lab, tmp_path):
    """Five jobs run and one waits when the server and its Dask cluster are killed."""
    go = tmp_path / "go"
    states = set()
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server", workers=5) as server:
        for runner in use(server, home):
            runner.subscribe(lambda changes: states.update(change.state for change in changes))
            jobs = [
                runner.submit("lab_recipes.wait_for", CU, "local", path=str(go)) for _ in range(5)
            ]
            wait_running(runner, *jobs)
            queued = runner.submit("lab_recipes.value", CU, "local")
            handed_over = RunDirectory(home / "jobs" / queued)
            eventually(lambda directory=handed_over: directory.read_handle(1), LONG_S)
            server.kill()
            jobs += [queued, runner.submit("lab_recipes.value", CU, "local")]
            server.start()
            assert [runner.get_status(job) for job in jobs[:5]] == [JobState.RUNNING] * 5
            go.touch()
            assert finish(runner, *jobs) == [JobState.COMPLETED] * 7
            assert states <= {JobState.PENDING, JobState.RUNNING, JobState.COMPLETED}
            assert not any(RunDirectory(home / "jobs" / job).claimed(2) for job in jobs)


def test_no_server_is_said_at_once(home, lab):
    port = free_port()
    (home / "config.toml").write_text(f'[engines.covalent]\naddress = "localhost:{port}"\n')
    runner: Any = get_runner("covalent")
    try:
        job = runner.submit("lab_recipes.value", CU, "local")
        assert finish(runner, job, timeout=60) == [JobState.FAILED]
        error = runner.get_result(job)["error"]
        for part in (f"localhost:{port}", "`covalent start`", "autostart = true"):
            assert part in error
        # A job that was launched before is not given up.
        with pytest.raises(EngineUnavailable):
            runner.launch([attempt_of(home, job, handle=str(uuid.uuid4()))])
        with pytest.raises(EngineUnavailable):
            runner.probe([attempt_of(home, job)])
    finally:
        runner.close()
    engine = next(each for each in describe_engines() if each.name == "covalent")
    assert [finding.code for finding in engine.findings] == ["server"]


AUTOSTART = """
import sys, time
from ase.build import bulk
from crystalmath.quacc import get_runner

runner = get_runner("covalent")
job = runner.submit("lab_recipes.value", bulk("Cu"), "local")
while not runner.get_status(job).is_terminal():
    time.sleep(0.02)
print(runner.get_status(job).value, flush=True)
sys.stdin.read()
"""


def test_a_server_of_its_own(home, lab, tmp_path):
    """It is shared, outlives one user that is killed, and ends with the last."""
    (home / "config.toml").write_text("[engines.covalent]\nautostart = true\nworkers = 1\n")
    mark = uuid.uuid4().hex
    cache = os.environ.get("MPLCONFIGDIR") or str(Path.home() / ".cache" / "matplotlib")
    environment = {**os.environ, MARK: mark, "HOME": str(tmp_path), "MPLCONFIGDIR": cache}

    def start():
        return piped(sys.executable, "-c", AUTOSTART, env=environment)

    def written():
        return Record.read(home / "engines" / "covalent" / "server")

    try:
        with start() as first:
            assert first.stdout.readline() == "completed\n"
            record = written()
            first.kill()
        with start() as second:
            assert second.stdout.readline() == "completed\n"
            assert written() == record
            with start() as third:
                assert third.stdout.readline() == "completed\n"
                third.communicate(timeout=LONG_S)
            assert record.is_alive()
            second.communicate(timeout=LONG_S)
        assert processes.marked(MARK, mark) == []
        assert written() is None
        assert list(tmp_path.rglob("*")) == []  # the user's own Covalent keeps its files here
    finally:
        processes.end_processes(lambda: processes.marked(MARK, mark))


def test_a_server_of_its_own_that_was_killed_is_started_again(tmp_path):
    private = PrivateServer(tmp_path / "server", workers=1)
    try:
        first = private.enter()
        record = Record.read(tmp_path / "server")
        for pid in record.own_processes():
            if pid == record.pid:
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not record.is_alive())
        assert private.enter() != first
        # What the dead server left behind is ended first.
        assert record.own_processes() == []
    finally:
        private.leave()
    assert Record.read(tmp_path / "server") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adress": "localhost:1"}, "adress is no option"),
        ({"address": "localhost"}, "must be like 'localhost:48008'"),
        ({"address": "localhost:99999"}, "must be like"),
        ({"address": "localhost:1", "autostart": True}, "only one"),
        ({"autostart": "yes"}, "must be true or false"),
        ({"workers": 2}, "needs autostart"),
        ({"workers": 0, "autostart": True}, "whole number from 1"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        config.read(EngineSettings(name="covalent", home=tmp_path, options=options))


def test_the_address_is_covalents_own(tmp_path):
    settings = EngineSettings(name="covalent", home=tmp_path)
    environment = {"HOME": str(tmp_path)}
    assert str(config.read(settings, environment).address) == "http://localhost:48008"
    own = tmp_path / ".config" / "covalent" / "covalent.conf"
    own.parent.mkdir(parents=True)
    own.write_text('[dispatcher]\naddress = "localhost"\nport = 5000\n')
    assert str(config.read(settings, environment).address) == "http://localhost:5000"


def test_listing_engines_imports_no_covalent():
    code = (
        "import sys; from crystalmath.quacc.engines import describe_engines as d;"
        "assert any(e.name == 'covalent' and e.loads for e in d());"
        "assert not {'covalent', 'dask', 'quacc', 'ase'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
