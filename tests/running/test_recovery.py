"""Jobs whose owner was killed: another process follows them; none is lost, none runs twice."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import piped
from conftest import eventually
from crystalmath import processes
from crystalmath.engines.local import LocalRunner
from crystalmath.errors import EngineUnavailable, StoreError
from crystalmath.jobs.changes import Change
from crystalmath.jobs.host import Host
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engine import EngineRunner
from crystalmath.quacc.runner import generate_job_id
from crystalmath.quacc.store import JobStore, NewJob
from crystalmath.recipes.codec import encode_result
from crystalmath.running import recovery
from crystalmath.running.recovery import Recovery
from crystalmath.service import JobService
from crystalmath.store.plain_sql import Snapshot
from ends import lab_job

pytestmark = pytest.mark.processes

OWNER = textwrap.dedent("""
    import sys
    from ase.build import bulk
    from crystalmath.models import Submission
    from crystalmath.service import JobService

    service = JobService()
    for line in sys.stdin:
        name, *pairs = line.split()
        parameters = dict(pair.split("=", 1) for pair in pairs)
        submission = Submission(
            recipe=f"lab_recipes.{name}", atoms=bulk("Al"), parameters=parameters, engine="local"
        )
        print(service.submit(submission).job_id, flush=True)
""")


class Owner:
    """A process that owns jobs."""

    def __init__(self, home):
        self.jobs = home / "jobs"
        self.process = piped(sys.executable, "-c", OWNER, start_new_session=True)

    def submit(self, name, **parameters):
        pairs = [f"{key}={value}" for key, value in parameters.items()]
        self.process.stdin.write(" ".join([name, *pairs]) + "\n")
        self.process.stdin.flush()
        job_id = self.process.stdout.readline().strip()
        # Its run directory is written a moment after it is on record.
        eventually((self.jobs / job_id / "spec").exists)
        return job_id

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def owner(home, lab, go):
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    owner = Owner(home)
    yield owner
    owner.kill()


@pytest.fixture
def service(home, lab):
    with JobService() as service:
        yield service


@pytest.fixture
def running(owner, home, go):
    """Return a job of the owner's that runs, on the only worker, until `go` is there."""
    job_id = owner.submit("wait_for", path=go)
    eventually(lambda: claimed(home, job_id))
    return job_id


def finish(service, *job_ids):
    last = {job.job_id: job for job in service.wait(job_ids, timeout=60)}
    assert all(job.state.is_terminal() for job in last.values()), last
    return [last[job_id] for job_id in job_ids]


def reasons(service, job_id):
    with JobStore(service.config.database_url) as store:
        return [event.reason for event in store.events(job_id=job_id) if event.reason]


def claimed(home, job_id, attempt=1):
    return (home / "jobs" / job_id / f"{attempt}.claim").exists()


def test_all_jobs_of_a_killed_owner_end_well(owner, home, service, go, tmp_path):
    done = owner.submit("value", number=3)
    eventually(lambda: claimed(home, done))
    count = tmp_path / "count"
    running = owner.submit("wait_for", path=go)
    eventually(lambda: claimed(home, running))
    queued = [owner.submit("mark", path=count) for _ in range(3)]
    owner.kill()
    assert service.job(queued[0]).state is JobState.PENDING
    threading.Timer(1.0, go.touch).start()
    jobs = finish(service, done, running, *queued)
    assert [job.state for job in jobs] == [JobState.COMPLETED] * 5
    assert {job.attempt for job in jobs} == {1}
    assert count.read_text() == "xxx"
    assert any("taken over by the process" in reason for reason in reasons(service, queued[0]))


def test_a_failure_that_nobody_has_recorded_is_counted_with_its_error(owner, home, go, cli):
    failed = owner.submit("wait_and_fail", path=go, message="boom")
    eventually(lambda: claimed(home, failed))
    owner.kill()
    go.touch()
    eventually((home / "jobs" / failed / "1.outcome").exists)
    told = cli("list", "--summary", "--json").json
    assert told["states"] == {"failed": 1}
    assert [(group["error"], group["job_ids"]) for group in told["errors"]] == [
        ("RuntimeError: boom", [failed])
    ]
    other = cli("list", "--summary", "--json", "--label", "a=b").json
    assert (other["states"], other["errors"]) == ({}, [])
    for chosen in (("--error", "BOOM"), ("--exclude", "error=no such")):
        told = cli("list", *chosen, "--json").json
        assert [job["job_id"] for job in told["jobs"]] == [failed], chosen
    for chosen in (("--error", "no such"), ("--exclude", "error=boom")):
        assert cli("list", *chosen, "--json").json["jobs"] == [], chosen


