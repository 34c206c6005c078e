"""The server as a process: one a home, and no job ends with it unless asked."""

import contextlib
import functools
import gc
import json
import os
import pty
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import pytest
from ase.build import bulk

from commands import piped, start
from conftest import eventually
from crystalmath import processes
from crystalmath.errors import KeyConflict, UnknownJob
from crystalmath.models import Submission
from crystalmath.models.retry import Retry
from crystalmath.server.daemon import CARE_S, CycleCollector
from crystalmath.server.endpoint import LONGEST
from crystalmath.server.handlers import METHODS
from crystalmath.server.launch import answers
from server.home_server import CELL, HomeServer

pytestmark = pytest.mark.server

ALUMINIUM = str(Path(__file__).parents[2] / "examples" / "Al.poscar")
LAUNCH = """
from crystalmath import config
from crystalmath.server import launch
from crystalmath.server.endpoint import Place
place = Place.of(config.home())
launch.start(place)
print(place.read_lock().identity.pid)
"""


def launcher(server, **environment):
    """Start a process that starts a server."""
    options = {"env": {**server.environment, **environment}, "stderr": subprocess.PIPE}
    return piped(sys.executable, "-c", LAUNCH, stdin=None, **options)


@pytest.fixture
def one_worker(server):
    server.home.mkdir()
    (server.home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    return server


# --- one server a home ---------------------------------------------------------------------------


def test_what_it_makes_is_private(served):
    place = served.place
    assert stat.S_IMODE(place.socket.lstat().st_mode) == 0o600
    assert {stat.S_IMODE(p.stat().st_mode) for p in (place.lock, place.log)} == {0o600}
    assert stat.S_IMODE(place.directory.stat().st_mode) == 0o700


def test_it_says_what_serves(served):
    told = served.call("system.version")
    assert (told["pid"], told["protocol"]) == (served.process.pid, 1)
    assert (told["home"], told["prefix"]) == (str(served.home), sys.prefix)
    assert told["recipes_allow"] == ["lab_recipes"]


def test_its_allocator_gives_memory_back_and_is_not_that_of_jobs(served):
    started = Path(f"/proc/{served.pid}/environ").read_bytes().split(b"\0")
    assert b"PYTHONMALLOC=malloc" in started
    job_id = served.submit("where")
    served.finish(job_id)
    environment = served.call("jobs.result", job_id=job_id)["result"]["environment"]
    assert "PYTHONMALLOC" not in environment


def test_commands_that_start_one_at_once_share_it(server):
    launchers = [launcher(server) for _ in range(3)]
    told = [process.communicate(timeout=120) for process in launchers]
    assert {process.returncode for process in launchers} == {0}, told
    assert {pid.strip() for pid, _ in told} == {str(server.pid)}
    eventually(lambda: len(server.living()) == 1)


def test_a_second_server_is_refused(served):
    second = served.run("serve", "--json")
    assert second.returncode == 1
    answer = json.loads(second.stdout)
    assert answer["code"] == "already_served"
    assert f"process {served.process.pid} " in answer["error"]
    assert served.call("system.ping") == {"ok": True}


@pytest.mark.parametrize("umask", [0, 0o022])
def test_whoever_makes_a_home_only_its_user_can_enter_it(server, tmp_path, umask):
    archive = str(tmp_path / "jobs.zip")
    for number, command in enumerate(
        (
            ("run", "lab_recipes.value", ALUMINIUM, "--engine", "local", "--name", "made"),
            ("import", archive),
            ("submit", "lab_recipes.value", ALUMINIUM),
            ("init", "--yes"),
            ("clusters", "init", "slurm"),
        )
    ):
        home = tmp_path / "above" / str(number) / "home"
        environment = {**server.environment, "CRYSTALMATH_HOME": str(home)}
        ask = functools.partial(
            subprocess.run, env=environment, umask=umask, capture_output=True, text=True
        )
        done = ask([sys.executable, "-m", "crystalmath", *command], check=False)
        assert done.returncode == 0, done.stderr
        folders = [home.parents[1], home.parent, home, *home.glob("jobs")]
        modes = {str(each): stat.S_IMODE(each.stat().st_mode) for each in folders}
        assert set(modes.values()) == {0o700}, modes
        if command[0] == "run":
            export = ("export", "--archive", archive, "--state", "completed")
            ask([sys.executable, "-m", "crystalmath", *export], check=True)
        ask([sys.executable, "-m", "crystalmath", "stop"], check=True)


def test_the_lock_of_a_killed_server_is_stale(server):
    server.start()
    server.kill()
    assert server.place.socket.exists()
    first = server.process.pid
    assert server.start().pid not in {None, first}


def test_a_server_whose_socket_was_removed_makes_it_anew(server):
    server.start()
    old = server.connect()
    # Who says nothing at first is cut off after a while, and starting another may take longer.
    assert old.call("system.ping") == {"ok": True}
    server.place.socket.unlink()
    told, _ = launcher(server).communicate(timeout=120)
    assert told.strip() == str(server.process.pid) == str(server.pid)
    assert stat.S_IMODE(server.place.socket.lstat().st_mode) == 0o600
    assert old.call("system.version")["pid"] == server.process.pid
    eventually(lambda: len(server.living()) == 1, message="the other one did not leave")


def test_a_server_whose_home_was_made_anew_leaves_it_to_the_next(server):
    server.start()
    old = server.process

    def removed():
        # The server may just be making a file in a folder that was empty.
        shutil.rmtree(server.home, ignore_errors=True)
        return not server.home.exists()

    eventually(removed)
    server.start()
    assert old.wait(60) == 0
    assert server.call("system.version")["pid"] == server.process.pid


def schema(server, version=None):
    """Return the schema version of a server's database, or have it be another one."""
    with contextlib.closing(sqlite3.connect(server.home / "jobs.sqlite")) as connection:
        if version is not None:
            connection.execute("UPDATE alembic_version SET version_num = ?", [version])
            connection.commit()
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_a_server_does_not_start_over_the_database_of_a_newer_release(server):
    server.start()
    server.call("jobs.submit", recipe="lab_recipes.value", structure=CELL)
    server.run("stop")
    schema(server, "9999")
    for command in (["submit", "lab_recipes.value", ALUMINIUM], ["serve"]):
        answer = server.run(*command, "--json")
        assert answer.returncode == 1
        assert "schema version 9999" in answer.stderr
        assert "upgrade crystalmath" in answer.stderr
        assert server.living() == {}


def test_no_look_migrates_the_database(server):
    server.start()
    server.call("jobs.submit", recipe="lab_recipes.value", structure=CELL)
    server.run("stop")
    now = schema(server)
    schema(server, "0000")
    for command in (["list"], ["doctor"], ["counts"], ["du"], ["export", "all.csv"]):
        answer = server.run(*command, "--json")
        assert answer.returncode == 1, command
        assert f"schema version 0000, and this release reads {now}" in answer.stdout, command
        assert schema(server) == "0000", command


OLD = """
import crystalmath
crystalmath._installed_version = lambda: "0.0.9"
from crystalmath.cli import main
main(["serve"])
"""


@pytest.fixture
def old(server):
    """Return a home that a server of another build serves."""
    server.process = subprocess.Popen(
        [sys.executable, "-c", OLD], env=server.environment, stderr=subprocess.DEVNULL
    )
    eventually(lambda: answers(server.place))
    return server


def test_a_server_of_another_build_can_always_be_stopped_and_its_jobs_go_on(old, go):
    server = old
    job = server.call(
        "jobs.submit", recipe="lab_recipes.wait_for", structure=CELL, params={"path": str(go)}
    )["job_id"]
    eventually(lambda: server.call("jobs.status", job_id=job)["status"] == "running")
    answer = server.run("status", job)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert "runs crystalmath 0.0.9+" in line
    assert "`crystalmath stop`" in line
    stopped = server.run("stop")
    assert "running on without it: 1" in stopped.stderr
    assert server.process.wait(60) == 0
    go.touch()
    assert server.run("wait", job).returncode == 0
    assert json.loads(server.run("status", job, "--json").stdout)["status"] == "completed"


@pytest.mark.parametrize("said", ["y", "n"])
def test_a_terminal_is_offered_to_replace_a_server_of_another_build(old, said):
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "crystalmath", "list"]
    process = subprocess.Popen(command, env=old.environment, stdin=end, stdout=end, stderr=end)
    os.close(end)
    os.write(terminal, f"{said}\n".encode())
    told = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(terminal, 1000):
            told += part
    os.close(terminal)
    assert process.wait(60) == (0 if said == "y" else 1)
    assert b"Stop it now, and go on?" in told
    assert (old.process.poll() is None) is (said == "n")


