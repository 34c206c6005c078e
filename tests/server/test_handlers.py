"""The methods beside the four first ones, on the real local engine; each answer fits its schema."""

import asyncio
import base64
import gzip
import io
import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.trajectory import Trajectory

from conftest import NOBODY, eventually, eventually_in_loop
from crystalmath.jobs import workfiles
from crystalmath.jobs.changes import Change
from crystalmath.jobs.workfiles import read_tail
from crystalmath.jobs.worktree import at_once
from crystalmath.quacc.runner import JobState
from crystalmath.quacc.store import JobStore
from crystalmath.recipes.structures import parse_structure
from crystalmath.server.handlers import METHODS, is_repeatable
from crystalmath.service import JobService
from crystalmath.wire import messages
from crystalmath.wire.schemas import components
from rundirs import new_job

pytestmark = pytest.mark.server

AL = {"symbols": "Al", "cell": [3.0, 3.0, 3.0], "pbc": True}
VALUE = {"recipe": "lab_recipes.value", "structure": AL}


@pytest.fixture
def other(service):
    """The store as another process has it."""
    with JobStore(service.config.database_url) as store:
        yield store


async def ask(service, method, /, **params):
    answer = await METHODS[method](service, params)
    document = json.loads(messages.dumps(answer))
    schema = {**METHODS[method].answer, "components": {"schemas": components()}}
    if document.get("status") != "error":
        jsonschema.Draft7Validator(schema).validate(document)
    return document


def call(service, method, /, **params):
    return asyncio.run(ask(service, method, **params))


def submit(service, /, **more):
    answer = call(service, "jobs.submit", **{**VALUE, **more})
    assert answer["error"] is None, answer
    return answer["job_id"]


def done(service, *job_ids):
    answer = call(service, "jobs.wait", job_ids=list(job_ids), timeout_s=120)
    assert answer["done"], answer
    return answer["jobs"]


# --- many ----------------------------------------------------------------------------------------


def test_many_are_taken_or_refused_each_on_its_own(service):
    jobs = [
        {**VALUE, "key": "many", "params": {"number": 1}},
        {**VALUE, "recipe": "os.system"},
        {"recipe": "lab_recipes.value"},
        {**VALUE, "walltime": 5},
        {**VALUE, "structure": "what?"},
        {**VALUE, "engine": "slurm"},
        {**VALUE, "key": "many", "params": {"number": 1}},
        VALUE,
    ]
    answers = call(service, "jobs.submit_many", jobs=jobs)["jobs"]
    codes = [answer.get("code") for answer in answers]
    assert codes[1:6] == ["invalid_job"] * 4 + ["unknown_engine"]
    assert "did you mean 'walltime_s'" in answers[3]["error"]
    assert (codes[0], codes[6:]) == (None, [None, None])
    first, again, last = answers[0]["job_id"], answers[6]["job_id"], answers[7]["job_id"]
    assert first == again != last
    assert {job["status"] for job in done(service, first, last)} == {"completed"}
    for wrong, said in (([VALUE] * 10_001, "at most 10000"), (VALUE, "'jobs'"), ([5], "jobs")):
        answer = call(service, "jobs.submit_many", jobs=wrong)
        assert (answer["code"], answer["jobs"]) == ("invalid_job", [])
        assert said in answer["error"]


def test_the_states_of_many_in_their_order(service):
    known = submit(service)
    (job,) = done(service, known)
    asked = [NOBODY, known, "../../etc", known]
    jobs = call(service, "jobs.status_many", job_ids=asked)["jobs"]
    assert [found["job_id"] for found in jobs] == asked
    assert jobs[1] == jobs[3] == job == call(service, "jobs.status", job_id=known)
    assert {jobs[0]["code"], jobs[2]["code"]} == {"unknown_job"}
    answer = call(service, "jobs.status_many", job_ids=[known, 7])
    assert answer["code"] == "unknown_job"


def test_check_tells_everything_at_once(service):
    fine = call(service, "jobs.check", **VALUE, environment={"PATH": "/bin", "SECRET": "x"})
    seen = ["CRYSTALMATH_RECIPES", "PATH"]
    same = {"status": "ok", "error": None, "findings": [], "potcars": [], "copies": []}
    assert fine == {"ok": True, **same, "environment": seen}
    bad = {**VALUE, "recipe": "lab_recipes.valeu", "engine": "slurm", "walltime_s": 10**400}
    answer = asyncio.run(METHODS["jobs.check"](service, bad))
    assert (answer["ok"], answer["status"]) == (False, "error")
    assert len(answer["findings"]) == 3
    assert all(finding["message"] in answer["error"] for finding in answer["findings"])


def places(answer):
    """Return the place of each finding, with its code."""
    assert [found["severity"] for found in answer["findings"]] == ["error"] * len(
        answer["findings"]
    )
    assert (answer["ok"], answer["status"]) == (False, "error")
    assert all(found["message"] in answer["error"] for found in answer["findings"])
    return {found["place"]: found["code"] for found in answer["findings"]}


def test_check_tells_of_each_wrong_value_and_where_it_stands(service):
    wrong = {
        "recipe": "lab_recipes.switch",
        "structure": "what?",
        "cluster": "huge",
        "walltime_s": "5",
        "wall": 3,
        "resources": {"nodes": 0},
        "labels": {"a": 1},
        "params": {"relax_cell": "no", "atoms": 1},
    }
    answer = call(service, "jobs.check", **wrong)
    assert places(answer) == dict.fromkeys(
        [
            *("structure", "cluster", "walltime_s", "wall", "resources.nodes", "labels.a"),
            *("params.relax_cell", "params.atoms"),
        ],
        "invalid_job",
    )
    assert len(answer["findings"]) == 8
    for some, found in (
        ({"recipe": None, "engine": "slurm"}, {"recipe": "invalid_job"}),
        ({"recipe": 7, "key": 5}, dict.fromkeys(("recipe", "key"), "invalid_job")),
        ({"recipe": "lab_recipes.valeu"}, {"recipe": "invalid_job"}),
        ({"engine": "slurm"}, {"engine": "unknown_engine"}),
        ({"params": {"@module": "os"}}, {"params": "invalid_job"}),
        ({"structure": None}, {"structure": "invalid_job"}),
        ({"jobs": 5, "inputs": []}, dict.fromkeys(("jobs", "inputs"), "invalid_job")),
    ):
        assert places(call(service, "jobs.check", **{**VALUE, **some})) == found
    emt = {
        **VALUE,
        "recipe": "quacc.recipes.emt.core.relax_job",
        "params": {"opt_params": {"fmx": 1}},
    }
    answer = call(service, "jobs.check", **emt)
    assert places(answer) == {"params.opt_params.fmx": "parameter_unknown"}
    many = call(service, "jobs.check", **{f"x{number}": 1 for number in range(1000)})
    assert len(many["findings"]) == 100


