"""Flows whose steps are jobs: they go on whatever dies, and end as a whole."""

import collections
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import sqlite3
import time
import types

import attrs
import pytest

from conftest import LAB, eventually
from crystalmath import config, processes
from crystalmath.archive.importing import import_archive
from crystalmath.archive.writing import write_archive
from crystalmath.errors import EngineUnavailable, InvalidJob, KeyConflict
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.models import JobState, Submission
from crystalmath.models.retry import Retry
from crystalmath.quacc.store import JobStore
from crystalmath.reading import job_answers
from crystalmath.reading.home_jobs import HomeJobs
from crystalmath.running.pruning import Choice
from crystalmath.running.rebuild import rebuild
from crystalmath.service import JobService
from ends import finish
from server.home_server import HomeServer

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("folders_stay")]

CONFIG = """\
[environment]
forward = ["FLOW_*"]
[flows]
on_cluster = ["waits_in_*"]
[engines.local]
workers = 2
[engines.parsl]
workers = 1
[clusters.here]
engine = "local"
[clusters.here.environment]
QUACC_SCRATCH_DIR = "{home}/scratch"
FLOW_PLACE = "here"
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Yield a service that the tests of this module share: its runners have imported quacc."""
    home = tmp_path_factory.mktemp("flows")
    (home / "config.toml").write_text(CONFIG.format(home=home))
    told = {"CRYSTALMATH_HOME": str(home), "CRYSTALMATH_RECIPES": "flow_recipes"}
    environ = {**os.environ, **told}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAB)
        patch.setenv("PYTHONPATH", str(LAB))  # of where flows are asked for their steps
        with JobService(config.load(environ), environ) as service:
            yield service


def submit(service, flow, **parameters):
    """Submit a flow of `flow_recipes`; give its id."""
    terms = [one.name for one in attrs.fields(Submission)]
    more = {name: parameters.pop(name) for name in terms if name in parameters}
    more = {"engine": "local", **more}
    recipe = f"flow_recipes.{flow}"
    return service.submit(Submission(recipe=recipe, parameters=parameters, **more)).job_id


def rebuilt(service, folder, flow):
    """Return a flow as a record that is made anew has it."""
    with JobStore(f"sqlite:///{folder}/rebuilt.sqlite") as store:
        rebuild(store, service.config.jobs_directory)
        return store.get(flow)


def steps(service, flow):
    """Return the jobs of a flow by the number of the step, as `counted` has it."""
    return service.some_jobs(service.step_ids(flow))


def named(service, flow, name):
    (found,) = [job for job in steps(service, flow) if job.parents[0]["step"].endswith(name)]
    return found


def linked(service, flow):
    """Give the links to the directories of a flow's steps."""
    return [*(service.config.jobs_directory / flow / "steps").iterdir()]


def marks(folder):
    """Tell how often each job of `counted` ran."""
    return {path.name.split()[1]: path.read_text() for path in folder.glob("ran *")}


#: What `counts` returns, and the marks of its jobs.
COUNTED = {"total": 36, "fan": [11, 12, 13]}
ONCE = dict.fromkeys(["0", "1", "2", "11", "12", "13"], "x")


def test_a_flow_may_have_as_many_labels_as_any_job(service):
    labels = {f"label {number}": "x" for number in range(64)}
    flow = submit(service, "many", count=1, labels=labels)
    assert finish(service, flow).error is None
    assert [each.labels for each in steps(service, flow)] == [labels]


def test_a_refused_key_names_what_differs_from_a_flow(service):
    asked = {"key": "kept", "resources": {"ranks": 1}, "by_step": {"double": {"priority": 1}}}
    finish(service, submit(service, "until_converged", limit=3, **asked))
    with pytest.raises(KeyConflict, match=r"\(it differs in parameters\.limit\)"):
        submit(service, "until_converged", limit=2, **asked)
    with pytest.raises(KeyConflict, match=r"\(it differs in by_step\)"):
        submit(service, "until_converged", limit=3, **{**asked, "by_step": {}})


