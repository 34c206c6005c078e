"""What the conformance kit does not ask of our engines, because it is core's own."""

import os

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath import processes
from crystalmath.engines import driver
from crystalmath.errors import InvalidJob
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engines import close_all

pytestmark = pytest.mark.processes

AL = bulk("Al", a=4.0, cubic=True)


@pytest.fixture(params=["local", "parsl"], scope="module")
def engine(request):
    if request.param == "parsl":
        pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")
    return request.param


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory, engine):
    return tmp_path_factory.mktemp(f"home-{engine}")


@pytest.fixture(scope="module")
def _ended(engine):
    yield
    close_all()
    os.environ.pop("CRYSTALMATH_HOME", None)


@pytest.fixture
def runner(engine, shared_home, lab, monkeypatch, _ended):
    """One engine for all tests of it: a warm one, as people have it."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(shared_home))
    return get_runner(engine)


def finish(runner, job_id):
    eventually(lambda: runner.get_status(job_id).is_terminal(), message="the job did not finish")
    return runner.get_status(job_id), runner.get_result(job_id)


def test_a_job_that_prints_nothing_has_no_log(runner, shared_home):
    job_id = runner.submit("lab_recipes.value", AL, "local")
    assert finish(runner, job_id) == (JobState.COMPLETED, {"value": 1})
    folder = shared_home / "jobs" / job_id
    # What was published has its draft's name, too, for a moment.
    eventually(lambda: not any(name.startswith(".") for name in os.listdir(folder)))
    assert sorted(os.listdir(folder)) == ["1.claim", "1.outcome", "1.work", "spec"]
    assert (shared_home / "jobs" / job_id / "spec").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["vasp._base.run_and_summarize", "mlip._base.freezeargs"])
def test_a_helper_of_quaccs_is_no_recipe(runner, name):
    with pytest.raises(InvalidJob, match=f"{name} is no recipe"):
        runner.submit(f"quacc.recipes.{name}", AL)


def test_what_has_ended_is_told_although_memory_keeps_only_the_last(runner, monkeypatch):
    monkeypatch.setattr(driver, "FINISHED", 2)
    jobs = [runner.submit("lab_recipes.value", AL, "local", number=i) for i in range(5)]
    ends = [finish(runner, job_id) for job_id in jobs]
    assert ends == [(JobState.COMPLETED, {"value": i}) for i in range(5)]
    assert [runner.get_status(job_id).value for job_id in jobs] == ["completed"] * 5
    assert [runner.cancel(job_id) for job_id in jobs] == [False] * 5
    assert sum(job_id in runner._driver._finished for job_id in jobs) <= 2
    assert runner.get_result(jobs[0]) == {"value": 0}


def test_what_a_lost_attempt_has_forked_is_gone_before_the_next_one(runner, tmp_path):
    pid = str(tmp_path / "pid")
    job_id = runner.submit("lab_recipes.fork_and_kill_supervisor", AL, "local", pid=pid)
    assert finish(runner, job_id) == (JobState.COMPLETED, {"child is alive": False})


def test_a_supervisor_that_is_killed_costs_one_attempt(runner, tmp_path):
    count = tmp_path / "count"
    job_id = runner.submit("lab_recipes.kill_supervisor", AL, "local", count=str(count))
    assert finish(runner, job_id) == (JobState.COMPLETED, {"runs": 2})
    assert processes.marked("CRYSTALMATH_ATTEMPT", f"{job_id}.1") == []