def test_what_looks_like_a_slip_is_told_and_text_is_no_flag(service):
    switch = {**VALUE, "recipe": "lab_recipes.switch"}
    wrong = call(service, "jobs.submit", **switch, params={"relax_cel": True})
    assert (wrong["code"], "lax (--lax) lets it pass" in wrong["error"]) == ("refused", True)
    fine = call(service, "jobs.check", **switch, params={"relax_cel": True}, lax=True)
    assert [(found["severity"], found["code"]) for found in fine["findings"]] == [
        ("warning", "parameter_misspelt")
    ]
    taken = call(service, "jobs.submit", **switch, params={"relax_cel": True}, lax=True)
    assert taken["warnings"] == fine["findings"]
    assert done(service, taken["job_id"])[0]["warnings"] == fine["findings"]
    refused = call(service, "jobs.submit", **switch, params={"relax_cell": "no"})
    assert refused["code"] == "invalid_job"
    assert "'relax_cell' of lab_recipes.switch must be true or false" in refused["error"]
    described = call(service, "recipes.describe", recipe="lab_recipes.switch")
    assert described["parameters"]["properties"]["note"]["x-annotation"] == "'in words'"


def test_a_value_of_the_environment_is_never_repeated(service):
    for environment in ("SECRET", ["SECRET"], {"TOKEN": ["SECRET"]}, {"A=SECRET\0": "SECRET"}):
        one = call(service, "jobs.submit", **VALUE, environment=environment)
        (many,) = call(service, "jobs.submit_many", jobs=[{**VALUE, "environment": environment}])[
            "jobs"
        ]
        assert one["code"] == many["code"] == "invalid_job"
        assert one["error"] == many["error"]
        if environment != {"A=SECRET\0": "SECRET"}:  # a name, that is
            assert "SECRET" not in one["error"]


def test_many_are_cancelled_each_on_its_own(service, tmp_path):
    ended = submit(service)
    done(service, ended)
    params = {"path": str(tmp_path / "never")}
    waiting = [
        submit(service, recipe="lab_recipes.wait_for", params=params, labels={"set": "stopped"})
        for _ in range(3)
    ]
    answers = call(service, "jobs.cancel_many", job_ids=[waiting[0], ended, NOBODY])["jobs"]
    assert [answer["job_id"] for answer in answers] == [waiting[0], ended, NOBODY]
    assert [answer["cancelled"] for answer in answers] == [True, False, False]
    assert answers[1]["error"] == "the job had completed before"
    assert answers[2]["code"] == "unknown_job"
    done(service, waiting[0])
    rest = call(service, "jobs.cancel_many", labels={"set": "stopped"})["jobs"]
    assert {answer["job_id"] for answer in rest} == {*waiting[1:]}
    assert {job["status"] for job in done(service, *waiting)} == {"cancelled"}
    for asked, said in (
        ({}, "nothing says which jobs"),
        ({"prefix": "", "labels": {}}, "nothing says which jobs"),
        ({"steps": True}, "nothing says which jobs"),
        ({"job_ids": [ended], "labels": {"set": "stopped"}}, "exclude each other"),
        ({"state": ["completed"]}, "completed jobs have ended"),
    ):
        refused = call(service, "jobs.cancel_many", **asked)
        assert (refused["code"], refused["jobs"]) == ("invalid_job", [])
        assert said in refused["error"]


def test_filters_of_a_retry_reach_beyond_the_most_jobs_of_a_request(service, other, monkeypatch):
    monkeypatch.setattr("crystalmath.server.handlers.submission.MOST_JOBS", 5)
    olds = [new_job(created_at=1.0, labels={"set": "beyond"}) for _ in range(12)]
    retries = [
        new_job(created_at=1.0, parents=[{"job_id": old.job_id, "role": "retry"}])
        for old in olds[4:]
    ]
    other.insert([*olds, *retries])
    failed = {"state": JobState.FAILED, "at": 2.0, "error": "x"}
    other.apply([Change(job_id=job.job_id, **failed) for job in (*olds, *retries)])
    told = call(service, "jobs.retry", filters={"labels": {"set": "beyond"}}, dry_run=True)["jobs"]
    assert [job["retry_of"] for job in told] == [job.job_id for job in olds]
    assert [job["code"] for job in told] == ["invalid_job"] * 4 + ["retried"] * 8


# --- list and summary ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(service):
    """Twelve jobs that ended in several ways, in the record alone."""
    service.jobs()
    submit(service)  # the database is there
    with JobStore(service.config.database_url) as store:
        jobs = [
            new_job(
                f"00000000-0000-4000-8000-0000000001{index:02}",
                recipe="lab_recipes.value" if index % 2 else "lab_recipes.fail",
                engine="other",
                name=f"slab {index}",
                labels={"set": "recorded"},
            )
            for index in range(12)
        ]
        store.insert(jobs)
        errors = ["SCF did not converge"] * 3 + ["100 % wrong: Ä"] + ["no_memory"] * 2
        changes = [
            Change(job_id=job.job_id, state=JobState.FAILED, at=time.time(), error=error)
            for job, error in zip(jobs, errors, strict=False)
        ]
        changes += [
            Change(job_id=job.job_id, state=JobState.CANCELLED, at=time.time(), error="cancelled")
            for job in jobs[6:]
        ]
        store.apply(changes)
    return [job.job_id for job in reversed(jobs)]


def ids(answer):
    return [job["job_id"] for job in answer["jobs"]]


def test_pages_by_a_cursor(service, recorded):
    asked = {"labels": {"set": "recorded"}, "limit": 5}
    pages = []
    cursor = None
    while not pages or cursor:
        answer = call(service, "jobs.list", **asked, cursor=cursor)
        pages.append(ids(answer))
        cursor = answer["cursor"]
        if len(pages) == 1:
            submit(service, labels={"set": "recorded"})  # what comes later is on no later page
    assert pages == [recorded[:5], recorded[5:10], recorded[10:]]
    assert call(service, "jobs.list", cursor=NOBODY)["code"] == "unknown_job"


@pytest.mark.parametrize("sort", [None, "name", "-name", "energy_ev"])
def test_a_page_begins_anywhere(service, recorded, sort):
    asked = {"labels": {"set": "recorded"}, "engine": "other", "sort": sort}
    every = ids(call(service, "jobs.list", **asked))
    for start, skip in ((None, 0), (None, 4), (2, 0), (2, 5), (2, 10**15)):
        cursor, first = (None, skip) if start is None else (every[start], start + 1 + skip)
        page = call(service, "jobs.list", **asked, cursor=cursor, skip=skip, limit=3)
        assert ids(page) == every[first : first + 3]
        assert page["cursor"] == (every[first + 2] if first + 3 < len(every) else None)


