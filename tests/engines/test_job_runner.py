"""What callers see of jobs, whatever the engine: outcomes, results, refusals, cancels.

The conformance kit asks of an engine only what its four methods can break; the rest is here, once.
"""

import functools
import signal
import statistics
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath.models import JobSpec
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engines import close_all
from crystalmath.testing.oracle import Oracle, alive, found
from crystalmath.testing.waiting import own_time

pytestmark = pytest.mark.processes

AL = bulk("Al")
WORKERS = 2
KIT = "crystalmath.testing.recipes"
CANCELLED = (JobState.CANCELLED, {"error": "cancelled"})


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("outcomes")
    (home / "config.toml").write_text(f"[engines.local]\nworkers = {WORKERS}\n")
    yield home
    close_all()


@pytest.fixture
def runner(shared_home, lab, monkeypatch):
    """One engine for all tests: a warm one, as people have it."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(shared_home))
    monkeypatch.setenv("CRYSTALMATH_RECIPES", f"lab_recipes,{KIT}")
    return get_runner("local")


@pytest.fixture
def oracle(shared_home):
    return Oracle(shared_home)


@pytest.fixture
def submit(runner):
    """Submit a recipe of the kit (``echo``) or of the lab (``lab_recipes.mute``)."""

    def submit(recipe, /, **parameters):
        name = recipe if "." in recipe else f"{KIT}.{recipe}"
        return runner.submit(name, AL, "local", **parameters)

    return submit


@pytest.fixture
def finish(runner):
    def finish(job_id):
        eventually(lambda: runner.get_status(job_id).is_terminal(), message="it did not finish")
        return runner.get_status(job_id), runner.get_result(job_id)

    return finish


@pytest.fixture
def failed(submit, finish, oracle):
    """Run a recipe that fails, once; return what is told of it."""

    def failed(recipe, /, **parameters):
        job_id = submit(recipe, **parameters)
        state, result = finish(job_id)
        assert (state, oracle.outcome(job_id)["state"]) == (JobState.FAILED, "failed")
        assert oracle.attempts(job_id) == 1
        return result["error"]

    return failed


@pytest.fixture
def blocked(submit, finish, oracle, tmp_path):
    """Keep all workers busy until a file is there; return that file."""
    go = tmp_path / "unblock"
    jobs = [submit("wait_for", path=str(go)) for _ in range(WORKERS)]
    eventually(lambda: all(map(oracle.claimed, jobs)))
    yield go
    go.touch()
    for job_id in jobs:
        finish(job_id)


@pytest.fixture
def slow_launch(runner, monkeypatch):
    """Have the next launch wait: ``entered`` tells of it, ``let_go`` ends it."""
    launch, entered, let_go = runner.launch, threading.Event(), threading.Event()

    def slow(attempts):
        entered.set()
        let_go.wait(60)
        return launch(attempts)

    monkeypatch.setattr(runner, "launch", slow)
    yield entered, let_go
    let_go.set()


# --- recipes that fail ---------------------------------------------------------------------------

MESSAGES = {
    "unicode": "\u00e9 \U0001f9ea \u05d0 \u202e",
    "half a surrogate pair": "\ud83e",
    "several lines": "one\ntwo\r\nthree",
    "empty": "",
    "huge": "much " * 2**20,
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_an_exception_is_told(failed, kind):
    error = failed("fail", message=MESSAGES[kind])
    assert "RuntimeError" in error
    assert MESSAGES[kind][:1000] in error


@pytest.mark.parametrize(
    ("recipe", "parameters", "said"),
    [
        ("lab_recipes.raise_mute", {}, "Mute"),
        ("lab_recipes.interrupt", {}, "KeyboardInterrupt: as if by Ctrl-C"),
        ("lab_recipes.exit_by", {"code": 0}, "exit"),
        ("lab_recipes.exit_by", {"code": 3}, "3"),
        ("no_such_recipe", {}, "no_such_recipe"),
        ("lab_recipes.FACTOR", {}, "not callable"),
        ("lab_recipes.import_missing", {}, "a_module_that_nobody_has"),
        ("fail", {"no_such_parameter": 1}, "no_such_parameter"),
        ("lab_recipes.exhaust", {}, "MemoryError"),
    ],
)
def test_what_a_recipe_raises_is_a_failure(failed, recipe, parameters, said):
    assert said in failed(recipe, **parameters)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_a_failure_that_names_it(failed, number):
    assert number.name in failed("kill_by", number=int(number))


@pytest.mark.parametrize("code", [0, 7])
def test_the_end_of_the_process_is_a_failure_that_tells_the_code_and_the_log(failed, code):
    error = failed("lab_recipes.vanish", code=code)
    assert f"code {code}" in error
    assert "about to go" in error


def test_who_sends_sigkill_cannot_be_told_and_so_there_is_a_second_attempt(submit, finish, oracle):
    job_id = submit("kill_by", number=int(signal.SIGKILL))
    state, result = finish(job_id)
    assert state is JobState.FAILED
    assert "SIGKILL" in result["error"]
    assert oracle.attempts(job_id) == 2


# --- what a recipe prints and leaves behind -------------------------------------------------------


def test_the_log_is_complete(submit, finish, oracle):
    """Megabytes, what a child prints, and standard error; once the state is terminal."""
    job_id = submit("lab_recipes.print_much", lines=4000)
    assert finish(job_id) == (JobState.COMPLETED, {"lines": 4000})
    lines = (oracle.directory(job_id) / "1.log").read_text().splitlines()
    assert [int(line.split()[0]) for line in lines[:3998]] == list(range(3998))
    assert {len(line) for line in lines[:3998]} == {1023}
    assert lines[3998:] == ["by a child", "the last line"]


def test_the_log_has_the_traceback(submit, finish, oracle):
    job_id = submit("fail", message="the box is too small")
    finish(job_id)
    log = (oracle.directory(job_id) / "1.log").read_text()
    assert ", in fail" in log
    assert "RuntimeError: the box is too small" in log


def test_a_log_is_its_own_jobs(submit, finish, oracle):
    """Of jobs that print at the same time, and one after another."""
    jobs = {submit("lab_recipes.say", text=f"job {n} \u00e9"): n for n in range(6)}
    for job_id, number in jobs.items():
        finish(job_id)
        log = (oracle.directory(job_id) / "1.log").read_text(encoding="utf-8")
        assert log == f"job {number} \u00e9\n"


def test_a_forked_child_does_not_speak_for_the_job(submit, finish, oracle):
    """It comes back into the worker's code before its parent does."""
    job_id = submit("lab_recipes.fork_and_return")
    assert finish(job_id) == (JobState.COMPLETED, {"child": False})
    assert oracle.payload(job_id) == {"child": False}


