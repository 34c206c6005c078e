"""Ends of jobs that their real run directories tell; tests/jobs has what is drawn at random."""

import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from crystalmath import processes
from crystalmath.jobs import life
from crystalmath.jobs.facts import Record
from crystalmath.jobs.host import Host
from crystalmath.jobs.identities import IdentityFile
from crystalmath.jobs.reconcile import Job, Reconciler
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.view import view
from crystalmath.quacc.runner import JobState


def dead_process():
    process = subprocess.Popen(["sleep", "600"])
    alive = processes.own_identity()
    identity = replace(
        alive, pid=process.pid, start_time=processes.start_time(process.pid), lock=""
    )
    process.kill()
    process.wait()
    assert identity.is_dead()
    return identity


DEAD = dead_process()


def read_state(directory):
    record = Record(job_id=Path(directory.path).name, place=directory.path)
    return view(directory, record, Host(Path(directory.path).parent)).state


class Calm(Host):
    """A host where nothing of an attempt is left running."""

    def has_processes(self, attempt):
        return False

    def end_processes(self, attempt):
        return True


def followed(home):
    job_id = str(uuid.uuid4())
    header = {"job_id": job_id, "attempt": 1, "cluster": "local", "walltime_s": None}
    job = Job.of(header, "{}", RunDirectory(home / job_id), Calm(home))
    job.directory.write_spec(header, "{}")
    job.update(written=True)
    return job


@pytest.mark.parametrize("claimed", [False, True])
def test_a_run_directory_that_was_removed_does_not_leave_a_job_for_ever(home, claimed, monkeypatch):
    monkeypatch.setattr(life, "GONE_S", 0.0)
    job, owner = followed(home), Reconciler(Calm(home))
    (home / "ids").mkdir()
    if claimed:
        job.directory.claim(1, IdentityFile(home / "ids", processes.own_identity()))
        assert [change.state for change in owner.look(job).changes] == [JobState.RUNNING]
    shutil.rmtree(job.directory.path)
    looks = [owner.look(job).changes for _ in range(life.GONE_LOOKS)]
    assert not any(looks[:-1])
    (change,) = looks[-1]
    assert change.state is JobState.FAILED
    assert job.directory.path in change.error


def test_a_cancel_that_meets_a_dead_supervisor_reads_cancelled(home):
    job = followed(home)
    job.directory.claim(1, IdentityFile(home / "ids", DEAD))
    job.update(cancelled=True)
    job.directory.request_cancel()
    states = [change.state for change in Reconciler(Calm(home)).look(job).changes]
    assert states[-1] is JobState.CANCELLED
    assert read_state(job.directory) is JobState.CANCELLED