def test_a_list_has_the_fields_that_are_asked_for(service, recorded):
    job_id = submit(service, labels={"set": "fields", "part": "a"})
    (whole,) = done(service, job_id)
    asked = {"labels": {"set": "fields"}}
    for fields in (["status", "labels"], ["result"], ["work_dir", "log", "job_id"], [*whole]):
        (row,) = call(service, "jobs.list", **asked, fields=fields)["jobs"]
        assert row == {name: whole[name] for name in {*fields, "job_id"}}
    parts = ["result.energy_ev", "result.natoms", "name"]
    (row,) = call(service, "jobs.list", **asked, fields=parts)["jobs"]
    assert row == {"job_id": job_id, "name": None, "result": {"energy_ev": None}}
    (row,) = call(service, "jobs.list", prefix=recorded[0], fields=parts)["jobs"]
    assert (row["name"], row["result"]) == ("slab 11", None)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"error": "scf DID"}, 3),
        ({"error": "100 %"}, 1),
        ({"error": "%"}, 1),
        ({"error": "o_m"}, 2),
        ({"error": "WRONG: Ä"}, 1),
        ({"error": "\0"}, 0),
        ({"recipe": "lab_recipes.fail"}, 6),
        ({"recipe": "lab_recipes"}, 12),
        ({"name": "slab 7"}, 1),
        ({"prefix": "00000000-0000-4000-8000-00000000011"}, 2),
        ({"prefix": ""}, 12),
        ({"prefix": "%"}, 0),
        ({"state": "failed"}, 6),
        ({"state": ["failed", "cancelled"]}, 12),
        ({"state": ["failed", "cancelled"], "recipe": "lab_recipes.value"}, 6),
        ({"exclude": {"state": None, "error": "scf"}}, 9),
    ],
)
def test_filters(service, recorded, filters, count):
    asked = {"engine": "other", "labels": {"set": "recorded"}, **filters}
    found = ids(call(service, "jobs.list", **asked))
    assert len(found) == count
    assert set(found) <= set(recorded)
    states = call(service, "jobs.summary", **asked)["states"]
    assert sum(states.values()) == count


def test_the_steps_of_a_flow_are_left_out_unless_they_are_meant(service, other):
    common = {"created_at": 1.0, "labels": {"set": "flow"}}
    flow = new_job(stage="steps", specification='{}\n{"parameters": {}, "atoms": null}', **common)
    plain = new_job(**common)
    steps = [
        new_job(
            parents=[{"job_id": flow.job_id, "role": "flow", "step": f"static_job#{number}"}],
            **common,
        )
        for number in range(3)
    ]
    other.insert([plain, flow, *steps])
    failed = {"state": JobState.FAILED, "at": 2.0, "error": "x"}
    other.apply([Change(job_id=job.job_id, **failed) for job in (flow, plain, steps[0])])
    asked = {"labels": {"set": "flow"}}
    told = call(service, "jobs.list", **asked, totals=True)
    assert ids(told) == [flow.job_id, plain.job_id]
    assert told["totals"] == {"failed": 2}
    assert [job["steps"] for job in told["jobs"]] == [{"pending": 2, "failed": 1}, None]
    every = ids(call(service, "jobs.list", **asked, steps=True))
    assert every == [*(job.job_id for job in reversed(steps)), *ids(told)]
    assert ids(call(service, "jobs.list", parent=flow.job_id[:13])) == every[:3]
    assert ids(call(service, "jobs.list", prefix=steps[1].job_id)) == [steps[1].job_id]
    assert call(service, "jobs.list", parent=NOBODY)["code"] == "unknown_job"
    assert call(service, "jobs.summary", **asked)["states"] == {"failed": 2}
    assert call(service, "jobs.usage", **asked)["total"]["jobs"] == 5
    # What is done about a flow is done about its steps; by themselves filters do not choose them.
    again = call(service, "jobs.retry", filters=asked, dry_run=True)["jobs"]
    assert {job["retry_of"] for job in again} == {*ids(told)}
    assert call(service, "jobs.cancel_many", **asked)["jobs"] == []
    told = call(service, "jobs.specification", job_id=flow.job_id, job=True)
    assert told["job"]["steps"] == {"pending": 2, "failed": 1}
    refused = call(service, "jobs.prune", dry_run=True, steps=True)
    assert "name the jobs whose files" in refused["error"]


def test_summary_groups_failures_by_their_error(service, recorded):
    answer = call(service, "jobs.summary", engine="other")
    assert answer["states"] == {"failed": 6, "cancelled": 6}
    told = [(group["error"], group["count"]) for group in answer["errors"]]
    assert told == [("SCF did not converge", 3), ("no_memory", 2), ("100 % wrong: Ä", 1)]
    assert answer["errors"][0]["job_ids"] == recorded[-3:]


def test_an_empty_home_has_nothing_to_tell(home):
    with JobService() as service:
        assert call(service, "jobs.summary") == {"states": {}, "errors": [], "error": None}
        assert call(service, "jobs.events") == {"events": [], "last": 0, "error": None}
        assert call(service, "jobs.events", after=7, timeout_s=0.01)["events"] == []
        assert call(service, "jobs.wait", job_ids=[])["done"]
        assert call(service, "jobs.status_many", job_ids=[NOBODY])["jobs"][0]["code"]
    assert list(home.iterdir()) == []


# --- events and waiting --------------------------------------------------------------------------


def test_events_are_told_once_whoever_wrote_them(service, other):
    """Two readers with different pages, while two writers write."""

    async def read(limit, newest):
        last, seen = start, []
        while not newest.done() or last < newest.result():
            answer = await ask(service, "jobs.events", after=last, limit=limit, timeout_s=0.3)
            seen += answer["events"]
            last = answer["last"]
        return seen

    def write():
        for index in range(30):
            job = new_job(f"00000000-0000-4000-8000-0000000002{index:02}", engine="other")
            other.insert([job])
            change = Change(job_id=job.job_id, state=JobState.CANCELLED, at=time.time())
            other.apply([change])

    async def all_of_it():
        newest = asyncio.Future()
        readers = [asyncio.create_task(read(limit, newest)) for limit in (1, 7, 1000)]
        writer = asyncio.to_thread(write)
        mine = [await ask(service, "jobs.submit", **VALUE) for _ in range(5)]
        await writer
        ids = [job["job_id"] for job in mine]
        waited = await ask(service, "jobs.wait", job_ids=ids, timeout_s=600)
        assert waited["done"]
        # What another process wrote is known here a moment later.
        newest.set_result(other.last_event())
        async with asyncio.timeout(60):
            return await asyncio.gather(*readers)

    start = call(service, "jobs.events", after=2**53, limit=1)["last"]
    found = asyncio.run(all_of_it())
    stored = [event.seq for event in other.events(after=start)]
    assert [[event["seq"] for event in seen] for seen in found] == [stored] * 3
    assert len(stored) >= 5 * 3 + 60


def test_events_of_some_jobs(service):
    first, second = submit(service), submit(service)
    done(service, first, second)

    def told(**params):
        events = call(service, "jobs.events", **params)["events"]
        assert {event["job_id"] for event in events} == {first}
        return [(event["from"], event["to"]) for event in events]

    way = [(None, "pending"), ("pending", "running"), ("running", "completed")]
    assert told(job_ids=[first]) == way
    # So many that SQL cannot take them all.
    many = [f"00000000-0000-4000-8000-{index:012}" for index in range(3000, 4000)]
    assert told(job_ids=[*many, first]) == way
    assert told(job_ids=[*many, first], limit=2) == way[:2]
    assert call(service, "jobs.events", job_ids=[])["events"] == []