@pytest.mark.by_turns
def test_each_step_is_a_job_of_its_own(service, tmp_path):
    asked = {
        "labels": {"project": "x"},
        "priority": 7,
        "walltime_s": 900,
        "resources": {"ranks": 1},
    }
    flow = submit(service, "counts", folder=str(tmp_path), cluster="here", **asked)
    job = finish(service, flow)
    assert (job.state, job.error) == (JobState.COMPLETED, None)
    assert service.result(flow) == COUNTED
    assert job.attempt >= 2
    assert job.summary["flow_steps"] == {"completed": 10}
    assert marks(tmp_path).keys() == ONCE.keys()
    told = steps(service, flow)
    assert len(told) == 10
    # It began with its first pass, not with its last.
    assert job.created_at < job.started_at < min(each.started_at for each in told)
    assert max(each.finished_at for each in told) < job.finished_at
    assert {each.labels["step"] for each in told} == {"counted", "total"}
    assert {each.labels["project"] for each in told} == {"x"}
    names = [each.parents[0]["step"] for each in told]
    assert all(each.parents[0]["job_id"] == flow for each in told)
    assert len(set(names)) == 10
    # For people there is a folder of links to their directories.
    links = {path.name.partition("-")[::2]: path.resolve() for path in linked(service, flow)}
    assert sorted(number for number, _ in links) == [f"{number:02}" for number in range(1, 11)]
    (total,) = [place for (_, name), place in links.items() if name == "total"]
    assert total == service.work_directory(named(service, flow, "total#0").job_id).resolve()
    reasons = [event.reason for event in service.events(job_ids=[flow])[0]]
    assert "10 of 10 steps have ended" in reasons
    # Another home takes it in as it was asked for, not as its last pass ran.
    jobs = [flow, *(each.job_id for each in told)]
    collections.deque(write_archive(service, tmp_path / "flow.zip", jobs), 0)
    home = {"CRYSTALMATH_HOME": str(tmp_path / "home"), "CRYSTALMATH_RECIPES": "flow_recipes"}
    with JobService(config.load(home), home) as other:
        collections.deque(import_archive(other, tmp_path / "flow.zip"), 0)
        taken = other.job(flow)
        header = json.loads(other.specification(flow).partition("\n")[0])
        assert other.result(flow) == COUNTED
        assert sorted(other.step_ids(flow)) == sorted(jobs[1:])
    assert (taken.terms(), taken.engine) == (job.terms(), job.engine)
    assert (taken.state, taken.attempt, taken.parents) == (job.state, job.attempt, job.parents)
    # A step that goes there alone is listed as a job of its own.
    collections.deque(write_archive(service, tmp_path / "step.zip", jobs[1:2]), 0)
    with JobService(config.load(home | {"CRYSTALMATH_HOME": str(tmp_path / "third")})) as other:
        collections.deque(import_archive(other, tmp_path / "step.zip"), 0)
        assert [one.job_id for one in other.jobs(steps=False)] == jobs[1:2]
    told_terms = {
        name: header.get(name) for name in ("engine", "cluster", "priority", "walltime_s")
    }
    assert told_terms == {"engine": "local", "cluster": "here", "priority": 7, "walltime_s": 900}
    # As one job it has no steps, and the same result.
    whole = submit(service, "counts", folder=str(tmp_path), in_one_job=True)
    assert finish(service, whole).attempt == 1
    assert service.result(whole) == COUNTED
    assert service.step_ids(whole) == []


def test_that_a_step_completes_reads_no_rows_of_the_others(service, monkeypatch):
    read, some_jobs = [], service.some_jobs
    asked, specification = [], service.specification
    count = 12
    monkeypatch.setattr(service, "some_jobs", lambda ids: read.extend(ids) or some_jobs(ids))
    monkeypatch.setattr(
        service, "specification", lambda one: asked.append(one) or specification(one)
    )
    flow = submit(service, "many", count=count)
    assert finish(service, flow).state is JobState.COMPLETED
    assert service.result(flow)["value"] == [2 * number for number in range(count)]
    # Once where a pass has ended, and once where the next one begins.
    own = set(service.step_ids(flow))
    assert sum(job_id in own for job_id in read) <= 2 * count
    # Of the flow itself, too: its specification is not kept in memory between them.
    assert asked.count(flow) == 2 * (service.job(flow).attempt - 1)