def test_processes_left_running_are_gone_at_the_end(submit, finish, tmp_path):
    pids, go = tmp_path / "pids", tmp_path / "go"
    job_id = submit("lab_recipes.abandon", pids=str(pids), path=str(go))
    eventually(pids.exists)
    processes = found(map(int, pids.read_text().split()))
    go.touch()
    state, _ = finish(job_id)
    assert len(processes) == 3
    assert not alive(processes)
    assert state is JobState.COMPLETED


def test_threads_left_running_are_gone_at_the_end(submit, finish, tmp_path):
    """A thread that never ends does not hold up its job either."""
    marks = tmp_path / "marks"
    assert finish(submit("lab_recipes.leave_writing", path=str(marks)))[0] is JobState.COMPLETED
    size = marks.stat().st_size
    time.sleep(0.3)
    assert marks.stat().st_size == size


@pytest.mark.parametrize("recipe", ["spoil", "lower_limit"])
def test_the_next_job_finds_nothing_changed(submit, finish, oracle, tmp_path, recipe):
    """Environment, working directory, paths, umask, signals, limits; after all had such a job."""
    before = finish(submit("surroundings"))[1]
    go = tmp_path / "go"
    bad = [submit(f"lab_recipes.{recipe}", path=str(go)) for _ in range(WORKERS)]
    eventually(lambda: all(map(oracle.claimed, bad)))
    go.touch()
    assert [finish(job_id)[0].value for job_id in bad] == ["completed"] * WORKERS
    for job_id in [submit("surroundings") for _ in range(WORKERS)]:
        after = finish(job_id)[1]
        assert after.pop("cwd") == str(oracle.directory(job_id) / "1.work")
        environment, expected = after.pop("environment"), before["environment"]
        assert "LEFT_BEHIND" not in environment
        for name in ("PATH", "OMP_NUM_THREADS"):
            assert environment[name] == expected[name]
        assert after == {name: before[name] for name in after}


def test_the_walltime_ends_a_job_and_its_processes(runner, finish, oracle, tmp_path):
    pids = tmp_path / "pids"
    job_id = start(runner, "grandchild", {"pids": str(pids)}, walltime_s=5.0)
    eventually(lambda: pids.exists() or oracle.outcome(job_id))
    processes = found(map(int, pids.read_text().split()))
    state, result = finish(job_id)
    assert not alive(processes)
    assert not oracle.processes(job_id)
    assert state is JobState.FAILED
    assert "walltime" in result["error"]