def test_a_poll_for_events_ends_with_the_first_of_them(service, other, tmp_path):
    async def poll():
        last = (await ask(service, "jobs.events", after=2**53))["last"]
        poll = asyncio.create_task(ask(service, "jobs.events", after=last, timeout_s=60))
        await eventually_listening(service)
        await asyncio.to_thread(other.note_cancel, [job_id], 1.0)
        return await poll

    go = tmp_path / "go"
    job_id = submit(service, recipe="lab_recipes.wait_for", params={"path": str(go)})
    eventually(lambda: call(service, "jobs.status", job_id=job_id)["status"] == "running")
    (event,) = asyncio.run(poll())["events"]
    assert (event["from"], event["to"], event["reason"]) == (
        "running", "running", "cancel requested"
    )  # fmt: skip
    # What another process noted is told here too, in time.
    eventually(lambda: call(service, "jobs.status", job_id=job_id)["cancel_requested_at"] == 1.0)
    go.touch()
    assert done(service, job_id)[0]["cancel_requested_at"] == 1.0


async def eventually_listening(service):
    await eventually_in_loop(lambda: service.feed._listeners)


def test_wait_gives_the_states_at_the_end_of_its_time(service, tmp_path):
    go = tmp_path / "go"
    ended = submit(service)
    done(service, ended)
    held = submit(service, recipe="lab_recipes.wait_for", params={"path": str(go)})
    answer = call(service, "jobs.wait", job_ids=[held, ended, held], timeout_s=0.05)
    assert (answer["done"], answer["error"]) == (False, None)
    assert ids(answer) == [held, ended]

    async def both():
        waiting = ask(service, "jobs.wait", job_ids=[held, ended], timeout_s=120)
        waiting = asyncio.create_task(waiting)
        await eventually_listening(service)
        go.touch()
        return await waiting

    answer = asyncio.run(both())
    assert [job["status"] for job in answer["jobs"]] == ["completed"] * 2
    assert answer["done"]
    answer = call(service, "jobs.wait", job_ids=[held, NOBODY])
    assert (answer["code"], answer["jobs"], answer["done"]) == ("unknown_job", [], False)
    for asked in ({}, {"labels": {}}, {"steps": True}, {"job_ids": [held], "labels": {}}):
        refused = call(service, "jobs.wait", **asked)
        assert "choose the jobs to wait for" in refused["error"]


@pytest.mark.parametrize("method", ["jobs.wait", "jobs.events"])
def test_what_nobody_follows_is_taken_over_by_who_waits_for_it(service, other, method):
    known = submit(service)
    done(service, known)
    # Its owner died before it wrote it down.
    left = new_job(specification=other.specification(known), owner={})
    other.insert([left])
    last = call(service, "jobs.events", after=2**53)["last"]
    asked = {"job_ids": [left.job_id], "timeout_s": 60}
    answer = call(service, method, **asked, **({"after": last} if method == "jobs.events" else {}))
    if method == "jobs.events":
        assert {event["job_id"] for event in answer["events"]} == {left.job_id}
    (job,) = done(service, left.job_id)
    assert job["status"] == "completed"


# --- files ---------------------------------------------------------------------------------------


def test_a_result_comes_whole(service):
    number = {"a": [1, 2.5, None, "ü"], "b": {"c": []}}
    good = submit(service, params={"number": number})
    bad = submit(service, recipe="lab_recipes.fail", params={"message": "no convergence"})
    done(service, good, bad)
    answer = call(service, "jobs.result", job_id=good)
    assert answer == {"job_id": good, "status": "completed", "error": None, "result": number}
    answer = call(service, "jobs.result", job_id=bad)
    assert (answer["status"], answer["result"]) == ("failed", None)
    assert answer["error"] == "RuntimeError: no convergence"
    assert "lab_recipes.py" in answer["traceback"]
    assert call(service, "jobs.result", job_id=NOBODY)["code"] == "unknown_job"
    # The files of a finished job were removed by somebody.
    for outcome in service.config.jobs_directory.glob(f"{good}/*.outcome"):
        outcome.unlink()
    answer = call(service, "jobs.result", job_id=good)
    assert (answer["status"], answer["result"]) == ("error", None)
    assert "was removed" in answer["error"]


def test_results_of_many_come_in_order_as_far_as_they_fit(service):
    small, other = submit(service), submit(service, params={"number": "ü"})
    bad = submit(service, recipe="lab_recipes.fail", params={"message": "no convergence"})
    half, large = (submit(service, params={"number": "a" * size}) for size in (200_000, 300_000))
    done(service, small, other, bad, half, large)

    def results(*job_ids):
        return call(service, "jobs.results", job_ids=list(job_ids))["results"]

    ids = [small, NOBODY, bad, other, small]
    answers = [json.loads(messages.dumps(each)) for each in results(*ids)]
    assert [each["job_id"] for each in answers] == ids
    assert [each.get("code") for each in answers] == [None, "unknown_job", None, None, None]
    for job_id, answer in zip(ids, answers, strict=True):
        alone = call(service, "jobs.result", job_id=job_id)
        alone.pop("traceback", None)
        assert answer == alone
    assert len(results(*[half] * 8)) == 5  # what fits into 1 MiB
    assert call(service, "jobs.results", job_ids=[half] * 8)["more"] == 3
    assert call(service, "jobs.results", job_ids=[small, other])["more"] == 0
    assert len(results(small, large, small)) == 1
    assert results(large) == []
    assert call(service, "jobs.results", job_ids=[7])["results"] == []


@pytest.fixture(scope="module")
def written(service):
    """A job with files of our making."""
    job_id = submit(service)
    done(service, job_id)
    work = service.work_directory(job_id)
    (work / "relax").mkdir(parents=True)
    text = "".join(f"step {index}: ü\n" for index in range(100))
    (work / "relax" / "OSZICAR").write_text(text)
    (work / "OUTCAR.gz").write_bytes(gzip.compress(text.encode()))
    (work / "bytes").write_bytes(b"a\xff\xfeb\xc3")
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "loop").symlink_to("loop")
    os.mkfifo(work / "pipe")
    return job_id, text


@pytest.mark.parametrize("file", ["OSZICAR", "relax/OSZICAR", "OUTCAR", "OUTCAR.gz"])
@pytest.mark.parametrize("most", [4, 5, 1000, None])
def test_a_file_is_read_in_parts(service, written, file, most):
    job_id, text = written
    parts, offset = [], 0
    answer: dict[str, Any] = {"finished": False}
    while not answer["finished"]:
        answer = call(service, "jobs.logs", job_id=job_id, file=file, offset=offset, max_bytes=most)
        assert offset < answer["offset"] <= answer["size"] == len(text.encode())
        offset = answer["offset"]
        parts.append(answer["text"])
        if len(parts) == 50:  # the rest at once
            most = None
    assert "".join(parts) == text
    assert answer["file"].endswith(("relax/OSZICAR", "OUTCAR.gz"))
    for far in (10**9, 2**53):
        behind = call(service, "jobs.logs", job_id=job_id, file=file, offset=far)
        assert (behind["text"], behind["finished"]) == ("", True)


@pytest.mark.parametrize("file", ["OSZICAR", "OUTCAR"])
def test_the_last_lines(service, written, file):
    job_id, text = written

    def tail(count, **more):
        answer = call(service, "jobs.logs", job_id=job_id, file=file, tail=count, **more)
        assert (answer["finished"], answer["offset"]) == (True, answer["size"])
        return answer["text"]

    assert tail(2) == "step 98: ü\nstep 99: ü\n"
    assert tail(0) == ""
    assert tail(10**6) == text
    assert tail(5, max_bytes=4) == text.encode()[-4:].decode(errors="ignore")


