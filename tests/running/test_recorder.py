"""Submissions that arrive together share a commit, and each is answered only after its own."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from conftest import eventually
from crystalmath.errors import KeyConflict, StoreError
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from crystalmath.running import recorder as recorders
from crystalmath.running.recorder import GroupCommit, Recorder
from rundirs import new_job


@pytest.fixture
def recorder(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    JobStore(url).close()
    made = Recorder(url, tmp_path / "jobs")
    yield made
    made.close()


@contextmanager
def busy(recorder, tmp_path):
    """Have the database busy, as by another process; give the commits that follow."""
    commits = []
    engine = recorder.store._database._engine
    event.listen(engine, "commit", lambda _: commits.append(1))
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield commits, lambda: other.execute("COMMIT")


def test_submissions_that_arrive_together_share_a_commit_and_keep_their_order(recorder, tmp_path):
    jobs = [new_job() for _ in range(12)]
    with busy(recorder, tmp_path) as (commits, end), ThreadPoolExecutor(12) as pool:
        futures = []
        for count, job in enumerate(jobs):
            futures.append(pool.submit(recorder.insert, [job]))
            eventually(lambda at=count: recorder._insert._busy and recorder._insert.waiting == at)
        assert not any(future.done() for future in futures)
        end()
        answers = [future.result(30) for future in futures]
    assert len(commits) == 2  # the first one's, and the eleven's that came meanwhile
    assert [answer[0].job_id for answer in answers] == [job.job_id for job in jobs]
    assert [each.job_id for each in recorder.store.list(newest_first=False)] == [
        job.job_id for job in jobs
    ]
    assert [each.job_id for each in recorder.store.events()] == [job.job_id for job in jobs]


def test_a_conflicting_key_refuses_nobody_else_of_its_commit(recorder, tmp_path):
    first = recorder.insert([new_job(key="k")])[0]
    groups = [
        [new_job(), new_job()],
        [new_job(), new_job(key="k", spec_hash="another"), new_job()],
        [new_job(key="k")],
        [new_job(key="n")],
        [new_job(key="n", spec_hash="another")],
    ]
    with busy(recorder, tmp_path) as (commits, end), ThreadPoolExecutor(6) as pool:
        pool.submit(recorder.insert, [new_job()])
        eventually(lambda: recorder._insert._busy and not recorder._insert.waiting)
        futures = []
        for count, group in enumerate(groups, 1):
            futures.append(pool.submit(recorder.insert, group))
            eventually(lambda at=count: recorder._insert.waiting == at)
        end()
    assert len(commits) == 2
    refused = [
        (at, place)
        for at, future in enumerate(futures)
        for place, answer in enumerate(future.result())
        if isinstance(answer, KeyConflict)
    ]
    assert refused == [(1, 1), (4, 0)]
    assert futures[2].result() == [first]
    recorded = {each.job_id for each in recorder.store.list()}
    assert {job.job_id for job in [*groups[0], groups[1][0], groups[1][2], *groups[3]]} < recorded
    assert not {groups[1][1].job_id, groups[2][0].job_id, groups[4][0].job_id} & recorded


def test_who_was_refused_by_the_database_is_told_and_the_next_are_served(recorder):
    recorder.store._database._engine.dispose()
    connection = recorder.store._database._engine.raw_connection()
    connection.execute("ALTER TABLE events RENAME TO elsewhere")
    with pytest.raises(StoreError, match="events"):
        recorder.insert([new_job()])
    assert recorder.store.list() == []
    connection.execute("ALTER TABLE elsewhere RENAME TO events")
    connection.close()
    assert recorder.insert([new_job()]) == recorder.store.list()


def test_an_interrupted_commit_leaves_nobody_waiting():
    def interrupted(items):
        eventually(lambda: commit.waiting == 1 or "second" in items)
        if "first" in items:
            raise KeyboardInterrupt
        return [item.upper() for item in items]

    commit = GroupCommit(interrupted)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(commit, "first")
        eventually(lambda: commit._busy)
        second = pool.submit(commit, "second")
        assert isinstance(first.exception(30), KeyboardInterrupt)
        assert second.result(30) == "SECOND"


def test_only_a_flood_of_ends_is_gathered(recorder, monkeypatch):
    changes, waited = recorder._changes, []

    def get(timeout):
        waited.append(timeout)
        return changes.get(timeout=timeout)

    monkeypatch.setattr(recorder, "_changes", SimpleNamespace(put=changes.put, get=get))
    monkeypatch.setattr(
        recorders, "time", SimpleNamespace(monotonic=lambda: 0.0, time=time.time, sleep=time.sleep)
    )
    jobs = recorder.insert([new_job() for _ in range(58)])

    def end(some):
        waited.clear()
        recorder.report(
            [Change(job_id=one.job_id, state=JobState.COMPLETED, at=1.0) for one in some]
        )
        ids = [job.job_id for job in some]
        eventually(lambda: all(each.state.is_terminal() for each in recorder.store.get_many(ids)))
        return [pause for pause in waited if pause]

    assert [end(jobs[:1]), end(jobs[1:2]), end(jobs[2:29])] == [[], [], []]
    assert end(jobs[29:30]) == [recorders.GATHER_S]
    assert end(jobs[30:57]) == []
    monkeypatch.setattr(recorder, "_is_busy", lambda: False)
    assert end(jobs[57:]) == []  # no other comes


_DIES = """
    import os, sys, threading, time
    from pathlib import Path
    from sqlalchemy import event
    from crystalmath.quacc.runner import generate_job_id
    from crystalmath.quacc.store import JobStore, NewJob
    from crystalmath.running.recorder import Recorder

    home, when = Path(sys.argv[1]), sys.argv[2]
    JobStore(f"sqlite:///{home}/jobs.sqlite").close()
    recorder = Recorder(f"sqlite:///{home}/jobs.sqlite", home / "jobs")
    answered = threading.Event()
    commits = []

    def die(what):
        if len(commits) == 2:
            answered.wait(30)  # the first one, whose commit is over
            os._exit(9)

    def commit(connection):
        commits.append(1)
        if len(commits) == 1:
            while recorder._insert.waiting < 5:
                time.sleep(0.005)
        if when == "before":
            die(commits)
    engine = recorder.store._database._engine
    event.listen(engine, "commit", commit)
    if when == "after":
        settle = recorder._insert._settle
        recorder._insert._settle = lambda *given: (die(commits), settle(*given))

    def submit():
        job = NewJob(job_id=generate_job_id(), created_at=1.0, recipe="a.b", engine="local",
                     spec_hash="abc", specification="{}")
        (answer,) = recorder.insert([job])
        os.write(1, f"{answer.job_id}\\n".encode())
        answered.set()
    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


