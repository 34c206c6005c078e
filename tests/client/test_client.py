"""A client does the same in process and with a server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import json
import pickle
import re
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

from conftest import NOBODY, eventually, eventually_in_loop
from crystalmath import build_version
from crystalmath.client import Job, JobFailed, JobFuture, Submission, SubmissionWarning
from crystalmath.client import request as request_module
from crystalmath.errors import (
    CrystalMathError,
    InvalidJob,
    KeyConflict,
    UnknownEngine,
    UnknownJob,
)
from crystalmath.quacc import JobState

pytestmark = pytest.mark.server

AL = bulk("Al", a=4.0, cubic=True)
LONG = 120


@pytest.fixture
def lab_recipes(client):
    """Return the module, as the client's user has imported it."""
    return importlib.import_module("lab_recipes")


def value(number=1, **more):
    return Submission(recipe="lab_recipes.value", atoms=AL, parameters={"number": number}, **more)


def test_a_recipe_that_takes_no_structure(client):
    future = client.submit("lab_recipes.without_structure", parameters={"files": ["a"]})
    assert future.result(timeout=LONG) == {"files": ["a"], "number": 1}
    assert client.check("lab_recipes.without_structure") == []
    (finding,) = client.check("lab_recipes.value")
    assert "needs a structure, its first argument 'atoms'" in finding.message


def test_a_completed_future_shows_energy_force_and_formula_in_a_notebook(client):
    future = client.submit("lab_recipes.relax", bulk("Al", cubic=True))
    energy = future.result(timeout=LONG)["results"]["energy"]
    html = future._repr_html_()
    for name, cell in (
        ("energy", f"{energy:.4f} eV"),
        ("largest force", "0.0000 eV/Å"),
        ("formula", "Al4"),
    ):
        assert re.search(f"<th>{name}</th><td[^>]*>{re.escape(cell)}</td>", html), html