def test_a_failed_step_stops_no_other_and_a_retry_goes_on_from_the_rest(service, tmp_path):
    (tmp_path / "go 1").touch()
    flow = submit(service, "counts", folder=str(tmp_path), fails=[1], waits=[1])
    job = finish(service, flow)
    assert job.state is JobState.FAILED
    broken = named(service, flow, "counted#1")
    assert f"{broken.parents[0]['step']} (job {broken.job_id}) failed" in job.error
    assert "no luck" in job.error
    assert marks(tmp_path).items() >= {"0": "x", "1": "x", "2": "x"}.items()
    assert "12" not in marks(tmp_path)
    (tmp_path / "mended 1").touch()
    (tmp_path / "go 1").unlink()
    (again,) = service.retry([flow], Retry())
    # The retry is to read what the steps of its predecessor have left.
    first = named(service, flow, "counted#0").job_id
    pruned = at_once(service.prune(Choice(job_ids=[first, flow])))
    assert str(pruned.left).count(again.job_id) == 2
    (tmp_path / "go 1").touch()
    assert finish(service, again.job_id).state is JobState.COMPLETED
    assert service.result(again.job_id) == COUNTED
    assert {name for name, ran in marks(tmp_path).items() if ran == "xx"} >= {"1"}
    assert {marks(tmp_path)[name] for name in ("0", "2")} == {"x"}
    job = service.job(again.job_id)
    new = len(steps(service, again.job_id))
    assert job.summary["flow_steps"] == {"completed": new}
    assert job.summary["steps_taken_over"] == 10 - new
    reasons = [event.reason for event in service.events(job_ids=[again.job_id])[0]]
    assert f"{new} of {new} steps have ended, {10 - new} more taken over" in reasons
    # What it took over is seen with its own, and with those of its predecessor as before.
    assert service.with_steps([job])[0].steps == {"completed": 10}
    seen = {one.job_id for one in service.jobs(parent=again.job_id)}
    own, before = ({one.job_id for one in steps(service, one)} for one in (again.job_id, flow))
    assert (len(seen), seen - own) == (10, seen & before)
    relatives = service.children(again.job_id)
    assert {one["job_id"] for one in relatives if one["role"] == "taken"} == seen - own
    with JobStore(f"sqlite:///{tmp_path}/rebuilt.sqlite") as store:
        rebuild(store, service.config.jobs_directory)
        assert store.steps([again.job_id]) == {again.job_id: {JobState.COMPLETED: 10}}
        ended, told = service.job(flow), store.get(flow)
        assert (told.state, told.error) == (JobState.FAILED, ended.error)
        assert told.traceback == ended.traceback
        assert ended.started_at < told.finished_at <= ended.finished_at
    # What has been removed since is computed once more.
    links = len(linked(service, flow))
    assert len(linked(service, again.job_id)) == 10
    at_once(service.prune(Choice(job_ids=[first])))
    for one, left in ((flow, links - 1), (again.job_id, 9)):
        assert len(linked(service, one)) == left
        assert all(link.exists() for link in linked(service, one))
    (third,) = service.retry([again.job_id], Retry())
    assert finish(service, third.job_id).state is JobState.COMPLETED
    assert len(linked(service, third.job_id)) == 10
    assert marks(tmp_path)["0"] == "xx"


@pytest.mark.parametrize(("kind", "shown"), [("tool", "Tool"), ("plan", "Plan")])
def test_a_step_takes_no_text_for_an_object_that_another_has_returned(service, kind, shown):
    flow = submit(service, "hands_on", kind=kind)
    job = finish(service, flow)
    assert job.state is JobState.FAILED
    assert "step flow_recipes.made_tool#0" in job.error
    uses = named(service, flow, "uses#0")
    assert uses.state is JobState.FAILED
    for error in (job.error, uses.error):
        assert f"flow_recipes.{shown}" in error
    assert "no form in JSON" in job.error
    one = submit(service, "hands_on", kind=kind, in_one_job=True)
    assert finish(service, one).state is JobState.COMPLETED
    assert service.result(one) == {"value": 1}


@pytest.mark.parametrize("how", ["removed", "cut short"])
def test_a_flow_fails_for_a_damaged_result_of_a_step_and_its_retry_computes_it(
    service, tmp_path, how
):
    flow = submit(service, "sums", folder=str(tmp_path))
    eventually(lambda: len(steps(service, flow)) == 3)
    first = finish(service, named(service, flow, "counted#0").job_id)
    outcome = service.config.jobs_directory / first.job_id / "1.outcome"
    content = outcome.read_bytes()
    outcome.unlink()
    if how == "cut short":
        outcome.write_bytes(content[:-20])
    (tmp_path / "go 1").touch()
    job = finish(service, flow, 60)
    assert job.state is JobState.FAILED
    assert first.parents[0]["step"] in job.error
    assert str(outcome) in job.error
    assert "crystalmath retry of the flow computes this step again" in job.error
    needs = named(service, flow, "total#0")
    assert f"it needs job {first.job_id}: the result of job {first.job_id}" in needs.error
    (again,) = service.retry([flow], Retry())
    assert finish(service, again.job_id).state is JobState.COMPLETED
    assert service.result(again.job_id) == {"value": 1}
    assert marks(tmp_path) == {"0": "xx", "1": "x"}


@pytest.mark.by_turns
def test_a_step_that_is_run_again_while_its_flow_goes_on(service, tmp_path):
    flow = submit(service, "counts", folder=str(tmp_path), fails=[1], waits=[0])
    eventually(lambda: any(job.state is JobState.FAILED for job in steps(service, flow)))
    (broken,) = [job for job in steps(service, flow) if "no luck" in str(job.error)]
    (again,) = service.retry([broken.job_id], Retry(parameters={"fails": False}))
    assert again.parents[0] == broken.parents[0]
    finish(service, again.job_id)
    # Its flow is to read what it has left.
    pruned = at_once(service.prune(Choice(job_ids=[again.job_id])))
    assert flow in str(pruned.left)
    (tmp_path / "go 0").touch()
    assert finish(service, flow).state is JobState.COMPLETED
    assert service.result(flow) == COUNTED