@pytest.mark.parametrize("file", ["OUTCAR.gz", "OUTCAR", "relax/OSZICAR", "bytes"])
@pytest.mark.parametrize("most", [7, None])
def test_the_bytes_of_a_file_come_as_they_are_stored(service, written, file, most):
    job_id, _ = written
    parts, offset = [], 0
    answer: dict[str, Any] = {"finished": False}
    while not answer["finished"]:
        answer = call(service, "jobs.file", job_id=job_id, file=file, offset=offset, max_bytes=most)
        parts.append(base64.b64decode(answer["data"]))
        assert answer["offset"] == offset + len(parts[-1]) > offset
        offset = answer["offset"]
    assert b"".join(parts) == Path(answer["file"]).read_bytes()
    assert len(b"".join(parts)) == answer["size"]
    behind = call(service, "jobs.file", job_id=job_id, file=file, offset=2**53)
    assert (behind["data"], behind["size"]) == ("", answer["size"])


def test_the_checksum_is_of_what_was_read(service, written):
    whole = Path(call(service, "jobs.file", job_id=written[0], file="OUTCAR.gz")["file"])
    data = whole.read_bytes()
    for offset, most in ((0, 5), (5, 7), (0, None), (len(data), 1)):
        part = {"file": "OUTCAR.gz", "offset": offset, "max_bytes": most, "sha256": True}
        answer = call(service, "jobs.file", job_id=written[0], **part)
        assert answer["sha256"] == sha256(data[: answer["offset"]]).hexdigest()
    assert "sha256" not in call(service, "jobs.file", job_id=written[0], file="OUTCAR.gz")


def test_bytes_that_are_no_text(service, written):
    answer = call(service, "jobs.logs", job_id=written[0], file="bytes")
    assert (answer["text"], answer["offset"], answer["finished"]) == ("a��b�", 5, True)


def test_the_last_line_of_a_file_of_broken_characters(tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"\x80" * 2_000_000)
    part = at_once(read_tail(file, 1, 10**6, whole=True))
    assert (len(part.text), part.end) == (10**6 - 3, 2_000_000)
    assert len(at_once(read_tail(file, 1, 10**7, whole=True)).text) == 2_000_000


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"file": "passwd"}, "leaves the work directory"),
        ({"file": "/etc/passwd"}, "no file below"),
        ({"file": "../spec"}, "no file below"),
        ({"file": "CONTCAR"}, "there are OUTCAR.gz"),
        ({"tail": 1, "offset": 1}, "together"),
        ({"tail": -1}, "'tail'"),
        ({"max_bytes": 10**12}, "'max_bytes'"),
        ({"file": "relax/../../spec"}, "no file below"),
        ({"file": "relax"}, "no file 'relax'"),
        ({"file": "pipe"}, "no regular file"),
        ({"file": "loop"}, "no regular file"),
        ({"file": "OUT\0CAR"}, "no file"),
        ({"file": "x" * 10**5}, "no file"),
        ({"offset": -1}, "'offset'"),
    ],
)
@pytest.mark.parametrize(("method", "empty"), [("jobs.logs", "text"), ("jobs.file", "data")])
def test_what_cannot_be_read(service, written, params, said, method, empty):
    answer = call(service, method, job_id=written[0], **params)
    assert (answer["code"], answer[empty]) == ("invalid_job", "")
    assert said in answer["error"] or "tail" in params


def test_the_newest_of_several_files_of_a_name_is_read_and_the_others_are_named(service):
    job_id = submit(service)
    done(service, job_id)
    work = service.work_directory(job_id)
    for step, written_at in (("1", 1e9), ("2", 3e9), ("3", 2e9)):
        (work / step).mkdir(parents=True)
        (work / step / "OUTCAR").write_text(f"step {step}")
        os.utime(work / step / "OUTCAR", (written_at, written_at))
    answer = call(service, "jobs.logs", job_id=job_id, file="OUTCAR")
    assert (answer["text"], answer["others"]) == ("step 2", ["3/OUTCAR", "1/OUTCAR"])
    assert answer["file"].endswith("/2/OUTCAR")
    assert call(service, "jobs.logs", job_id=job_id, file="1/OUTCAR")["others"] == []


# --- trajectories --------------------------------------------------------------------------------


def frame(number):
    """Make the geometry after so many steps; the first one has not been computed."""
    atoms = Atoms("AlCu", [[0, 0, 0], [0, 0, 2 + number / 10]], cell=[3, 3, 9 + number], pbc=True)
    if number:
        forces = [[0, 0, number / 7], [0, 0, -number / 7]]
        atoms.calc = SinglePointCalculator(atoms, energy=-number / 3, forces=forces)
    return atoms


@pytest.fixture(scope="module")
def moving(service):
    """Return a job that has written some steps, and its work directory."""
    job_id = submit(service)
    done(service, job_id)
    work = service.work_directory(job_id)
    (work / "relax").mkdir(parents=True)
    with Trajectory(work / "relax" / "opt.traj", "w") as file:
        for number in range(10):
            file.write(frame(number))
    return job_id, work


def read(array):
    """Read an array as docs/protocol.md says."""
    dtype = np.dtype(array["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(array["data"]), dtype).reshape(array["shape"])


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({}, range(10)),
        ({"start": -1}, [9]),
        ({"start": 2, "stop": 9, "stride": 3}, [2, 5, 8]),
        ({"start": -3, "stop": -1, "dtype": "float64"}, [7, 8]),
        ({"start": 10}, []),
        ({"start": 5, "stop": 2}, []),
        ({"stride": 2**53}, [0]),
    ],
)
def test_frames_are_chosen_as_by_a_slice(service, moving, asked, numbers):
    job_id, work = moving
    answer = call(service, "jobs.trajectory", job_id=job_id, **asked)
    assert (answer["error"], answer["frames"], answer["next"]) == (None, 10, None)
    assert answer["file"] == str(work / "relax" / "opt.traj")
    assert (answer["numbers"], answer["pbc"]) == ([13, 29], [True] * 3)
    frames = [frame(number) for number in numbers]
    if frames:
        assert (answer["start"], answer["stride"]) == (numbers[0], asked.get("stride", 1))
    kind = asked.get("dtype", "float32")
    assert (answer["positions"]["dtype"], answer["energies"] or answer["cells"]) == (
        kind,
        {**(answer["energies"] or answer["cells"]), "dtype": "float64"},
    )
    rounded = 1e-6 if kind == "float32" else 1e-14
    positions = [one.positions for one in frames]
    assert read(answer["positions"]) == pytest.approx(
        np.array(positions).reshape(-1, 2, 3), rounded
    )
    assert read(answer["cells"]).tolist() == [one.cell.tolist() for one in frames]
    if list(numbers) == [0]:
        assert answer["energies"] is answer["forces"] is None
    else:
        energies = [-number / 3 if number else np.nan for number in numbers]
        assert read(answer["energies"]) == pytest.approx(energies, nan_ok=True)
        assert read(answer["forces"])[:, 1, 2] == pytest.approx(
            [-number / 7 if number else np.nan for number in numbers], rounded, nan_ok=True
        )
    assert not frames or answer["magmoms"] is None