def die_elsewhere(server):
    """Kill a server, and have its lock say that it was one of another host."""
    text = server.place.lock.read_text()
    server.kill()
    me = processes.own_identity()
    for here, there in {me.host: "elsewhere", me.boot_id: "their boot", me.machine_id: "x"}.items():
        text = text.replace(f'"{here}"', f'"{there}"')
    server.place.lock.write_text(text)


def test_the_next_server_takes_the_place_of_one_whose_host_is_gone(server):
    server.home.mkdir()
    (server.home / "config.toml").write_text("[jobs]\nlease_s = 2\n")
    server.start()
    die_elsewhere(server)
    server.spawn()
    eventually(lambda: f'"pid": {server.process.pid}' in server.place.lock.read_text())
    # It says its name first, and then takes the place of the socket that the other one left.
    eventually(lambda: answers(server.place))
    assert server.call("system.version")["pid"] == server.process.pid


def test_a_server_on_another_host_is_told_and_no_second_is_started(server):
    server.start()
    die_elsewhere(server)
    for command in (["submit", "emt.core.static_job", ALUMINIUM], ["stop"]):
        answer = server.run(*command, "--json")
        assert answer.returncode == 1
        told = json.loads(answer.stdout)
        assert told["code"] == "served_elsewhere"
        assert f"process {server.process.pid} on elsewhere" in told["error"]
        assert str(server.place.lock) in told["error"]
    assert server.living() == {}
    server.place.lock.unlink()


