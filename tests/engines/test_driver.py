"""The driver on real run directories, with an engine that only notes what it is asked."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import uuid
import warnings
from collections import Counter
from types import SimpleNamespace

import pytest
from attrs import evolve

from conftest import eventually
from crystalmath.engines import followed
from crystalmath.engines.driver import WRITES, Driver
from crystalmath.engines.followed import Followed
from crystalmath.errors import EngineUnavailable
from crystalmath.jobs import life
from crystalmath.jobs.ownership import Recorded
from crystalmath.jobs.reading import Depth
from crystalmath.jobs.reconcile import Job
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Capabilities, JobState, Sighting

pytestmark = pytest.mark.processes


class Engine:
    capabilities = Capabilities(max_queued=1000)
    log = logging.getLogger("crystalmath.noting")

    def __init__(self, home):
        self.settings = SimpleNamespace(name="noting", home=home, parcel=None)
        self.launched: list[str] = []
        self.released: list[str] = []
        self.refusals = 0

    def workers(self):
        return 2

    def capabilities_of(self, cluster):
        return evolve(self.capabilities, workers_here=self.runs_here(cluster))

    def runs_here(self, cluster):
        return cluster == "local"

    def launch(self, attempts):
        self.launched += [attempt.id for attempt in attempts]
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts):
        return {attempt.id: Sighting("queued") for attempt in attempts}

    def release(self, attempts):
        if self.refusals:
            self.refusals -= 1
            raise EngineUnavailable("not now")
        self.released += [attempt.id for attempt in attempts]

    def stop(self):
        pass


@pytest.fixture
def engine(home):
    return Engine(home)


@pytest.fixture
def driver(engine):
    driver = Driver(engine)
    yield driver
    driver.close(cancel=True)


def add(driver, cluster="local", **more):
    job_id = str(uuid.uuid4())
    header = {
        "job_id": job_id, "attempt": 1, "engine": "noting", "owner": driver.host.own_fields(),
        "cluster": cluster, "walltime_s": None, "environment": {},
    }  # fmt: skip
    driver.add(header, "{}", **more)
    return job_id


def test_an_engine_that_has_got_a_job_is_not_closed_as_idle(driver, engine):
    job_id = add(driver, recorded=True)
    assert not driver.close_if_idle()
    assert driver.state(job_id) is JobState.PENDING
    eventually(lambda: engine.launched == [f"{job_id}.1"])
    idle = Driver(engine)
    assert idle.close_if_idle()
    with pytest.raises(EngineUnavailable, match="closed"):
        add(idle, recorded=True)


def test_a_run_directory_says_what_the_engine_can_do_on_the_jobs_own_cluster(driver):
    for cluster, here in (("local", True), ("there", False)):
        directory = driver.directory(add(driver, cluster))
        assert directory.read_spec()[0]["capabilities"]["workers_here"] is here


def test_a_lost_spec_says_what_the_engine_can_do_once_it_is_written_again(driver, engine):
    """Without that, other processes decide otherwise about the job than its owner does."""
    job_id = str(uuid.uuid4())
    header = {
        "job_id": job_id, "engine": "noting", "cluster": "there", "walltime_s": None,
        "environment": {},
    }  # fmt: skip
    add(driver)  # it makes the folder of all
    directory = RunDirectory(engine.settings.home / "jobs" / job_id)
    directory.make()
    recorded = Recorded(
        header=header, body="{}", state=JobState.PENDING, attempt=1, cancelled=False, owner={}
    )
    assert driver.adopt(job_id, recorded)
    assert directory.read_header()["capabilities"]["workers_here"] is False


@pytest.mark.parametrize("refusals", [0, 1])
def test_close_releases_all_that_was_launched(driver, engine, refusals):
    jobs = [add(driver) for _ in range(40)]
    eventually(lambda: len(engine.launched) == len(jobs))
    engine.refusals = refusals
    driver.close(cancel=True)
    assert set(engine.released) == {f"{job_id}.1" for job_id in jobs}


def test_an_engine_that_does_not_stop_is_told_of(driver, engine, monkeypatch, caplog):
    go = threading.Event()
    monkeypatch.setattr(engine, "stop", go.wait)
    monkeypatch.setattr("crystalmath.engines.driver.STOP_S", 0.2)
    job_id = add(driver)
    eventually(lambda: engine.launched == [f"{job_id}.1"])
    driver.close(cancel=True)
    go.set()
    assert "the engine has not stopped in 0.2 s" in caplog.text


def test_a_batch_is_launched_in_its_order(driver, engine):
    first = add(driver, recorded=True)
    eventually(lambda: engine.launched == [f"{first}.1"])
    with driver.together():
        jobs = [add(driver, recorded=True) for _ in range(2 * WRITES + 1)]
    eventually(lambda: engine.launched == [f"{each}.1" for each in (first, *jobs)])


def test_a_large_batch_is_launched_before_all_of_it_is_written_down(driver, engine, monkeypatch):
    engine.capabilities = Capabilities(max_queued=10)
    write, go, written = RunDirectory.write_spec, threading.Event(), []

    def slow(self, header, body):
        if len(written) == WRITES:
            go.wait()
        written.append(header["job_id"])
        write(self, header, body)

    monkeypatch.setattr(RunDirectory, "write_spec", slow)
    with driver.together():
        jobs = [add(driver, recorded=True) for _ in range(4 * WRITES)]
    try:
        eventually(lambda: engine.launched == [f"{each}.1" for each in jobs[:10]])
    finally:
        go.set()
    assert len(engine.launched) == 10


@pytest.fixture
def held_up(driver, monkeypatch):
    """Have nothing written down before this event."""
    go = threading.Event()
    monkeypatch.setattr(driver.host, "make_room", go.wait)
    yield go
    go.set()


def test_nobody_waits_until_what_is_on_record_is_written_down(driver, engine, held_up):
    jobs = [add(driver, recorded=True) for _ in range(3)]
    assert [driver.state(each) for each in jobs] == [JobState.PENDING] * 3
    assert driver.unfinished() == dict.fromkeys(jobs, JobState.PENDING)
    assert not RunDirectory(driver._jobs_directory / jobs[0]).has("spec")
    held_up.set()
    eventually(lambda: engine.launched == [f"{each}.1" for each in jobs])


def test_a_cancel_before_a_job_is_written_down(driver, engine, held_up, monkeypatch):
    told, swept = [], []
    monkeypatch.setattr(driver.host, "end_processes", swept.append)
    driver.listeners.append(told.extend)
    jobs = [add(driver, recorded=True) for _ in range(3)]
    assert [driver.cancel(each) for each in jobs] == [True] * 3
    held_up.set()
    eventually(lambda: {each.job_id for each in told} == set(jobs))
    assert {each.state for each in told} == {JobState.CANCELLED}
    assert engine.launched == []
    assert swept == []  # nobody can have begun it: no processes are looked for
    assert all(driver.directory(each).cancel_requested() for each in jobs)


def test_what_is_let_go_before_it_is_written_down_is_nobodys(driver, engine, held_up):
    job_id = add(driver, recorded=True)
    threading.Timer(0.2, held_up.set).start()
    driver.close(cancel=False)
    assert driver.directory(job_id).read_header()["owner"] is None
    assert engine.launched == []


def test_what_cannot_be_written_for_want_of_descriptors_is_written_later(
    driver, engine, monkeypatch
):
    write, failures = RunDirectory.write_spec, iter(range(3))

    def short(self, header, body):
        if next(failures, None) is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        write(self, header, body)

    monkeypatch.setattr(RunDirectory, "write_spec", short)
    told = []
    driver.listeners.append(told.extend)
    job_id = add(driver, recorded=True)
    assert driver.state(job_id) is JobState.PENDING
    eventually(lambda: engine.launched == [f"{job_id}.1"])
    assert driver.directory(job_id).read_header()["job_id"] == job_id
    reasons = [change.reason for change in told]
    # It may wait long from then on.
    assert reasons == ["cannot go on, trying again: Too many open files", "goes on again"]


def test_a_job_that_cannot_be_written_down_and_is_refused_leaves_nothing(
    driver, engine, monkeypatch
):
    def full(self, header, body):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunDirectory, "write_spec", full)
    with pytest.raises(OSError, match="No space left"):
        add(driver)
    names = os.listdir(engine.settings.home / "jobs")
    assert [name for name in names if not name.startswith(".")] == []


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")]
)
def test_a_launch_without_descriptors_or_threads_is_tried_again(
    driver, engine, monkeypatch, error, answers
):
    launch, failures, told = engine.launch, iter(range(1)), []

    def short(attempts):
        if next(failures, None) is None:
            return launch(attempts)
        if answers:
            return {attempt.id: error for attempt in attempts}
        raise error

    monkeypatch.setattr(engine, "launch", short)
    driver.listeners.append(told.extend)
    job_id = add(driver)
    eventually(lambda: engine.launched == [f"{job_id}.1"])
    assert driver.state(job_id) is JobState.PENDING
    assert [change.reason for change in told] == [f"trying again: {error}"]


def test_a_forked_process_reads_what_became_of_a_job_from_its_files(driver, engine):
    """It has the table of those that are followed as it was when it was forked."""
    job_id, cancelled = add(driver), add(driver)
    eventually(lambda: sorted(engine.launched) == sorted([f"{job_id}.1", f"{cancelled}.1"]))
    read, written = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # of threads, which do not live on
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(written)
            os.read(read, 1)
            assert driver.state(job_id) is JobState.CANCELLED
            assert driver.cancel(cancelled)
            assert driver.state(cancelled) is JobState.CANCELLED
            code = 0
        finally:
            os._exit(code)
    os.close(read)
    try:
        assert driver.cancel(job_id)
        eventually(lambda: driver.state(job_id) is JobState.CANCELLED)
    finally:
        os.close(written)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_a_launch_of_several_refuses_fails_that_one_alone(driver, engine, monkeypatch):
    launch, asked = engine.launch, []

    def refusing(attempts):
        asked.append([attempt.job_id for attempt in attempts])
        for attempt in attempts:
            if attempt.job_id == wrong:
                raise ValueError("there is no such partition")
            launch([attempt])
        return {attempt.id: attempt.id for attempt in attempts}

    monkeypatch.setattr(engine, "launch", refusing)
    with driver._lock:  # so that they are handed over together
        first, wrong, last = jobs = [add(driver) for _ in range(3)]
    eventually(lambda: driver.directory(wrong).outcome(1))
    assert "there is no such partition" in driver.directory(wrong).outcome(1)["error"]
    eventually(lambda: f"{last}.1" in engine.launched)
    eventually(lambda: asked == [jobs, [first], [wrong], [last]])
    assert driver.state(first) is driver.state(last) is JobState.PENDING
    assert not driver.directory(first).claimed(1)


def test_a_launch_that_fails_for_all_fails_each(driver, engine, monkeypatch):
    def refusing(attempts):
        raise ValueError(f"no program for {len(attempts)}")

    monkeypatch.setattr(engine, "launch", refusing)
    with driver._lock:
        jobs = [add(driver) for _ in range(5)]
    for job_id in jobs:
        eventually(lambda job_id=job_id: driver.directory(job_id).outcome(1))
        assert driver.directory(job_id).outcome(1)["error"].endswith("no program for 1")


def test_what_the_owner_had_ended_whose_outcome_was_removed_ends(driver, engine, monkeypatch):
    monkeypatch.setattr(life, "DAMAGED_S", 0.1)
    job_id = add(driver)
    eventually(lambda: engine.launched == [f"{job_id}.1"])
    # As it does itself for a cancelled job that nobody has begun, before it publishes its end.
    assert driver.directory(job_id).claim(1, driver.host.identity)
    eventually(lambda: driver.state(job_id) is JobState.RUNNING)
    driver.cancel(job_id)
    eventually(lambda: driver.state(job_id) is JobState.CANCELLED)


def pending(job_id, *, launched):
    header = {"job_id": job_id, "attempt": 1, "cluster": "local"}
    job = Job.of(header, "{}", RunDirectory(f"/jobs/{job_id}"), host=None)
    job.update(launched=launched, written=True)
    return job


def test_ten_thousand_jobs_that_wait_cost_few_looks():
    jobs = {str(n): pending(str(n), launched=n < 1000) for n in range(10_000)}
    turns = Followed()
    for job in jobs.values():
        turns.add(job)
        turns.place(job)
    looks, seen, now = 0, set(), 100.0
    for _ in range(len(jobs)):
        chosen = turns.choose(now)
        looks = max(looks, len(chosen))
        seen |= {job_id for job_id, depth in chosen.items() if depth >= Depth.LOOK}
        now += 0.1
        if len(seen) == len(jobs):
            break
    assert looks <= 24  # 240 a second, each of some 30 microseconds
    assert now < 100.0 + 300.0, "some are looked at more seldom than every five minutes"
    jobs["7"].update(state=JobState.RUNNING)
    turns.place(jobs["7"])
    assert all("7" in turns.choose(now + 0.1 * turn) for turn in range(5))
    # Something changes a hundred times a second where many jobs are short.
    assert "7" in turns.after_changes(now)
    assert len(turns.after_changes(now)) <= 5
    assert followed.CLOSE_S <= 1.0


@pytest.mark.parametrize("in_order", [True, False])
def test_begun_jobs_are_found_soon_where_the_engine_starts_them_in_any_order(in_order):
    """Of 1000 launched jobs the engine may have begun the last one."""
    turns = Followed()
    for n in range(1000):
        job = pending(str(n), launched=True)
        turns.add(job, in_order=in_order)
        turns.place(job)
    choices = [turns.choose(100.0 + 0.1 * turn) for turn in range(63)]
    assert max(map(len, choices)) <= 24
    looked_at = Counter(itertools.chain.from_iterable(choices))
    if in_order:
        assert all(looked_at[str(n)] == len(choices) for n in range(16))
    else:
        assert len(looked_at) == 1000


@pytest.mark.parametrize("cluster", ["local", "there"])
def test_an_engine_that_fails_to_say_what_it_can_do_is_asked_again(
    driver, engine, monkeypatch, cluster
):
    waits, runs = add(driver, cluster), add(driver, cluster)
    eventually(lambda: len(engine.launched) == 2)
    assert driver.directory(runs).claim(1, driver.host.identity)
    driver.notice(f"{runs}.1")
    eventually(lambda: driver.state(runs) is JobState.RUNNING)
    driver.cancel(runs)
    eventually(lambda: engine.released == [f"{runs}.1"])
    by = Counter()

    def fails(cluster):
        by[threading.current_thread().name] += 1
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "capabilities_of", fails)
        eventually(lambda: by["crystalmath-noting-watch"] > 1)
        driver._handover.probe_soon()
        eventually(lambda: by["crystalmath-noting-drive"])
    driver.cancel(waits)
    eventually(lambda: driver.state(waits) is JobState.CANCELLED)
    added = add(driver, cluster)
    eventually(lambda: f"{added}.1" in engine.launched)
    ended = {"started": None, "finished": 1.0, "summary": None}
    driver.directory(runs).publish(1, {"state": "cancelled", "error": "cancelled", **ended})
    driver.notice(f"{runs}.1")
    eventually(lambda: driver.state(runs) is JobState.CANCELLED)


def test_processes_that_do_not_end_hold_up_no_other_job(driver, engine, monkeypatch):
    go, asked = threading.Event(), []

    def end_processes(attempt):
        asked.append(attempt)
        return go.wait(300) or True

    monkeypatch.setattr(driver.host, "end_processes", end_processes)
    stuck, other = [add(driver) for _ in range(2)]
    eventually(lambda: len(engine.launched) == 2)
    (driver._jobs_directory / stuck / "spec").unlink()  # it is written again after their end
    eventually(lambda: asked == [f"{stuck}.1"])
    directory = driver.directory(other)
    assert directory.claim(1, driver.host.identity)
    directory.publish(1, {"state": "completed", "error": None, "started": 1.0, "summary": {}})
    eventually(lambda: driver.state(other) is JobState.COMPLETED)
    assert not (driver._jobs_directory / stuck / "spec").exists()
    go.set()
    eventually((driver._jobs_directory / stuck / "spec").exists)
    assert asked == [f"{stuck}.1"]


def test_names_of_new_run_directories_reach_the_disk_once_for_all_that_are_launched(
    driver, engine, monkeypatch
):
    order = []
    launch = engine.launch

    def launching(attempts):
        there = [RunDirectory(attempt.directory).has("spec") for attempt in attempts]
        order.append(("launch", all(there)))
        return launch(attempts)

    monkeypatch.setattr(engine, "launch", launching)
    monkeypatch.setattr("crystalmath.jobs.host.to_disk", lambda path: order.append(str(path)))
    jobs = driver._jobs_directory
    with driver._lock:
        first = [add(driver) for _ in range(5)]
    eventually(lambda: len(engine.launched) == 5)
    assert order == [str(jobs), str(jobs.parent), ("launch", True)]
    second = add(driver)
    eventually(lambda: engine.launched == [f"{each}.1" for each in (*first, second)])
    assert order[3:] == [str(jobs), ("launch", True)]


def test_nothing_is_launched_whose_name_does_not_reach_the_disk(driver, engine, monkeypatch):
    failures = iter([OSError(errno.EIO, "Input/output error")])

    def to_disk(_):
        for failure in failures:
            raise failure

    monkeypatch.setattr("crystalmath.jobs.host.to_disk", to_disk)
    told = []
    driver.listeners.append(told.extend)
    job_id = add(driver)
    eventually(lambda: engine.launched == [f"{job_id}.1"])
    assert "do not reach the disk" in told[0].reason
