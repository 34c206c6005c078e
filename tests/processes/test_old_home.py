"""A home of the release before the rooms: it opens, tells what it told, and its jobs go on.

`home_of_0003.json` is such a home as that release left it when it was killed, process by process:
the database as SQL, the files, and the claims, which are links to the identities. What names the
host that it was made on, and its place, is filled in here.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest
from ase.build import bulk

from crystalmath import processes
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Submission
from crystalmath.models.retry import Retry
from crystalmath.quacc import JobState
from crystalmath.service import JobService

HOME = Path(__file__).with_name("home_of_0003.json")
ENERGY, VALUE, FAILED, STOPPED, RUNNING, PENDING, DROPPED = (
    "4d2131bb-6a20-4992-bf8f-2b50842e19ce",
    "8b901449-7271-4e70-8a7f-7793eacba6b2",
    "87fc8178-895e-4a88-8a69-07902eea0ab8",
    "d9ca129a-4683-4b31-b899-ad4d96c041b1",
    "0efb7e6d-451d-467d-a947-402a1510cc33",
    "c72deaf8-a6c6-4b42-bf7f-4ab5ae0c9d6a",
    "70b3597e-4d73-44fd-9858-ff905d65c956",
)
STATES = {
    ENERGY: JobState.COMPLETED,
    VALUE: JobState.COMPLETED,
    FAILED: JobState.FAILED,
    STOPPED: JobState.CANCELLED,
    PENDING: JobState.PENDING,
    DROPPED: JobState.CANCELLED,
}
#: In seconds: generous, on a busy machine.
LONG = 120


def write_home(root, *, database=True):
    """Write the old home, as if it had been made on this host."""
    own = processes.own_identity()
    filled = {"@HOME@": str(root), "@BOOT@": own.boot_id, "@HOST@": socket.gethostname()}
    text = HOME.read_text()
    for name, value in {**filled, "@NAMESPACE@": own.namespace}.items():
        text = text.replace(name, value)
    old = json.loads(text)
    for folder in old["folders"]:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, (head, rest) in old["files"].items():
        (root / name).write_bytes(head.encode() + base64.b64decode(rest))
    for name, target in old["links"].items():
        os.link(root / target, root / name)
    if database:
        connection = sqlite3.connect(root / "jobs.sqlite")
        connection.executescript("\n".join(old["sql"]))
        connection.close()


@pytest.fixture
def old(home, lab):
    """Give today's service on the old home."""
    write_home(home)
    with JobService() as service:
        yield service


def test_every_job_is_listed_as_it_was(old):
    jobs = {job.job_id: job for job in old.jobs()}
    assert {job_id: jobs[job_id].state for job_id in STATES} == STATES
    # Who only looks sees that its supervisor has died, and that another attempt is due.
    assert jobs[RUNNING].state in {JobState.RUNNING, JobState.PENDING}
    assert len(jobs) == len(STATES) + 1
    assert (jobs[ENERGY].name, jobs[ENERGY].labels) == ("aluminium", {"project": "old"})
    assert [job.job_id for job in old.jobs(label={"project": "old"})] == [ENERGY]
    assert "no luck" in jobs[FAILED].error
    assert [event.reason for event in old.events(job_ids=[VALUE])[0]] == ["submitted", None, None]


def test_results_are_read(old):
    assert old.result(ENERGY)["results"]["energy"] == pytest.approx(-0.00150204758)
    assert old.result(VALUE) == {"value": 7}
    assert "no luck" in old.result(FAILED)["error"]
    assert old.result(STOPPED) == old.result(DROPPED) == {"error": "cancelled"}


def test_what_had_not_ended_goes_on(old):
    directory = RunDirectory(old.config.jobs_directory / RUNNING)
    assert set(old.take_over()) == {RUNNING, PENDING}
    Path(directory.file("go")).touch()
    jobs = {job.job_id: job for job in old.wait([RUNNING, PENDING], LONG)}
    assert {job_id: (job.state, job.attempt) for job_id, job in jobs.items()} == {
        RUNNING: (JobState.COMPLETED, 2),
        PENDING: (JobState.COMPLETED, 1),
    }
    assert old.result(RUNNING) == {"saw": "../go"}
    assert old.result(PENDING) == {"value": 3}


def test_an_old_job_is_run_again_and_its_key_is_known(old):
    (again,) = old.retry([VALUE], Retry())
    *_, ended = old.wait([again.job_id], LONG)
    assert ended.state is JobState.COMPLETED
    assert old.result(again.job_id) == {"value": 7}
    asked = Submission(
        recipe="lab_recipes.value",
        atoms=bulk("Al"),
        parameters={"number": 7},
        engine="local",
        key="the key",
    )
    assert old.submit(asked).job_id == VALUE


def test_its_record_is_made_again_from_its_directories(home, lab, cli):
    write_home(home, database=False)
    cli("doctor", "--rebuild", "--json")
    with JobService() as service:
        jobs = {job.job_id: job.state for job in service.jobs()}
        assert jobs.pop(RUNNING) in {JobState.RUNNING, JobState.PENDING}
        assert jobs == STATES
