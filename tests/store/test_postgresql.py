"""What only a database server does to a job store: it goes and comes back, and serves many homes.

Runs where ``CRYSTALMATH_TEST_POSTGRESQL`` is set, on a server of its own.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import AL, eventually
from crystalmath import config
from crystalmath.errors import StoreError
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job
from server.home_server import CELL, HomeServer

pytestmark = pytest.mark.skipif(
    "CRYSTALMATH_TEST_POSTGRESQL" not in os.environ, reason="CRYSTALMATH_TEST_POSTGRESQL not set"
)


@pytest.fixture
def url(postgresql):
    return postgresql.new_url()


@pytest.fixture
def store(url):
    with JobStore(url) as opened:
        yield opened


@pytest.fixture
def homes(postgresql, tmp_path):
    """Return the configurations of two homes whose users name the same database."""
    environments = [
        {"CRYSTALMATH_HOME": str(tmp_path / name), "CRYSTALMATH_DATABASE_URL": postgresql.url}
        for name in ("one", "two")
    ]
    return [config.load(environment) for environment in environments]


def test_two_homes_on_one_server_see_their_own_jobs_only(homes, tmp_path):
    one, two = homes
    with JobStore(one.database_url) as first, JobStore(two.database_url) as second:
        # The same keys and ids are no conflict: neither knows of the other.
        first.insert([new_job("1", key="k", spec_hash="a", labels={"x": "y"}, formula="Cu4")])
        assert second.list() == []
        assert second.by_key(["k"]) == {}
        second.insert([new_job("1", key="k", spec_hash="b"), new_job("2")])
        second.apply([Change(job_id="2", state=JobState.CANCELLED, at=2.0)])
        assert [job.spec_hash for job in first.list(elements=["Cu"], label={"x": "y"})] == ["a"]
        assert (len(first.events()), len(second.events())) == (1, 3)
        assert second.totals() == {JobState.PENDING: 1, JobState.CANCELLED: 1}
    # A home that was moved keeps its jobs.
    (tmp_path / "one").rename(tmp_path / "three")
    there = {"CRYSTALMATH_HOME": str(tmp_path / "three")}
    moved = config.load(there | {"CRYSTALMATH_DATABASE_URL": one.database_url.partition("&")[0]})
    assert moved.database_url == one.database_url
    assert JobStore.exists(moved.database_url)


def test_a_schema_can_be_named(postgresql):
    assert not JobStore.exists(f"{postgresql.url}&schema=mine")
    with JobStore(f"{postgresql.url}&schema=mine") as store:
        assert "(schema mine)" in repr(store)
        store.insert([new_job("1")])
    assert postgresql.ask("SELECT job_id FROM mine.jobs") == "1"
    with pytest.raises(StoreError, match="one name of a-z, 0-9 and _"):
        JobStore(f"{postgresql.url}&schema=Mine;drop")


def test_a_server_that_is_not_there_is_told_at_once(postgresql):
    url = postgresql.url.replace("host=", "host=/nowhere")
    for ask in (JobStore, JobStore.exists):
        with pytest.raises(StoreError, match="cannot be used"):
            ask(url)


def test_connections_that_are_dropped_lose_nothing(postgresql, store):
    """Threads record, change and read jobs while all connections are cut again and again."""
    steps = threading.Semaphore(0)
    ended = threading.Event()
    dropped = []

    def drop():
        while not ended.is_set():
            for _ in range(6):
                steps.acquire()
            dropped.append(postgresql.drop_connections())

    def live(number):
        names = [f"{number}-{count}" for count in range(8)]
        for name in names:
            store.insert_each([new_job(name, key=name)])
            steps.release()
            store.apply([Change(job_id=name, state=JobState.RUNNING, at=2.0)])
            store.note_cancel([name], 3.0)
            steps.release()
            store.apply([Change(job_id=name, state=JobState.CANCELLED, at=4.0)])
            assert store.get(name).state is JobState.CANCELLED
        return names

    cutting = threading.Thread(target=drop)
    cutting.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            names = [name for some in pool.map(live, range(3)) for name in some]
    finally:
        ended.set()
        steps.release(6)
        cutting.join()
    assert sum(dropped) > 0
    assert sorted(job.job_id for job in store.list()) == sorted(names)
    # Each once: a step that was recorded and carried out again would be there twice.
    log = [(event.job_id, event.to_state.value, event.reason) for event in store.events()]
    assert len(log) == len(set(log)) == 4 * len(names)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_a_server_that_comes_back_is_waited_for(postgresql, store, number):
    store.insert([new_job("1")])
    postgresql.stop(number)
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(store.insert, [new_job("2", key="k")])
        read = pool.submit(store.get, "1")
        postgresql.start()
        assert read.result().state is JobState.PENDING
        assert [job.job_id for job in written.result()] == ["2"]
    assert store.by_key(["k"])["k"].job_id == "2"


@pytest.mark.parametrize("through", [True, False], ids=["committed", "not committed"])
def test_a_commit_whose_answer_is_lost_is_asked_for(store, monkeypatch, through):
    """What was committed is not done again; what was not, is."""
    dialect = store._database._engine.dialect
    commit = dialect.do_commit
    lost = []

    def lose(connection):
        if not lost:
            lost.append(True)
            if through:
                commit(connection)
            connection.dbapi_connection.close()
            raise dialect.dbapi.OperationalError("server closed the connection unexpectedly")
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", lose)
    (job,) = store.insert([new_job("1")])
    assert lost
    assert store.get("1") == job
    assert len(store.events()) == 1


def test_a_home_whose_jobs_are_on_a_server(postgresql, lab, cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_DATABASE_URL", postgresql.url)
    assert cli("list", "--json").json["jobs"] == []
    ran = cli("run", "lab_recipes.value", AL, "--label", "x=y", "--json")
    assert ran.json["status"] == "completed"
    listed = cli("list", "--elements", "Al", "--label", "x=y", "--sort", "-runtime_s", "--json")
    assert [job["job_id"] for job in listed.json["jobs"]] == [ran.json["job_id"]]
    checks = cli("doctor", "--json").checks
    assert checks["database"]["state"] == "ok"
    assert "(schema crystalmath_" in checks["database"]["message"]


# --- locks of others -----------------------------------------------------------------------------


@contextlib.contextmanager
def locked(postgresql, url, how):
    """Hold a lock as another program would: on a table, or the turn to write."""
    schema = url.partition("schema=")[2]
    statements = {
        "reading": f"LOCK TABLE {schema}.jobs IN ACCESS EXCLUSIVE MODE",
        "writing": f"SELECT pg_advisory_xact_lock(1668446579, hashtext('{schema}'))",
    }
    import psycopg2

    with contextlib.closing(psycopg2.connect(postgresql.url)) as other:
        other.cursor().execute(statements[how])
        yield


@pytest.mark.parametrize("how", ["reading", "writing"])
def test_a_lock_of_another_program_is_told_and_waited_for_up_to_a_bound(
    postgresql, url, store, monkeypatch, caplog, how
):
    ask = store.list if how == "reading" else lambda: store.insert([new_job("2")])
    store.insert([new_job("1")])
    monkeypatch.setattr("crystalmath.store.plain_sql.TIMEOUT_S", 3.0)
    began = time.monotonic()
    with locked(postgresql, url, how):
        with pytest.raises(StoreError, match="another program has locked .* for more than 3 s"):
            ask()
        assert store.is_locked()
    assert time.monotonic() - began < 20
    assert "waiting up to 3 s for it" in caplog.text
    assert [job.job_id for job in store.list()] == ["1"]
    with ThreadPoolExecutor(1) as pool:
        with locked(postgresql, url, how):
            asked = pool.submit(ask)
            time.sleep(2.5)
        assert len(asked.result(30)) == 1


def test_a_locked_database_keeps_nobody_from_what_is_in_memory(postgresql, tmp_path):
    url = postgresql.new_url()
    server = HomeServer(tmp_path / "home", light=True, CRYSTALMATH_DATABASE_URL=url)
    try:
        server.start()
        submit = functools.partial(server.call, "jobs.submit", structure=CELL)
        ended = submit(recipe="lab_recipes.value")["job_id"]
        runs = submit(recipe="lab_recipes.wait_for", params={"path": str(tmp_path / "go")})[
            "job_id"
        ]
        states = {ended: "completed", runs: "running"}

        def seen():
            asked = {job_id: server.connect() for job_id in states}
            return {
                job_id: connection.call("jobs.status", job_id=job_id)["status"]
                for job_id, connection in asked.items()
            }

        eventually(lambda: seen() == states)
        with locked(postgresql, url, "reading"):
            command = [sys.executable, "-m", "crystalmath", "list"]
            listing = subprocess.Popen(
                command, env=server.environment, stderr=subprocess.PIPE, text=True
            )
            kept = [server.connect() for _ in range(12)]
            for number, connection in enumerate(kept):
                method = ("jobs.list", "jobs.result", "jobs.show")[number % 3]
                params = {} if method == "jobs.list" else {"job_id": ended}
                connection.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            time.sleep(3)
            began = time.monotonic()
            assert server.connect().call("system.ping") == {"ok": True}
            assert seen() == states
            assert time.monotonic() - began < 10
            assert listing.stderr.readline().startswith("waiting for the job database")
        assert listing.wait(60) == 0
        listing.stderr.close()
    finally:
        (tmp_path / "go").touch()
        server.end()


def test_flows_and_chains_on_a_server_that_is_killed(url, tmp_path):
    mended = tmp_path / "mended 1"
    told = {"CRYSTALMATH_DATABASE_URL": url, "CRYSTALMATH_RECIPES": "flow_recipes,lab_recipes"}
    with HomeServer(tmp_path / "home", **told) as server:
        server.start()

        def submit(**more):
            params = {"folder": str(tmp_path), **more}
            told = {"recipe": "flow_recipes.counts", "params": params, "engine": "local"}
            return server.call("jobs.submit", **told)["job_id"]

        flow = submit(fails=[1])
        shift = "lab_recipes.shift:steps=1"
        done = server.run("chain", str(AL), f"--step=one={shift}", f"--step=two={shift}")
        assert done.returncode == 0, done.stderr
        first = tmp_path / "ran 0"
        eventually(first.exists)
        server.kill()
        server.start()
        assert [server.finish(job_id)["status"] for job_id in done.stdout.split()] == [
            "completed",
            "completed",
        ]
        assert "no luck" in server.finish(flow)["error"]
        mended.touch()
        ran = first.read_text()
        (again,) = server.call("jobs.retry", job_ids=[flow])["jobs"]
        assert server.finish(again["job_id"])["status"] == "completed"
        result = server.call("jobs.result", job_id=again["job_id"])["result"]
        assert result == {"total": 36, "fan": [11, 12, 13]}
        assert first.read_text() == ran

        stopped = submit(waits=[7, 0])
        eventually(lambda: first.read_text() != ran)
        server.call("jobs.cancel", job_id=stopped)
        assert server.finish(stopped)["status"] == "cancelled"
        steps = server.call("jobs.list", parent=stopped)["jobs"]
        assert {job["status"] for job in steps} <= {"completed", "cancelled"}


def test_a_page_of_several_filters_reads_few_of_many_jobs(url, postgresql):
    number, filters = 5000, {"label": {"project": "alloys"}, "elements": ["O"], "name": "of cu"}
    with JobStore(url) as store:
        labels = [{"project": ("alloys", "oxides")[at % 2]} for at in range(number)]
        store.insert([new_job(labels=one, formula="Cu2O", name="scan of Cu2O") for one in labels])
    schema = url.partition("schema=")[2]
    read = (
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables "
        f"WHERE schemaname = '{schema}' AND relname = 'listed'"
    )
    postgresql.ask(f"ANALYZE {schema}.listed; ANALYZE {schema}.labels")
    before = int(postgresql.ask(read))
    with JobStore(url) as store:
        assert len(store.list(limit=50, **filters)) == 50
        assert len(store.list(limit=50, name="of cu", elements=["O"])) == 50
    assert int(postgresql.ask(read)) - before < number / 10