def test_a_running_job_is_followed_frame_by_frame(service, tmp_path):
    go = tmp_path / "go"
    job_id = submit(service, recipe="lab_recipes.wait_for", params={"path": str(go)})
    eventually(lambda: call(service, "jobs.status", job_id=job_id)["status"] == "running")
    assert "holds no frames" in call(service, "jobs.trajectory", job_id=job_id)["error"]
    work = service.work_directory(job_id)
    work.mkdir(exist_ok=True)
    with Trajectory(work / "md.traj", "w") as file:
        for number in range(1, 4):
            file.write(frame(number))
            answer = call(service, "jobs.trajectory", job_id=job_id, start=number - 1)
            assert (answer["frames"], read(answer["energies"]).tolist()) == (number, [-number / 3])
            after = call(service, "jobs.trajectory", job_id=job_id, start=number)
            assert after["positions"] == {"dtype": "float32", "shape": [0, 2, 3], "data": ""}
    go.touch()
    done(service, job_id)


def test_frames_come_in_parts_where_they_are_many(service, moving, monkeypatch):
    monkeypatch.setattr("crystalmath.reading.job_answers._MOST_FRAMES", 4 * 2 * 56)
    parts, start = [], 1
    while start is not None:
        answer = call(service, "jobs.trajectory", job_id=moving[0], start=start, stride=2, stop=-1)
        assert answer["start"] == start
        parts.append(read(answer["cells"])[:, 2, 2].tolist())
        start = answer["next"]
    assert parts == [[10, 12, 14, 16]]
    monkeypatch.setattr("crystalmath.reading.job_answers._MOST_FRAMES", 1)
    answer = call(service, "jobs.trajectory", job_id=moving[0], start=-2)
    assert (answer["next"], read(answer["cells"])[:, 2, 2].tolist()) == (9, [17])


def test_another_file_is_read_and_what_is_torn_is_left_out(service, moving):
    job_id, work = moving
    data = (work / "relax" / "opt.traj").read_bytes()
    for name, text in (("first", data), ("torn", data[:-100]), ("head", data[:50]), ("none", b"")):
        (work / name).mkdir()
        (work / name / "old.traj.gz").write_bytes(gzip.compress(text))
        os.utime(work / name / "old.traj.gz", (1e9, 1e9))
    answer = call(service, "jobs.trajectory", job_id=job_id, start=-1)
    assert sorted(answer["others"]) == [
        f"{name}/old.traj.gz" for name in ("first", "head", "none", "torn")
    ]
    for name, count in (("first", 10), ("torn", 9)):
        told = call(service, "jobs.trajectory", job_id=job_id, file=f"{name}/old.traj", start=-1)
        assert (told["frames"], told["start"]) == (count, count - 1)
        assert read(told["cells"])[0, 2, 2] == 8 + count
    for name in ("head", "none"):
        told = call(service, "jobs.trajectory", job_id=job_id, file=f"{name}/old.traj")
        assert told["code"] == "invalid_job"
        assert f"{name}/old.traj.gz cannot be read" in told["error"]


def test_frames_of_other_atoms_are_refused(service, moving):
    job_id, work = moving
    with Trajectory(work / "mixed.traj", "w") as file:
        file.write(Atoms("Al"))
        file.write(Atoms("Cu"))
    os.utime(work / "mixed.traj", (1e9, 1e9))
    answer = call(service, "jobs.trajectory", job_id=job_id, file="mixed.traj")
    assert "frame 0 of" in answer["error"]
    assert "other atoms" in answer["error"]


def test_no_file_but_one_of_frames_is_read(service, moving, tmp_path):
    job_id, work = moving
    (work / "notes").write_text("words")
    os.mkfifo(work / "pipe.traj")
    os.utime(work / "pipe.traj", (1e9, 1e9))
    (tmp_path / "outside.traj").write_bytes((work / "relax" / "opt.traj").read_bytes())
    (work / "link.traj").symlink_to(tmp_path / "outside.traj")
    try:
        for file, said in (
            ("notes", "holds no frames; these are read from trajectories of ASE"),
            ("pipe.traj", "no regular file"),
            ("link.traj", "leaves the work directory"),
            ("../../etc/passwd", "no file below"),
            ("/etc/passwd", "no file below"),
            ("opt.traj\0", "no file"),
            ("", "'file'"),
            (5, "'file'"),
        ):
            answer = call(service, "jobs.trajectory", job_id=job_id, file=file)
            assert (answer["code"], answer["positions"]) == ("invalid_job", None)
            assert said in answer["error"], answer
    finally:
        (work / "pipe.traj").unlink()
    for wrong in ({"start": 10**30}, {"stride": 0}, {"stop": "5"}, {"dtype": "O"}, {"step": 2}):
        answer = call(service, "jobs.trajectory", job_id=job_id, **wrong)
        assert (answer["code"], answer["numbers"]) == ("invalid_job", [])
        assert next(iter(wrong)) in answer["error"]
    assert call(service, "jobs.trajectory", job_id=NOBODY)["code"] == "unknown_job"
    still = submit(service)
    done(service, still)
    assert "holds no frames" in call(service, "jobs.trajectory", job_id=still)["error"]


# --- structures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cif", "slab.cif"),
        ("cif", None),
        ("extxyz", "slab.XYZ"),
        ("extxyz", None),
        ("xyz", "slab.xyz"),
        ("vasp", "POSCAR"),
        ("vasp", None),
    ],
)
def test_structures_are_read_from_text(service, kind, name):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    file = io.BytesIO() if kind == "cif" else io.StringIO()
    write(file, atoms, format=kind)
    text = file.getvalue() if isinstance(file, io.StringIO) else file.getvalue().decode()
    answer = call(service, "structures.read", text=text, name=name)
    (found,) = answer["structures"]
    assert (answer["error"], answer["more"]) == (None, 0)
    assert found["name"] == {"POSCAR": "POSCAR", None: "structure"}.get(name, "slab")
    assert (found["formula"], sorted(found["numbers"])) == ("Cl4Na4", [11] * 4 + [17] * 4)
    same = parse_structure(found["structure"])
    assert same.positions.tolist() == found["positions"]
    assert same.cell.tolist() == found["cell"]
    if kind != "xyz":  # which has no cell
        assert found["pbc"] == [True] * 3
        assert np.array(found["cell"]) == pytest.approx(atoms.cell.array, abs=1e-6)
    assert call(service, "jobs.check", **{**VALUE, "structure": found["structure"]})["ok"]


