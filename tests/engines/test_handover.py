"""What is between the driver and an engine, where the moment counts."""

import logging
import threading
import time
import uuid
from types import SimpleNamespace

import pytest

from crystalmath import config
from crystalmath.engines.followed import Followed
from crystalmath.engines.handover import Handover
from crystalmath.jobs.changes import Change
from crystalmath.jobs.facts import JobState
from crystalmath.jobs.reconcile import Job
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Capabilities, Sighting
from crystalmath.service import JobService
from ends import lab_job

NOW_S = 1000.0


def followed_job(folder, **more):
    header = {
        "job_id": str(uuid.uuid4()), "attempt": 1, "cluster": "local", "walltime_s": None,
        "environment": {}, **more,
    }  # fmt: skip
    job = Job.of(header, "{}", RunDirectory(folder / header["job_id"]), host=None)
    job.update(written=True)
    return job


def handover_of(engine, jobs, notice=lambda job_id: None):
    handover = Handover(
        engine,
        Followed(),
        threading.RLock(),
        host=SimpleNamespace(monotonic=lambda: NOW_S),
        report=lambda changes: None,
        notice=notice,
    )
    for job in jobs:
        handover._followed.add(job)
        handover.place(job)
    return handover


def test_what_was_said_of_an_attempt_is_not_held_against_the_next_one(tmp_path):
    job = followed_job(tmp_path)
    job.update(launched=True)
    engine = SimpleNamespace(
        log=logging.getLogger("test"),
        capabilities_of=lambda cluster: SimpleNamespace(workers_here=True),
        probe=lambda attempts: {each.id: Sighting("gone") for each in attempts},
    )
    noticed = []
    handover = handover_of(engine, [job], noticed.append)
    handover._probe_silent()
    assert job.take_sighting() == Sighting("gone")
    assert job.take_sighting() is None
    job.parcel.since = 0.0
    handover._probe_silent()
    job.update(attempt=2)
    assert job.take_sighting() is None
    assert noticed == [job.job_id, job.job_id]


def two_workers(max_queued):
    capabilities = Capabilities(max_queued=max_queued)
    return SimpleNamespace(
        log=logging.getLogger("test"),
        capabilities=capabilities,
        capabilities_of=lambda cluster: capabilities,
        settings=SimpleNamespace(parcel=None),
        runs_here=lambda cluster: True,
        workers=lambda: 2,
    )


def test_which_of_very_many_jobs_is_next_costs_little(tmp_path):
    """The lock that a submission waits for is held meanwhile."""
    jobs = [followed_job(tmp_path, priority=n % 3) for n in range(30_000)]
    handover = handover_of(two_workers(max_queued=1), jobs)
    began = time.thread_time()
    order = []
    for _ in range(300):
        ((job,),) = (parcel.members for parcel in handover._packer.next_parcels(NOW_S))
        order.append(job)
        job.update(state=JobState.CANCELLED)
        handover._followed.forget(job.job_id)
    assert order == jobs[2 : 3 * 300 : 3]
    assert time.thread_time() - began < 1.0  # in 300 turns; sorting all of them took 7 ms in each


@pytest.mark.parametrize("max_queued", [2, 100])
def test_a_pass_of_a_flow_waits_for_no_other_job(tmp_path, max_queued):
    """Neither for those that outlived the last owner, nor until the engine may have more."""
    survivors = [followed_job(tmp_path) for _ in range(2)]
    for survivor in survivors:
        survivor.survivor = True
        survivor.update(launched=True, state=JobState.RUNNING)
    job, flow = followed_job(tmp_path), followed_job(tmp_path, priority=1001)
    handover = handover_of(two_workers(max_queued), [*survivors, job, flow])
    assert [list(parcel.members) for parcel in handover._packer.next_parcels(NOW_S)] == [[flow]]
    assert handover._packer.next_parcels(NOW_S) == []
    # Nor does it take a worker from them.
    flow.update(state=JobState.RUNNING)
    handover._followed.place(flow)
    survivors[0].update(state=JobState.COMPLETED)
    handover._followed.forget(survivors[0].job_id)
    begun = [list(parcel.members) for parcel in handover._packer.next_parcels(NOW_S)]
    assert begun == ([[job]] if max_queued > 2 else [])


