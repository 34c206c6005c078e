"""Small jobs that the engine has as one attempt, of which each ends by itself."""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import psutil
import pytest
from attrs import evolve

import conftest
from crystalmath.archive.writing import write_archive
from crystalmath.engines import handover
from crystalmath.engines.local import LocalRunner
from crystalmath.errors import ConfigError
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState, Reference
from crystalmath.service import JobService
from crystalmath.worker.chains import close_idle
from ends import lab_job

pytestmark = pytest.mark.processes

COUNT = 8
#: How long a job may take to begin or to end, also where Parsl starts a new pool first, in seconds.
JOB_S = 900.0
#: Owns such jobs until it is killed.
OWNER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from test_parcels import JobService, LocalRunner, evolve, pack

LocalRunner.capabilities = evolve(LocalRunner.capabilities, max_queued=1)
with JobService() as service:
    print(*pack(service, *map(Path, sys.argv[3:])), flush=True)
    sys.stdin.read()
"""


def eventually(condition, timeout=JOB_S):
    return conftest.eventually(condition, timeout)


def submit(service, folder, names, engine="local", **more):
    paths = [{"path": f"{folder}/{name}"} for name in names]
    asked = [lab_job("wait_for", parameters=path, engine=engine, **more) for path in paths]
    return [job.job_id for job in service.submit_many(asked)]


def pack(service, home, folder, engine="local", busy=None):
    """Submit jobs for which the engine has room only once another one has ended.

    That is `busy`, behind which that other one is queued, or that other one itself.
    """
    (first,) = submit(service, folder, ["first"], engine)
    if busy is None:
        runs(service, first)
    jobs = submit(service, folder, range(COUNT), engine)
    eventually(lambda: all((home / "jobs" / each / "spec").exists() for each in jobs))
    (folder / ("first" if busy is None else "busy")).touch()
    eventually((home / "jobs" / jobs[0] / "1.parcel").exists)
    assert len(RunDirectory(home / "jobs" / jobs[0]).parcel(1)) == COUNT - 1
    return jobs


@pytest.fixture
def packing(home, lab, monkeypatch):
    (home / "config.toml").write_text(
        "[engines.local]\nworkers = 1\nparcel = 50\n[engines.parsl]\nworkers = 1\nparcel = 50\n"
    )
    monkeypatch.setattr(handover, "PROBE_S", 0.5)
    monkeypatch.setattr(LocalRunner, "capabilities", evolve(LocalRunner.capabilities, max_queued=1))


@pytest.fixture
def service(packing):
    with JobService() as service:
        yield service


@pytest.fixture(params=["local", "parsl"])
def engine(request, monkeypatch):
    """Name an engine that takes one attempt at a time."""
    if request.param == "parsl":
        plugin = pytest.importorskip("crystalmath_engine_parsl.runner")
        one = evolve(plugin.ParslRunner.capabilities, max_queued=1)
        monkeypatch.setattr(plugin.ParslRunner, "capabilities", one)
    return request.param


def finish(folder, names=range(COUNT)):
    for name in names:
        (folder / str(name)).touch()


def states(service, jobs):
    return [service.job(each).state for each in jobs]


def ended(service, jobs):
    eventually(lambda: all(state.is_terminal() for state in states(service, jobs)))
    return [service.job(each) for each in jobs]


def runs(service, job):
    eventually(lambda: service.job(job).state is JobState.RUNNING)


def supervisor_of(home, job):
    return eventually(lambda: RunDirectory(home / "jobs" / job).claimant(1)).pid


@pytest.mark.parametrize("setting", ["", "parcel = 50"])
def test_two_hundred_small_jobs_come_to_their_results(home, lab, setting):
    (home / "config.toml").write_text(f"[engines.local]\nworkers = 2\n{setting}\n")
    asked = [lab_job("value", parameters={"number": number}) for number in range(200)]
    with JobService() as service:
        ended(service, [service.submit(asked[0]).job_id])  # which measures the recipe
        jobs = [job.job_id for job in service.submit_many(asked)]
        ended(service, jobs)
        assert [service.result(each)["value"] for each in jobs] == list(range(200))
        assert {service.job(each).attempt for each in jobs} == {1}
    packed = [RunDirectory(path.parent).parcel(1) for path in home.glob("jobs/*/1.parcel")]
    assert packed
    assert max(map(len, packed)) < 50


@pytest.mark.parametrize(("said", "sizes"), [(1, []), (3, [3, 3, 2]), (None, [COUNT])])
def test_a_submission_says_how_many_go_together(service, home, tmp_path, said, sizes):
    (first,) = submit(service, tmp_path, ["first"])
    runs(service, first)
    jobs = submit(service, tmp_path, range(COUNT), parcel=said)
    assert {service.job(each).parcel for each in jobs} == {said}
    eventually(lambda: all((home / "jobs" / each / "spec").exists() for each in jobs))
    finish(tmp_path, ["first", *range(COUNT)])
    assert {job.state for job in ended(service, jobs)} == {JobState.COMPLETED}
    packed = sorted(home.glob("jobs/*/1.parcel"), key=lambda path: path.stat().st_mtime_ns)
    assert [len(RunDirectory(path.parent).parcel(1)) + 1 for path in packed] == sizes


def test_a_parcel_without_jobs_is_refused(home, lab):
    (home / "config.toml").write_text("[engines.local]\nparcel = 0\n")
    with JobService() as service, pytest.raises(ConfigError, match=r"parcel must be .*, not 0"):
        service.submit(lab_job("value"))


def test_a_parcel_is_refused_where_it_has_no_effect(home, lab):
    pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")
    (home / "config.toml").write_text("""[clusters.big]\nengine = "parsl"\nscheduler = "slurm"\n""")
    alone = {"walltime_s": 60}, {"cluster": "big"}
    with JobService() as service:
        for more, why in zip(alone, ["a walltime", "the cluster 'big'"], strict=True):
            for parcel in (3, 1):
                asked = lab_job("value", parcel=parcel, **more)
                said = [one.message for one in service.check(asked).errors]
                assert len(said) == (parcel == 3), said
                assert all("'parcel' is 3, and a job " in one and why in one for one in said)


def test_each_of_a_parcel_is_seen_to_begin_and_to_end(service, home, tmp_path):
    jobs = pack(service, home, tmp_path)
    for number, job in enumerate(jobs):
        runs(service, job)
        assert {job.state for job in ended(service, jobs[:number])} <= {JobState.COMPLETED}
        assert set(states(service, jobs[number + 1 :])) <= {JobState.PENDING}
        finish(tmp_path, [number])
    for number, job in enumerate(ended(service, jobs)):
        assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
        assert service.result(job.job_id) == {"saw": f"{tmp_path}/{number}"}


def test_the_outcomes_of_a_parcel_share_a_journal_and_travel_alone(service, home, tmp_path):
    jobs = pack(service, home, tmp_path)
    finish(tmp_path)
    ended(service, jobs)
    outcomes = [home / "jobs" / each / "1.outcome" for each in jobs]
    assert len({path.stat().st_ino for path in outcomes}) == 1
    collections.deque(write_archive(service, tmp_path / "one.zip", jobs[:1]), 0)
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        (outcome,) = (archive.read(name) for name in archive.namelist() if "outcome" in name)
    assert json.loads(outcome.splitlines()[0])["state"] == "completed"
    assert not any(each.encode() in outcome for each in jobs[1:])
    with outcomes[1].open("r+b") as file:  # a record of the journal is damaged
        file.seek(file.read().index(jobs[1].encode()) + 100)
        file.write(b"\0")
    written = []

    def write():
        written.append((yield from write_archive(service, tmp_path / "all.zip", jobs)))

    collections.deque(write(), 0)
    (said,) = written[0].left_out
    assert said.startswith(f"{jobs[1]}/1.outcome: ")
    assert "is a journal without the outcome" in said


def test_a_killed_supervisor_loses_none_that_it_has_told_to_have_ended(
    service, home, tmp_path, cli
):
    jobs = pack(service, home, tmp_path)
    for number, job in enumerate(jobs[:3]):
        runs(service, job)
        finish(tmp_path, [number])
    runs(service, jobs[3])
    ended(service, jobs[:3])
    os.kill(supervisor_of(home, jobs[3]), signal.SIGKILL)
    finish(tmp_path)
    attempts = [job.attempt for job in ended(service, jobs)]
    assert attempts[:3] == [1, 1, 1]
    assert [service.result(each)["saw"] for each in jobs] == [
        f"{tmp_path}/{number}" for number in range(COUNT)
    ]
    service.close()
    outcome = home / "jobs" / jobs[0] / "1.outcome"
    outcome.rename(home / "jobs" / ".journals" / "left.1")  # as a power cut leaves it
    for path in home.glob("jobs.sqlite*"):
        path.unlink()
    cli("doctor", "--rebuild", "--json")
    states = [job["status"] for job in cli("list", "--json").json["jobs"]]
    assert states == ["completed"] * (COUNT + 1)


def test_one_that_is_cancelled_neither_stops_nor_delays_the_others(service, home, tmp_path):
    jobs = pack(service, home, tmp_path)
    runs(service, jobs[0])
    service.cancel(jobs[3])
    eventually(lambda: service.job(jobs[3]).state is JobState.CANCELLED)
    assert service.job(jobs[0]).state is JobState.RUNNING
    supervisor = supervisor_of(home, jobs[0])
    service.cancel(jobs[0])
    runs(service, jobs[1])
    assert service.job(jobs[0]).state is JobState.CANCELLED
    assert supervisor_of(home, jobs[1]) == supervisor
    finish(tmp_path)
    done = [job.state for job in ended(service, jobs)]
    assert [number for number, state in enumerate(done) if state is JobState.CANCELLED] == [0, 3]
    assert done.count(JobState.COMPLETED) == COUNT - 2


def test_jobs_that_wait_for_one_of_a_parcel_are_packed_once_it_has_ended(service, home, tmp_path):
    jobs = pack(service, home, tmp_path)
    after = submit(service, tmp_path, range(COUNT), after=[jobs[0]])
    asked = {"path": Reference(jobs[1])["saw"]}
    readers = [
        lab_job("wait_for", parameters=asked, after=[each], engine="local")
        for each in (jobs[-1], after[0])
    ]
    inside, outside = (job.job_id for job in service.submit_many(readers))
    runs(service, jobs[0])
    finish(tmp_path, range(2))
    runs(service, jobs[2])
    assert set(states(service, [*after, inside, outside])) == {JobState.PENDING}
    eventually(lambda: all((home / "jobs" / each / "spec").exists() for each in after))
    finish(tmp_path)
    done = ended(service, [*jobs, *after, inside, outside])
    assert {(job.state, job.attempt) for job in done} == {(JobState.COMPLETED, 1)}
    assert service.result(inside) == service.result(outside) == {"saw": f"{tmp_path}/1"}
    directories = [RunDirectory(path.parent) for path in home.glob("jobs/*/1.parcel")]
    packed = [{Path(each.path).name, *dict(each.parcel(1))} for each in directories]
    assert any(set(after) <= each for each in packed)  # a reader may have joined them


def test_a_cancelled_one_of_a_parcel_holds_up_only_those_that_wait_for_it(service, home, tmp_path):
    jobs = pack(service, home, tmp_path)
    runs(service, jobs[0])
    (waits,) = submit(service, tmp_path, ["child"], after=[jobs[1]])
    (other,) = submit(service, tmp_path, ["child"], after=[jobs[2]])
    service.cancel(jobs[1])
    finish(tmp_path, [*range(COUNT), "child"])
    assert [job.state for job in ended(service, [other])] == [JobState.COMPLETED]
    assert "was cancelled; it starts once" in service.job(waits).reason
    assert service.job(waits).state is JobState.PENDING


def test_a_queued_parcel_that_is_cancelled_is_released(service, home, tmp_path, monkeypatch):
    two = evolve(LocalRunner.capabilities, max_queued=2)
    monkeypatch.setattr(LocalRunner, "capabilities", two)
    (busy,) = submit(service, tmp_path, ["busy"])
    runs(service, busy)
    jobs = pack(service, home, tmp_path, busy=busy)
    engine = service._runners.get("local")
    eventually(lambda: f"{jobs[0]}.1" in engine._queued)
    for job in jobs[1:]:
        service.cancel(job)
    assert {job.state for job in ended(service, jobs[1:])} == {JobState.CANCELLED}
    assert engine._queued == {f"{jobs[0]}.1"}
    service.cancel(jobs[0])
    assert [job.state for job in ended(service, jobs[:1])] == [JobState.CANCELLED]
    eventually(lambda: not engine._queued)


def test_of_a_killed_supervisor_only_what_had_begun_counts_an_attempt(
    service, home, tmp_path, engine
):
    jobs = pack(service, home, tmp_path, engine)
    runs(service, jobs[0])
    finish(tmp_path, [0])
    ended(service, jobs[:1])  # what the supervisor has not published yet is lost with it
    runs(service, jobs[1])
    os.kill(supervisor_of(home, jobs[1]), signal.SIGKILL)
    eventually(lambda: RunDirectory(home / "jobs" / jobs[1]).decided(1))  # else it may end well
    finish(tmp_path)
    done = ended(service, jobs)
    assert [job.state for job in done] == [JobState.COMPLETED] * COUNT
    assert [job.attempt for job in done] == [1, 2, *[1] * (COUNT - 2)]


def test_of_a_killed_worker_the_others_are_launched_again(service, home, tmp_path):
    plugin = pytest.importorskip("crystalmath_engine_parsl.runner")
    one = evolve(plugin.ParslRunner.capabilities, max_queued=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin.ParslRunner, "capabilities", one)
        jobs = pack(service, home, tmp_path, "parsl")
    runs(service, jobs[0])
    supervisor = supervisor_of(home, jobs[0])
    above = psutil.Process(supervisor).parents()
    worker = next(each for each in above if "crystalmath.worker.supervisor" not in each.cmdline())
    worker.kill()
    eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    finish(tmp_path)
    done = ended(service, jobs)
    assert [(job.state, job.attempt) for job in done] == [(JobState.COMPLETED, 1)] * COUNT


def test_a_supervisor_begins_no_other_once_its_chain_is_closed(service, home, tmp_path):
    jobs = pack(service, home, tmp_path)
    runs(service, jobs[0])
    supervisor = supervisor_of(home, jobs[0])
    close_idle()  # as an engine does that is closed
    finish(tmp_path)
    done = ended(service, jobs)
    assert [(job.state, job.attempt) for job in done] == [(JobState.COMPLETED, 1)] * COUNT
    assert [supervisor_of(home, each) == supervisor for each in jobs] == [True] + [False] * 7


def test_one_that_takes_long_holds_up_the_others_of_its_parcel_for_a_while_only(
    service, home, tmp_path, monkeypatch
):
    monkeypatch.setattr(handover, "HELD_UP_S", 1.0)
    jobs = pack(service, home, tmp_path)
    monkeypatch.setattr(LocalRunner, "capabilities", evolve(LocalRunner.capabilities, max_queued=9))
    runs(service, jobs[0])
    finish(tmp_path, range(1, COUNT))
    engine = service._runners.get("local")
    # another worker, that has room
    other = threading.Thread(target=engine._work, args=(engine._queue,), daemon=True)
    engine._threads.append(other)  # ends with the engine, too
    other.start()
    done = ended(service, jobs[1:])
    assert {(job.state, job.attempt) for job in done} == {(JobState.COMPLETED, 1)}
    assert service.job(jobs[0]).state is JobState.RUNNING
    finish(tmp_path)
    (slow,) = ended(service, jobs[:1])
    assert (slow.state, slow.attempt) == (JobState.COMPLETED, 1)


def test_a_worker_behind_worker_init_begins_no_other_once_its_engine_has_ended(
    packing, home, tmp_path
):
    config = home / "config.toml"
    told = '[clusters.here]\nengine = "local"\nscheduler = "local"\nworker_init = "true"\n'
    config.write_text(config.read_text() + told)
    with JobService() as service:
        (first,) = submit(service, tmp_path, ["first"], cluster="here")
        runs(service, first)
        jobs = submit(service, tmp_path, range(COUNT), cluster="here")
        directories = [RunDirectory(home / "jobs" / each) for each in jobs]
        eventually(lambda: all(each.has("spec") for each in directories))
        (tmp_path / "first").touch()
        runs(service, jobs[0])
        (worker,) = (
            each
            for each in psutil.process_iter(["cmdline"])
            if directories[0].path in (each.info["cmdline"] or ())
        )
        service.close(cancel=False)
    finish(tmp_path)
    worker.wait(JOB_S)
    assert [each.decided(1) for each in directories] == [True] + [False] * (COUNT - 1)


def test_what_a_killed_owner_had_packed_goes_on(packing, home, tmp_path):
    here = Path(__file__).parent
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(here.parent), str(here), str(home), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    jobs = owner.stdout.readline().split()
    directories = [RunDirectory(home / "jobs" / each) for each in jobs]
    eventually(lambda: directories[0].claimed(1))
    finish(tmp_path, [0])
    eventually(lambda: directories[1].claimed(1))
    owner.kill()
    owner.communicate()
    with JobService() as service:
        service.take_over()
        finish(tmp_path)
        done = ended(service, jobs)
    assert [(job.state, job.attempt) for job in done] == [(JobState.COMPLETED, 1)] * COUNT
