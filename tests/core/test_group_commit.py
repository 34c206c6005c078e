"""Submissions that arrive together share a commit, and each is answered only after its own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import event

from crystalmath.errors import KeyConflict, StoreError
from crystalmath.quacc.runner import generate_job_id
from crystalmath.quacc.store import JobStore, NewJob
from crystalmath.service.group_commit import GroupCommit
from crystalmath.service.recorder import Recorder


def new(**given):
    options = {"recipe": "a.b", "engine": "local", "spec_hash": "abc", "specification": "{}"}
    return NewJob(job_id=generate_job_id(), created_at=1.0, **(options | given))


def wait_until(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


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
    jobs = [new() for _ in range(12)]
    with busy(recorder, tmp_path) as (commits, end), ThreadPoolExecutor(12) as pool:
        futures = []
        for count, job in enumerate(jobs):
            futures.append(pool.submit(recorder.insert, [job]))
            wait_until(lambda at=count: recorder._insert._busy and recorder._insert.waiting == at)
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
    first = recorder.insert([new(key="k")])[0]
    groups = [
        [new(), new()],
        [new(), new(key="k", spec_hash="another"), new()],
        [new(key="k")],
        [new(key="n")],
        [new(key="n", spec_hash="another")],
    ]
    with busy(recorder, tmp_path) as (commits, end), ThreadPoolExecutor(6) as pool:
        pool.submit(recorder.insert, [new()])
        wait_until(lambda: recorder._insert._busy and not recorder._insert.waiting)
        futures = []
        for count, group in enumerate(groups, 1):
            futures.append(pool.submit(recorder.insert, group))
            wait_until(lambda at=count: recorder._insert.waiting == at)
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
        recorder.insert([new()])
    assert recorder.store.list() == []
    connection.execute("ALTER TABLE elsewhere RENAME TO events")
    connection.close()
    assert recorder.insert([new()]) == recorder.store.list()


def test_an_interrupted_commit_leaves_nobody_waiting():
    def interrupted(items):
        wait_until(lambda: commit.waiting == 1 or "second" in items)
        if "first" in items:
            raise KeyboardInterrupt
        return [item.upper() for item in items]

    commit = GroupCommit(interrupted)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(commit, "first")
        wait_until(lambda: commit._busy)
        second = pool.submit(commit, "second")
        assert isinstance(first.exception(30), KeyboardInterrupt)
        assert second.result(30) == "SECOND"


_DIES = """
    import os, sys, threading, time
    from pathlib import Path
    from sqlalchemy import event
    from crystalmath.quacc.runner import generate_job_id
    from crystalmath.quacc.store import JobStore, NewJob
    from crystalmath.service.recorder import Recorder

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