def test_the_first_of_very_many_structures_are_told(service):
    answer = call(service, "structures.read", text="1\nof many\nAl 0 0 0\n" * 1200)
    names = [each["name"] for each in answer["structures"]]
    assert (len(names), names[0], names[-1]) == (1000, "structure-0", "structure-999")
    assert answer["more"] == 200


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", None, "'text'"),
        ("x" * (4 * 2**20 + 1), None, "'text'"),
        (["1"], None, "'text'"),
        ("words", None, "line 2 of a POSCAR must be its scale"),
        ("Al\n1\n4 0 0\n", None, "other formats are CIF, (extended) XYZ, input of pw.x"),
        ("words", "a.cif", "a.cif"),
        ("words", "a.xyz", "a.xyz"),
        ("data_x\n", None, "no structure"),
        ("1\n\nXx 0 0 0\n", "a.xyz", "no element 'Xx'"),
        ("1\n\nAl 0 nan 0\n", "../../etc/passwd.xyz", "not finite"),
        ("3\n\nAl 0 0 0\n", None, "announces 3 atoms in line 1; 2 lines follow"),
        ("999999999\n\n", "a.xyz", "announces 999999999 atoms"),
        ("1\n\nAl 0 0 0\n-1\n\n", "a.xyz", "announces -1 atoms in line 4"),
        ("1\nProperties=a:R:999999999\n0\n", "a.xyz", "too many columns in line 2"),
        ("1\n\nAl 0 0 0\n", "x" * 256, "'name'"),
        ("\0\0", "a.cif", "a.cif"),
    ],
)
def test_a_text_that_holds_no_structure_is_refused(service, text, name, said):
    answer = call(service, "structures.read", text=text, name=name)
    assert (answer["code"], answer["structures"]) == ("invalid_job", [])
    assert said in answer["error"]
    assert len(answer["error"]) < 500


# --- all files -----------------------------------------------------------------------------------


def test_files_are_listed_by_their_paths_and_links_are_not_followed(service, monkeypatch):
    monkeypatch.setattr("crystalmath.server.handlers.results._MOST_FILES", 3)
    job_id = submit(service)
    done(service, job_id)
    assert call(service, "jobs.files", job_id=job_id)["files"] == []
    work = service.work_directory(job_id)
    (work / "a").mkdir(parents=True)
    (work / "a" / "OUTCAR").write_text("four")
    Path(os.fsdecode(bytes(work) + b"/b\xff")).write_text("")
    (work / "c").symlink_to("/etc")
    for name in "def":
        (work / name).write_text(name)
    os.utime(work / "a" / "OUTCAR", (1e9, 1e9))
    answer = call(service, "jobs.files", job_id=job_id, attempt=1)
    assert answer["work_dir"] == str(work)
    assert [file["file"] for file in answer["files"]] == ["a/OUTCAR", "b\\xff", "c"]
    assert answer["files"][0] == {
        "file": "a/OUTCAR",
        "size": 4,
        "modified_at": 1e9,
        "is_link": False,
    }
    assert (answer["files"][2]["is_link"], answer["more"]) == (True, 3)
    assert call(service, "jobs.files", job_id=job_id, attempt=2)["code"] == "invalid_job"
    assert call(service, "jobs.files", job_id=NOBODY)["code"] == "unknown_job"


def test_a_log_is_followed_to_its_end(service, tmp_path):
    go = tmp_path / "go"
    job_id = submit(service, recipe="lab_recipes.wait_for", params={"path": str(go)})
    nothing = call(service, "jobs.logs", job_id=job_id)
    assert (nothing["text"], nothing["size"], nothing["finished"]) == ("", 0, False)
    eventually(lambda: call(service, "jobs.status", job_id=job_id)["status"] == "running")

    def write(some):
        with Path(nothing["file"]).open("ab") as stream:
            stream.write(some)

    async def follow():
        first = asyncio.create_task(ask(service, "jobs.logs", job_id=job_id, timeout_s=60))
        write("begun ü".encode()[:-1])  # cut in a character
        told = await first
        assert (told["text"], told["finished"]) == ("begun ", False)
        write("ü".encode()[-1:])
        told = await ask(service, "jobs.logs", job_id=job_id, offset=told["offset"], timeout_s=60)
        assert told["text"] == "ü"
        end = ask(service, "jobs.logs", job_id=job_id, offset=told["offset"], timeout_s=60)
        end = asyncio.create_task(end)
        go.touch()
        return await end

    assert asyncio.run(follow())["finished"]


@pytest.mark.parametrize("file", ["deep.log", "archive"])
def test_following_a_file_walks_the_tree_once_and_unpacks_nothing_twice(
    service, tmp_path, monkeypatch, file
):
    go = tmp_path / "go"
    job_id = submit(service, recipe="lab_recipes.wait_for", params={"path": str(go)})
    eventually(lambda: call(service, "jobs.status", job_id=job_id)["status"] == "running")
    folder = service.work_directory(job_id) / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "deep.log").write_text("one")
    (folder / "archive.gz").write_bytes(gzip.compress(b"one"))
    walks, reads = [], []
    walk, window = workfiles.os.walk, workfiles._window
    monkeypatch.setattr(workfiles.os, "walk", lambda *a: walks.append(a) or walk(*a))
    monkeypatch.setattr(workfiles, "_window", lambda *a: reads.append(a) or window(*a))
    try:
        for _ in range(3):
            told = call(service, "jobs.logs", job_id=job_id, file=file, offset=3, timeout_s=0.8)
            assert (told["text"], told["offset"], told["finished"]) == ("", 3, False)
        assert (len(walks), len(reads)) == (1, 3)
        if file == "deep.log":
            (folder / "deep.log").write_text("one two")
            told = call(service, "jobs.logs", job_id=job_id, file=file, offset=3, timeout_s=10)
            assert (told["text"], len(walks)) == (" two", 1)
    finally:
        go.touch()
    done(service, job_id)


def test_a_poll_that_is_cancelled_while_it_begins_leaves_no_listener(service):
    async def begin_and_give_up():
        poll = ask(service, "jobs.events", after=2**50, timeout_s=600)
        task = asyncio.create_task(poll)
        with service.feed._reading:  # whoever begins to listen waits for this
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.wait([task])
        await eventually_in_loop(lambda: not service.feed._listeners)
        await asyncio.sleep(0.3)
        assert not service.feed._listeners

    asyncio.run(begin_and_give_up())


# --- engines and recipes -------------------------------------------------------------------------


def test_engines(service):
    engines = call(service, "engines.list")["engines"]
    (local,) = [engine for engine in engines if engine["name"] == "local"]
    assert local["loads"]
    assert local["distribution"] == "crystalmath"


def test_what_was_asked_for_can_be_asked_for_again(service):
    asked = {"recipe": "lab_recipes.report", "params": {"kpts": [3, 3, 3], "flag": True}}
    first = submit(service, **asked, walltime_s=60, environment={"OMP_SECRET": "x"})
    told = call(service, "jobs.specification", job_id=first)
    assert "OMP_SECRET" not in json.dumps(told)
    assert (told["params"], told["walltime_s"]) == (asked["params"], 60)
    assert (told["engine"], told["cluster"], told["error"]) == ("local", "local", None)
    again = submit(
        service,
        **{key: told[key] for key in told.keys() - {"job_id", "error", "potcars", "parents"}},
    )
    done(service, first, again)
    results = [call(service, "jobs.result", job_id=job_id)["result"] for job_id in (first, again)]
    assert results[0] == results[1]
    both = call(service, "jobs.specification", job_id=first, job=True)
    assert both.pop("job") == call(service, "jobs.status", job_id=first)
    assert both == told
    unknown = call(service, "jobs.specification", job_id=NOBODY)
    assert (unknown["code"], unknown["params"], unknown["potcars"]) == ("unknown_job", {}, [])


