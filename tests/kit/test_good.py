"""The good engines pass, and what they declare decides which tests they are put to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from broken_engines import ENGINES
from cases_surroundings import MENDED

from crystalmath.engines.local import LocalRunner
from crystalmath.testing import RunnerContract

TESTS = [name for name in dir(RunnerContract) if name.startswith("test")]
#: The topics in which an engine's capabilities matter.
TOPICS = ("boundary", "honesty", "turns")


def topic(name):
    return getattr(RunnerContract, name).__module__.rpartition(".")[2]


@pytest.fixture(scope="session")
def everything(judge):
    """Run these topics on good engines; the session `contract(local)` runs the whole kit."""
    some = [name for name in TESTS if topic(name) in TOPICS]
    shares = [{"local": some}, {"Truthful": some}, {"Modest": some}]
    with ThreadPoolExecutor() as pool:
        return {
            key: verdict for judged in pool.map(judge, shares) for key, verdict in judged.items()
        }


@pytest.fixture(params=["local", "Truthful", "Modest"])
def engine(request):
    return request.param


@pytest.fixture
def verdicts(everything, engine):
    return {name: verdict for (owner, name), verdict in everything.items() if owner == engine}


def test_a_good_engine_passes(verdicts):
    assert verdicts
    failed = {n: v["details"] for n, v in verdicts.items() if v["outcome"] == "failed"}
    assert not failed, "\n".join(failed.values())
    assert {verdict["outcome"] for verdict in verdicts.values()} <= {"passed", "skipped"}


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
    declared = ENGINES.get(engine, LocalRunner).capabilities
    if getattr(declared, capability):
        assert verdicts[name]["outcome"] == "passed"
    else:
        assert verdicts[name]["outcome"] == "skipped"
        assert capability in verdicts[name]["reason"]


@pytest.fixture(scope="session")
def mended(judge):
    """Run the tests of what core puts right on engines that get it wrong."""
    wrong = {engine: [test] for engine, test in MENDED}
    right = {"Restricted": sorted({test for _, test in MENDED} | {INHERITED})}
    return judge(wrong | right, workers=1)


INHERITED = "test_a_job_finds_the_pythonpath_of_its_owner"


@pytest.mark.parametrize(("engine", "test"), MENDED)
def test_core_puts_right_what_an_engine_does_to_its_workers(mended, engine, test):
    assert mended[engine, test]["outcome"] == "passed", mended[engine, test]["details"]


def test_workers_with_an_environment_of_their_own_pass_where_they_are_declared(mended):
    verdicts = {test: v for (engine, test), v in mended.items() if engine == "Restricted"}
    assert verdicts.pop(INHERITED)["outcome"] == "skipped"
    assert {verdict["outcome"] for verdict in verdicts.values()} == {"passed"}
