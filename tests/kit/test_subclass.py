"""What a subclass of the kit may change, and what its failures show."""

import re
from pathlib import Path

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract
from crystalmath.testing.contract.base import Base
from crystalmath.testing.run import GUIDE, described, run_pytest

ROOT = Path(__file__).parents[2]
TEST = "test_an_unknown_cluster_is_refused"


def define(**members):
    return type("Mine", (RunnerContract,), members)


def test_the_fixture_alone_is_enough():
    @pytest.fixture
    def engine(self):
        return EngineUnderTest("local")

    assert issubclass(define(engine=engine), RunnerContract)


@pytest.mark.parametrize(
    "replacement",
    [
        None,
        lambda self: None,
        pytest.mark.skip(reason="not for us")(lambda self: None),
        pytest.mark.xfail(lambda self: None),
        pytest.mark.xfail(reason="")(lambda self: None),
        pytest.mark.xfail(strict=False)(lambda self: None),
    ],
    ids=["removed", "replaced", "skipped", "bare xfail", "empty reason", "no reason"],
)
def test_a_test_that_is_removed_or_replaced_is_an_error(replacement):
    with pytest.raises(TypeError, match=f"Mine removes or replaces {TEST}: mark"):
        define(**{TEST: replacement})


def test_one_of_a_base_class_is_an_error_too():
    class Lenient:
        def test_closing_twice(self):
            pass

    with pytest.raises(TypeError, match="test_closing_twice"):
        type("Mine", (Lenient, RunnerContract), {})


def test_every_one_is_named():
    with pytest.raises(TypeError, match=f"{TEST}, test_closing_twice"):
        define(test_closing_twice=None, **{TEST: None})


def test_further_tests_are_welcome():
    assert define(test_of_our_own=lambda self: None)


XFAIL = """\
import pytest
from crystalmath.testing import EngineUnderTest, RunnerContract


class TestMine(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest("AnyCluster", options={"workers": 1}, workers=1)

    @pytest.mark.xfail(reason="our clusters are made when they are needed")
    def test_an_unknown_cluster_is_refused(self, kit):
        super().test_an_unknown_cluster_is_refused(kit)


class TestOther(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(
            "QueuesNothing", options={"workers": 1}, workers=1, start_s=60.0, turn_s=3.0
        )
"""


@pytest.fixture
def verdicts(site, tmp_path):
    module = tmp_path / "test_mine.py"
    module.write_text(XFAIL)
    chosen = ["-k", f"{TEST} or test_capabilities_are_sane"]
    cases = run_pytest(tmp_path, [str(module), *chosen])
    return {(case.owner, case.name): case for case in cases}


def test_an_xfail_with_a_reason_holds(verdicts):
    verdict = verdicts["TestMine", TEST]
    assert verdict.outcome == "xfailed"
    assert verdict.reason == "our clusters are made when they are needed"
    assert described(TEST).topic == "submission"
    assert verdicts["TestOther", TEST].outcome == "passed"


def test_each_topic_names_its_section_of_the_guide():
    bases = [base for base in RunnerContract.__mro__[1:] if issubclass(base, Base)]
    topics = [base for base in bases if any(name.startswith("test_") for name in vars(base))]
    guide = (ROOT / GUIDE).read_text()
    headings = re.findall(r"^##+ (?:\d+\. )?(.*)$", guide, re.MULTILINE)
    named = {base.__name__: vars(base).get("guide") for base in topics if base is not Base}
    assert len(named) > 9
    assert {name for name, section in named.items() if section not in headings} == set()


def test_a_failure_is_explained(verdicts):
    details = verdicts["TestOther", "test_capabilities_are_sane"].details
    assert re.search(r"-- What is asked of the engine --+\ncapabilities are sane", details)
    assert "See 'What capabilities promise' in docs/engine-contract.md." in details


LONG = """\
def test_it():
    told = [f"process {number} goes on" for number in range(100)]
    assert "\\n".join(told) == ""
"""


@pytest.mark.skipif(pytest.version_tuple < (8, 4), reason="it cannot be told to cut nothing")
def test_a_failure_is_told_uncut(tmp_path, monkeypatch):
    for name in ("CI", "BUILD_NUMBER"):  # there pytest cuts nothing by itself
        monkeypatch.delenv(name, raising=False)
    module = tmp_path / "test_long.py"
    module.write_text(LONG)
    (verdict,) = run_pytest(tmp_path, [str(module)])
    assert "process 99 goes on" in verdict.reason
    assert "process 99 goes on" in verdict.details


def test_a_failure_shows_values(verdicts):
    details = verdicts["TestOther", "test_capabilities_are_sane"].details
    assert "assert 0 >= 1" in details
    assert "where 0 = Capabilities(max_queued=0" in details
