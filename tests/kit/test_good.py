"""The good engines pass, and what they declare decides which tests they are put to."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from broken_engines import ENGINES, SHM, leaked
from cases import MENDED

from crystalmath.testing import RunnerContract
from crystalmath.testing.run import described
from crystalmath.testing.written_template import write_engine
from guide_page import register, type_in

TESTS = [name for name in dir(RunnerContract) if name.startswith("test")]
#: The topics in which an engine's capabilities matter.
TOPICS = ("boundary", "handed_over", "honesty", "turns")


@pytest.fixture(scope="session")
def everything(judge):
    """Run these topics on good engines; the session `contract(local)` runs the kit on that one."""
    some = [name for name in TESTS if described(name).topic in TOPICS]
    shares = [{"Truthful": some}, {"Modest": some}]
    with ThreadPoolExecutor() as pool:
        return {
            key: verdict for judged in pool.map(judge, shares) for key, verdict in judged.items()
        }


@pytest.fixture(params=["Truthful", "Modest"])
def engine(request):
    return request.param


@pytest.fixture
def verdicts(everything, engine):
    return {name: verdict for (owner, name), verdict in everything.items() if owner == engine}


def test_a_good_engine_passes(verdicts):
    assert verdicts
    failed = {n: v.details for n, v in verdicts.items() if v.outcome == "failed"}
    assert not failed, "\n".join(failed.values())
    assert {verdict.outcome for verdict in verdicts.values()} <= {"passed", "skipped"}


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("test_gone_means_dead", "gone_means_dead"),
        ("test_queue_dies_with_owner", "queue_dies_with_owner"),
        ("test_release_drops_what_is_queued", "drops_queued"),
        ("test_workers_here", "workers_here"),
        ("test_starts_in_order", "starts_in_order"),
    ],
)
def test_a_test_is_skipped_with_the_name_of_what_is_lacking(verdicts, engine, name, capability):
    declared = ENGINES[engine].capabilities
    if getattr(declared, capability):
        assert verdicts[name].outcome == "passed"
    else:
        assert verdicts[name].outcome == "skipped"
        assert capability in verdicts[name].reason


@pytest.fixture(scope="session")
def mended(judge):
    """Run the tests of what core puts right on an engine that gets it wrong, and a right one."""
    return judge({"MakesDaemons": MENDED, "Restricted": [*MENDED, INHERITED]}, workers=1)


INHERITED = "test_a_job_finds_the_pythonpath_of_its_owner"


@pytest.mark.parametrize("test", MENDED)
def test_core_puts_right_what_an_engine_does_to_its_workers(mended, test):
    verdict = mended["MakesDaemons", test]
    assert verdict.outcome == "passed", verdict.details


def test_workers_with_an_environment_of_their_own_pass_where_they_are_declared(mended):
    verdicts = {test: v for (engine, test), v in mended.items() if engine == "Restricted"}
    assert verdicts.pop(INHERITED).outcome == "skipped"
    assert {verdict.outcome for verdict in verdicts.values()} == {"passed"}


def test_a_pool_that_fills_up_is_no_leak(judge):
    test = "test_a_job_costs_its_owner_nothing"
    ((_, verdict),) = judge({"FillsUp": [test]}).items()
    assert verdict.outcome == "passed", verdict.details


#: What right engines do, and the tests that could take it for something wrong.
RIGHT = {
    "Falters": [
        "test_queued_job_of_a_killed_process[launched]",
        "test_probe_of_running[recorded]",
        "test_probe_of_never_launched",
        "test_probe_of_many",
        "test_probe_of_many_in_mixed_states",
        "test_probe_after_restart",
        "test_what_was_not_taken_is_not_run",
        "test_launch_beside_a_cluster_that_was_taken_out",
        "test_as_many_wait_as_max_queued_says",
        "test_launched_again_after_its_worker_was_killed",
        "test_release_leaves_others",
        "test_script_that_does_not_close",
        "test_stop_without_a_launch[probe]",
    ],
    "Strict": [
        "test_launch_of_many",
        "test_release_drops_what_is_queued",
        "test_probe_of_many_in_mixed_states",
        "test_removed_directory_hinders_nothing",
        "test_as_many_wait_as_max_queued_says",
    ],
    "Queueless": [
        "test_names_are_free_text",
        "test_stop_ends_in_time",
        "test_launch_does_not_wait",
        "test_launch_gives_handles",
        "test_launched_by_two_processes_runs_once",
        "test_probe_of_many_in_mixed_states",
        "test_as_many_at_once_as_workers_says",
        "test_job_of_a_living_process_is_left_to_it",
        "test_a_waiting_job_never_runs",
    ],
    "EndsWhatIsReleased": ["test_release_of_what_is_not_queued"],
    "LeavesItToPython": ["test_close_of_an_idle_engine", "test_no_descriptor_is_left_open"],
}
#: What cannot always be tried on right engines, and what is said of the reason.
UNTRIED = {
    "Roomy": (
        [
            "test_probe_of_queued[recorded]",
            "test_probe_of_many",
            "test_probe_of_many_in_mixed_states",
            "test_release_drops_what_is_queued",
            "test_starts_in_order",
            "test_queue_dies_with_owner",
            "test_job_of_a_living_process_is_left_to_it",
            "test_cancel_of_a_queued_job_of_a_killed_process",
            "test_a_waiting_job_never_runs",
            "test_the_walltime_does_not_run_while_a_job_waits",
        ],
        "more than 2 jobs run at once, the number in EngineUnderTest.workers",
    ),
    "LastOneFirst": (
        ["test_starts_in_order"],
        "more than 2 jobs run at once, the number in EngineUnderTest.workers",
    ),
    "Queueless": (
        [
            "test_probe_of_queued[recorded]",
            "test_probe_of_many",
            "test_release_leaves_others",
            "test_as_many_wait_as_max_queued_says",
            "test_starts_in_order",
            "test_queue_dies_with_owner",
            "test_queued_job_of_a_killed_process[launched]",
        ],
        "it declares max_queued=2",
    ),
}


@pytest.fixture(scope="module")
def right(request, judge):
    """Run those that were selected, side by side."""
    tests = {test_what_is_right_is_not_taken_for_wrong, test_what_cannot_be_tried_is_skipped}
    items = [item for item in request.session.items if item.function in tests]
    chosen = [item.callspec.params["engine"] for item in items]

    def run(engine):
        tests = RIGHT.get(engine, []) + UNTRIED.get(engine, [[]])[0]
        # So late may be begun what there is room for, on a busy machine.
        turn_s = 10.0 if engine in UNTRIED else 3.0
        return engine, judge({engine: tests}, limits=f"turn_s={turn_s}")

    with ThreadPoolExecutor(len(RIGHT)) as pool:
        return dict(pool.map(run, sorted(set(chosen))))


@pytest.mark.by_turns
@pytest.mark.parametrize("engine", RIGHT)
def test_what_is_right_is_not_taken_for_wrong(right, engine):
    verdicts = {name: right[engine][engine, name] for name in RIGHT[engine]}
    failed = {name: v.details for name, v in verdicts.items() if v.outcome != "passed"}
    assert not failed, "\n".join(map(str, failed.values()))


@pytest.mark.by_turns
@pytest.mark.parametrize("engine", UNTRIED)
def test_what_cannot_be_tried_is_skipped(right, engine):
    tests, said = UNTRIED[engine]
    verdicts = {name: right[engine][engine, name] for name in tests}
    failed = {name: v.details for name, v in verdicts.items() if v.outcome == "failed"}
    assert not failed, "\n".join(f"{name}: {details}" for name, details in failed.items())
    # What comes late on a busy machine may wait after all, and what is asked for then holds.
    reasons = [v.reason for v in verdicts.values() if v.outcome == "skipped"]
    assert reasons
    assert [reason for reason in reasons if said not in reason] == []


def test_an_engine_that_cannot_be_closed_is_measured_all_the_same(judge):
    tests = ["test_one_job_ends", "test_close_of_an_engine_that_was_not_used"]
    verdicts = {test: verdict for (_, test), verdict in judge({"CannotClose": tests}).items()}
    first, closing = (verdicts[test] for test in tests)
    assert first.outcome == "passed", first.details
    assert (closing.outcome, closing.phase) == ("failed", "call"), closing.details
    assert "it cannot be closed" in closing.reason


@pytest.fixture
def neighbour(site):
    """Leave shared memory behind all the time, as programs that are killed do."""
    over, made = threading.Event(), []

    def litter():
        while not over.wait(0.05):
            made.append(SHM / f"{leaked()}neighbour-{len(made)}")
            made[-1].touch()

    with ThreadPoolExecutor() as pool:
        done = pool.submit(litter)
        yield
        over.set()
        done.result()
    for segment in made:
        segment.unlink()
    assert made


def test_shared_memory_that_another_leaves_is_not_the_engines(judge, neighbour):
    ((_, verdict),) = judge({"Truthful": ["test_close_of_an_idle_engine"]}).items()
    assert verdict.outcome == "passed", verdict.details


# --- the kinds of engines that there are ----------------------------------------------------------

#: The long run, while the cores are kept busy: ``GOOD_RUNS=10``, so often on each kind, and
#: ``GOOD_TESTS=test``, all of the kit, or those in whose names that stands; it takes hours.
RUNS = int(os.environ.get("GOOD_RUNS", "0"))
#: Else those in which it matters most how soon an engine comes to a job, and where that runs.
FEW = [
    "test_one_job_ends",
    "test_launched_again_after_its_worker_was_killed",
    "test_as_many_at_once_as_workers_says",
    "test_probe_of_many_in_mixed_states",
    "test_starts_in_order",
    "test_the_walltime_does_not_run_while_a_job_waits",
]
_NAMED = os.environ.get("GOOD_TESTS")
# None of these engines has quacc.
CHOSEN = [each for each in TESTS if _NAMED in each and "quacc" not in each] if _NAMED else FEW
#: Kind -> engine, its workers, its options, and what else its author tells the kit.
KINDS = {
    "threads": ("local", 2, {"workers": 2}, ""),
    "processes": ("Processes", 2, {"workers": 2}, ""),
    "a process for each job": ("FreshProcesses", 2, {"workers": 2}, ""),
    "agent": ("pool", 2, {"workers": 2}, ""),
    "slow queue": ("SlowQueue", 2, {"workers": 2}, ""),
    "batch": ("batch", 2, {}, "linger_s=30.0"),
    "restricted environment": ("Restricted", 2, {"workers": 2}, ""),
    "one worker": ("OneWorker", 1, {"workers": 1}, ""),
    "many workers": ("Many", 8, {"workers": 8}, ""),
}
BURN = "import os\nwhile os.getppid() == {}: pass"


@pytest.fixture(scope="module")
def installed(site, tmp_path_factory):
    """Install the engine of the template, and the batch engine of the guide, too."""
    folder = tmp_path_factory.mktemp("engines")
    write_engine("pool", folder / "pool")
    register(folder / "pool/pyproject.toml", folder / "pool/src")
    paths = [str(folder / "pool/src"), str(type_in("batch", folder / "batch"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ["PYTHONPATH"]]))
        yield


@pytest.fixture(scope="module")
def load():
    """Keep the cores busy in the long run."""
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0) if RUNS else ():
            command = [sys.executable, "-c", BURN.format(os.getpid())]
            burning = stack.enter_context(subprocess.Popen(command))
            stack.callback(burning.kill)
        yield


@pytest.fixture(scope="module")
def runs(request, judge, installed, load, queue):
    """Run the kit on the kinds that were selected, side by side."""
    chosen = [
        (item.callspec.params["kind"], item.callspec.params["number"])
        for item in request.session.items
        if item.originalname == test_a_kind_of_engine_passes.__name__
    ]

    def run(case):
        engine, workers, options, limits = KINDS[case[0]]
        return case, judge({engine: CHOSEN}, workers=workers, options=options, limits=limits)

    with ThreadPoolExecutor(len(KINDS)) as pool:
        return dict(pool.map(run, chosen))


@pytest.mark.by_turns
@pytest.mark.parametrize("number", range(max(RUNS, 1)))
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_engine_passes(runs, kind, number):
    verdicts = runs[kind, number]
    told = {n: v.details for (_, n), v in verdicts.items() if v.outcome == "failed"}
    assert not told, "\n".join(f"{name}: {details}" for name, details in told.items())
    assert len(verdicts) >= len(CHOSEN)
    assert "passed" in {verdict.outcome for verdict in verdicts.values()}