def test_odd_texts_of_a_result_are_shown_in_a_notebook(client):
    future = client.submit("lab_recipes.odd_texts", AL)
    assert future.result(timeout=LONG)
    assert "1.0000 eV" in future._repr_html_()
    assert future.info().summary["energy_ev"] == 1.0
    assert "lab_recipes.odd_texts" in future._repr_html_()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (RuntimeError, "no such luck"),
        (KeyError, "Al_sv"),
        (ValueError, ""),
        (OSError, "line one\nline two"),
        (np.linalg.LinAlgError, "singular: matrix"),
        (UnknownEngine, "nothing here"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_recipe_raised(client, kind, message):
    given = {"module": kind.__module__, "name": kind.__name__, "message": message}
    future = client.submit("lab_recipes.raise_it", AL, given)
    with pytest.raises(JobFailed) as failed:
        future.result(LONG)
    assert type(failed.value.__cause__) is kind
    assert failed.value.__cause__.args == ((message,) if message else ())
    with pytest.raises(kind) as caught:
        future.result(LONG, original=True)
    assert str(caught.value) == str(kind(message) if message else kind())
    with pytest.raises(kind):
        client.result(future.job_id, original=True)


@pytest.mark.parametrize("kind", ["_OfTheRecipe", "SystemExit"])
def test_what_a_recipe_raised_and_nobody_here_knows(client, kind):
    future = client.submit(
        "lab_recipes.raise_it", AL, {"module": "wsgiref.headers", "name": kind, "message": "x"}
    )
    with pytest.raises(JobFailed) as failed:
        future.result(LONG, original=True)
    assert failed.value.__cause__ is None


# --- futures -------------------------------------------------------------------------------------


def test_a_future_says_how_to_have_it_elsewhere(client):
    job = client.submit("lab_recipes.value", AL)
    with pytest.raises(TypeError, match=r"take client\.future\(job_id\) there"):
        pickle.dumps(job)
    job.result(LONG)


def test_a_job_from_submission_to_result(client, go):
    future = client.submit(
        "lab_recipes.wait_for", AL, {"path": str(go)}, name="one", labels={"a": "b"}
    )
    assert issubclass(type(future), concurrent.futures.Future)
    assert (future.name, future.labels) == ("one", {"a": "b"})
    eventually(future.running)
    assert not future.done()
    assert not future.cancelled()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        client.result(future.job_id)
    assert client.result_json(future.job_id) is None
    go.touch()
    assert future.result(LONG) == {"saw": str(go)}
    assert future.done()
    assert not future.running()
    assert future.exception() is None
    info = future.info()
    assert isinstance(info, Job)
    assert (info.state, info.name, info.recipe) == (
        JobState.COMPLETED,
        "one",
        "lab_recipes.wait_for",
    )
    assert info.created_at <= info.started_at <= info.finished_at
    assert info.work_dir.is_dir()
    assert repr(future) == f"<JobFuture {future.job_id} 'one' completed>"
    assert f" {info.work_dir.parents[2]}>" in repr(client)
    assert client.result(future.job_id) == future.result()


def test_all_of_a_structure_and_of_the_parameters_arrives(client, lab_recipes):
    atoms = bulk("Fe", cubic=True)
    atoms.set_constraint(FixAtoms([1]))
    atoms.set_tags([3, 4])
    atoms.set_initial_magnetic_moments([2.2, -2.2])
    atoms.set_initial_charges([1.0, -1.0])
    parameters = {
        "array": np.arange(3.0),
        "tuple": (1, 2),
        "path": Path("/tmp/x"),
        "none": None,
    }
    seen = client.submit(lab_recipes.report, AL, parameters | {"given": atoms}).result(LONG)
    report = client.submit("lab_recipes.report", atoms).result(LONG)
    assert (report["tags"], report["magmoms"], report["charges"], report["fixed"]) == (
        [3, 4],
        [2.2, -2.2],
        [1.0, -1.0],
        [1],
    )
    back = seen["parameters"]
    assert back.pop("array").tolist() == [0, 1, 2]
    assert back.pop("given") == atoms
    assert back["tuple"] == (1, 2)
    with pytest.raises(InvalidJob, match="'@module' is not permitted"):
        client.submit(lab_recipes.report, AL, {"odd": {"@module": "os"}})


def test_a_chain_of_quaccs_recipes_that_is_submitted_at_once(client):
    final = {"path": ["atoms"]}
    relaxed = client.submit(
        "emt.core.relax_job", AL, {"relax_cell": True}, labels={"step": "relax"}
    )
    static = client.submit(
        "emt.core.static_job", {**final, "$job": relaxed.job_id}, inherit_labels=True
    )
    job = static.info()
    last = client.submit("emt.core.static_job", {"format": "job", "job_id": static.job_id})
    assert job.waits
    assert (job.state, job.reason) == (JobState.PENDING, f"waits for job {relaxed.job_id}")
    assert (job.formula, last.info().formula) == ("Al4", "Al4")
    first, second = relaxed.result(LONG), static.result(LONG)
    assert second["results"]["energy"] == pytest.approx(first["results"]["energy"], abs=1e-8)
    assert second["input_atoms"]["atoms"] == first["atoms"]
    job = client.job(static.job_id)
    assert (job.formula, job.labels) == ("Al4", {"step": "relax"})
    assert job.parents == [{"job_id": relaxed.job_id, "role": "structure", **final}]


def test_the_environment_of_the_submission_reaches_the_job(client):
    seen = client.submit("lab_recipes.where", AL).result(LONG)["environment"]
    assert seen["OMP_OF_THE_TEST"] == "here"


@pytest.mark.parametrize("number", [7, None, "x" * 200_000, [1.5, {"a": None}]])
def test_a_result_is_what_the_recipe_returned(client, number):
    future = client.submit("lab_recipes.value", AL, {"number": number})
    assert future.result(LONG) == number
    assert json.loads(client.result_json(future.job_id)) == number


def test_a_recipes_parameter_among_the_options_is_told_where_it_belongs(client):
    told = r"third argument: \(recipe, atoms, \{'relax_cell': ...\}\)"
    for ask in (client.submit, client.check):
        with pytest.raises(TypeError, match=told):
            ask("emt.core.relax_job", AL, relax_cell=True)
    with pytest.raises(TypeError, match=told):
        client.map("emt.core.relax_job", [AL], relax_cell=True)
    with pytest.raises(TypeError, match="did you mean 'walltime_s'"):
        client.submit("emt.core.relax_job", AL, walltime=60)


def test_what_is_no_submission_is_refused_before_any_is_sent(client):
    before = client.totals()
    with pytest.raises(
        TypeError, match=r"list of Submission\(...\), not of \('emt.core.relax_job'"
    ):
        client.submit_many([value(1), ("emt.core.relax_job", AL)])
    assert client.totals() == before


def test_results_that_are_asked_for_in_a_row_come_together(client, monkeypatch):
    asked = []
    call, call_raw = client._transport.call, client._transport.call_raw
    numbers = [*range(20), "a" * 400_000, *range(20, 40)]
    futures = client.submit_many([value(number) for number in numbers])
    concurrent.futures.wait(futures, LONG)

    def noted(function, name):  # in process, one of the two calls the other
        return lambda method, *more: (
            asked.extend([method] if method == name else []),
            function(method, *more),
        )[1]

    monkeypatch.setattr(client._results, "_many", 1)  # others share the client
    monkeypatch.setattr(client._transport, "call", noted(call, "jobs.results"))
    monkeypatch.setattr(client._transport, "call_raw", noted(call_raw, "jobs.result"))
    assert futures[3].result() == 3
    assert asked == ["jobs.result"]  # one costs one
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda future: future.result(), futures)) == numbers
    assert len(asked) <= 20
    asked.clear()
    assert [future.result() for future in futures] == numbers
    assert asked == []


