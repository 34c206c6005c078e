"""The passes of a flow: which calls become steps, and that its result is as bare quacc's."""

import copy
import inspect
import json
import operator
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

from crystalmath.models import JobSpec
from crystalmath.recipes import codec, lookup
from crystalmath.worker.step_replay import raised, raised_again
from crystalmath.worker.step_values import StepValue
from flow_owner import FlowOwner
from same.comparing import assert_same

pytestmark = pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours

OWN = [
    *("until_converged", "branches", "of_a_generator", "merges", "handles_failure", "recursive"),
    *("of_subflows", "in_containers", "nested_jobs", "local_jobs", "with_settings"),
    *("one_directory", "of_structures", "of_numpy", "swallows"),
    *("falls_back", "until_one_fails", "of_slabs", "of_odd_names"),
]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Come back to where this process was; runs change it."""
    monkeypatch.setenv("QUACC_WORKFLOW_ENGINE", "None")
    monkeypatch.chdir(tmp_path)
    yield
    os.chdir(tmp_path)


@pytest.fixture
def own(lab, monkeypatch):
    """Have the flows of `tests/lab/flow_recipes.py`."""
    import flow_recipes

    monkeypatch.setattr(flow_recipes, "world", {})
    return flow_recipes


@pytest.fixture
def flow(tmp_path, own):
    return lambda name, **more: FlowOwner(
        tmp_path, f"flow_recipes.{name}", allow=("flow_recipes",), **more
    )


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("name", OWN)
def test_flows_of_a_users_own_return_what_they_return_bare(own, flow, tmp_path, name, seed):
    parameters = {"folder": str(tmp_path / "scratch")} if name == "with_settings" else {}
    expected = getattr(own, name)(**parameters)
    owner = flow(name, seed=seed, **parameters)
    header, result = owner.run()
    assert header["state"] == "completed", header["error"]
    assert_same(result, expected, name)
    assert len(owner.ran) == sum("body" in step for step in owner.steps.values())


def test_a_step_that_fails_leaves_the_others_and_fails_the_flow_by_name(flow):
    owner = flow("fails")
    header, _ = owner.run()
    assert header["state"] == "failed"
    failed = owner.steps["flow_recipes.broken#0"]
    assert f"step flow_recipes.broken#0 (job {failed['job_id']}) failed" in header["error"]
    assert "ZeroDivisionError: (1, 'by nothing')" in header["error"]
    assert owner.ran.count("flow_recipes.double") == 2


@pytest.mark.parametrize(
    ("error", "same"),
    [
        (KeyError("x"), True),
        (subprocess.CalledProcessError(3, ["program"]), True),
        (type("Local", (Exception,), {})("x"), False),
        (RuntimeError(object()), False),
    ],
)
def test_errors_of_steps_are_raised_again_where_their_class_takes_their_arguments(error, same):
    told = raised(error)
    again = raised_again(json.loads(json.dumps(told)))
    assert (type(again), str(again)) == (type(error), str(error)) if same else again is None
    if same:
        assert vars(again) == vars(error)


def test_nothing_is_imported_to_raise_an_error_again():
    assert "xml.sax" not in sys.modules or pytest.skip("imported already")
    told = {"module": "xml.sax", "name": "SAXException", "args": ["x"]}
    assert raised_again(told) is None
    assert "xml.sax" not in sys.modules
    assert raised_again({"module": "os", "name": "system", "args": ["true"]}) is None


def test_a_launched_step_binds_by_its_arguments(own, flow):
    own.world["b"] = 1
    owner = flow("differs")
    owner.run_steps(owner.one_pass()[1]["needs"][:1])
    own.world["b"] = 2
    header, _ = owner.one_pass()
    added = owner.steps["flow_recipes.add#0"]["job_id"]
    expected = (
        f"the flow calls step flow_recipes.add#0 (job {added}) otherwise than before: its argument "
        "'b' was '1', and is '2' now; a flow must make the same calls"
    )
    assert header["state"] == "failed"
    assert expected in header["error"]
    assert "crystalmath retry makes a new flow" in header["error"]
    assert "--serial" in header["error"]


def test_a_launched_step_must_be_called_again(own, flow):
    own.world["count"] = 2
    owner = flow("forgets")
    owner.run_steps(owner.one_pass()[1]["needs"])
    own.world["count"] = 1
    header, _ = owner.one_pass()
    assert header["state"] == "failed"
    assert "the flow has called step flow_recipes.fan#0/flow_recipes.double#1" in header["error"]


def test_a_step_that_waits_is_replaced_where_it_is_called_otherwise(own, flow):
    own.world["b"] = 1
    owner = flow("differs")
    owner.one_pass()
    own.world["b"] = 2
    told = owner.one_pass()[1]
    assert [call["replaces"] is not None for call in told["calls"]] == [True, True]
    assert owner.run()[1] == 6


def test_a_step_that_was_cancelled_while_it_waited_is_not_called_again(flow):
    owner = flow("branches")
    owner.one_pass()
    owner.steps["flow_recipes.double#0"] |= {"state": "cancelled", "error": "cancelled"}
    del owner.steps["flow_recipes.add#0"]
    header, _ = owner.one_pass()
    assert header["state"] == "failed"
    assert "step flow_recipes.double#0" in header["error"]
    assert "was cancelled" in header["error"]


def test_a_step_that_runs_in_the_pass_runs_once(own, flow):
    owner = flow("local_jobs")
    header, _ = owner.run()
    assert header["state"] == "completed"
    assert own.world["ran"] == 1
    counted = {name: header["summary"][name] for name in ("flow_steps", "steps_in_pass")}
    assert counted == {"flow_steps": {"completed": len(owner.steps)}, "steps_in_pass": 1}


@pytest.mark.parametrize(("kind", "shown"), [("tool", "Tool"), ("plan", "Plan")])
def test_an_object_without_a_form_is_never_replaced_by_its_text(own, flow, kind, shown):
    for name, expected in (("hands_on", 1), ("looks_into", 2)):
        assert flow(name, kind=kind).in_one_job()[1] == expected
        owner = flow(name, kind=kind)
        header, _ = owner.run()
        assert header["state"] == "failed"
        assert f"flow_recipes.{shown}" in header["error"]
        assert "has no form in JSON" in header["error"]
    # The body needs the object of its one step.
    (step,) = owner.steps.values()
    assert f"step {step['name']} (job {step['job_id']}) has returned" in header["error"]
    assert "as result.made," in header["error"]
    assert "--in-one-job" in header["error"]


@pytest.mark.parametrize("kind", ["tool", "plan"])
def test_what_is_beside_an_object_without_a_form_goes_on(own, flow, kind):
    header, result = flow("leaves_aside", kind=kind).run()
    bare, expected = flow("leaves_aside", kind=kind).in_one_job()
    assert (header["state"], bare["state"]) == ("completed", "completed"), header["error"]
    assert (result["double"], result["all"][0]["number"]) == (2, 1)
    if kind == "tool":  # whose text names its address
        for one in (result, expected):
            one["all"][0]["made"].pop("text")
        assert header["summary"]["as_text"] == bare["summary"]["as_text"]
    assert result == expected


@pytest.mark.parametrize("kind", ["tool", "plan"])
def test_an_object_that_is_made_in_the_pass_stays_the_object(own, flow, kind):
    header, result = flow("makes_locally", kind=kind).run()
    assert (header["state"], result) == ("completed", 4), header["error"]
    assert own.world["ran"] > 1  # it is made anew in each pass, and never kept as text


def test_random_values_are_kept_by_a_step(flow):
    owner = flow("at_random")
    header, result = owner.run()
    assert header["state"] == "completed", header["error"]
    assert len(set(result)) == 2
    assert sum(owner.ran.count(f"flow_recipes.{name}") for name in ("double",)) == 4


def test_steps_are_bounded(flow):
    header, _ = flow("of_subflows", most=2).one_pass()
    assert header["state"] == "waits"
    header, _ = flow("fails", most=2).one_pass()
    assert header["state"] == "failed"
    assert "the flow calls more than 2 steps" in header["error"]


def test_jobs_that_work_in_one_directory_run_in_the_order_of_their_calls(flow):
    calls = flow("one_directory").one_pass()[1]["calls"]
    names = [call["name"].rpartition(".")[2] for call in calls]
    assert names == [f"writes#{number}" for number in range(4)]
    after = [[name.rpartition(".")[2] for name in call["after"]] for call in calls]
    assert after == [[], [], ["writes#1"], ["writes#0"]]


def test_settings_travel_and_other_wrappers_run_here(flow, tmp_path):
    folder = str(tmp_path / "scratch")
    calls = flow("with_settings", folder=folder).one_pass()[1]["calls"]
    told = [call["settings"] for call in calls]
    assert told == [
        {"QUACC_SCRATCH_DIR": f"{folder}/x"},
        None,
        {"QUACC_SCRATCH_DIR": folder},
    ]


def test_a_serial_flow_calls_one_step_at_a_time(flow):
    owner = flow("fails")
    owner.flow["serial"] = True
    assert [call["name"] for call in owner.one_pass()[1]["calls"]] == ["flow_recipes.double#0"]


@pytest.mark.parametrize(
    "use",
    [
        *(bool, len, iter, str, repr, hash, float, list, np.asarray, np.sqrt, vars, pickle.dumps),
        *(operator.neg, operator.index, operator.methodcaller("copy"), operator.attrgetter("x")),
        *(operator.itemgetter(each) for each in (1.5, None, slice(2), (1, 2), True)),
        *(lambda value: value + 1, lambda value: 1 + value, lambda value: value == 1),
        *(lambda value: isinstance(value, dict), lambda value: 1 in value, lambda value: value()),
        *(lambda value: value | {}, lambda value: {} | value, lambda value: f"{value}"),
        *(lambda value: operator.setitem(value, 1, 2), lambda value: np.ones(2) * value),
    ],
)
def test_a_value_that_is_not_there_yet_ends_the_pass(use):
    needed = []

    class Needed(BaseException):
        pass

    class Flow:
        def need(self, names):
            needed.extend(names)
            raise Needed

    value = StepValue(Flow(), "a#0")["results"][0]
    assert copy.deepcopy([value])[0] is value
    with pytest.raises(Needed):
        use(value)
    assert needed == ["a#0"]


# --- what this release of quacc has --------------------------------------------------------------


def test_the_source_of_recipes_agrees_with_what_is_imported():
    names = [each.name for each in lookup.catalogue() if re.search(r"emt\.core|\.lj\.", each.name)]
    assert len(names) > 2
    for name in names:
        real = inspect.signature(lookup.resolve(name)).parameters.values()
        seen = lookup.look_up(name).signature.parameters.values()
        assert [(p.name, p.kind) for p in real] == [(p.name, p.kind) for p in seen], name
        empty = inspect.Parameter.empty
        assert [p.default is empty for p in real] == [p.default is empty for p in seen], name


def test_quaccs_sentinels_are_its_own_where_a_job_runs():
    import quacc

    for real in (quacc.Remove, quacc.QuaccDefault):
        spec = JobSpec(job_id="1", recipe="r", atoms=bulk("Al"), parameters={"x": [real]})
        assert codec.decode_spec(codec.encode_spec(spec))[1]["x"][0] is real


def test_calls_of_quacc_go_through_one_function():
    """The seam is private: this release of quacc has it, looked up at each call."""
    from quacc.wflow_tools import context

    assert list(inspect.signature(context._tracked_call).parameters) == [
        *("func", "node_type", "args", "kwargs")
    ]
    assert "_tracked_call" in context.tracked(context.NodeType.JOB)(len).__code__.co_names
    assert [kind.name for kind in context.NodeType] == ["JOB", "FLOW", "SUBFLOW"]