def test_a_structure_in_a_result_is_read_as_documented_and_goes_into_the_next_job(service):
    job_id = submit(service, recipe="quacc.recipes.emt.core.static_job")
    done(service, job_id)
    text = call(service, "jobs.result", job_id=job_id)["result"]["atoms"]["atoms_json"]
    atoms = json.loads(text)
    assert atoms["numbers"] == {"__ndarray__": [[1], "int64", [13]]}
    assert atoms["positions"] == {"__ndarray__": [[1, 3], "float64", [0.0, 0.0, 0.0]]}
    assert atoms["cell"] == {"__ndarray__": [[3, 3], "float64", [3.0, 0, 0, 0, 3.0, 0, 0, 0, 3.0]]}
    structure = {"format": "ase-json", "data": text}
    assert call(service, "jobs.check", **{**VALUE, "structure": structure})["status"] == "ok"


def test_recipes(service):
    found = call(service, "recipes.list")["recipes"]
    kinds = {recipe["name"]: recipe["kind"] for recipe in found}
    assert kinds["quacc.recipes.emt.core.relax_job"] == "job"
    assert kinds["lab_recipes.value"] is None
    some = call(service, "recipes.list", prefix="quacc.recipes.emt.")["recipes"]
    assert {recipe["name"] for recipe in some} < kinds.keys()
    assert all(recipe["summary"] for recipe in some)
    assert call(service, "recipes.list", prefix="emt.")["recipes"] == some != []


def test_a_recipe_and_the_schema_of_its_parameters(service):
    told = call(service, "recipes.describe", recipe="emt.core.relax_job")
    assert told["name"] == "quacc.recipes.emt.core.relax_job"
    assert told["docstring"].startswith("Carry out")
    assert Path(told["file"]).name == "core.py"
    schema = told["parameters"]
    jsonschema.Draft202012Validator.check_schema(schema)
    relax_cell = schema["properties"]["relax_cell"]
    assert (relax_cell["type"], relax_cell["default"]) == ("boolean", False)
    assert "relax the cell" in relax_cell["description"]
    assert "atoms" not in schema["properties"]
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"relax_cell": True, "opt_params": None, "any": "calculator keyword"})
    assert not validator.is_valid({"relax_cell": "yes"})

    value = call(service, "recipes.describe", recipe="lab_recipes.fail")["parameters"]
    assert (value["required"], value["additionalProperties"]) == (["message"], False)
    assert call(service, "recipes.describe", recipe="lab_recipes.report")["parameters"] == {
        **value, "properties": {}, "required": [], "additionalProperties": True
    }  # fmt: skip
    answer = call(service, "recipes.describe", recipe="emt.core.relaxjob")
    assert (answer["code"], answer["parameters"]) == ("invalid_job", None)
    assert "did you mean relax_job" in answer["error"]


def test_the_schemas_of_all_recipes(service):
    names = [recipe["name"] for recipe in call(service, "recipes.list")["recipes"]]
    types = set()
    for name in names:
        schema = call(service, "recipes.describe", recipe=name)["parameters"]
        if schema is not None:
            jsonschema.Draft202012Validator.check_schema(schema)
            for key, one in schema["properties"].items():
                types.add(str(one.get("type") or one.get("enum") or one.get("anyOf")))
                if "default" in one:
                    validator = jsonschema.Draft202012Validator(one)
                    assert validator.is_valid(one["default"]), (name, key)
    assert {"boolean", "string", "['number', 'null']", "None"} <= types


# --- clusters ------------------------------------------------------------------------------------


def test_a_cluster_is_checked_by_a_job_there(service):
    asked = {"cluster": "local", "environment": {"PATH": os.environ["PATH"], "VASP_PP_PATH": "/no"}}
    sent = call(service, "clusters.check", **asked)
    assert (sent["status"], sent["checks"], sent["error"]) == ("pending", [], None)
    done(service, sent["job_id"])
    told = call(service, "clusters.check", cluster="local", job_id=sent["job_id"])
    assert told["status"] == "completed", told
    found = {check["name"]: check for check in told["checks"]}
    assert found["clock"]["state"] == "ok"
    assert found["POTCARs"]["state"] == "warning"
    assert "/no" in found["POTCARs"]["message"]
    for wrong in ({"cluster": "huge"}, {"cluster": "huge", "job_id": sent["job_id"]}):
        answer = call(service, "clusters.check", **wrong)
        assert (answer["code"], answer["checks"]) == ("invalid_job", [])
    other = call(service, "clusters.check", cluster="local", job_id=submit(service))
    assert "is no check of the cluster 'local'" in other["error"]


# --- last, as these leave jobs behind -------------------------------------------------------------

HOSTILE = [
    *(None, True, 0, 1, -1, 2.5, 10**400, "", "a", "\0", "../../etc", "a" * 100_000, NOBODY),
    *([], ["a"], [1], [[]], [None], [{}], [NOBODY], [{"engine": []}], [{"recipe": {}}]),
    *({}, {"a": "b"}, {"a": 1}, {"@module": "os", "@class": "system"}, {"format": "ase-json"}),
]


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].of_session])
def test_whatever_is_sent_there_is_an_answer(service, name):
    fine = {"job_id": NOBODY, "job_ids": [], "jobs": [], "file": "/no/archive", **VALUE}
    fine |= {"cluster": "none-such", "text": "1\n\nAl 0 0 0\n"}
    fine |= {"transfer": "0" * 32, "offset": 0, "data": ""}
    known = METHODS[name].params
    # Else some wait: jobs that earlier tests have left do not end.
    at_once = {"timeout_s": 0} if "timeout_s" in known["properties"] else {}

    async def send():
        for parameter in known["properties"]:
            needed = {other: fine[other] for other in known["required"]} | at_once
            for value in HOSTILE:
                if parameter != "timeout_s" or value not in (1, 2.5):
                    await ask(service, name, **{**needed, parameter: value})

    asyncio.run(send())


def test_what_may_be_asked_again_is_declared_beside_each_method():
    key = {"key": "k"}
    twice: dict[str, list[Any]] = {
        "jobs.submit": [{}, {"key": None}],
        "jobs.submit_many": [{"jobs": [key, {}]}, {"jobs": [{}]}, {"jobs": ["x"]}],
        "jobs.retry": [{"job_ids": [NOBODY]}, {"filters": {}, "dry_run": 1}],
        "jobs.reread": [{"job_id": NOBODY}],
        "jobs.archive": [{"file": "/a"}],
        "clusters.check": [{"cluster": "a"}],
        "system.stop": [{}],
    }
    assert {name for name in METHODS if not is_repeatable(name, {})} == twice.keys() - {
        "jobs.submit_many",  # of no job
        "jobs.archive",  # to a new file each time
    }
    for name, params in twice.items():
        assert not any(is_repeatable(name, one) for one in params), name
    for name, params in {
        "jobs.submit": key,
        "jobs.submit_many": {"jobs": [key, key]},
        "jobs.retry": {"filters": {}, **key},
        "clusters.check": {"cluster": "a", "job_id": NOBODY},
        "jobs.wait": {},
        "no.such": {},
    }.items():
        assert is_repeatable(name, params), name
    assert is_repeatable("jobs.retry", {"filters": {}, "dry_run": True})
    for name in METHODS:  # clients ask before any parameter is checked
        for value in HOSTILE:
            is_repeatable(name, {"jobs": value, "key": value, "job_id": value})