def test_a_home_whose_path_is_too_long_for_a_socket(tmp_path):
    home = tmp_path / ("x" * LONGEST)
    # Beside another test process `tmp_path` itself is too long.
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        runtime = Path(folder)
        server = HomeServer(home, XDG_RUNTIME_DIR=folder)
        try:
            server.start()
            assert server.place.socket.is_relative_to(runtime)
            # A batch job or cron has no such variable, and finds it all the same.
            del server.environment["XDG_RUNTIME_DIR"]
            stopped = server.run("stop", "--json")
            assert json.loads(stopped.stdout)["stopped"] is True, stopped
        finally:
            server.end()


def test_a_place_that_is_not_safe_is_refused(server, tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    server.home.mkdir()
    server.place.directory.symlink_to(tmp_path / "theirs")
    process = launcher(server)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PlaceError" in told
    assert "symbolic link" in told
    assert os.listdir(tmp_path / "theirs") == []
    server.place.directory.unlink()


def test_what_cannot_start_says_why(server):
    server.home.mkdir()
    (server.home / "config.toml").write_text("engin = 'local'\n")
    process = launcher(server)
    _, told = process.communicate(timeout=60)
    assert "did you mean 'engine'" in told
    assert server.living() == {}


# --- jobs outlive their servers ------------------------------------------------------------------


def test_jobs_outlive_their_servers(one_worker, tmp_path, go):
    """A server is killed, the next one stopped: what ran goes on, what waited is run, once."""
    server = one_worker.start()
    first = server.submit("wait_for", params={"path": str(go)})
    eventually(lambda: server.counts() == {"pending": 0, "running": 1})
    second = server.submit("wait_for", params={"path": str(go)})
    server.kill()
    server.start()
    # What it took over has the worker.
    eventually(lambda: server.counts() == {"pending": 1, "running": 1})
    third = server.submit("mark", params={"path": str(tmp_path / "ran")})
    stopped = json.loads(server.run("stop", "--json").stdout)
    counts = {"pending": 2, "running": 1}
    assert stopped == {"stopped": True, **counts, "cancel": False, "error": None}
    assert server.wait() == 0
    assert (server.pid, (tmp_path / "ran").exists()) == (None, False)
    server.start()
    go.touch()
    jobs = [server.finish(job_id) for job_id in (first, second, third)]
    assert [(job["status"], job["attempt"]) for job in jobs] == [("completed", 1)] * 3
    assert (tmp_path / "ran").read_text() == "x"


def test_a_hang_up_of_the_terminal_changes_nothing(one_worker, go):
    server = one_worker
    pid, terminal = pty.fork()
    if pid == 0:
        command = [sys.executable, "-c", LAUNCH + "input()"]
        os.execve(sys.executable, command, server.environment)
    eventually(lambda: answers(server.place))
    running = server.submit("wait_for", params={"path": str(go)})
    serving = server.pid
    os.close(terminal)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGHUP
    assert os.getsid(serving) == serving
    go.touch()
    assert server.finish(running)["status"] == "completed"
    assert server.pid == serving


def test_stop_cancel_ends_every_process(one_worker, tmp_path):
    server = one_worker.start()
    running = server.submit("long_sleep")
    eventually(lambda: server.counts()["running"] == 1)
    waiting = server.submit("touch", params={"path": str(tmp_path / "ran")})
    stopped = server.run("stop", "--cancel")
    assert stopped.returncode == 0
    assert "cancelled: 1 running jobs, 1 pending" in stopped.stderr
    assert server.living() == {}
    listed = json.loads(server.run("list", "--json").stdout)["jobs"]
    assert {job["job_id"]: job["status"] for job in listed} == {
        running: "cancelled",
        waiting: "cancelled",
    }
    assert not (tmp_path / "ran").exists()


def test_stop_cancel_tells_those_who_wait(one_worker):
    server = one_worker.start()
    job_id = server.submit("long_sleep")
    watching = server.connect()
    # Those of this test that are closed are so at the server's end, too.
    eventually(lambda: watching.call("system.status")["connections"] == 1)
    waiting = start("wait", job_id, env=server.environment)
    eventually(lambda: watching.call("system.status")["connections"] > 1)
    assert server.run("stop", "--cancel").returncode == 0
    _, told = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert "1 job: 1 cancelled" in told


#: An engine with which a server leaves slowly: it is waited for, for 20 s.
CLINGING = """
import time
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl

class Clinging(LocalRunner):
    def stop(self):
        time.sleep(600)

@hookimpl
def crystalmath_make_runner(settings):
    return Clinging(settings)
"""


def test_stop_does_not_claim_what_a_killed_server_has_not_done(server, tmp_path, go):
    server.install(tmp_path / "site", clinging=CLINGING)
    server.start()
    server.submit("wait_for", engine="clinging", params={"path": str(go)})
    eventually(lambda: server.counts() == {"pending": 0, "running": 1})
    stopping = start("stop", env=server.environment)
    eventually(lambda: not server.place.socket.exists())
    server.kill()
    _, told = stopping.communicate(timeout=60)
    assert stopping.returncode == 1
    assert "was killed while it was leaving" in told
    go.touch()


def test_stop_ends_a_server_whose_socket_was_removed(server):
    server.start()
    server.place.socket.unlink()
    stopped = server.run("stop")
    assert stopped.returncode == 0
    assert "the server has left" in stopped.stderr
    assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_stop(server, number):
    server.start()
    server.process.send_signal(number)
    assert server.wait() == 0
    assert not server.place.socket.exists()
    assert server.place.lock.read_text() == ""


def test_stop_where_none_runs(server):
    stopped = server.run("stop", "--json")
    assert stopped.returncode == 0
    assert json.loads(stopped.stdout)["stopped"] is False


def test_jobs_of_a_script_that_died_are_taken_over(one_worker, go):
    server = one_worker.start()
    script = (
        "import sys\nfrom ase.build import bulk\n"
        "from crystalmath.models import Submission\n"
        "from crystalmath.service import JobService\n"
        "submission = Submission(recipe='lab_recipes.wait_for', atoms=bulk('Al'), engine='local',"
        " parameters={'path': sys.argv[1]})\n"
        "service = JobService()\n"
        "print(service.submit(submission).job_id, flush=True)\ninput()"
    )
    process = piped(sys.executable, "-c", script, go, env=server.environment)
    job_id = process.stdout.readline().strip()
    eventually(lambda: server.call("jobs.status", job_id=job_id)["status"] == "running")
    assert server.counts() == {"pending": 0, "running": 0}
    process.kill()
    process.communicate()
    eventually(lambda: server.counts() == {"pending": 0, "running": 1})
    go.touch()
    assert server.finish(job_id)["status"] == "completed"


# --- quiet time, and the configuration -----------------------------------------------------------


def connected(server):
    """Connect to a server as soon as it listens."""
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        return server.connect()
    return None


def test_it_leaves_when_it_has_been_quiet(server, go):
    server.home.mkdir()
    (server.home / "config.toml").write_text("[server]\nquiet_s = 0\n")
    server.spawn()
    # At once: a server that has begun to wait for its first client may leave meanwhile.
    connection = eventually(lambda: connected(server), message=server.log())
    job_id = connection.call(
        "jobs.submit",
        recipe="lab_recipes.wait_for",
        structure={"symbols": "Al"},
        engine="local",
        params={"path": str(go)},
    )["job_id"]
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(1.2)
    assert server.process.poll() is None, "it left a job alone"
    connection = server.connect()
    go.touch()
    assert connection.call("jobs.wait", job_ids=[job_id], timeout_s=60)["done"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(0.8)
    assert server.process.poll() is None, "it left a client alone"
    connection.close()
    assert server.wait() == 0
    assert "quiet" in server.log()


def test_the_configuration_is_read_again(one_worker, go):
    server = one_worker.start()
    settings = server.home / "config.toml"
    given = {"recipe": "lab_recipes.value", "structure": {"symbols": "Al"}, "engine": "local"}
    first = server.submit("wait_for", params={"path": str(go)})
    second = server.submit("value")
    settings.write_text("engin = 'local'\n")
    refused = server.call("jobs.submit", **given)
    assert refused["code"] == "config"
    assert "did you mean 'engine'" in refused["error"]
    assert server.call("jobs.status", job_id=second)["status"] == "pending"
    settings.write_text("[engines.local]\nworkers = 0\n[recipes]\nallow = ['more']\n")
    # It has jobs: its options stay until they are done.
    third = server.submit("value")
    assert server.call("system.version")["recipes_allow"] == ["lab_recipes", "more"]
    go.touch()
    for job_id in (first, second, third):
        assert server.finish(job_id)["status"] == "completed"
    refused = server.call("jobs.submit", **given)
    assert "workers must be a whole number from 1" in refused["error"]
    # That error is not kept for as long as one of an engine that cannot be loaded.
    settings.write_text("[engines.local]\nparcal = 1\n")
    refused = server.call("jobs.submit", **given)
    assert "parcal is no option; did you mean 'parcel'?" in refused["error"]
    settings.write_text("[engines.local]\nworkers = 1\n")
    assert server.finish(server.submit("value"))["status"] == "completed"


# --- engines -------------------------------------------------------------------------------------


@pytest.fixture
def strange_engines(server, tmp_path):
    """Install an engine whose import waits for a file, and one whose import fails."""
    slow = (
        "import os, pathlib, time\n"
        "while not pathlib.Path(os.environ['SLOW_ENGINE']).exists():\n    time.sleep(0.02)\n"
        "from crystalmath.engines.local import crystalmath_make_runner\n"
    )
    server.install(tmp_path / "site", slow=slow, broken="raise RuntimeError('it is broken')\n")
    go = tmp_path / "loaded"
    server.environment["SLOW_ENGINE"] = str(go)
    yield go
    go.touch()


def test_a_slow_and_a_broken_engine_hinder_nobody(server, strange_engines):
    server.start()
    given = {"recipe": "lab_recipes.value", "structure": {"symbols": "Al"}}
    waiting = server.connect()
    for number in range(20):
        message = {"jsonrpc": "2.0", "id": number, "method": "jobs.submit"}
        waiting.send({**message, "params": {**given, "engine": "slow"}})
    eventually(lambda: server.call("system.status")["engines"]["slow"] == "loading")
    for _ in range(3):
        refused = server.call("jobs.submit", **given, engine="broken")
        assert refused["code"] == "plugin"
        assert "it is broken" in refused["error"]
    job_id = server.submit("value")
    assert server.call("jobs.status", job_id=job_id)["error"] is None
    assert server.call("jobs.list")["jobs"]
    engines = server.call("system.status")["engines"]
    assert engines["broken"].startswith("broken: ")
    assert engines["slow"] == "loading", "they have waited for it"
    assert server.finish(job_id)["status"] == "completed"
    strange_engines.touch()
    answers = [waiting.read()["result"] for _ in range(20)]
    assert {answer["error"] for answer in answers} == {None}


def test_a_server_leaves_whatever_an_engine_waits_for(server, strange_engines):
    server.start()
    given = {"recipe": "lab_recipes.value", "structure": {"symbols": "Al"}, "engine": "slow"}
    waiting = server.connect()
    waiting.send({"jsonrpc": "2.0", "id": 1, "method": "jobs.submit", "params": given})
    eventually(lambda: server.call("system.status")["engines"]["slow"] == "loading")
    assert server.run("stop").returncode == 0
    assert server.wait() == 0


# --- a file system that hangs --------------------------------------------------------------------


def test_the_event_loop_touches_no_file_of_the_home(tmp_path, go):
    touched = tmp_path / "touched"
    watched = Path(__file__).with_name("watched")
    environment = {"TOUCHED": str(touched), "TOUCHED_BELOW": str(tmp_path / "home")}
    server = HomeServer(tmp_path / "home", light=watched, **environment)
    try:
        server.start()
        waiting = server.submit("wait_for", params={"path": str(go)})
        ids = [server.submit("value"), waiting]
        params = {
            "jobs.submit": {"recipe": "lab_recipes.value", "structure": CELL, "key": "one"},
            "jobs.check": {"recipe": "lab_recipes.value", "structure": CELL},
            "jobs.submit_many": {"jobs": [{"recipe": "lab_recipes.value", "structure": CELL}]},
            "jobs.status_many": {"job_ids": ids},
            "jobs.wait": {"job_ids": ids, "timeout_s": 1},
            "jobs.events": {"timeout_s": 1},
            "jobs.logs": {"job_id": waiting, "timeout_s": 1},
            "recipes.describe": {"recipe": "lab_recipes.value"},
        }
        server.finish(ids[0])
        for name in sorted(METHODS.keys() - {"system.stop"}):
            one = {"job_id": ids[0]} if "job_id" in METHODS[name].params["properties"] else {}
            assert "result" in server.ask(name, **params.get(name, one)), name
        go.touch()
        server.finish(waiting)
        (server.home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
        server.place.socket.unlink()  # and it comes again
        eventually(lambda: answers(server.place))
        time.sleep(CARE_S)
    finally:
        server.end()
    assert not touched.exists(), touched.read_text()


# --- stdio, doctor -------------------------------------------------------------------------------


def test_stdio_is_a_bridge_whose_end_ends_no_job(served, go):
    job_id = served.submit("wait_for", params={"path": str(go)})
    eventually(lambda: served.counts()["running"] == 1)
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 7, "method": "jobs.status", "params": {"job_id": job_id}}
    )
    answered = subprocess.run(
        [sys.executable, "-m", "crystalmath", "serve", "--stdio"],
        env=served.environment,
        input=f"Content-Length: {len(body)}\r\n\r\n{body}".encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    header, _, answer = answered.stdout.partition(b"\r\n\r\n")
    assert header == b"Content-Length: %d" % len(answer)
    assert json.loads(answer)["result"]["job_id"] == job_id
    assert served.call("jobs.status", job_id=job_id)["error"] is None
    go.touch()
    assert served.finish(job_id)["status"] == "completed"


def checks(server, name):
    document = json.loads(server.run("doctor", "--json").stdout)
    return [check for check in document["checks"] if check["name"] == name]


def test_doctor_describes_the_server(server):
    server.start()
    (ok,) = checks(server, "server")
    assert (ok["state"], f"process {server.pid} " in ok["message"]) == ("ok", True)
    server.kill()
    (died,) = checks(server, "server")
    assert (died["state"], "died" in died["message"]) == ("warning", True)
    server.place.directory.chmod(0o777)
    (unsafe,) = checks(server, "server")
    assert (unsafe["state"], "chmod 700" in unsafe["message"]) == ("error", True)
    server.place.directory.chmod(0o700)


class Cycle:
    """What only the collector of cycles can free."""

    def __init__(self):
        self.self = self


@pytest.fixture(autouse=True)
def nothing_is_passed_over():
    enabled = gc.isenabled()
    gc.disable()  # a collection by itself would free all the same
    yield
    gc.unfreeze()
    if enabled:
        gc.enable()


@pytest.mark.parametrize("first", [False, True], ids=["amid work", "at rest"])
@pytest.mark.parametrize("then", [1, 3], ids=["once more", "several times more"])
def test_what_was_in_use_is_freed_at_the_next_rest(first, then, monkeypatch):
    used = Cycle()
    freed = weakref.ref(used)
    free_cycles = CycleCollector().free
    free_cycles(at_rest=first)
    monkeypatch.setitem(sys.modules, "just_imported", sys)
    free_cycles(at_rest=first)
    del used
    for _ in range(then):
        free_cycles(at_rest=True)
    assert freed() is None


def test_what_is_used_amid_work_is_freed_amid_work():
    free_cycles = CycleCollector().free
    free_cycles(at_rest=True)
    used = Cycle()
    freed = weakref.ref(used)
    free_cycles(at_rest=False)
    assert freed() is used
    del used
    free_cycles(at_rest=False)
    assert freed() is None


class Given(dict):
    """Parameters that tell when they are freed."""


async def test_what_was_refused_is_freed_without_the_collector(service):
    given = Given(unknown="x")
    freed = weakref.ref(given)
    asked = {"recipe": "lab_recipes.value", "engine": "local", "structure": {"symbols": "Al"}}
    answer = await METHODS["jobs.submit"].handler(service, {**asked, "params": given})
    assert "no parameter 'unknown'" in answer["error"]
    del given
    # The thread that looked at it may not have let go of it yet.
    eventually(lambda: freed() is None)


def test_a_refused_retry_is_freed_without_the_collector(service):
    answers = service.retry(["no such job"], Retry())
    assert isinstance(answers[0], UnknownJob)
    freed = weakref.ref(answers[0])
    del answers
    assert freed() is None


def test_a_key_that_another_job_has_is_refused_without_work_for_the_collector(service):
    jobs = [
        Submission(recipe="lab_recipes.value", atoms=bulk("Al"), parameters={"number": n}, key="k")
        for n in (1, 2)
    ]
    answers = service.submit_many(jobs)
    assert isinstance(answers[1], KeyConflict)
    freed = weakref.ref(answers[1])
    del answers
    assert freed() is None