# --- parameters and results -----------------------------------------------------------------------

#: Names that somebody on the way may use for something of their own.
_TABLE = """
self cls recipe_fullname cluster_name recipe recipe_name cluster engine timeout walltime walltime_s
job_id key name labels environment parameters params args kwargs function func fn call spec document
directory attempt attempts handle header body result method resources executor callback retries
settings atoms_ structure symbol path cwd env id type state error value key_ deps_ pure workers
"""
NAMES = _TABLE.split()
#: Those that `submit` has for its own.
OWN = {"self", "recipe_fullname", "atoms", "cluster_name"}


def start(runner, recipe, parameters, walltime_s=None):
    """Start a job as the service does."""
    spec = JobSpec(
        job_id=str(uuid.uuid4()),
        recipe=f"{KIT}.{recipe}",
        atoms=AL,
        parameters=parameters,
        walltime_s=walltime_s,
    )
    runner.start(spec)
    return spec.job_id


def test_no_name_of_a_parameter_is_reserved(runner, submit, finish):
    parameters = {name: f"the {name}" for name in NAMES}
    assert finish(start(runner, "echo", parameters))[1] == {"symbols": ["Al"], **parameters}
    passed = {name: text for name, text in parameters.items() if name not in OWN}
    assert finish(submit("echo", **passed))[1] == {"symbols": ["Al"], **passed}


TEXTS = ["Å \u0301", "\U0001f468\u200d\U0001f52c", "\u05d0\u202e", "\0\x1b \u2028", "$HOME `x`", ""]