def test_who_wants_what_another_thread_is_fetching_waits_for_it(client, monkeypatch):
    call, call_raw, asked = client._transport.call, client._transport.call_raw, []
    futures = client.submit_many([value(number) for number in range(40)])
    concurrent.futures.wait(futures, LONG)

    def slow(method, *more):
        asked.extend([method] if method == "jobs.results" else [])
        time.sleep(0.2 if method == "jobs.results" else 0)
        return call(method, *more)

    def raw(method, *more):  # in process, the other one calls it
        asked.extend([method] if method == "jobs.result" else [])
        return call_raw(method, *more)

    monkeypatch.setattr(client._results, "_many", 64)
    monkeypatch.setattr(client._transport, "call", slow)
    monkeypatch.setattr(client._transport, "call_raw", raw)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda future: future.result(), futures)) == [*range(40)]
    assert asked == ["jobs.results"]


def test_a_result_that_is_gone_costs_nobody_else_his(client):
    futures = client.submit_many([value(number) for number in range(6)])
    concurrent.futures.wait(futures, LONG)
    for outcome in futures[4].info().work_dir.parent.glob("*.outcome"):
        outcome.unlink()
    assert [future.result() for future in [*futures[:4], futures[5]]] == [0, 1, 2, 3, 5]
    with pytest.raises(CrystalMathError, match="was removed"):
        futures[4].result()


def test_a_failed_job(client):
    future = client.submit("lab_recipes.fail", AL, {"message": "no \N{GREEK SMALL LETTER MU}"})
    with pytest.raises(JobFailed, match=f"job {future.job_id} failed: RuntimeError: no") as caught:
        future.result(LONG)
    assert caught.value is future.exception()
    assert caught.value.error == "RuntimeError: no \N{GREEK SMALL LETTER MU}"
    assert "in fail" in caught.value.traceback
    assert "in fail" in caught.value.__notes__[0]
    assert future.done()
    assert not future.cancelled()
    assert future.cancel() is False
    assert client.result_json(future.job_id) is None
    with pytest.raises(JobFailed):
        client.result(future.job_id)