def test_a_lost_attempt_waits_for_somebody_who_makes_another(owner, home, service, tmp_path):
    count = tmp_path / "count"
    job_id = owner.submit("count_and_sleep", path=count)
    eventually(count.exists)
    claimant = RunDirectory(home / "jobs" / job_id).claimant(1)
    owner.kill()
    os.kill(claimant.pid, signal.SIGKILL)
    # On a busy machine what was killed lives a moment longer, and so does its attempt.
    eventually(lambda: processes.start_time(claimant.pid) is None)
    for _ in range(2):  # who only looks changes nothing
        assert service.job(job_id).state is JobState.PENDING
        assert not (home / "jobs" / job_id / "1.outcome").exists()
    (job,) = finish(service, job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert count.read_text() == "xx"
    lost = [reason for reason in reasons(service, job_id) if "was lost" in reason]
    assert len(lost) == 1


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut short"])
def test_what_was_prepared_and_not_published(owner, home, service, go, tmp_path, whole):
    count = tmp_path / "count"
    job_id = owner.submit("count_and_sleep", path=count)
    eventually(count.exists)
    directory = RunDirectory(home / "jobs" / job_id)
    # The power goes between the file with the result and its link.
    header = {"state": "completed", "started": 1.0, "finished": 2.0, "summary": None}
    prepared = directory.prepare_outcome(1, header, encode_result({"energy": -1.5}))
    if not whole:
        os.truncate(prepared, os.path.getsize(prepared) - 1)
    owner.kill()
    os.kill(directory.claimant(1).pid, signal.SIGKILL)
    (job,) = finish(service, job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1 if whole else 2)
    assert count.read_text() == ("x" if whole else "xx")
    assert not whole or service.result(job_id) == {"energy": -1.5}


def test_a_crash_between_the_row_and_the_files(owner, running, home, service, go, tmp_path):
    jobs = [owner.submit("value", number=number) for number in range(3)]
    owner.kill()
    no_directory, no_spec, half_a_spec = (home / "jobs" / job_id for job_id in jobs)
    shutil.rmtree(no_directory)
    (no_spec / "spec").unlink()
    text = (half_a_spec / "spec").read_text()
    (half_a_spec / "spec").write_text(text[: len(text) // 2])
    assert {service.job(job_id).state for job_id in jobs} == {JobState.PENDING}
    go.touch()
    assert {job.state for job in finish(service, *jobs)} == {JobState.COMPLETED}
    assert [service.result(job_id) for job_id in jobs] == [{"value": str(n)} for n in range(3)]


def test_a_pending_job_of_a_dead_owner_is_cancelled(owner, running, home, service, go, tmp_path):
    job_id = owner.submit("mark", path=tmp_path / "ran")
    owner.kill()
    assert service.cancel(job_id) is True
    assert service.cancel(running) is True
    assert {job.state for job in finish(service, job_id, running)} == {JobState.CANCELLED}
    assert not (tmp_path / "ran").exists()


def test_the_jobs_of_a_living_owner_are_left_alone(owner, home, service, go, tmp_path):
    running = owner.submit("wait_for", path=go)
    queued = owner.submit("value")
    eventually(lambda: claimed(home, running))
    assert service.take_over() == []
    runner: Any = get_runner("local")
    assert runner.adopt(queued) is False
    assert runner.get_status(queued) is JobState.PENDING
    assert RunDirectory(home / "jobs" / queued).read_header()["owner"]["pid"] == owner.process.pid


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "own", "own", "end", "die", "look"]),
            st.integers(0, 3),
            st.integers(0, 4),
        ),
        max_size=25,
    )
)
def test_the_jobs_that_nobody_follows_are_known_by_events(steps):
    """They are those of all unfinished jobs whose owner has died, or has let them go."""
    owners: list[dict[str, Any]] = [{"pid": pid} for pid in range(4)] + [{}]
    dead = set()
    with tempfile.TemporaryDirectory() as home, JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        host = Host(Path(home))
        host.is_orphan = lambda owner: not owner or owner["pid"] in dead  # type: ignore[method-assign, assignment] # processes that die
        recorder: Any = SimpleNamespace(store=store)
        nobody: Any = None
        looking = Recovery(recorder, nobody, lambda _: False, Path(home), host=host)
        for count, (step, job, owner) in enumerate([*steps, ("look", 0, 0)]):
            job_id = f"{job}"
            known = store.get_many([job_id])
            if step == "submit" and not known:
                terms: Any = {"recipe": "r", "engine": "e", "spec_hash": "h", "specification": "{}"}
                new = NewJob(job_id=job_id, created_at=1.0, owner=owners[owner], **terms)
                store.insert([new])
            elif step == "own" and known:
                store.set_owner([job_id], owners[owner], "taken over", 2.0)
            elif step == "end" and known:
                store.apply([Change(job_id=job_id, state=JobState.CANCELLED, at=count + 3.0)])
            elif step == "die":
                dead.add(owner)
            elif step == "look":
                left = [one.job_id for one in store.unfinished() if host.is_orphan(one.owner)]
                assert sorted(one.job_id for one in looking.left()) == sorted(left)