@pytest.mark.parametrize(("when", "recorded"), [("before", 1), ("after", 6)])
def test_a_death_at_a_shared_commit_leaves_all_of_it_or_nothing(tmp_path, when, recorded):
    command = [sys.executable, "-c", textwrap.dedent(_DIES), str(tmp_path), when]
    died = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, env=os.environ, check=False)
    assert died.returncode == 9
    acknowledged = set(died.stdout.decode().split())
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        found = {name for (name,) in database.execute("SELECT job_id FROM jobs")}
        logged = {
            name
            for (name,) in database.execute(
                "SELECT jobs.job_id FROM events JOIN jobs USING (number)"
            )
        }
    assert len(acknowledged) == 1  # the first one's commit; the others were answered by nobody
    assert acknowledged <= found == logged
    assert len(found) == recorded


def refuse(tmp_path, what):
    """Have the database refuse rows, until what is returned is called."""
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        database.executescript(
            f"CREATE TRIGGER refuse BEFORE {what} BEGIN SELECT RAISE(ABORT, 'refused here'); END"
        )

    def accept():
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
            database.executescript("DROP TRIGGER refuse")

    return accept


def ended(job):
    running, at = Change(job_id=job.job_id, state=JobState.RUNNING, at=2.0), 3.0
    return [running, Change(job_id=job.job_id, state=JobState.COMPLETED, at=at, summary={})]


