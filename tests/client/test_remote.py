"""What a client does when its server dies, stops, hangs, or is another than it thought."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ase.build import bulk

from commands import finish, limited
from commands import start as command
from conftest import eventually
from crystalmath import build_version, processes
from crystalmath.cli import serve as stop_module
from crystalmath.client import (
    ClientClosed,
    ConnectionLost,
    JobFuture,
    ProtocolMismatch,
    ServerMismatch,
    Submission,
    connect,
    home_reader,
    in_process,
)
from crystalmath.client import remote as remote_module
from crystalmath.client import request as request_module
from crystalmath.errors import ServerError, ServerNotRunning
from crystalmath.quacc import JobState
from crystalmath.server import JOBS_FACETS
from crystalmath.server.endpoint import Place, Server
from crystalmath.server.launch import answers, start
from crystalmath.wire import messages

pytestmark = pytest.mark.server

AL = bulk("Al", a=4.0, cubic=True)
LONG = 120

#: What Python 3.12 and newer say of every fork of a process with threads.
forks = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")


def test_a_server_that_does_not_start_is_told_with_its_own_lines(home):
    place = Place.of(home)
    place.make()
    (home / "config.toml").write_text("[nonsense]\n")
    for file in (place.output, place.log):
        file.write_text("trouble of another server, long ago\n")
    with pytest.raises(ServerError, match="nonsense") as failed:
        start(place)
    assert "long ago" not in str(failed.value)


def waiting_job(client, go):
    future = client.submit("lab_recipes.wait_for", AL, {"path": str(go)})
    eventually(future.running)
    return future


# --- servers that come and go --------------------------------------------------------------------


def test_no_server(home, lab):
    with pytest.raises(ServerNotRunning, match=f"no server of {home} runs; `crystalmath serve`"):
        connect(start=False)


def test_closing_a_client_ends_no_job(home_server, go):
    with connect() as client, connect(start=False) as other:
        future = waiting_job(client, go)
        client.close()
        with pytest.raises(ClientClosed, match=f"the client was closed; job {future.job_id} goes"):
            future.result()
        with pytest.raises(ClientClosed):
            client.ask("engines.list")["engines"]
        again = other.future(future.job_id)
        assert again.running()
        go.touch()
        assert again.result(LONG) == {"saw": str(go)}


@forks
def test_a_forked_child_asks_for_itself(home_server, go):
    with connect() as client:
        future = waiting_job(client, go)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                error = future.exception(timeout=1)
                asked = client.job(future.job_id).job_id == future.job_id
                os._exit(0 if asked and isinstance(error, ClientClosed) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert not future.done()
        go.touch()
        assert future.result(LONG) == {"saw": str(go)}


def test_servers_come_and_go_while_a_job_is_waited_for(home_server, go, caplog):
    with connect() as client:
        future = waiting_job(client, go)
        changes = client.wait([future.job_id], 5 * LONG)  # for all that follows
        assert next(changes).state is JobState.RUNNING

        # One crashes. Nobody asks for anything; who waits has another started.
        first = client.ask("system.version")["pid"]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: answers(home_server.place) and home_server.place.read_lock())
        second = home_server.place.read_lock().identity
        assert second.pid != first

        # That one is stopped, and stays so.
        client.call("system.stop")
        eventually(second.is_dead)
        told = f"no server of {home_server.home} runs; `crystalmath serve` starts one; waiting"
        eventually(lambda: any(told in record.getMessage() for record in caplog.records))
        assert home_server.place.read_lock() is None

        # The job has lost its owner; a client without a server takes it over.
        with in_process() as other:
            again = other.future(future.job_id)
            assert again.running()
            go.touch()
            assert again.result(LONG) == {"saw": str(go)}
        assert not future.done()

        # Somebody asks for something: a server is started, and tells all that has happened.
        assert client.job(future.job_id).attempt == 1
        assert future.result(LONG) == {"saw": str(go)}
        assert [job.state for job in changes][-1] is JobState.COMPLETED


@forks
def test_a_forked_child_has_no_part_in_the_jobs_of_its_parent(home, lab):
    with in_process() as client:
        child = os.fork()
        if child == 0:
            try:
                client.ask("engines.list")["engines"]
            except ClientClosed as error:
                client.close()
                os._exit(0 if "in_process()" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert client.ask("engines.list")["engines"]


def test_closing_a_client_in_process_cancels_its_jobs(home, lab):
    with in_process() as client:
        future = client.submit("lab_recipes.long_sleep", AL)
        thread = threading.Thread(target=lambda: concurrent.futures.wait([future]))
        thread.start()
    thread.join(LONG)
    assert future.cancelled()
    with pytest.raises(ClientClosed):
        client.job(future.job_id)
    with in_process() as client:
        assert client.job(future.job_id).state is JobState.CANCELLED


# --- servers that do not do what they should -----------------------------------------------------


class Broken:
    """A server that says who it is, and then does as the test wants with each request."""

    def __init__(self, home, behave, /, **version):
        self.place = Place.of(home)
        self.place.make()
        self.behave = behave
        self.asked = []
        self.version = {
            "version": build_version(),
            "protocol": 1,
            "pid": os.getpid(),
            "home": str(home),
            "prefix": sys.prefix,
            "recipes_allow": [],
            **version,
        }
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.place.socket))
        self.listener.listen()
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.hold, args=(connection,)))
                self.threads[-1].start()

    def hold(self, connection):
        with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
            self.talk(connection, file)

    def talk(self, connection, file):
        while line := file.readline():
            file.readline()
            request = messages.loads(file.read(messages.read_length(line)))
            answer = self.version if request["method"] == "system.version" else {"ok": True}
            if not request["method"].startswith("system."):
                self.asked.append(request["method"])
                answer = self.behave(request)
            if answer is None:
                return
            document = {"jsonrpc": "2.0", "id": request["id"], "result": answer}
            connection.sendall(messages.frame(messages.dumps(document)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join()


def named(broken, version):
    """Return the content of its lock."""
    mine = processes.own_identity()
    socket = str(broken.place.socket)
    return Server(identity=mine, socket=socket, version=version, started_at=0.0).write()


def test_a_submission_is_not_repeated_unless_it_has_a_key(home):
    with Broken(home, lambda request: None) as broken:
        with connect(start=False) as client, pytest.raises(ConnectionLost, match="list the jobs"):
            client.submit("emt.core.static_job", AL)
        assert broken.asked.count("jobs.submit_many") == 1
        with connect(start=False) as client, pytest.raises(ConnectionLost):
            client.submit("emt.core.static_job", AL, key="k")
        assert broken.asked.count("jobs.submit_many") == 3


@pytest.mark.parametrize(
    ("method", "asked", "told"),
    [
        (
            "jobs.submit",
            ("submit", "emt.core.static_job", "examples/Al.poscar"),
            "jobs.submit was sent, and the server may still carry it out; crystalmath list",
        ),
        (
            "jobs.retry",
            ("retry", "0" * 36),
            "the server may still run the jobs again; crystalmath list",
        ),
    ],
)
def test_ctrl_c_tells_of_a_request_for_jobs_that_was_sent(home, method, asked, told):
    arrived, go = threading.Event(), threading.Event()

    def behave(request):
        if request["method"] == method:
            arrived.set()
            go.wait(LONG)

    with Broken(home, behave):
        process = command(*asked)
        with limited(process):
            assert arrived.wait(LONG)
            process.send_signal(signal.SIGINT)
            answer = finish(process)
        go.set()
    assert answer.code == 130
    assert told in answer.err


@pytest.mark.parametrize(
    ("method", "params", "times"),
    [
        ("jobs.archive", {"file": "/a", "job_ids": []}, 1),
        ("jobs.retry", {"job_ids": []}, 1),
        ("jobs.retry", {"job_ids": [], "key": "k"}, 2),
    ],
)
def test_what_a_repetition_would_do_twice_is_not_repeated(home, method, params, times):
    with Broken(home, lambda request: None) as broken, connect(start=False) as client:
        with pytest.raises(ConnectionLost):
            client.call(method, params)
        assert broken.asked.count(method) == times


def test_a_retry_whose_answer_is_lost_is_asked_for_with_its_key(home):
    requests = []
    with Broken(home, requests.append) as broken, connect(start=False) as client:
        with pytest.raises(ConnectionLost):
            client.retry(["x"])
        assert broken.asked.count("jobs.retry") == 2
    keys = [one["params"]["key"] for one in requests if one["method"] == "jobs.retry"]
    assert len(set(keys)) == 1 != len(keys)


def test_the_check_of_a_cluster_is_not_repeated_where_it_sends_a_job(home):
    with Broken(home, lambda request: None) as broken, connect(start=False) as client:
        with pytest.raises(ConnectionLost):
            client.check_cluster("there")
        assert broken.asked.count("clusters.check") == 1
        with pytest.raises(ConnectionLost):
            client._transport.call("clusters.check", {"cluster": "there", "job_id": "x"})
        assert broken.asked.count("clusters.check") == 3


def test_what_was_accepted_is_not_lost_with_a_later_batch(home, monkeypatch):
    monkeypatch.setattr(request_module, "MOST_JOBS", 1)
    accepted = {"jobs": [{"job_id": "x", "status": "pending", "error": None}]}
    answers: dict[str, list[Any]] = {
        "jobs.submit_many": [accepted, None, accepted],
        "jobs.events": [None],
        "jobs.status_many": [None],
    }

    def behave(request):
        return (answers[request["method"]] or [None]).pop(0)

    requests = [Submission(recipe="emt.core.static_job", atoms=AL) for _ in range(3)]
    with Broken(home, behave), connect(start=False) as client:
        first, second, third = client.submit_many(requests)
    assert (first.job_id, third.job_id) == ("x", "x")
    assert isinstance(second, ConnectionLost)


def document(status):
    fields = dict.fromkeys(("job_id", "recipe", "engine", "cluster"), "x")
    return {**fields, "status": status, "created_at": 0.0}


class Told:
    """Accepts jobs, whose ids are their names; each is cancelled at once, as `events` says."""

    def __init__(self):
        self.events = []
        self.submitted = []
        self.go = threading.Event()

    def __call__(self, request):
        params = request["params"]
        if request["method"] == "jobs.submit_many":
            self.submitted += params["jobs"]
            names = [job["name"] for job in params["jobs"]]
            self.events += [{"job_id": name, "to": "cancelled"} for name in names]
            if "slow" in names:
                self.go.wait(LONG)
            jobs = [{"job_id": name, "status": "pending", "error": None} for name in names]
            return {"jobs": jobs}
        if request["method"] == "jobs.events":
            return {"events": self.events[params["after"] :], "last": len(self.events)}
        return {"jobs": [document("cancelled") for _ in params["job_ids"]]}


def test_jobs_are_followed_by_what_happens_to_them(home):
    told = Told()
    with Broken(home, told) as broken, connect(start=False) as client:
        asked = [Submission(recipe="emt.core.static_job", atoms=AL, name=name) for name in "ab"]
        for future in client.submit_many(asked):
            assert eventually(future.cancelled)
    assert "jobs.status_many" not in broken.asked


def test_an_end_costs_the_same_however_many_jobs_are_followed(home, monkeypatch):
    told, looks = Told(), []
    monkeypatch.setattr(JobFuture, "done", lambda self: looks.append(1) or Future.done(self))

    def behave(request):
        answer = told(request)
        if request["method"] == "jobs.events" and request["params"]["limit"] > 1:
            after = request["params"]["after"]
            return {"events": answer["events"][:1], "last": min(after + 1, answer["last"])}
        return answer

    names = [str(number) for number in range(200)]
    asked = [Submission(recipe="emt.core.static_job", atoms=AL, name=name) for name in names]
    with Broken(home, behave), connect(start=False) as client:
        futures = client.submit_many(asked)
        assert eventually(lambda: all(map(Future.cancelled, futures)))
    assert len(looks) < 5 * len(names)


def test_the_next_job_is_followed_from_where_the_last_one_was_left(home):
    told, begun = Told(), []

    def behave(request):
        if request["params"].get("limit") == 1:
            begun.append(request["method"])
        return told(request)

    with Broken(home, behave), connect(start=False) as client:
        for name in "abc":
            future = client.submit("emt.core.static_job", AL, name=name)
            assert eventually(future.cancelled)
            eventually(lambda: client._follower._thread is None)
    assert begun == ["jobs.events"]


def test_a_submission_that_another_one_overtakes_misses_nothing(home):
    told = Told()
    with (
        Broken(home, told),
        connect(start=False) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(client.submit, "emt.core.static_job", AL, name="slow")
        eventually(lambda: told.submitted)
        # What happened to the first stands before the log that is read from the second on.
        client.submit("emt.core.static_job", AL, name="quick")
        told.go.set()
        assert eventually(slow.result(LONG).cancelled)


def test_a_job_that_is_answered_as_the_client_is_closed_has_a_future_that_ends(home, monkeypatch):
    with Broken(home, Told()), connect(start=False) as client:
        ask = client._caller.ask

        def close_afterwards(method, **params):
            answer = ask(method, **params)
            client.close()  # as another thread may
            return answer

        monkeypatch.setattr(client._caller, "ask", close_afterwards)
        future = client.submit("emt.core.static_job", AL, name="a")
        with pytest.raises(ClientClosed, match="the client was closed; job a goes on"):
            future.result(LONG)


def test_a_submission_goes_on_where_the_last_thread_was_left_meanwhile(home):
    told, begun = Told(), []

    def behave(request):
        params = request["params"]
        if params.get("limit") == 1:
            begun.append(request["method"])
        names = [job["name"] for job in params.get("jobs", ())]
        if names == ["first"]:
            return {"jobs": [{"job_id": "first", "status": "pending", "error": None}]}
        if names:
            told.events.append({"job_id": "first", "to": "cancelled"})
        return told(request)

    with (
        Broken(home, behave) as broken,
        connect(start=False) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        first = client.submit("emt.core.static_job", AL, name="first")
        slow = pool.submit(client.submit, "emt.core.static_job", AL, name="slow")
        assert eventually(first.cancelled)
        assert eventually(lambda: client._follower._thread is None)
        told.go.set()
        assert eventually(slow.result(LONG).cancelled)
    assert begun == ["jobs.events"]
    assert "jobs.status_many" not in broken.asked


def test_a_client_heeds_the_configuration_as_it_is_now(home):
    told = Told()
    with Broken(home, told), connect(start=False) as client:
        for engine in ("one", "another"):
            (home / "config.toml").write_text(f'engine = "{engine}"')
            client.submit("emt.core.static_job", AL, name=engine)
    assert [job["engine"] for job in told.submitted] == ["one", "another"]


def test_a_question_is_repeated(home):
    answers = iter([None, document("pending")])
    with Broken(home, lambda request: next(answers)), connect(start=False) as client:
        assert client.job("x").state is JobState.PENDING


def test_a_client_that_connects_asks_who_is_there_and_nothing_else(home, monkeypatch):
    asked, ask = [], remote_module.Connection.ask

    def noted(connection, method, *more):
        asked.append(method)
        return ask(connection, method, *more)

    monkeypatch.setattr(remote_module.Connection, "ask", noted)
    with Broken(home, lambda _: document("pending")), connect(start=False) as client:
        client.job("x")
    assert asked == ["system.version", "jobs.status"]


def test_a_server_that_goes_before_it_has_said_who_it_is_is_asked_again(home):
    class Leaving(Broken):
        def talk(self, connection, file):
            if len(self.threads) > 2:
                super().talk(connection, file)

    with Leaving(home, lambda _: document("pending")), connect(start=False) as client:
        assert client.job("x").state is JobState.PENDING


def test_a_database_that_is_away_for_a_moment_is_waited_for(home, caplog):
    trouble = {"status": "error", "code": "store", "error": "the database is locked"}
    answers = {
        "jobs.status": [document("running")],
        "jobs.events": [trouble, {"events": [], "last": 1}, {"events": [], "last": 1}],
        "jobs.status_many": [{"jobs": [document("cancelled")]}],
    }
    with (
        Broken(home, lambda request: answers[request["method"]].pop(0)),
        connect(start=False) as client,
    ):
        future = client.future("x")
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(LONG)
    assert caplog.records[0].getMessage().startswith("the database is locked; waiting")


def test_a_server_that_hangs(home, monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(remote_module, "ANSWER_S", 0.1)
    with Broken(home, lambda request: hang.wait() and None), connect(start=False) as client:
        with pytest.raises(ConnectionLost, match=r"has not answered jobs.status for 0.1 s"):
            client.job("x")
        hang.set()


def test_a_command_does_not_wait_long_for_a_server_that_is_suspended(home, monkeypatch):
    monkeypatch.setattr(home_reader, "HELLO_S", 0.1)
    with socket.socket(socket.AF_UNIX) as suspended:  # who is connected is never answered
        place = Place.of(home)
        place.make()
        suspended.bind(str(place.socket))
        suspended.listen()
        for _ in ("without its lock", "with it"):
            told = pytest.raises(ConnectionLost, match="has not answered in time")
            with home_reader.HomeReader() as reader, told:
                reader.ask(JOBS_FACETS)
            place.lock.write_text(named(SimpleNamespace(place=place), build_version()))


def test_another_protocol_is_refused(home):
    with (
        Broken(home, None, protocol=2),
        pytest.raises(ProtocolMismatch, match="`crystalmath stop`"),
    ):
        connect(start=False)


def test_a_server_of_another_build_is_refused_before_anything_is_asked(home, cli):
    with Broken(home, None, version="0.0.9+g123456789", prefix="/elsewhere") as broken:
        with pytest.raises(ProtocolMismatch) as told:
            connect(start=False)
        assert str(told.value) == (
            f"the server of {home} runs crystalmath 0.0.9+g123456789, and this is "
            f"{build_version()}; `crystalmath stop` ends it, running jobs go on, and the next "
            "command starts one like this"
        )
        for command in (["list"], ["status", "x"], ["cancel", "x"], ["retry", "x"]):
            answer = cli(*command, "--json")
            assert (answer.code, answer.json["code"]) == (1, "protocol")
            assert answer.err == f"error: {told.value}\n"
        broken.place.lock.write_text(named(broken, "0.0.9+g123456789"))
        # It would write to the database that the server uses.
        with pytest.raises(ProtocolMismatch, match="`crystalmath stop` ends it"):
            in_process()
        checks = cli("doctor", "--rebuild", "--json").json["checks"]
        wrong = {check["name"]: check["message"] for check in checks if check["state"] == "error"}
        assert str(told.value) in wrong["server"]
        assert str(told.value) in wrong["rebuild"]
        assert broken.asked == []


def test_a_process_older_than_the_server_is_told_to_begin_anew(home, monkeypatch):
    monkeypatch.setattr("crystalmath.client.handshake._MINE", "0.0.9")
    with (
        Broken(home, None),
        pytest.raises(ProtocolMismatch, match=r"runs crystalmath 0\.0\.9, which was replaced by"),
    ):
        connect(start=False)


def test_what_differs_is_told_once(home, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "mylab.recipes")
    with Broken(home, None, prefix="/elsewhere", home="/other"):
        with pytest.warns(ServerMismatch) as told, connect(start=False) as client:
            client.call("system.ping")
        messages = [str(one.message) for one in told]
        assert len(messages) == 3
        assert messages[0].startswith(f"this server is that of /other, and the home here is {home}")
        assert "/elsewhere" in messages[1]
        assert "does not admit the recipes of mylab.recipes" in messages[2]
        assert sum("`crystalmath stop`" in message for message in messages) == 2
        assert {one.filename for one in told} == {__file__}
        with warnings.catch_warnings(), connect(start=False):
            warnings.simplefilter("error")


def test_another_python_of_the_same_environment_is_told(home):
    with (
        Broken(home, None, python="3.0.1"),
        pytest.warns(ServerMismatch, match=r"the server runs Python 3\.0\.1, this is"),
        connect(start=False),
    ):
        pass


def test_a_server_that_takes_no_more_connections_is_no_crash(home, cli):
    class Full(Broken):
        def talk(self, connection, file):
            file.readline()
            error = {"code": -32000, "message": "there are 256 already", "data": {"code": "busy"}}
            connection.sendall(messages.frame(messages.dumps({"jsonrpc": "2.0", "error": error})))

    with Full(home, None) as full:
        answer = cli("stop", "--json")
        assert (answer.code, answer.json["code"]) == (1, "busy")
        assert "there are 256 already" in answer.err
        full.place.lock.write_text(named(full, build_version()))
        checks = cli("doctor", "--json").json["checks"]
        told = [check["message"] for check in checks if check["name"] == "server"]
        assert told == ["there are 256 already"]


def test_stop_asks_the_server_that_was_there_not_the_next_one(home):
    place = Place.of(home)
    place.make()
    leaving = subprocess.Popen(["sleep", "600"])
    mine = processes.own_identity()
    identity = replace(mine, pid=leaving.pid, start_time=processes.start_time(leaving.pid))
    server = Server(identity=identity, socket="", version=build_version(), started_at=0.0)
    place.lock.write_text(server.write())
    asked, heard = [], threading.Event()

    def ask():
        asked.append(place.read_lock())
        place.lock.write_text(server._replace(identity=mine).write())
        heard.set()

    def leave():
        heard.wait(LONG)
        time.sleep(0.2)  # it is looked at some times more
        leaving.kill()
        leaving.wait()

    gone = threading.Thread(target=leave)
    gone.start()
    try:
        assert stop_module._await(server, place, ask, None) is None
    finally:
        gone.join()
    assert asked == [server]


@forks
def test_a_fork_while_a_future_is_being_finished_hangs_nothing(home):
    answers = {
        "jobs.status": document("running"),
        "jobs.status_many": {"jobs": [document("running")]},
        "jobs.events": {"events": [], "last": 1},
    }
    held, done = threading.Event(), threading.Event()
    with Broken(home, lambda request: answers[request["method"]]), connect(start=False) as client:
        future = client.future("x")

        def hold():
            with future._condition:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os._exit(0 if isinstance(future.exception(timeout=1), ClientClosed) else 1)
            os._exit(2)
        try:
            ended = eventually(lambda: os.waitpid(child, os.WNOHANG)[0] and "ended")
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            done.set()
            thread.join()
        assert ended


def test_a_broken_configuration_hinders_no_question(home):
    (home / "config.toml").write_text("what")
    with Broken(home, lambda request: {"engines": []}), connect(start=False) as client:
        assert client.ask("engines.list")["engines"] == []


def test_asking_a_server_needs_little():
    script = (
        "import sys; from crystalmath.client import connect\n"
        "from crystalmath.client.remote import Remote\n"
        "heavy = {'sqlalchemy', 'ase', 'numpy', 'asyncio', 'rich', 'pluggy', 'logging'}\n"
        "heavy |= {'concurrent.futures', 'crystalmath.server.daemon', 'crystalmath.service'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