def test_jobs_that_somebody_follows_are_read_once(service, home, monkeypatch):
    """A server looks for jobs that nobody follows every two seconds."""
    alive = dict(vars(processes.own_identity()))
    dead = {**alive, "start_time": 1}
    terms: Any = {"recipe": "r", "engine": "local", "spec_hash": "h", "specification": "{}"}
    jobs = [NewJob(job_id=generate_job_id(), created_at=1.0, **terms) for _ in range(100)]
    with JobStore(service.config.database_url) as store:
        store.insert([attrs.evolve(job, owner=alive) for job in jobs])
        service.open()
        assert service.abandoned() == set()
        queries = []
        read = Snapshot.rows

        def rows(snapshot, query, parameters=None, **more):
            found = list(read(snapshot, query, parameters, **more))
            queries.extend((row, query) for row in found)
            return iter(found)

        monkeypatch.setattr(Snapshot, "rows", rows)
        assert service.abandoned() == set()
        assert len(queries) == 1, queries  # the last event
        queries.clear()
        store.set_owner([jobs[7].job_id], dead, "its owner has died", 2.0)
        queries.clear()
        assert [job.job_id for job in service._recovery.left()] == [jobs[7].job_id]
        queries.clear()
        assert service.abandoned() == {"local"}
        assert len(queries) == 2, queries  # the last event, and the job


def test_what_outlived_its_owner_has_a_worker(owner, running, home, service, go):
    """No more run at once than there are workers: programs have the memory and cores for that."""
    queued = owner.submit("value")
    owner.kill()
    assert set(service.take_over()) == {running, queued}
    new = service.submit(lab_job("value")).job_id
    time.sleep(2)
    assert not claimed(home, queued)
    assert not claimed(home, new)
    go.touch()
    assert {job.state for job in finish(service, running, queued, new)} == {JobState.COMPLETED}


def test_a_journal_that_cannot_be_read_keeps_back_its_jobs_alone(
    owner, running, home, service, go, cli, caplog
):
    supervisor = RunDirectory(home / "jobs" / running).claimant(1)
    journal = home / "jobs" / ".journals" / f"{supervisor.lock}.00000000"
    journal.mkdir(parents=True)
    owner.kill()
    os.kill(supervisor.pid, signal.SIGKILL)
    assert service.take_over() == [running]
    # The one worker that there is runs what comes later.
    new = [service.submit(lab_job("value")).job_id for _ in range(3)]
    assert {job.state for job in finish(service, *new)} == {JobState.COMPLETED}
    time.sleep(5)
    why = f"the journal {journal}, which may hold outcomes, cannot be read (Is a directory)"
    job = service.job(running)
    assert not job.state.is_terminal()
    assert job.reason.startswith(f"cannot go on, trying again: {why}")
    # The job, the service and its engine log it once each.
    assert caplog.text.count(why) <= 3
    checks = cli("doctor", "--json").json["checks"]
    (journals,) = [each for each in checks if each["name"] == "journals"]
    assert (journals["state"], journals["message"]) == ("error", why)
    assert "was removed" in journals["remedy"]
    go.touch()
    journal.rmdir()
    assert finish(service, running)[0].state is JobState.COMPLETED


