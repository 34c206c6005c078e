"""Lives of jobs: whatever order things happen in, what was decided stays decided.

Real run directories and a real store; what a worker does to the files is done here, step by step,
so that hypothesis chooses the order: claims, crashes, outcomes that come late, cancels, polls.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from crystalmath import processes
from crystalmath.jobs import life
from crystalmath.jobs.facts import Record
from crystalmath.jobs.host import Host
from crystalmath.jobs.identities import IdentityFile
from crystalmath.jobs.life import ATTEMPTS
from crystalmath.jobs.reading import Depth
from crystalmath.jobs.reconcile import Job, Reconciler, request_cancel
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.view import view
from crystalmath.quacc.runner import JobState
from crystalmath.quacc.store import JobStore, NewJob


def dead_process() -> processes.Identity:
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


class Lives(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    workers = Bundle("workers")

    def __init__(self):
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.host = Calm(self.home)
        self.alive = IdentityFile(self.home / "ids", processes.own_identity())
        self.dead = IdentityFile(self.home / "ids", DEAD)
        self.store = JobStore(f"sqlite:///{self.home}/jobs.sqlite")
        self.ended: dict[str, JobState] = {}
        self.outcomes: dict[tuple[str, int], bytes] = {}
        self.all: list[Job] = []
        self.reconciler = Reconciler(self.host)
        self.claims: dict[tuple[str, int], int] = {}

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.home)

    @rule(target=jobs)
    def submit(self):
        job_id = str(uuid.uuid4())
        header = {
            "job_id": job_id,
            "attempt": 1,
            "engine": "local",
            "owner": processes.own_identity().as_dict(),
            "recipe": "r",
            "cluster": "local",
            "walltime_s": None,
            "environment": {},
        }
        new = NewJob(
            job_id=job_id,
            recipe="r",
            engine="local",
            spec_hash="x",
            specification="{}",
            created_at=time.time(),
        )
        self.store.insert([new])
        job = Job.of(header, "{}", RunDirectory(self.home / job_id), self.host)
        job.directory.write_spec(header, "{}")
        self.all.append(job)
        return job

    @rule(target=workers, job=jobs, crashes=st.booleans())
    def claim(self, job, crashes):
        """A worker comes, perhaps one of several that were launched for the same attempt."""
        number = job.directory.read_header()["attempt"]
        if job.directory.claim(number, self.dead if crashes else self.alive):
            key = (job.job_id, number)
            self.claims[key] = self.claims.get(key, 0) + 1
            return job, number
        return None

    @rule(
        worker=consumes(workers),
        state=st.sampled_from(["completed", "failed", "cancelled", "lost"]),
    )
    def publish(self, worker, state):
        """An outcome, perhaps of a worker that was taken for dead: a late one."""
        if worker is None:
            return
        job, number = worker
        if state == "cancelled" and not job.directory.cancel_requested():
            state = "completed"
        decided = job.directory.decided(number)
        header = {"state": state, "error": None, "summary": None, "started": time.time()}
        if state != "completed":
            header["error"] = state
        assert job.directory.publish(number, header) is not decided

    @rule(job=jobs)
    def cancel(self, job):
        if not job.state.is_terminal():
            job.update(cancelled=True)
            request_cancel(job.directory, self.host)

    @rule(job=jobs)
    def poll(self, job):
        before = job.state
        if before.is_terminal():
            return
        self.store.apply(self.reconciler.look(job, Depth.THOROUGH).changes)
        assert self.store.get(job.job_id).state is job.state
        if job.state.is_terminal():
            self.ended[job.job_id] = job.state

    @invariant()
    def terminal_states_never_change(self):
        for job in self.all:
            if job.job_id in self.ended:
                assert job.state is self.ended[job.job_id]
                assert self.store.get(job.job_id).state is self.ended[job.job_id]

    @invariant()
    def an_attempt_has_one_claim_and_one_outcome(self):
        assert all(count == 1 for count in self.claims.values())
        for job in self.all:
            assert job.record.attempt <= ATTEMPTS
            for number in range(1, ATTEMPTS + 1):
                path = Path(job.directory.file(f"{number}.outcome"))
                if path.exists():
                    key = (job.job_id, number)
                    assert self.outcomes.setdefault(key, path.read_bytes()) == path.read_bytes()

    @invariant()
    def a_new_attempt_comes_only_after_the_old_one_was_lost(self):
        for job in self.all:
            for number in range(1, job.record.attempt):
                assert job.directory.outcome(number)["state"] == "lost"

    @invariant()
    def cancelled_only_if_somebody_asked(self):
        for job in self.all:
            if job.state is JobState.CANCELLED:
                assert job.directory.cancel_requested()

    @invariant()
    def the_files_alone_tell_the_same_end(self):
        for job in self.all:
            if job.state in {JobState.COMPLETED, JobState.FAILED}:
                assert read_state(job.directory) is job.state


Lives.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLives = pytest.mark.usefixtures("home")(Lives.TestCase)


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
