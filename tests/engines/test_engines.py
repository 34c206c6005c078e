"""What every engine of ours must do, on the real thing."""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath import processes
from crystalmath.errors import InvalidJob
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engines import close_all

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


def finish(runner, job_id, timeout=60.0):
    eventually(lambda: runner.get_status(job_id).is_terminal(), timeout, "the job did not finish")
    return runner.get_status(job_id), runner.get_result(job_id)


def run(runner, recipe, /, **parameters):
    return finish(runner, runner.submit(f"lab_recipes.{recipe}", AL, "local", **parameters))


def test_relaxes_as_quacc_does(runner, tmp_path, monkeypatch):
    job_id = runner.submit("quacc.recipes.emt.core.relax_job", AL, "local", relax_cell=True)
    state, result = finish(runner, job_id)
    assert state is JobState.completed
    monkeypatch.chdir(tmp_path)
    direct = quacc_relax(AL)
    assert abs(result["results"]["energy"] - direct["results"]["energy"]) < 1e-9


def quacc_relax(atoms):
    from ase.calculators.emt import EMT
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    # What the recipe does, by ASE alone: importing quacc here would cost seconds.
    atoms = atoms.copy()
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=1000)
    return {"results": {"energy": atoms.get_potential_energy()}}


def test_what_is_no_dict_comes_as_value(runner):
    assert run(runner, "value", number=7) == (JobState.completed, {"value": 7})


def test_the_same_object_every_time(runner, engine):
    assert get_runner(engine) is runner


def test_hundred_jobs_at_once(runner):
    ids = [runner.submit("lab_recipes.value", AL, "local", number=n) for n in range(100)]
    assert len(set(ids)) == 100
    assert all(uuid.UUID(job_id).version == 4 for job_id in ids)
    while not all(runner.get_status(job_id).is_terminal() for job_id in ids):
        time.sleep(0.01)
    assert [runner.get_result(job_id) for job_id in ids] == [{"value": n} for n in range(100)]


def test_submits_from_several_threads(runner):
    ids = []
    threads = [
        threading.Thread(target=lambda: ids.append(runner.submit("lab_recipes.value", AL, "local")))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 10
    assert {finish(runner, job_id)[0] for job_id in ids} == {JobState.completed}


def test_a_failure_says_why(runner):
    state, result = run(runner, "fail", message="the basis is überfüllt")
    assert state is JobState.failed
    assert result["error"] == "RuntimeError: the basis is überfüllt"
    assert "in fail" in result["traceback"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("exit_quietly", "sys.exit(3)"),
        ("exit_hard", "exited with code 7"),
        ("kill_self", "signal 9 (SIGKILL)"),
        ("unwritable", "deep"),
    ],
)
def test_a_recipe_that_ends_the_process_fails(runner, recipe, said):
    state, result = run(runner, recipe)
    assert state is JobState.failed
    assert said in result["error"]


def test_the_end_of_the_log_tells_of_a_hard_exit(runner):
    assert "about to go" in run(runner, "exit_hard")[1]["error"]


def test_a_forked_child_that_comes_back_does_not_speak_for_the_job(runner):
    state, result = run(runner, "fork_and_return")
    assert (state, result) == (JobState.completed, {"child": False})


def test_much_output_goes_to_the_log(runner, shared_home):
    job_id = runner.submit("lab_recipes.print_much", AL, "local")
    assert finish(runner, job_id)[0] is JobState.completed
    log = shared_home / "jobs" / job_id / "1.log"
    assert log.stat().st_size > 3 * 1024**2 - 100
    assert log.read_text().endswith("the last line\n")


def test_a_job_that_prints_nothing_has_no_log(runner, shared_home):
    job_id = runner.submit("lab_recipes.value", AL, "local")
    finish(runner, job_id)
    files = sorted(path.name for path in (shared_home / "jobs" / job_id).iterdir())
    assert files == ["1.claim", "1.outcome", "1.work", "spec"]
    assert (shared_home / "jobs" / job_id / "spec").stat().st_mode & 0o777 == 0o600