def test_a_row_that_the_database_refuses_holds_up_no_other(recorder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(recorders, "REFUSED_S", 0.2)
    jobs = [new_job() for _ in range(20)]
    recorder.insert(jobs)
    bad = jobs[7]
    accept = refuse(
        tmp_path, f"UPDATE ON jobs WHEN NEW.job_id = '{bad.job_id}' AND NEW.state = 'completed'"
    )
    # In one transaction; and what comes later is not held up, either.
    recorder.report([change for job in jobs[:12] for change in ended(job)])
    recorder.report([change for job in jobs[12:] for change in ended(job)])

    def states():
        return {job.job_id: job.state for job in recorder.store.list()}

    others = [job.job_id for job in jobs if job is not bad]
    eventually(lambda: all(states()[each] is JobState.COMPLETED for each in others))
    eventually(lambda: recorder.store.get(bad.job_id).reason)
    told = recorder.store.get(bad.job_id)
    assert told.state is JobState.PENDING
    assert told.reason.startswith("its state cannot be recorded, trying again: ")
    assert "refused here" in told.reason
    time.sleep(0.5)
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    accept()
    eventually(lambda: states()[bad.job_id] is JobState.COMPLETED)
    log = [event.to_state.value for event in recorder.store.events(job_id=bad.job_id)]
    assert log == ["pending", "pending", "running", "completed"]


def test_what_is_refused_is_tried_a_last_time_at_the_end(recorder, tmp_path):
    jobs = [new_job() for _ in range(2)]
    recorder.insert(jobs)
    accept = refuse(tmp_path, f"UPDATE ON jobs WHEN NEW.job_id = '{jobs[0].job_id}'")
    recorder.report(ended(jobs[0]) + ended(jobs[1]))
    eventually(lambda: recorder.store.get(jobs[1].job_id).state is JobState.COMPLETED)
    accept()
    recorder.finish()
    assert recorder.store.get(jobs[0].job_id).state is JobState.COMPLETED


def test_a_database_that_takes_nothing_keeps_nobody_from_the_end(recorder, monkeypatch):
    """On a full disk what was reported before the end was tried for ever, and a server stayed."""
    (job,) = recorder.insert([new_job()])
    tried = threading.Event()

    def full(*_):
        tried.set()
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "apply", full)
        patch.setattr(JobStore, "require_writable", full)
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: time.sleep(0.01))
        patch.setattr(recorders, "time", clock)
        recorder.report(ended(job))
        eventually(tried.is_set)
        leaving = threading.Thread(target=recorder.finish, daemon=True)
        leaving.start()
        eventually(lambda: not leaving.is_alive())
    recorder.report(ended(job))
    eventually(lambda: recorder.store.get(job.job_id).state is JobState.COMPLETED)


def test_a_submission_that_the_database_refuses_is_refused_alone(recorder, tmp_path):
    jobs = [new_job(name=name) for name in ("a", "bad", "c", "d", "e")]
    refuse(tmp_path, "INSERT ON jobs WHEN NEW.name = 'bad'")
    with busy(recorder, tmp_path) as (_, end), ThreadPoolExecutor(2) as pool:
        one = pool.submit(recorder.insert, [new_job(name="first")])
        eventually(lambda: recorder._insert.waiting or recorder._insert._busy)
        answers = pool.submit(recorder.insert, jobs)
        eventually(lambda: recorder._insert.waiting)
        end()
    assert one.result()[0].name == "first"
    refused = answers.result()[1]
    assert isinstance(refused, StoreError)
    assert "refused here" in str(refused)
    recorded = [job for job in answers.result() if not isinstance(job, Exception)]
    assert [job.name for job in recorded] == ["a", "c", "d", "e"]
    assert len(recorder.store.list()) == 5