def note_ran(handover, recipe, *runs_s):
    for run_s in runs_s:
        job = SimpleNamespace(header={"recipe": recipe}, cluster="local", state=JobState.COMPLETED)
        change = Change(
            job_id="", state=JobState.COMPLETED, at=0.0, started_at=10.0, finished_at=10.0 + run_s
        )
        handover.run_times.note(job, change)


def test_few_jobs_that_run_milliseconds_share_a_launch_for_each_worker(tmp_path):
    """Each launch of its own cost more than such a job."""
    jobs = [followed_job(tmp_path, recipe=("quick", "slow")[n % 2]) for n in range(12)]
    handover = handover_of(two_workers(max_queued=100), jobs)
    note_ran(handover, "quick", 0.004)
    note_ran(handover, "slow", 0.1)
    parcels = [
        [job.header["recipe"] for job in each.members]
        for each in handover._packer.next_parcels(NOW_S)
    ]
    assert sorted(parcels) == [["quick"] * 6, *[["slow"]] * 6]


def test_the_loading_of_a_model_keeps_no_small_jobs_from_sharing_parcels(tmp_path):
    """Each worker process loads it in its first job, which takes a minute; the others do not."""
    jobs = [followed_job(tmp_path, recipe="model") for _ in range(400)]
    handover = handover_of(two_workers(max_queued=1000), jobs)
    note_ran(handover, "model", 60.0, 60.0, 0.2, 0.2)
    assert max(len(each.members) for each in handover._packer.next_parcels(NOW_S)) == 10


def test_one_job_that_ends_at_once_does_not_put_long_ones_together(tmp_path):
    jobs = [followed_job(tmp_path, recipe="long") for _ in range(400)]
    handover = handover_of(two_workers(max_queued=1000), jobs)
    note_ran(handover, "long", 600.0, 600.0, 0.01)
    assert {len(each.members) for each in handover._packer.next_parcels(NOW_S)} == {1}


PICKY = """
from crystalmath.engines.local import LocalRunner
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.hookspecs import hookimpl

class Picky(LocalRunner):
    def launch(self, attempts):
        good = [each for each in attempts if each.name == "good"]
        refused = {"later": EngineUnavailable("no munge"), "wrong": ConfigError("no partition x")}
        answers = {each.id: refused[each.name] for each in attempts if each.name in refused}
        return {**answers, **super().launch(good)}

@hookimpl
def crystalmath_make_runner(settings):
    return Picky(settings)
"""


def test_each_attempt_of_a_launch_may_be_refused_for_a_reason_of_its_own(home, lab, install):
    install("engine-picky", "picky", PICKY)
    with JobService(config.load()) as service:
        jobs = {
            name: service.submit(lab_job("value", engine="picky", name=name)).job_id
            for name in ("later", "wrong", "good")
        }
        *_, good = service.wait([jobs["good"]], 120)
        *_, wrong = service.wait([jobs["wrong"]], 120)
        assert good.state is JobState.COMPLETED
        assert (wrong.state, wrong.reason) == (JobState.FAILED, None)
        assert "no partition x" in wrong.error
        later = service.job(jobs["later"])
        assert (later.state, later.reason) == (JobState.PENDING, "trying again: no munge")


QUITTING = """
import sys
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl

class Quitting(LocalRunner):
    def launch(self, attempts):
        if "wrong" in {each.name for each in attempts}:
            sys.exit("no licence")
        return super().launch(attempts)

@hookimpl
def crystalmath_make_runner(settings):
    return Quitting(settings)
"""


def test_an_engine_that_calls_sys_exit_fails_its_job_alone(home, lab, install):
    """It ended the engine's thread without a word, and all its jobs waited for ever."""
    install("engine-quitting", "quitting", QUITTING)
    with JobService(config.load()) as service:
        wrong, good = (
            service.submit(lab_job("value", engine="quitting", name=name)).job_id
            for name in ("wrong", "good")
        )
        *_, failed = service.wait([wrong], 120)
        assert failed.state is JobState.FAILED
        assert "sys.exit('no licence')" in failed.error
        *_, completed = service.wait([good], 120)
        assert completed.state is JobState.COMPLETED