def test_callbacks_run_once_the_job_has_ended(client):
    called = threading.Event()
    got = []
    future = client.submit("lab_recipes.value", AL, {"number": 5})
    future.add_done_callback(lambda done: (got.append(done.result()), called.set()))
    assert called.wait(LONG)
    future.add_done_callback(got.append)
    assert got == [5, future]


def test_futures_go_where_the_standard_library_takes_them(client):
    futures = client.submit_many([value(number) for number in range(4)])
    done, open_ = concurrent.futures.wait(futures, timeout=LONG)
    assert not open_
    assert done == set(futures)
    failing = client.submit("lab_recipes.fail", AL, {"message": "no"})
    ended = list(concurrent.futures.as_completed([*futures, failing], timeout=LONG))
    assert len(ended) == 5
    assert [future.result() for future in futures] == [0, 1, 2, 3]


async def test_it_works_where_an_event_loop_runs(client):
    future = client.submit("lab_recipes.value", AL, {"number": 3})
    assert await asyncio.wait_for(asyncio.wrap_future(future), LONG) == 3
    assert future.result() == 3
    failing = client.submit("lab_recipes.fail", AL, {"message": "no"})
    with pytest.raises(JobFailed):
        await asyncio.wait_for(asyncio.wrap_future(failing), LONG)


def test_threads_may_share_a_client(client):
    def run(number):
        return client.submit("lab_recipes.value", AL, {"number": number}).result(LONG)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(16))) == list(range(16))


# --- submitting ----------------------------------------------------------------------------------


def test_each_of_many_is_accepted_or_refused_on_its_own(client, monkeypatch):
    monkeypatch.setattr(request_module, "MOST_JOBS", 2)  # so that it takes several requests
    answers = client.submit_many(
        [
            value(1),
            Submission(recipe="lab_recipes.nothing", atoms=AL),
            value(object()),
            value(2, engine="none such"),
            value(3),
            value(4, labels={"a": 1}),
            value(5, cluster="elsewhere"),
            value(6, name=Path("no text")),
        ]
    )
    assert [type(answer) for answer in answers] == [
        JobFuture,
        InvalidJob,
        InvalidJob,
        UnknownEngine,
        JobFuture,
        InvalidJob,
        InvalidJob,
        InvalidJob,
    ]
    assert "'name' must be a text of 1 to 255 printable characters" in str(answers[7])
    assert "no function 'nothing'" in str(answers[1])
    assert "number: <object object" in str(answers[2])
    assert [answers[0].result(LONG), answers[4].result(LONG)] == [1, 3]
    for ask in (client.progress, client.retry, client.cancel_many):
        with pytest.raises(InvalidJob, match="number 1 of the jobs was not .* no function 'noth"):
            ask(answers)
    assert client.submit_many([]) == []


def test_a_refused_job_raises(client):
    with pytest.raises(InvalidJob, match="has no parameter 'numbr'"):
        client.submit("lab_recipes.value", AL, {"numbr": 1})
    with pytest.raises(InvalidJob, match="takes no list of structures"):
        client.submit("lab_recipes.value", [AL])
    with pytest.raises(UnknownEngine, match="none such"):
        client.submit("lab_recipes.value", AL, engine="none such")


def test_what_is_odd_about_a_job_is_warned_of_once(client):
    def asked(**parameters):
        return Submission(recipe="emt.core.static_job", atoms=AL, parameters=parameters, lax=True)

    with pytest.warns(SubmissionWarning) as told:
        jobs = client.submit_many([asked(asap_cutof=True), asked(asap_cutof=True), asked()])
    (warning,) = [each for each in told if each.category is SubmissionWarning]
    assert warning.filename == __file__
    assert "'asap_cutof' of quacc.recipes.emt.core.static_job" in str(warning.message)
    assert "did you mean asap_cutoff?" in str(warning.message)
    for job in jobs:
        job.result(LONG)
    with pytest.warns(SubmissionWarning, match="asap_cutof"):
        client.retry(jobs[0], dry_run=True, lax=True)
    with pytest.warns(SubmissionWarning, match="asap_cutof"):
        (again,) = client.retry(jobs[0], lax=True)
    assert again.result(LONG)
    many = {f"odd{number}": 1 for number in range(20)}
    with pytest.warns(SubmissionWarning) as told:
        client.submit("emt.core.static_job", AL, many).result(LONG)
    ours = [each for each in told if each.category is SubmissionWarning]
    assert len(ours) == 11
    assert "with 10 more warnings" in str(ours[-1].message)