@pytest.mark.by_turns
def test_steps_have_terms_of_their_own(service, tmp_path):
    terms = {
        "counted": {"walltime_s": 300, "resources": {"nodes": 1}, "priority": 1},
        "*counted#1": {"priority": 2, "cluster": None},
        "t*": {"cluster": "here"},
        "totla": {"priority": 5},
        "*conted#0": {"resources": {"ranks": 1}},
    }
    flow = submit(service, "counts", folder=str(tmp_path), by_step=terms)
    job = finish(service, flow)
    assert (job.state, service.result(flow)) == (JobState.COMPLETED, COUNTED)
    last = {"total": ("here", 0, None, None)}
    had = {}
    for each in steps(service, flow):
        name = each.parents[0]["step"].rpartition(".")[2].partition("/")[0]
        name = "total" if name.startswith("total") else name.rpartition("counted")[2]
        nodes = each.resources.nodes
        had[name] = (each.cluster, each.priority, each.walltime_s, nodes)
    assert had.pop("total") == last["total"]
    assert had.pop("#1") == ("local", 2, 300, 1)
    assert set(had.values()) == {("local", 1, 300, 1)}
    # What has meant no step is told of, and at once where no other step can be meant.
    assert job.summary["by_step_unused"] == ["totla", "*conted#0"]
    (told,) = job.warnings
    assert (told["code"], told["place"]) == ("step_unknown", "by_step.*conted#0")
    assert told["message"].startswith("'*conted#0' matches no step of the flow")
    assert told["remedy"] == "did you mean 'counted'?"
    asked = {"parameters": {"folder": str(tmp_path)}, "by_step": {"totla": {"priority": 1}}}
    checked = service.check(Submission(recipe="flow_recipes.counts", **asked))
    assert not checked.findings
    assert "'totla' matches a step is known then" in str(checked.flow.rest)
    # A retry keeps them.
    changes = {"totla": {"priority": 6}, "*conted#0": terms["*conted#0"]}
    changes["counted#0"] = {"priority": 3}
    (again,) = service.retry([flow], Retry(by_step=changes))
    told = {one["place"]: one for one in again.warnings}
    assert sorted(told) == [f"by_step.{name}" for name in ("*conted#0", "counted#0", "totla")]
    assert len(again.warnings) == 3
    message = f"'totla' matches no step that flow {flow} has called"
    totla = told["by_step.totla"]
    assert (totla["message"], totla["remedy"]) == (message, "did you mean 'total'?")
    assert told["by_step.counted#0"]["remedy"] == "did you mean '*counted#0'?"
    unused = finish(service, again.job_id).summary["by_step_unused"]
    assert unused == ["totla", "*conted#0", "counted#0"]
    header = json.loads(service.specification(again.job_id).partition("\n")[0])
    assert header["by_step"] == {**terms, **changes}


def test_equal_flows_with_other_terms_are_other_flows(service, tmp_path):
    asked = [
        {"by_step": {"counted": {"priority": 1}}},
        {},
        {"in_one_job": True},
        {"serial": True},
        {"walltime_total_s": 900.0},
        {"walltime_total_s": 901.0},
    ]
    told = service.submit_many(
        [Submission(recipe="flow_recipes.many", parameters={"count": 0}, **one) for one in asked]
    )
    headers = [json.loads(service.specification(one.job_id).partition("\n")[0]) for one in told]
    for header, terms in zip(headers, asked, strict=True):
        alone = {"by_step": {}, "in_one_job": False, "serial": False, "walltime_total_s": None}
        found = {name: header.get(name, usual) for name, usual in alone.items()}
        assert found == {**alone, **terms}
    for one, terms in zip(told, asked, strict=True):
        given = at_once(job_answers.specification(service, one.job_id))
        assert {name: given[name] for name in alone} == {**alone, **terms}
    assert told[0].spec_hash != told[1].spec_hash


@pytest.mark.parametrize(
    ("recipe", "terms", "words"),
    [
        (
            "scratch_of",
            {"in_one_job": True},
            "for flows, and flow_recipes.scratch_of is",
        ),
        ("scratch_of", {"by_step": {"x": {"priority": 1}}}, "'by_step' is for flows"),
        ("scratch_of", {"serial": True}, "'serial' is for flows"),
        ("many", {"serial": True, "in_one_job": True}, "'serial' does not go with a flow in one"),
        ("many", {"by_step": {"x": {"cluster": "heer"}}}, "'by_step.x': .*did you mean 'here'"),
        ("many", {"by_step": {"x": {"ranks": 1}}}, "'by_step.x.ranks' is not a known"),
        ("many", {"by_step": {"x": {"resources": {"nodes": 0}}}}, "'by_step.x.resources.nodes'"),
        ("many", {"by_step": {"x": {"resources": {"queue": "q"}}}}, "'by_step.x': .*queue"),
        ("many", {"by_step": {"x": {"params": {"a": {"$job": "1", "path": []}}}}}, "reference"),
    ],
)
def test_terms_that_a_flow_alone_has_are_checked_at_once(service, recipe, terms, words):
    parameters = {"count": 1} if recipe == "many" else {}
    asked = Submission(recipe=f"flow_recipes.{recipe}", parameters=parameters, **terms)
    with pytest.raises(InvalidJob, match=words):
        service.submit(asked)
    assert any(re.search(words, one.message) for one in service.check(asked).errors)