def test_cancel_ends_the_whole_tree_before_it_says_so(runner, tmp_path):
    pids = tmp_path / "pids"
    job_id = runner.submit("lab_recipes.sleeping_grandchild", AL, "local", pids=str(pids))
    tree = eventually(lambda: pids.exists() and [int(pid) for pid in pids.read_text().split()])
    started = {pid: processes.start_time(pid) for pid in tree}
    assert None not in started.values()
    asked = time.monotonic()
    assert runner.cancel(job_id) is True
    while runner.get_status(job_id) is not JobState.cancelled:
        assert time.monotonic() - asked < 5
        time.sleep(0.01)
    assert [pid for pid, start in started.items() if processes.is_alive(pid, start)] == []
    assert processes.marked("CRYSTALMATH_ATTEMPT", f"{job_id}.1") == []
    assert runner.get_result(job_id) == {"error": "cancelled"}
    # The worker that it ran on takes the next one.
    assert run(runner, "value")[0] is JobState.completed


def test_a_pending_job_that_is_cancelled_never_starts(runner, tmp_path, engine):
    cores = len(os.sched_getaffinity(0))
    fillers = [runner.submit("lab_recipes.long_sleep", AL, "local") for _ in range(cores)]
    for job_id in fillers:
        eventually(lambda job_id=job_id: runner.get_status(job_id) is JobState.running)
    mark = tmp_path / "ran"
    job_id = runner.submit("lab_recipes.touch", AL, "local", path=str(mark))
    time.sleep(0.3)
    assert runner.get_status(job_id) is JobState.pending
    assert runner.cancel(job_id) is True
    assert finish(runner, job_id, 5.0)[0] is JobState.cancelled
    for filler in fillers:
        assert runner.cancel(filler) is True
    for filler in fillers:
        assert finish(runner, filler, 10.0)[0] is JobState.cancelled
    assert run(runner, "value")[0] is JobState.completed
    assert not mark.exists()


def test_cancel_of_a_finished_job_changes_nothing(runner):
    job_id = runner.submit("lab_recipes.value", AL, "local")
    before = finish(runner, job_id)
    assert runner.cancel(job_id) is False
    assert finish(runner, job_id) == before


def test_a_supervisor_that_is_killed_costs_one_attempt(runner, tmp_path, shared_home):
    count = tmp_path / "count"
    job_id = runner.submit("lab_recipes.kill_supervisor", AL, "local", count=str(count))
    assert finish(runner, job_id) == (JobState.completed, {"runs": 2})
    assert processes.marked("CRYSTALMATH_ATTEMPT", f"{job_id}.1") == []


@pytest.mark.parametrize("job_id", [str(uuid.uuid4()), "../../etc", "", "a" * 10_000, None, 3])
def test_unknown_ids(runner, job_id):
    for method in (runner.get_status, runner.get_result, runner.cancel):
        with pytest.raises(KeyError):
            method(job_id)


@pytest.mark.parametrize(
    ("recipe", "cluster", "parameters", "said"),
    [
        ("os.system", "local", {}, "not permitted"),
        ("quacc.recipes.__init__.job", "local", {}, "not permitted"),
        ("quacc.recipes.emt.core.relаx_job", "local", {}, "not permitted"),  # Cyrillic а
        ("lab_recipes.value", "nowhere", {}, "local"),
        ("lab_recipes.value", "local", {"number": object()}, "number"),
        ("lab_recipes.value", "local", {"number": float("nan")}, "number"),
    ],
)
def test_what_cannot_be_a_job_leaves_nothing(
    runner, shared_home, recipe, cluster, parameters, said
):
    before = sorted((shared_home / "jobs").glob("*"))
    with pytest.raises(InvalidJob, match=said):
        runner.submit(recipe, AL, cluster, **parameters)
    assert sorted((shared_home / "jobs").glob("*")) == before


def test_walltime(engine, runner):
    from crystalmath.models import JobSpec

    spec = JobSpec(
        job_id=str(uuid.uuid4()),
        recipe="lab_recipes.long_sleep",
        atoms=AL,
        walltime_s=0.5,
        environment={"CRYSTALMATH_RECIPES": "lab_recipes"},
    )
    runner.start(spec)
    state, result = finish(runner, spec.job_id)
    assert state is JobState.failed
    assert "walltime of 0.5 s" in result["error"]


def test_recipes_run_in_their_work_directory(runner, shared_home):
    job_id = runner.submit("lab_recipes.where", AL, "local")
    result = finish(runner, job_id)[1]
    assert Path(result["cwd"]) == shared_home / "jobs" / job_id / "1.work"
    assert result["environment"]["CRYSTALMATH_ATTEMPT"] == f"{job_id}.1"
    assert result["environment"]["OMP_NUM_THREADS"] == "1"
    assert result["symbols"] == ["Al"] * 4