@pytest.mark.parametrize(
    "value",
    [None, 7, 1.5, "text", True, [], [1, "a"], (1, 2), Path("/x"), b"x", TEXTS],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_dict_comes_as_value(submit, finish, value):
    (result,) = finish(submit("value", value=value))[1].values()
    assert result == value
    assert isinstance(result, type(value))


def test_a_dict_comes_as_it_is(submit, finish, oracle):
    """Empty, with any keys, and as the outcome file has it."""
    assert finish(submit("value", value={})) == (JobState.COMPLETED, {})
    texts = {text: {text: text} for text in TEXTS}
    job_id = submit("value", value=texts)
    assert finish(job_id)[1] == oracle.payload(job_id) == texts


def test_half_a_surrogate_pair_is_kept_or_refused(submit, finish, oracle):
    before = oracle.jobs()
    try:
        job_id = submit("echo", text="\ud83e")
    except ValueError:
        assert oracle.jobs() == before
    else:
        assert finish(job_id)[1] == {"symbols": ["Al"], "text": "\ud83e"}


def test_numpy_comes_back(submit, finish):
    _, result = finish(submit("lab_recipes.numbers"))
    from lab_recipes import numbers

    expected = numbers(AL)
    assert result.pop("scalars") == expected.pop("scalars")
    for name, array in expected.items():
        assert (result[name].dtype, result[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(result[name], array)


def test_what_of_a_result_cannot_be_written_is_text(submit, finish, oracle):
    """Nothing is lost for it; the log names the place."""
    job_id = submit("lab_recipes.opaque")
    state, result = finish(job_id)
    assert state is JobState.COMPLETED
    assert result["deep"][0]["type"] == "builtins.object"
    log = (oracle.directory(job_id) / "1.log").read_text()
    assert "result.deep[0] (builtins.object) is stored as text" in log


def test_a_result_stays_what_it_is(runner, submit, finish):
    """Whatever a caller does to what it was given."""
    job_id = submit("value", value={"list": [1]})
    _, result = finish(job_id)
    result["list"].append(2)
    result["error"] = "x"
    assert runner.get_result(job_id) == {"list": [1]}


def test_no_result_before_the_end(runner, submit, finish, blocked, oracle):
    """Neither of a job that runs nor of one that waits."""
    running = {job_id for job_id in oracle.jobs() if not oracle.outcome(job_id)}
    jobs = [*running, submit("echo")]
    assert [runner.get_result(job_id) for job_id in jobs] == [None] * (WORKERS + 1)
    blocked.touch()
    assert all(finish(job_id)[1] for job_id in jobs)


# --- submissions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("atoms", ["Al", {"symbols": "Al"}])
def test_what_is_no_structure_is_refused(runner, oracle, atoms):
    before = oracle.jobs()
    with pytest.raises((ValueError, TypeError, AttributeError)):
        runner.submit(f"{KIT}.echo", atoms, "local")
    assert oracle.jobs() == before


def test_a_structure_that_is_missing_is_refused(runner, oracle):
    before = oracle.jobs()
    with pytest.raises(ValueError, match=r"needs a structure.*'atoms'"):
        runner.submit(f"{KIT}.echo")
    assert oracle.jobs() == before


def test_a_recipe_that_takes_no_structure(runner, finish):
    """Its first argument is a parameter as any other; a structure is refused."""
    name = "lab_recipes.without_structure"
    _, result = finish(runner.submit(name, number=2, files=["a"]))
    assert result == {"files": ["a"], "number": 2}
    with pytest.raises(ValueError, match="takes no structure"):
        runner.submit(name, AL)


UNKNOWN = "7c8a3f0e-41a5-4d2b-9f3e-3b6e1c5d9a10"


@pytest.mark.parametrize("method", ["get_status", "get_result", "cancel"])
@pytest.mark.parametrize(
    "job_id",
    [
        "",
        ".",
        "../../x",
        "no such job",
        "a" * 10_000,
        "178e3428-4e5b-40f2-9d67-5a4b1ce1f0a3",
        "178e3428-4e5b-40f2-9d67-5a4b1ce1f0a3\n",
        None,
        7,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_an_unknown_id_is_a_key_error(runner, oracle, method, job_id):
    before = oracle.jobs()
    with pytest.raises(KeyError):
        getattr(runner, method)(job_id)
    assert oracle.jobs() == before


def test_submit_and_status_do_not_wait_for_busy_workers(runner, submit, finish, blocked, oracle):
    """100 jobs wait: a submit takes 0.1 s, a status 10 ms, or half of them do."""
    jobs = []
    timed(0.1, [lambda: jobs.append(submit("echo"))] * 100)
    timed(0.01, [functools.partial(runner.get_status, job_id) for job_id in jobs])
    timed(0.01, [functools.partial(runner.get_result, job_id) for job_id in jobs])
    assert {runner.get_status(job_id) for job_id in jobs} == {JobState.PENDING}
    assert not any(map(oracle.claimed, jobs))
    for job_id in jobs:
        runner.cancel(job_id)
    assert {finish(job_id)[0] for job_id in jobs} == {JobState.CANCELLED}


def timed(limit_s, calls):
    """Make calls, and check how long most of them take."""
    times = []
    for call in calls:
        began = own_time()
        call()
        times.append(own_time() - began)
    assert statistics.median(times) <= limit_s


# --- cancels --------------------------------------------------------------------------------------


def test_a_cancel_while_the_engine_launches(runner, submit, finish, slow_launch, tmp_path):
    """The engine gets an attempt that must not begin any more."""
    entered, let_go = slow_launch
    count = tmp_path / "count"
    job_id = submit("mark", path=str(count))
    assert entered.wait(60)
    assert runner.cancel(job_id) is True
    let_go.set()
    assert finish(job_id) == CANCELLED
    assert finish(submit("echo"))[0] is JobState.COMPLETED
    assert not count.exists()
    assert runner.get_status(job_id) is JobState.CANCELLED


def test_a_cancel_at_once_after_the_submission(runner, submit, finish, oracle, tmp_path):
    """The engine may just be taking them; each ends, as its outcome says."""
    jobs = {}
    for number in range(20):
        job_id = submit("mark", path=str(tmp_path / "count"), number=number)
        jobs[job_id] = runner.cancel(job_id)
    for number, (job_id, cancelled) in enumerate(jobs.items()):
        end = finish(job_id)
        check_end(end, oracle, job_id, {"number": number})
        assert cancelled or end[0] is JobState.COMPLETED


def test_a_cancel_that_races_with_the_end(runner, submit, finish, oracle, tmp_path):
    """Each ends completed or cancelled, as its outcome says, and for good."""
    ends = {}
    for number in range(4):
        count = tmp_path / f"count {number}"
        job_id = submit("mark", path=str(count), number=number, seconds=0.2)
        eventually(lambda count=count: count.exists() and count.stat().st_size)
        time.sleep(0.15 + 0.02 * number)
        cancelled = runner.cancel(job_id)
        ends[job_id] = end = finish(job_id)
        check_end(end, oracle, job_id, {"number": number})
        assert cancelled or end[0] is JobState.COMPLETED
        assert count.read_text() == f"{number}\n"
    for job_id, end in ends.items():
        assert (runner.get_status(job_id), runner.get_result(job_id)) == end


def check_end(end, oracle, job_id, result):
    """State, result and outcome of a job that was cancelled, perhaps in time, agree."""
    state = oracle.outcome(job_id)["state"]
    assert state == end[0].value
    assert oracle.attempts(job_id) == 1
    assert end == (CANCELLED if state == "cancelled" else (JobState.COMPLETED, result))