def test_times_that_that_of_the_flow_cuts_are_warnings(service):
    terms = {"walltime_total_s": 60, "walltime_s": 61, "by_step": {"double": {"walltime_s": 62}}}
    asked = Submission(recipe="flow_recipes.many", parameters={"count": 1}, **terms)
    told = [one.message for one in service.check(asked).findings]
    assert told == [
        f"'{name}' is {time}, longer than the total of 1m after which the whole flow is stopped"
        for name, time in (("walltime_s", "1m1s"), ("by_step.double.walltime_s", "1m2s"))
    ]


def test_failed_steps_run_again_with_other_parameters(service, tmp_path):
    flow = submit(service, "counts", folder=str(tmp_path), fails=[1])
    assert finish(service, flow).state is JobState.FAILED
    (refused,) = service.retry([flow], Retry(parameters={"countde": {"fails": False}}))
    assert "'countde' is no parameter of flow_recipes.counts, and no step" in str(refused)
    assert "did you mean 'counted'?" in str(refused)
    (refused,) = service.retry([flow], Retry(parameters={"counted": False}))
    assert "takes its parameters by their names" in str(refused)
    step = named(service, flow, "counted#1").job_id
    for wrong, words in (
        ({"fial": True}, "counted has no parameter 'fial'; did you mean fails?"),
        ({"fails": "x"}, "'fails' of flow_recipes.counted must be true or false"),
    ):
        (refused,) = service.retry([flow], Retry(parameters={"counted": wrong}))
        assert words in str(refused)
        asked = Retry(by_step={"counted": {"params": wrong}})
        (refused,) = service.retry([flow], asked, dry_run=True)
        assert words in str(refused)
        (refused,) = service.retry([step], Retry(parameters=wrong), dry_run=True)
        assert words in str(refused)
    (again,) = service.retry([flow], Retry(parameters={"counted": {"fails": False}}))
    assert finish(service, again.job_id).state is JobState.COMPLETED
    assert service.result(again.job_id) == COUNTED
    # The third takes over what was changed, too, whatever is to be other for what runs again.
    for changes in ({}, {"counted": {"waits": True}}):
        (again,) = service.retry([again.job_id], Retry(parameters=changes))
        told = [one for one in again.warnings if one["code"] == "step_taken_over"]
        assert len(told) == len(changes)
        job = finish(service, again.job_id)
        assert (job.state, job.summary["steps_taken_over"]) == (JobState.COMPLETED, 10)
    assert marks(tmp_path).items() >= {"0": "x", "1": "xx", "2": "x", "11": "xx"}.items()


def test_a_flow_that_differs_says_what_helps_and_that_does(service, tmp_path):
    (tmp_path / "wanted").write_text("1")
    flow = submit(service, "reads", folder=str(tmp_path))
    eventually(lambda: marks(tmp_path).keys() == {"0", "1"})
    (tmp_path / "wanted").write_text("2")
    (tmp_path / "go 0").touch()
    job = finish(service, flow)
    assert job.state is JobState.FAILED
    other = named(service, flow, "counted#1")
    step = f"{other.parents[0]['step']} (job {other.job_id})"
    assert f"the flow calls step {step} otherwise than before" in job.error
    assert "its argument 'number' was '1', and is '2' now" in job.error
    assert "crystalmath retry makes a new flow" in job.error
    assert "--serial" in job.error
    (again,) = service.retry([flow], Retry(serial=True))
    (third,) = [submit(service, "reads", folder=str(tmp_path), serial=True)]
    assert finish(service, again.job_id).summary["steps_taken_over"] == 1
    assert [one["number"] for one in service.result(again.job_id)["value"]] == [0, 2]
    assert finish(service, third).state is JobState.COMPLETED
    # Of those of a serial flow, none was recorded before the one before had ended.
    first, second = steps(service, third)
    assert first.finished_at <= second.created_at
    assert marks(tmp_path) == {"0": "xx", "1": "x", "2": "xx"}


def test_a_restricted_home_runs_steps_again_only_as_they_were(service):
    flow = submit(service, "many", count=1)
    assert finish(service, flow).error is None
    (step,) = service.step_ids(flow)
    narrowed = dataclasses.replace(service.config, restricted={"flow_recipes.many": ["count"]})
    with JobService(narrowed) as other:
        for job_id, changes in (
            (step, {"parameters": {"number": 5}}),
            (step, {"resources": {"ranks": 2}}),
            (flow, {"parameters": {"double": {"number": 5}}}),
        ):
            (refused,) = other.retry([job_id], Retry(**changes), dry_run=True)
            assert re.search(r"takes no .*\[restricted\]", str(refused))
        (again,) = other.retry([step], Retry(), dry_run=True)
        assert again.state is JobState.PENDING