def test_what_nobody_can_take_over_says_why(owner, running, service, go, tmp_path, monkeypatch):
    queued = owner.submit("mark", path=tmp_path / "count")
    owner.kill()
    store, written = service._recorder.store, []
    write = store.apply

    def missing(engine):
        raise EngineUnavailable(f"{engine} is not installed here")

    with monkeypatch.context() as patch:
        patch.setattr(service._recovery, "_runner_of", missing)
        patch.setattr(store, "apply", lambda changes: written.append(changes) or write(changes))
        assert service.take_over() == []
    why = "cannot be taken over by its engine 'local': local is not installed here"
    assert [service.job(job_id).reason for job_id in (running, queued)] == [why, why]
    told = [[change.job_id for change in changes if change.reason == why] for changes in written]
    assert [set(job_ids) for job_ids in told if job_ids] == [{running, queued}]  # at once
    assert set(service.take_over()) == {running, queued}
    assert service.job(running).reason.startswith("taken over by the process")
    go.touch()
    assert {job.state for job in finish(service, running, queued)} == {JobState.COMPLETED}


def test_closing_lets_go_of_what_was_taken_over(owner, running, home, lab, go, tmp_path):
    queued = owner.submit("mark", path=tmp_path / "count")
    owner.kill()
    with JobService() as first:
        assert set(first.take_over()) == {running, queued}
        assert first.take_over() == []
        begun = time.monotonic()
    assert time.monotonic() - begun < 30
    with JobService() as second:
        assert second.job(running).state is JobState.RUNNING
        go.touch()
        assert {job.state for job in finish(second, running, queued)} == {JobState.COMPLETED}
    assert (tmp_path / "count").read_text() == "x"


def test_a_service_that_ends_while_it_takes_over_owns_nothing(
    owner, running, home, lab, go, monkeypatch
):
    owner.kill()
    adopted, ended = threading.Event(), threading.Event()

    def adopt(runner, *job):
        taken = EngineRunner.adopt(runner, *job)
        adopted.set()
        ended.wait(60)
        return taken

    monkeypatch.setattr(LocalRunner, "adopt", adopt)
    late = JobService()
    thread = threading.Thread(target=late.take_over)
    thread.start()
    assert adopted.wait(60)
    late.close()
    ended.set()
    thread.join()
    with pytest.raises(StoreError, match="has been closed"):
        late.job(running)
    with JobService() as service:
        assert service.take_over() == [running]
        go.touch()
        assert finish(service, running)[0].state is JobState.COMPLETED