def test_a_key_gives_the_same_job(client):
    first = client.submit("lab_recipes.value", AL, {"number": 8}, key="eight")
    assert first.result(LONG) == 8
    again, twice = client.submit_many([value(8, key="eight"), value(8, key="eight")])
    assert again.job_id == twice.job_id == first.job_id
    assert again.done()
    assert twice.done()
    assert again.result() == 8
    with pytest.raises(KeyConflict, match="belongs to job"):
        client.submit("lab_recipes.value", AL, {"number": 9}, key="eight")


def test_check_says_all_that_is_wrong(client):
    assert client.check("lab_recipes.value", AL) == []
    found = client.check("lab_recipes.value", AL, {"numbr": 1}, engine="none such")
    assert {finding.code for finding in found} == {"invalid_job", "unknown_engine"}
    with pytest.raises(InvalidJob, match="'walltime_s'"):
        client.check("lab_recipes.value", AL, walltime_s=-1)


# --- map -----------------------------------------------------------------------------------------


def test_map_gives_results_in_order_and_shows_a_bar(client, lab_recipes, capsys):
    structures = [bulk("Al", cubic=True) * (size, 1, 1) for size in (1, 2, 3)]
    reports = client.map(
        lab_recipes.report, iter(structures), {"x": 1}, labels={"of": "map"}, progress=True
    )
    assert [len(report["symbols"]) for report in reports] == [4, 8, 12]
    assert "3/3 jobs" in capsys.readouterr().err
    assert len(client.jobs(label={"of": "map"})) == 3


def test_only_the_first_question_to_a_recipe_waits_for_quacc(client, capsys):
    from crystalmath.cli.shared.submission_options import asking

    # This process, or a server that was there before this client.
    for is_cold in ("server" not in repr(client), False):
        with asking(client, [], always=True):
            time.sleep(1.3)
        told = capsys.readouterr().err
        assert "finding the files that the recipe reads" in told
        assert ("quacc is imported first" in told) is is_cold


def test_map_knows_its_jobs_by_their_structures(client):
    structures = [bulk("Al", a=4.0), bulk("Al", a=4.1), bulk("Cu")]
    client.map("lab_recipes.value", structures, {"number": 3}, key="known")

    def keys():
        return {job.key for job in client.list() if (job.key or "").startswith("known/")}

    first = keys()
    assert len(first) == 3
    client.map("lab_recipes.value", structures[::-1][:2], {"number": 3}, key="known")
    assert keys() == first
    client.map("lab_recipes.value", [bulk("Ag"), *structures], {"number": 3}, key="known")
    assert len(keys()) == 4
    # A refused structure has its reason in its place.
    some = ["Al", bulk("Al")]
    told = client.map(
        "lab_recipes.value", some, {"number": 5}, key="refused", return_exceptions=True
    )
    assert isinstance(told[0], InvalidJob)
    assert told[1] == 5


def test_map_shows_no_bar_where_nobody_looks(client, capsys):
    assert client.map("lab_recipes.value", [AL, AL], {"number": 2}, key="two") == [2, 2]
    assert client.map("lab_recipes.value", [AL, AL], {"number": 2}, key="two") == [2, 2]
    assert len([job for job in client.list() if (job.key or "").startswith("two/")]) == 2
    assert capsys.readouterr().err == ""