def test_a_cancelled_flow_ends_when_none_of_its_steps_is_alive(service, tmp_path):
    flow = submit(service, "counts", folder=str(tmp_path), waits=[0, 1])
    eventually(lambda: marks(tmp_path).keys() >= {"0", "1"})
    assert service.cancel(flow)
    job = finish(service, flow)
    assert (job.state, job.error) == (JobState.CANCELLED, "cancelled")
    told = steps(service, flow)
    assert all(each.state.is_terminal() for each in told)
    assert max(each.finished_at for each in told) <= job.finished_at
    again = rebuilt(service, tmp_path, flow)
    assert (again.state, again.error, again.attempt) == (job.state, job.error, job.attempt)
    directories = {each.job_id: RunDirectory(service.directory(each.job_id).path) for each in told}
    there = {one for one in directories if os.path.exists(directories[one].path)}
    assert all(
        directories[each.job_id].decided(each.attempt) for each in told if each.job_id in there
    )
    assert "11" not in marks(tmp_path)
    # Without their flow its steps are listed as jobs of their own.
    at_once(service.prune(Choice(job_ids=[flow])))
    with JobStore(f"sqlite:///{tmp_path}/pruned.sqlite") as store:
        rebuild(store, service.config.jobs_directory)
        assert {job.job_id for job in store.list(steps=False)} >= there > set()


def test_a_flow_whose_time_is_up_stops_its_steps_and_fails(service, tmp_path, monkeypatch):
    terms = {"waits": [1], "walltime_total_s": 3600}
    flow = submit(service, "counts", folder=str(tmp_path), **terms)
    eventually(lambda: "1" in marks(tmp_path) and service.job(flow).stage == "steps")
    with monkeypatch.context() as patch:
        late = types.SimpleNamespace(time=lambda: time.time() + 3600)
        patch.setattr("crystalmath.service.flows.time", late)
        job = finish(service, flow)
    assert job.state is JobState.FAILED
    assert "--walltime-total" in job.error
    assert all(each.state.is_terminal() for each in steps(service, flow))
    assert named(service, flow, "counted#1").state is JobState.CANCELLED
    assert "12" not in marks(tmp_path)
    again = rebuilt(service, tmp_path, flow)
    assert (again.state, again.error) == (job.state, job.error)
    # Its retry has as much time again.
    (tmp_path / "go 1").touch()
    (again,) = service.retry([flow], Retry())
    assert finish(service, again.job_id).state is JobState.COMPLETED


def test_a_step_that_is_refused_fails_its_flow(service, tmp_path):
    flow = submit(service, "calls_unknown", folder=str(tmp_path))
    job = finish(service, flow)
    assert job.state is JobState.FAILED
    assert "the step" in job.error
    assert "is refused" in job.error
    assert marks(tmp_path) == {}
    again = rebuilt(service, tmp_path, flow)
    assert (again.state, again.error) == (job.state, job.error)


def test_of_steps_that_cannot_be_recorded_together_the_one_at_fault_is_named(
    service, tmp_path, monkeypatch
):
    def check(job):
        if "counted#1/" in str(job.key):
            raise InvalidJob("the database takes none of them; call it otherwise")

    monkeypatch.setattr("crystalmath.store.insertions.check", check)
    flow = submit(service, "counts", folder=str(tmp_path))
    job = finish(service, flow)
    assert (job.state, service.step_ids(flow)) == (JobState.FAILED, [])
    assert job.error == (
        "the step flow_recipes.counted#1 is refused: the database takes none of them; call it "
        "otherwise"
    )


def test_without_a_server_the_steps_of_a_flow_are_counted_as_their_files_tell(service, tmp_path):
    flow = submit(service, "counts", folder=str(tmp_path), waits=[0])
    known = {"completed": 2, "running": 1}
    eventually(lambda: service.with_steps([service.job(flow)])[0].steps == known)
    copy = tmp_path / "copy.sqlite"
    with contextlib.closing(sqlite3.connect(copy)) as rows, rows:
        with contextlib.closing(sqlite3.connect(service.config.home / "jobs.sqlite")) as now:
            now.backup(rows)
        rows.execute("UPDATE jobs SET owner = '{}'")
    (tmp_path / "go 0").touch()
    assert finish(service, flow).error is None
    then = dataclasses.replace(service.config, database_url=f"sqlite:///{copy}")
    with HomeJobs.look(then) as home:
        (job,) = home.with_steps([home.job(flow)])
    assert (job.state, job.steps) == (JobState.RUNNING, {"completed": 3})
    assert job.reason == "3 of 3 steps have ended"


def test_a_step_may_fail_while_its_flow_calls_another_that_needs_it(service, tmp_path):
    flow = submit(service, "calls_what_fails_meanwhile", folder=str(tmp_path))
    eventually(lambda: any(job.state is JobState.FAILED for job in steps(service, flow)))
    (tmp_path / "go on").touch()
    job = finish(service, flow)
    assert (job.state, job.error) == (JobState.COMPLETED, None)
    assert service.result(flow)["value"] == "handled"
    assert marks(tmp_path) == {"0": "x", "1": "x"}