def test_two_that_ask_at_a_time_adopt_it_once(owner, running, home, lab, go, tmp_path):
    jobs = [owner.submit("mark", path=tmp_path / "count") for _ in range(5)]
    owner.kill()
    go.touch()
    code = textwrap.dedent("""
        import sys, time
        from crystalmath.quacc import get_runner
        runner = get_runner("local")
        while not all(runner.get_status(job).is_terminal() for job in sys.argv[1:]):
            time.sleep(0.01)
        print([runner.get_status(job).value for job in sys.argv[1:]])
    """)
    askers = [
        subprocess.Popen([sys.executable, "-c", code, *jobs], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [asker.communicate(timeout=60)[0] for asker in askers]
    assert answers == [f"{['completed'] * 5}\n"] * 2
    assert (tmp_path / "count").read_text() == "x" * 5


def test_killed_at_any_moment_of_a_submission(home, lab, tmp_path):
    """Whatever is on record then ends; what was answered is on record."""
    answered = []
    for delay in (0.0, 0.001, 0.003, 0.01, 0.03, 0.1):
        owner = Owner(home)
        answered.append(owner.submit("mark", path=tmp_path / "count"))
        owner.process.stdin.write(f"mark path={tmp_path / 'count'}\n" * 5)
        owner.process.stdin.flush()
        time.sleep(delay)
        owner.kill()
    with JobService() as service:
        ids = [job.job_id for job in service.jobs()]
        assert set(answered) <= set(ids)
        jobs = finish(service, *ids)
    assert {job.state for job in jobs} == {JobState.COMPLETED}
    assert (tmp_path / "count").read_text() == "x" * len(ids)


def test_what_has_ended_is_forgotten(owner, home, lab, go, monkeypatch):
    monkeypatch.setattr(recovery, "MOST", 0)
    first = owner.submit("wait_for", path=go)
    eventually(lambda: claimed(home, first))
    owner.kill()
    with JobService() as service:
        assert service.take_over() == [first]
        go.touch()
        finish(service, first)
        go.unlink()
        another = Owner(home)
        try:
            left = [another.submit("wait_for", path=go) for _ in range(2)]
        finally:
            another.kill()
        assert set(service.take_over()) == set(left)
        assert service._recovery._taken == set(left)
        go.touch()
        finish(service, *left)


def test_damaged_files_of_one_job_hinder_no_other(owner, running, home, service, go, tmp_path):
    jobs = [owner.submit("value", number=number) for number in range(4)]
    owner.kill()
    empty, no_object, newer, _ = (home / "jobs" / job_id / "spec" for job_id in jobs)
    empty.write_text("")
    no_object.write_text("{}")
    newer.write_text('{"format": 99}\n{}')
    assert len(service.jobs()) == 5
    go.touch()
    # What is on record is written again.
    assert {job.state for job in finish(service, *jobs, running)} == {JobState.COMPLETED}


def test_a_damaged_claim_and_handle(owner, running, home, service, go):
    owner.kill()
    (home / "jobs" / running / "1.handle").write_text("")
    assert service.job(running).state is JobState.RUNNING
    go.touch()
    (job,) = finish(service, running)
    assert job.state is JobState.COMPLETED


def test_an_owner_that_dies_while_somebody_waits(owner, running, home, service, go):
    queued = owner.submit("value")
    dies = threading.Timer(1.0, owner.kill)
    dies.start()
    threading.Timer(2.0, go.touch).start()
    assert {job.state for job in finish(service, running, queued)} == {JobState.COMPLETED}
    dies.join()


def test_a_cancel_that_is_on_record_and_not_in_the_files(
    owner, running, home, service, go, tmp_path
):
    job_id = owner.submit("mark", path=tmp_path / "ran")
    owner.kill()
    with JobStore(service.config.database_url) as store:
        store.note_cancel([job_id], time.time())
    assert {job.job_id: job.state for job in service.wait([job_id], 60)}[job_id] is (
        JobState.CANCELLED
    )
    assert not (tmp_path / "ran").exists()


def test_a_cancel_before_the_run_directory_is_there(home, lab, tmp_path, monkeypatch):
    """Another process cancels between the commit and the files: it is heard all the same."""
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with JobService() as first, JobService() as second:
        runner = first._runners.get("local")
        start = runner.start

        def cancelled_first(spec, document=None):
            second._runners._runners.clear()
            assert second.cancel(spec.job_id) is True
            start(spec, document)

        monkeypatch.setattr(runner, "start", cancelled_first)
        parameters = {"path": str(tmp_path / "ran")}
        job = first.submit(lab_job("mark", parameters=parameters, engine="local"))
        (last,) = finish(first, job.job_id)
        assert last.state is JobState.CANCELLED
    assert not (tmp_path / "ran").exists()


def test_a_running_job_whose_directory_was_removed(owner, home, service, go):
    running = owner.submit("talk", path=go)
    with JobStore(service.config.database_url) as store:
        eventually(lambda: store.get(running).state is JobState.RUNNING)
    # Its recipe runs: before, it would have failed without what is in the directory.
    log = home / "jobs" / running / "1.log"
    eventually(lambda: log.exists() and "line 2" in log.read_text())
    owner.kill()
    shutil.rmtree(home / "jobs" / running)
    # Who only looks cannot know whether the folder comes back, and ends no processes.
    assert service.job(running).state is JobState.RUNNING
    assert processes.marked("CRYSTALMATH_ATTEMPT", f"{running}.1")
    (job,) = finish(service, running)
    assert processes.marked("CRYSTALMATH_ATTEMPT", f"{running}.1") == []
    assert job.state is JobState.FAILED
    assert "was removed" in job.error