def test_map_and_jobs_without_a_result(client):
    with pytest.raises(JobFailed):
        client.map("lab_recipes.fail", [AL], {"message": "no"})
    odd = AL.copy()
    odd.positions[0, 0] = float("nan")
    with pytest.raises(InvalidJob, match="not finite") as caught:
        client.map("lab_recipes.value", [AL, odd])
    assert caught.value.__notes__[0].startswith("structure 1 of 2; 1 other was")
    good, bad = client.map("lab_recipes.value", [AL, odd], return_exceptions=True)
    assert good == 1
    assert isinstance(bad, InvalidJob)
    assert client.map("lab_recipes.value", []) == []
    for one in (AL, "job:1"):
        with pytest.raises(InvalidJob, match="must be a list"):
            client.map("lab_recipes.value", one)
        with pytest.raises(InvalidJob, match="must be a list"):
            client.chain(one, {"value": "lab_recipes.value"})


# --- asking --------------------------------------------------------------------------------------


def test_jobs_gives_futures_back(client):
    labels = {"sweep": "back"}
    done = client.submit("lab_recipes.value", AL, {"number": 6}, labels=labels)
    failed = client.submit("lab_recipes.fail", AL, {"message": "no"}, labels=labels)
    concurrent.futures.wait([done, failed], LONG)
    again = client.jobs(labels=labels)
    assert [future.job_id for future in again] == [failed.job_id, done.job_id]
    assert all(future.done() for future in again)
    assert again[1].result() == 6
    assert again[1].labels == labels
    assert isinstance(again[0].exception(), JobFailed)
    assert [f.job_id for f in client.jobs(labels=labels, state="failed")] == [failed.job_id]
    assert client.future(done.job_id).result() == 6


def test_jobs_are_listed_page_by_page(client, monkeypatch):
    futures = client.submit_many([value(n, labels={"of": "pages"}, name=f"p{n}") for n in range(5)])
    concurrent.futures.wait(futures, LONG)
    monkeypatch.setattr("crystalmath.client.transport.PAGE", 2)
    ids = [future.job_id for future in reversed(futures)]
    chosen = {"labels": {"of": "pages"}}
    assert [job.job_id for job in client.list(**chosen)] == ids
    assert [job.job_id for job in client.list(**chosen, limit=3)] == ids[:3]
    assert [job.name for job in client.list(**chosen, state=["completed"], name="p3")] == ["p3"]
    assert client.ask("jobs.summary", **chosen)["states"] == {"completed": 5}
    assert client.totals(**chosen, exclude={"name": "p3"}) == {"completed": 4}
    assert [job.name for job in client.list(**chosen, sort="name")] == [f"p{n}" for n in range(5)]
    now = datetime.now(UTC)
    assert [f.name for f in client.jobs(**chosen, name="P4", elements="Al", until=now)] == ["p4"]
    assert client.jobs(**chosen, since=now) == []
    assert client.find(ids[0][:30]) == ids[0]
    with pytest.raises(InvalidJob, match="the id of a job is empty"):
        client.find("")


def test_of_named_jobs_filters_leave_those_that_fit(client, tmp_path):
    asked = [value(n, labels={"named": str(n % 2)}, name=f"n{n}") for n in range(4)]
    ids = [future.job_id for future in client.submit_many(asked)]
    assert [job.job_id for job in client.wait(ids, LONG) if job.state.is_terminal()]
    odd: dict = {"labels": {"named": "1"}}
    assert {job.job_id for job in client.wait(ids, LONG, **odd)} == {ids[1], ids[3]}
    assert [one["job_id"] for one in client.cancel_many(ids[:2], **odd)] == [ids[1]]
    assert client.cancel_many(ids[:1], **odd) == []
    assert client.retry(ids, dry_run=True, filters=odd) == [None, None]
    assert client.retry(ids[:1], dry_run=True, filters=odd) == []
    assert client.cancel_many(ids[:1], prefix=ids[1][:20]) == []
    for several in ([*ids, NOBODY], [ids[1][:20]]):
        for ask in (client.wait, client.cancel_many, client.prune):
            with pytest.raises(UnknownJob, match="no job has the id"):
                list(ask(several, **odd))
    assert [job["job_id"] for job in client.prune(ids, dry_run=True, **odd)["jobs"]] == [
        ids[1],
        ids[3],
    ]
    assert client.archive(tmp_path / "odd.zip", ids, **odd) == 2
    assert client.export(tmp_path / "odd.csv", job_ids=ids, **odd) == (2, 0)
    sort = {"columns": ["name"], "sort": "-name"}
    assert client.export(tmp_path / "three.csv", job_ids=ids, limit=3, **sort) == (3, 0)
    assert (tmp_path / "three.csv").read_text().split() == ["name", "n3", "n2", "n1"]
    with pytest.raises(UnknownJob):
        client.export(tmp_path / "no.csv", job_ids=[*ids, NOBODY])
    for ask in (client.wait, client.cancel_many):
        for nothing in ({}, {"labels": {}}, {"prefix": ""}, {"steps": True}):
            with pytest.raises(InvalidJob, match="nothing says which jobs"):
                list(ask(**nothing))