@pytest.mark.by_turns
def test_settings_that_a_flow_changes_reach_its_steps(service, tmp_path):
    folder = str(tmp_path)
    flow = submit(service, "with_settings", folder=folder, cluster="here")
    assert finish(service, flow).state is JobState.COMPLETED
    of_cluster = f"{service.config.home}/scratch"
    assert service.result(flow)["value"] == [of_cluster, folder, f"{folder}/x"]
    (again,) = service.retry([named(service, flow, "scratch_of#0").job_id], Retry())
    assert finish(service, again.job_id).state is JobState.COMPLETED
    assert service.result(again.job_id)["value"] == f"{folder}/x"


def test_a_pass_stays_beside_its_owner_where_the_engine_begins_anew(service, monkeypatch):
    start, begun = service._runners.start, []

    def closed_once(runner, spec, document):
        begun.append(runner.settings.name)
        if len(begun) == 1:
            raise EngineUnavailable("the engine 'local' has been closed")
        start(runner, spec, document)

    monkeypatch.setattr(service._runners, "start", closed_once)
    get, wanted = service._runners.get, []
    monkeypatch.setattr(service._runners, "get", lambda name: wanted.append(name) or get(name))
    submission = Submission(recipe="flow_recipes.many", parameters={"count": 0}, engine="parsl")
    service.submit(submission)
    assert begun == ["local"]
    assert wanted[-1] == "local"


@pytest.mark.by_turns
def test_a_body_waits_for_no_long_job(service, tmp_path):
    told = {"folder": str(tmp_path), "in_one_job": True}
    long = [submit(service, "waits_in_body", **told) for _ in range(2)]
    eventually(lambda: len(list(tmp_path.iterdir())) == 2)
    # Both workers are busy until the flow, which has no steps, has completed.
    assert finish(service, submit(service, "many", count=0)).error is None
    (tmp_path / "go on").touch()
    assert [finish(service, job).state for job in long] == [JobState.COMPLETED] * 2


@pytest.mark.parametrize("engine", ["local", "parsl"])
def test_a_body_that_is_sent_to_the_flows_cluster_is_run_there_and_again(service, tmp_path, engine):
    if engine == "parsl":
        pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")
    cluster, place = {"local": ("here", "here"), "parsl": ("local", None)}[engine]
    other = {"*place#1": {"engine": "local", "cluster": "local"}}
    terms = {"walltime_s": 3600, "resources": {"nodes": 1}, "by_step": other}
    flow = submit(
        service, "waits_in_body", folder=str(tmp_path), engine=engine, cluster=cluster, **terms
    )
    eventually(lambda: list(tmp_path.iterdir()), timeout=300)
    directory = RunDirectory(service.directory(flow).path)
    told = directory.read_header()
    assert (told["engine"], told["cluster"], told["walltime_s"]) == (engine, cluster, 3600)
    assert told["resources"]["nodes"] == 1
    # The next attempt runs the body anew.
    (mark,) = tmp_path.iterdir()
    os.kill(int(mark.name.split()[1]), signal.SIGKILL)
    eventually(lambda: len(list(tmp_path.iterdir())) == 2, timeout=300)
    assert not processes.marked("CRYSTALMATH_ATTEMPT", f"{flow}.2")
    (tmp_path / "go on").touch()
    assert finish(service, flow).error is None
    assert service.result(flow)["value"] == [place, str(place), None]
    assert "attempt 2 was lost" in str([each.reason for each in service.events(job_ids=[flow])[0]])


def test_a_body_on_the_flows_cluster_ends_as_any_job_there(service, tmp_path):
    long = {"place": {"walltime_s": 3600}}
    terms = {"folder": str(tmp_path), "cluster": "here", "by_step": long}
    # The time of the whole flow is longer, and bounds no pass that has less.
    job = finish(
        service, submit(service, "waits_in_body", walltime_s=1, walltime_total_s=3600, **terms)
    )
    assert (job.state, "walltime" in job.error) == (JobState.FAILED, True)
    seen = set(tmp_path.iterdir())
    flow = submit(service, "waits_in_body", walltime_s=3600, **terms)
    eventually(lambda: set(tmp_path.iterdir()) - seen)
    assert service.cancel(flow)
    assert finish(service, flow).state is JobState.CANCELLED
    assert not processes.marked("CRYSTALMATH_ATTEMPT", f"{flow}.2")
    # A batch system knows why it has ended what ran; then it is not run again.
    seen = set(tmp_path.iterdir())
    flow = submit(service, "waits_in_body", priority=1, **terms)
    eventually(lambda: set(tmp_path.iterdir()) - seen)
    RunDirectory(service.directory(flow).path).note_ended(2, "its allocation had no memory")
    (mark,) = set(tmp_path.iterdir()) - seen
    os.kill(int(mark.name.split()[1]), signal.SIGKILL)
    job = finish(service, flow)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
    assert job.error.startswith("its allocation had no memory (")


#: Lives of flows, and kills in each: ``KILL_RUNS=8 KILLS_A_RUN=25`` is a long run.
RUNS = int(os.environ.get("KILL_RUNS", "2"))
KILLS = int(os.environ.get("KILLS_A_RUN", "5"))