def test_what_is_not_there(client):
    for ask in (client.job, client.future, client.result, client.result_json, client.cancel):
        with pytest.raises(UnknownJob, match=f"no job has the id '{NOBODY}'"):
            ask(NOBODY)
    with pytest.raises(UnknownJob):
        list(client.wait([NOBODY], 1))
    with pytest.raises(UnknownJob):
        client.find("none such")
    with pytest.raises(CrystalMathError, match=r"there is no method 'jobs\.sumbit'"):
        client.call("jobs.sumbit")
    with pytest.raises(InvalidJob, match="'stat' is not a known setting|known parameter"):
        client.ask("jobs.list", stat="failed")
    with pytest.raises(InvalidJob, match="'labels' must be an object, not 'x'"):
        client.table(labels="x")
    with pytest.raises(InvalidJob, match="'labels' must be an object, not 'x'"):
        client.jobs(labels="x")
    with pytest.raises(InvalidJob, match="'labels' must be an object, not 'x'"):
        client.jobs(label="x")
    with pytest.raises(InvalidJob, match="'exclude' must be an object, not 'x'"):
        client.totals(exclude="x")


def test_wait_tells_the_present_state_and_each_change(client, go):
    done = client.submit("lab_recipes.value", AL)
    done.result(LONG)
    waiting = client.submit("lab_recipes.wait_for", AL, {"path": str(go)})
    eventually(waiting.running)
    seen = []
    for job in client.wait([done.job_id, waiting.job_id], LONG):
        seen.append((job.job_id, job.state.value))
        go.touch()
    assert seen == [
        (done.job_id, "completed"),
        (waiting.job_id, "running"),
        (waiting.job_id, "completed"),
    ]
    assert len(list(client.wait([done.job_id], 0))) == 1


def test_logs(client):
    future = client.submit("lab_recipes.fail", AL, {"message": "no"})
    future.exception(LONG)
    log = client.logs(future.job_id)
    assert "RuntimeError: no" in log["text"]
    assert log["finished"]
    assert client.logs(future.job_id, offset=log["offset"])["text"] == ""
    assert client.logs(future.job_id, tail=1)["text"].strip() == ""
    with pytest.raises(CrystalMathError, match="no file"):
        client.logs(future.job_id, "OUTCAR")


def test_what_there_is(client, lab_recipes):
    assert "local" in [engine["name"] for engine in client.ask("engines.list")["engines"]]
    names = [
        recipe["name"] for recipe in client.ask("recipes.list", prefix="lab_recipes")["recipes"]
    ]
    assert "lab_recipes.value" in names
    described = client.ask("recipes.describe", recipe="lab_recipes.wait_for")
    assert described["docstring"] == "Run until a file is there."
    assert described["parameters"]["required"] == ["path"]
    told = client.ask("system.version")
    assert (told["version"], told["protocol"], told["prefix"]) == (build_version(), 1, sys.prefix)
    assert Path(told["home"]).is_dir()
    assert "lab_recipes" in told["recipes_allow"]


def test_status_tells_what_answers_is_doing(client):
    client.submit("lab_recipes.value", AL).cancel()
    status = client.status()
    assert status["workers"]["local"] == 1
    assert status["backlog"]["local"] == status["jobs"]["pending"]
    assert isinstance(status["failures"], list)
    eventually(lambda: client.status()["disk"] is not None)


def test_changes_are_told_from_the_moment_of_asking(client):
    told = client.changes(labels={"of": "changes"}, job=True, timeout=LONG)
    client.submit("lab_recipes.value", AL, labels={"of": "another"}).cancel()
    future = client.submit("lab_recipes.value", AL, labels={"of": "changes"}, name="Al")
    first = next(told)
    assert (first.before, first.state, first.job_id) == (None, JobState.PENDING, future.job_id)
    assert (first.job.name, first.job.labels) == ("Al", {"of": "changes"})
    future.cancel()
    for last in told:
        assert last.job_id == future.job_id
        if last.state.is_terminal():
            break
    assert last.job.state is last.state
    # Who goes on from there, or looks back, misses nothing and sees nothing twice.
    assert list(client.changes(after=last.seq, labels={"of": "changes"}, timeout=0)) == []
    again = list(client.changes(after=first.seq - 1, labels={"of": "changes"}, timeout=0))
    assert [change.seq for change in again][:1] == [first.seq]
    assert [change.seq for change in again][-1] == last.seq
    ends = client.changes(after=0, state=last.state.value, labels={"of": "changes"}, timeout=0)
    assert [change.seq for change in ends] == [last.seq]
    assert last.seq in [change.seq for change in client.changes(after=0, timeout=0)]


def test_a_cancel_of_which_another_thread_hears_first(monkeypatch):
    end = JobFuture._end

    def slow_end(future):
        is_first = end(future)
        time.sleep(0.3 if is_first else 0.0)
        return is_first

    class Asked:
        def cancel(self, job_id):
            threading.Thread(target=future.observe, args=[JobState.CANCELLED]).start()
            eventually(lambda: future._ended)

        def wait(self, job_ids, timeout):
            return []

    monkeypatch.setattr(JobFuture, "_end", slow_end)
    future = JobFuture(Asked(), None, "1", None, {})
    assert future.cancel() is True
    assert future.cancelled()


# --- last, as it costs a warm worker --------------------------------------------------------------


def test_cancel_stops_the_job(client):
    future = client.submit("lab_recipes.long_sleep", AL)
    other = client.future(future.job_id)
    eventually(future.running)
    assert future.cancel() is True
    assert future.cancelled()
    assert future.cancel() is True
    assert client.job(future.job_id).state is JobState.CANCELLED
    with pytest.raises(concurrent.futures.CancelledError):
        other.result(LONG)
    done, _ = concurrent.futures.wait([future, other], timeout=LONG)
    assert len(done) == 2
    assert client.cancel(future.job_id) is False


async def test_a_timeout_of_a_coroutine_cancels_the_job_without_holding_up_its_loop(client):
    future = client.submit("lab_recipes.long_sleep", AL)
    await eventually_in_loop(future.running)
    longest, last = 0.0, time.monotonic()

    async def tick():
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    release = threading.Event()
    stop = client.cancel

    def slowly(job_id):
        release.wait(LONG)
        return stop(job_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "cancel", slowly)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.05)
        assert not future.done()
        release.set()
        await eventually_in_loop(future.done)
    ticking.cancel()
    assert future.cancelled()
    assert longest < LONG / 2


def test_a_cluster_is_checked(client):
    told = client.check_cluster("local", timeout=120)
    assert (told["status"], told["error"]) == ("completed", None)
    assert {"queue", "node", "home", "clock"} <= {check.name for check in told["checks"]}
    again = client.check_cluster("local", told["job_id"])
    assert again["job_id"] == told["job_id"]
    with pytest.raises(InvalidJob, match="no cluster 'huge'"):
        client.check_cluster("huge")