@pytest.mark.by_turns
@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_is_killed_each_flow_completes_and_none_outlives_its_cancel(tmp_path, seed):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    where = '["*"]' if seed % 4 in {1, 2} else "[]"
    (home / "config.toml").write_text(f"[flows]\non_cluster = {where}\n")
    with HomeServer(home, CRYSTALMATH_RECIPES="flow_recipes") as server:
        life = Life(server.start(), seed)
        while len(life.killed) < KILLS:
            life.submit()
            life.wait()
            if life.chance.random() < 0.2:
                life.cancel()
            life.kill()
        print(seed, life.engine, len(life.folders), len(life.cancelled), life.killed)
        for flow in list(life.folders):
            life.check_end(flow)


class Life:
    """Flows, on Parsl with odd seeds from 3 on, and who kills the server and what it started."""

    def __init__(self, server, seed):
        self.server = server
        self.chance = random.Random(seed)
        self.engine = "parsl" if seed % 2 and seed > 1 else "local"
        #: The folders for the marks of the flows' jobs.
        self.folders = {}
        self.cancelled = set()
        self.killed = []

    def submit(self):
        if self.server.counts()["running"] < 2:
            folder = self.server.home.parent / f"marks {len(self.folders)}"
            folder.mkdir()
            told = {"recipe": "flow_recipes.counts", "params": {"folder": str(folder)}}
            job = self.server.call("jobs.submit", engine=self.engine, **told)
            self.folders[job["job_id"]] = folder

    def wait(self):
        """Wait until some attempts have ended, and perhaps until something more has begun."""
        wanted = self.outcomes() + self.chance.randrange(4)
        eventually(
            lambda: self.outcomes() >= wanted or not self.server.counts()["running"],
            timeout=300,
        )
        time.sleep(self.chance.uniform(0, 0.1))

    def outcomes(self):
        return len(list(self.server.home.glob("jobs/*/*.outcome")))

    def cancel(self):
        flow = self.chance.choice(list(self.folders))
        self.server.call("jobs.cancel", job_id=flow)
        self.cancelled.add(flow)

    def kill(self):
        kinds = {}
        for pid, command in self.server.living().items():
            # Of one that is a copy of another: its first file.
            kinds.setdefault(re.split(r" -m |python\S* ", command)[-1].split()[0], []).append(pid)
        kind = self.chance.choice(sorted(kinds))
        victim = self.chance.choice(kinds[kind])
        self.killed.append(kind.rpartition("/")[2])
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        if victim == self.server.process.pid:
            self.server.process.wait()
            self.server.start()

    def finish(self, job_id):
        # Parsl waits for two minutes for an interchange that was killed as it started.
        eventually(
            lambda: self.server.call("jobs.wait", job_ids=[job_id], timeout_s=60)["done"],
            timeout=600,
        )
        return self.server.finish(job_id)

    def check_end(self, flow):
        """Hold what has become of a flow, and of each of its steps, against its promises."""
        tries = [self.finish(flow)]
        if flow in self.cancelled and tries[0]["status"] != "completed":
            assert tries[0]["status"] == "cancelled", tries
        else:
            while tries[-1]["status"] == "failed" and len(tries) < 3:
                # Some step of it, or pass, was killed as often as it may be begun.
                assert "lost" in tries[-1]["error"], tries
                told = self.server.call("jobs.retry", job_ids=[tries[-1]["job_id"]])
                tries.append(self.finish(told["jobs"][0]["job_id"]))
            assert tries[-1]["status"] == "completed", tries
            told = self.server.call("jobs.result", job_id=tries[-1]["job_id"])
            assert told["result"] == COUNTED
        steps = {}  # a retry lists what it has taken over, too
        for job in tries:
            told = self.server.call("jobs.list", parent=job["job_id"], limit=100)["jobs"]
            steps |= {step["job_id"]: step for step in told}
            assert all(step["finished_at"] <= job["finished_at"] for step in told), (told, job)
        attempts = sum(self.check_step(step) for step in steps.values())
        completed = [step for step in steps.values() if step["status"] == "completed"]
        names = {step["parents"][0]["step"] for step in completed}
        assert len(completed) == len(names), "what was published is computed again"
        assert sum(map(len, marks(self.folders[flow]).values())) <= attempts

    def check_step(self, step):
        """See that a step has ended once, and that nothing of it is alive; count its attempts."""
        directory = RunDirectory(str(self.server.home / "jobs" / step["job_id"]))
        ends = [directory.outcome(number) for number in range(1, step["attempt"] + 1)]
        assert all(end["state"] == "lost" for end in ends[:-1]), (step, ends)
        if step["status"] == "completed":
            assert ends[-1]["state"] == "completed", (step, ends)
        for number in range(1, step["attempt"] + 1):
            name = f"{step['job_id']}.{number}"
            assert not processes.marked("CRYSTALMATH_ATTEMPT", name)
        return step["attempt"]
