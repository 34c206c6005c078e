"""The answers of ``jobs.*``, to the letter, on the real local engine."""

import asyncio
import io
import json
import re
import sqlite3
import threading
import time

import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write

from conftest import NOBODY, eventually
from crystalmath import config
from crystalmath.errors import CrystalMathError
from crystalmath.quacc.store import JobStore
from crystalmath.recipes.structures import to_ase_json
from crystalmath.server.handlers import METHODS
from crystalmath.service import JobService, default_service

CELL = [[3.8, 0, 0], [0, 3.8, 0], [0, 0, 3.8]]
SITES = [[0, 0, 0], [0, 1.9, 1.9], [1.9, 0, 1.9], [1.9, 1.9, 0]]
AL = {"symbols": "Al4", "positions": SITES, "cell": CELL, "pbc": True}
VALUE = {"recipe": "lab_recipes.value", "structure": AL}


@pytest.fixture
def idle(home, lab):
    """A service in a new home that is not expected to start anything."""
    with JobService() as service:
        yield service


def call(controller, method, params=None, /, **more):
    answer = asyncio.run(METHODS[method](controller, {**(params or {}), **more}))
    json.dumps(answer, allow_nan=False)
    return answer


def finish(service, job_id, timeout=60.0):
    def finished():
        answer = call(service, "jobs.status", job_id=job_id)
        return answer["status"] not in {"pending", "running"} and answer

    return eventually(finished, timeout, "the job did not finish")


def run(service, params, /, **more):
    answer = call(service, "jobs.submit", params, **more)
    assert answer["error"] is None, answer
    return finish(service, answer["job_id"])


def poscar(atoms):
    text = io.StringIO()
    write(text, atoms, format="vasp")
    return text.getvalue()


# --- shapes --------------------------------------------------------------------------------------


def test_a_job_from_submission_to_summary(service):
    answer = call(service, "jobs.submit", recipe="lab_recipes.relax", structure=AL)
    job_id = answer["job_id"]
    assert answer == {"job_id": job_id, "status": "pending", "error": None}
    early = call(service, "jobs.status", job_id=job_id)
    done = finish(service, job_id)
    assert early.keys() == done.keys() >= {"job_id", "status", "error", "result", "reason"}
    assert (done["status"], done["error"]) == ("completed", None)
    assert done["work_dir"] == str(service.work_directory(job_id))
    assert done["log"] == str(service.config.jobs_directory / job_id / "1.log")
    summary = done["result"]
    assert summary.keys() >= {"energy_ev", "max_force_ev_ang", "formula", "work_dir"}
    assert isinstance(summary["energy_ev"], float)
    assert summary["max_force_ev_ang"] < 1e-6
    assert summary["formula"] == "Al4"
    # A recipe may make a folder of its own in ours, as quacc does.
    assert summary["work_dir"].startswith(str(service.work_directory(job_id)))
    assert call(service, "jobs.cancel", job_id=job_id) == {
        "job_id": job_id,
        "cancelled": False,
        "error": None,
    }


@pytest.mark.parametrize("given", [{}, {"structure": None}])
def test_a_recipe_that_takes_no_structure(service, given):
    asked = {"recipe": "lab_recipes.without_structure", "params": {"files": ["a"]}, **given}
    answer = run(service, asked)
    assert answer["status"] == "completed", answer
    assert answer["formula"] is None
    again = call(service, "jobs.specification", job_id=answer["job_id"])
    assert again["structure"] is None
    assert again["params"] == {"files": ["a"]}
    keyed = [
        call(service, "jobs.submit", {**asked, "key": "one", **more})
        for more in ({}, {"params": {}})
    ]
    assert keyed[0]["job_id"]
    assert keyed[1]["code"] == "key_conflict"
    refused = call(service, "jobs.submit", {**asked, "structure": AL})
    assert "takes no structure; its arguments begin with 'files'" in refused["error"]


def test_what_a_result_does_not_have_is_null(service):
    summary = run(service, VALUE)["result"]
    assert summary["energy_ev"] is summary["max_force_ev_ang"] is summary["formula"] is None
    assert summary["work_dir"]


def test_a_failure(service):
    done = run(service, VALUE, recipe="lab_recipes.fail", params={"message": "no convergence"})
    assert (done["status"], done["result"]) == ("failed", None)
    assert done["error"] == "RuntimeError: no convergence"


@pytest.mark.parametrize(
    "job_id", [NOBODY, "", "../../etc", "a" * 10_000, "a\0", "\ud800", None, 3, ["x"]]
)
@pytest.mark.parametrize("fresh", [True, False])
def test_unknown_ids(service, idle, home, job_id, fresh):
    controller = idle if fresh else service
    for method, more in (("jobs.status", {"result": None}), ("jobs.cancel", {"cancelled": False})):
        answer = call(controller, method, job_id=job_id)
        named = f"{job_id!r:.80}"
        said = {"status": "error", "code": "unknown_job", "error": f"no job has the id {named}"}
        assert answer == {"job_id": job_id, **said, **more}
    # Asking makes no database.
    assert list(home.iterdir()) == []


# --- what reaches the recipe ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["poscar", "dict", "ase-json", "ase-json as text"])
def test_structures(service, form):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.set_tags(range(8))
    atoms.set_initial_magnetic_moments([0.5 * index for index in range(8)])
    atoms.set_initial_charges([1, -1] * 4)
    atoms.set_constraint(FixAtoms([1, 3]))
    document = to_ase_json(atoms)
    structure = {
        "poscar": poscar(atoms),
        "dict": {
            "symbols": list(atoms.symbols),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.tolist(),
            "pbc": [True] * 3,
            "tags": list(range(8)),
        },
        "ase-json": document,
        "ase-json as text": {**document, "data": json.dumps(document["data"])},
    }[form]
    done = run(service, recipe_report(structure))
    assert done["status"] == "completed", done
    report = service.result(done["job_id"])
    assert sorted(report["symbols"]) == ["Cl"] * 4 + ["Na"] * 4
    assert report["pbc"] == [True] * 3
    assert report["cell"] == pytest.approx([5.6] * 3)
    if form != "poscar":
        assert report["symbols"] == ["Na", "Cl"] * 4
        assert report["tags"] == list(range(8))
    if form.startswith("ase-json"):
        assert report["magmoms"] == [0.5 * index for index in range(8)]
        assert report["charges"] == [1, -1] * 4
        assert report["fixed"] == [1, 3]


def recipe_report(structure):
    return {"recipe": "lab_recipes.report", "structure": structure}


def test_name_and_labels_are_stored_and_not_passed(service):
    params = {"number": 3, "opt_params": {"fmax": 0.01}}
    more = {"name": "slab 3", "labels": {"project": "xy"}, "key": "reported", "walltime_s": 60}
    done = run(service, recipe_report(AL), params=params, **more)
    assert service.result(done["job_id"])["parameters"] == params
    stored = service.job(done["job_id"])
    assert (stored.name, dict(stored.labels)) == ("slab 3", {"project": "xy"})
    assert (stored.key, stored.walltime_s) == ("reported", 60)


# --- refused -------------------------------------------------------------------------------------

REFUSED = {
    "doomed": ({"params": {"number": "doomed"}}, "VASP_PP_PATH.*\nit would die twice", "refused"),
    "unknown argument": ({"params": {"numbr": 1}}, "did you mean number", None),
    "missing argument": ({"recipe": "lab_recipes.fail"}, "message", None),
    "the structure again": ({"params": {"atoms": 1}}, "the structure itself", None),
    "not permitted": ({"recipe": "os.system"}, "not permitted", None),
    "private": ({"recipe": "lab_recipes.__name__"}, "not permitted", None),
    "path": ({"recipe": "../lab_recipes.value"}, "not permitted", None),
    "recipe no string": ({"recipe": ["lab_recipes.value"]}, "'recipe' must be a string", None),
    "recipe missing": ({"recipe": None}, "'recipe' is missing", None),
    "no such recipe": ({"recipe": "lab_recipes.valeu"}, "did you mean value", None),
    "unknown engine": ({"engine": "slurm"}, "installed are: .*local", "unknown_engine"),
    "engine no string": ({"engine": 5}, "'engine'", None),
    "engine empty": ({"engine": ""}, "'engine'", None),
    "unknown cluster": ({"cluster": "jean-zay"}, "'jean-zay'.*local", None),
    "cluster empty": ({"cluster": ""}, "'cluster'", None),
    "walltime negative": ({"walltime_s": -1}, "walltime.*-1", None),
    "walltime zero": ({"walltime_s": 0}, "walltime", None),
    "walltime nan": ({"walltime_s": float("nan")}, "walltime.*nan", None),
    "walltime huge": ({"walltime_s": 10**400}, "walltime", None),
    "walltime text": ({"walltime_s": "2h"}, "walltime.*2h", None),
    "walltime bool": ({"walltime_s": True}, "walltime", None),
    "label number": ({"labels": {"a": 1}}, "labels", None),
    "label nested": ({"labels": {"a": {"b": "c"}}}, "labels", None),
    "labels list": ({"labels": []}, "'labels' must be an object", None),
    "label NUL": ({"labels": {"a": "\0"}}, "'labels.a'", None),
    "key empty": ({"key": ""}, "key", None),
    "key number": ({"key": 5}, "key", None),
    "name lines": ({"name": "a\nb"}, "name", None),
    "nan": ({"params": {"number": float("nan")}}, "params.number.*not finite", None),
    "inf": ({"params": {"number": [{"a": float("inf")}]}}, r"number\S*a\S* .*not finite", None),
    "module": (
        {"params": {"number": {"@module": "os", "@class": "system"}}}, "os.system", None
    ),
    "params a tag": (
        {"params": {"@module": "pathlib", "@class": "Path", "string": "/"}}, "params", None
    ),
    "params list": ({"params": []}, "'params' must be an object", None),
    "params zero": ({"params": 0}, "'params' must be an object", None),
    "unknown key": ({"parms": {}}, "'parms'.*did you mean 'params'", None),
    "structure missing": ({"structure": None}, "needs a structure.*'atoms'", None),
    "structure garbage": ({"structure": "what?"}, "POSCAR", None),
    "structure NUL": ({"structure": "\0" * 100}, "POSCAR", None),
    "structure number": ({"structure": 5}, "structure", None),
    "structure list": ({"structure": [1]}, "structure", None),
    "structure no atoms": ({"structure": {"symbols": []}}, "atoms", None),
    "structure nan": ({"structure": {**AL, "cell": [float("nan")] * 3}}, "cell.*finite", None),
    "structure calculator": ({"structure": {**AL, "calculator": {}}}, "calculator", None),
    "structure format": ({"structure": {"format": "cif", "data": ""}}, "'cif'", None),
    "ase-json garbage": ({"structure": {"format": "ase-json", "data": "{"}}, "", None),
    "ase-json class": (
        {"structure": {"format": "ase-json", "data": {"__ase_objtype__": "bandpath"}}}, "", None
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(idle, home, judge, change, said, code):
    answer = call(idle, "jobs.submit", {**VALUE, **change})
    more = answer.keys() & {"findings"}
    assert answer.keys() - {"place"} == {"job_id", "status", "error", "code"} | more
    assert (answer["job_id"], answer["status"]) == (None, "error")
    assert answer["code"] == (code or "invalid_job")
    assert re.search(said, answer["error"]), answer["error"]
    assert bool(more) == (code == "refused")
    nothing = {"jobs": [], "cursor": None, "totals": None, "error": None}
    assert call(idle, "jobs.list") == nothing
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("params", [None, [], "recipe", 5])
def test_parameters_that_are_no_object(idle, params):
    methods = {name: method for name, method in METHODS.items() if not method.of_session}
    answers = {name: asyncio.run(method(idle, params)) for name, method in methods.items()}
    for answer in answers.values():
        assert (answer["code"], answer["status"]) == ("invalid_job", "error")
        assert "must be an object" in answer["error"]
    assert answers["jobs.submit"]["job_id"] is None
    assert answers["jobs.status"]["status"] == "error"
    assert answers["jobs.cancel"]["cancelled"] is False
    assert answers["jobs.list"]["jobs"] == []


def test_findings_of_the_preflight_come_along(idle, judge):
    answer = call(idle, "jobs.submit", VALUE, params={"number": "doomed"})
    assert [finding["code"] for finding in answer["findings"]] == ["odd", "doomed", "again"]
    assert answer["findings"][1] == {
        "severity": "error",
        "code": "doomed",
        "message": "it would die",
        "path": "/pp",
        "source": "VASP_PP_PATH",
        "remedy": "set VASP_PP_PATH",
        "place": None,
    }


SLOW = """
import pathlib, time
from crystalmath.hookspecs import hookimpl

@hookimpl
def crystalmath_preflight(parameters):
    place = pathlib.Path(parameters["number"])
    (place / "begun").touch()
    while not (place / "go").exists():
        time.sleep(0.01)
    return []
"""


def test_each_of_many_like_jobs_is_what_it_would_be_alone(idle):
    other = to_ase_json(bulk("Al", cubic=True))
    marked = {**other, "data": {**other["data"], "info": {"site": 1}}}
    differences = [
        {},
        {},
        {"name": "third", "labels": {"x": "1"}, "key": "three"},
        {"params": {"number": 1}},
        {"params": {"number": 1.0}},
        {"params": {"number": True}},
        {"params": {"number": {"a": 1, "b": 2}}},
        {"params": {"number": {"b": 2, "a": 1}}},
        {"priority": 3},
        {"priority": 3, "name": "tenth"},
        {"environment": {"OMP_NUM_THREADS": "2"}},
        {"walltime_s": 60},
        {"structure": other},
        {"structure": other, "name": "again"},
        {"structure": marked},
        {"structure": {**marked, "data": {**marked["data"], "info": {"site": 1.0}}}},
        {"structure": poscar(bulk("Al", cubic=True))},
        {"params": {"nobody": 1}},
        {"params": {"nobody": 1}, "name": "refused too"},
    ]
    jobs = [{**VALUE, "params": {"number": 7}, **each} for each in differences]
    together = call(idle, "jobs.submit_many", jobs=jobs)["jobs"]
    alone = [call(idle, "jobs.submit", {**job, "key": None}) for job in jobs]
    for number, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert one["status"] == other["status"], number
        if other["job_id"] is None:
            assert one == other
            continue
        rows = [idle.job(each["job_id"]) for each in (one, other)]
        texts = [idle.specification(job.job_id) for job in rows]
        headers = [json.loads(text.split("\n")[0]) for text in texts]
        assert headers[0]["job_id"] == rows[0].job_id
        for header in headers:
            del header["job_id"]
            header.pop("key", None)
        assert headers[0] == headers[1], number
        assert texts[0].split("\n")[1] == texts[1].split("\n")[1], number
        for name in ("spec_hash", "name", "labels", "priority", "walltime_s", "formula", "recipe"):
            assert getattr(rows[0], name) == getattr(rows[1], name), (number, name)
    assert together[2]["known"] is False
    assert len({each["job_id"] for each in together}) == len(jobs) - 1


@pytest.mark.parametrize("name", ["jobs.submit", "jobs.submit_many"])
def test_a_submission_that_is_given_up_while_it_is_checked_is_not_recorded(
    idle, install, tmp_path, monkeypatch, name
):
    install("slow-check", "slow", SLOW, group="crystalmath.plugins")
    told = []
    submit = JobService.submit_many

    def noted(*given, **more):
        try:
            return submit(*given, **more)
        except CrystalMathError as error:
            told.append(str(error))
            raise

    monkeypatch.setattr(JobService, "submit_many", noted)
    job = {**VALUE, "params": {"number": str(tmp_path)}}

    async def give_up():
        asked = {"jobs": [job]} if name == "jobs.submit_many" else job
        task = asyncio.create_task(METHODS[name](idle, asked))
        await asyncio.to_thread(eventually, (tmp_path / "begun").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (tmp_path / "go").touch()

    asyncio.run(give_up())
    eventually(lambda: told)
    assert "nothing was recorded" in told[0]
    assert call(idle, "jobs.list")["jobs"] == []


TOUCHED = """
from crystalmath.hookspecs import hookimpl

@hookimpl
def crystalmath_make_runner(settings):
    raise ImportError("it was touched")
"""


def test_what_is_refused_touches_no_engine_and_makes_no_home(tmp_path, lab, judge, install):
    install("touchy-engine", "touchy", TOUCHED)
    asked = {**VALUE, "engine": "touchy"}
    environ = {"CRYSTALMATH_HOME": str(tmp_path / "new"), "CRYSTALMATH_RECIPES": "lab_recipes"}
    with JobService(config.load(environ)) as service:
        for params in ({"number": "doomed"}, {"numbr": 1}):
            answer = call(service, "jobs.submit", asked, params=params)
            assert (answer["job_id"], answer["status"]) == (None, "error")
            assert "touched" not in answer["error"]
        assert call(service, "jobs.submit", asked, engine="touch")["code"] == "unknown_engine"
        assert service.engine_states()["touchy"] == "not loaded"
        # What is not refused hears of the engine.
        answer = call(service, "jobs.submit", asked)
        assert (answer["job_id"], answer["code"]) == (None, "import")
        assert "touched" in answer["error"]
    assert not (tmp_path / "new").exists()


def test_what_a_job_reads_is_recorded_with_it(service, judge):
    params = {"number": "odd"}
    checked = call(service, "jobs.check", VALUE, params=params)
    assert (checked["ok"], checked["status"], checked["error"]) == (True, "ok", None)
    (file,) = checked["potcars"]
    assert (file["symbol"], file["titel"], file["zval"]) == ("Al", "PAW_PBE Al 04Jan2001", 3.0)
    taken = call(service, "jobs.submit", VALUE, params=params)
    assert taken["warnings"] == checked["findings"]
    asked = call(service, "jobs.specification", job_id=taken["job_id"])
    assert asked["potcars"] == [file]
    finish(service, taken["job_id"])
    other = call(service, "jobs.submit", VALUE)
    assert call(service, "jobs.specification", job_id=other["job_id"])["potcars"] == []
    finish(service, other["job_id"])


# --- keys ----------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_job(service):
    params = {"number": {"a": 1, "b": [1, 2]}}
    first = call(service, "jobs.submit", VALUE, params=params, key="once")
    assert finish(service, first["job_id"])["status"] == "completed"
    # The order of names is no difference in JSON.
    again = {"key": "once", "params": {"number": {"b": [1, 2], "a": 1}}, **VALUE}
    present = {"job_id": first["job_id"], "status": "completed", "error": None, "known": True}
    assert call(service, "jobs.submit", again) == present
    before = call(service, "jobs.list")
    for change, named in (
        ({"params": {"number": 2}}, "parameters.number"),
        ({"params": {}}, "parameters.number"),
        ({"recipe": "lab_recipes.report"}, "recipe"),
        (
            {"walltime_s": 60, "params": {"more": 1}},
            "walltime_s, parameters.number, parameters.more",
        ),
        ({"structure": {**AL, "tags": [1, 1, 1, 1]}}, "structure"),
    ):
        answer = call(service, "jobs.submit", {**again, **change})
        assert (answer["job_id"], answer["status"]) == (None, "error")
        assert answer["code"] == "key_conflict"
        assert first["job_id"] in answer["error"]
        assert f"(it differs in {named})" in answer["error"]
        (*_, found) = call(service, "jobs.check", {**again, **change})["findings"]
        assert found["message"] == answer["error"]
    assert call(service, "jobs.list") == before


# --- list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"state": "done"}, "pending, running, completed"),
        ({"state": []}, "'state'"),
        ({"limit": -1}, "'limit'"),
        ({"limit": True}, "'limit'"),
        ({"limit": 10**30}, "'limit'"),
        ({"labels": "a"}, "'labels'"),
        ({"labels": []}, "'labels'"),
        ({"engine": 5}, "'engine'"),
        ({"labels": {"a": 1}}, "'labels.a' must be a string"),
        ({"state": ["failed", "done"]}, "'state'"),
        ({"error": ""}, "'error'"),
        ({"cursor": 7}, "'cursor'"),
        ({"skip": -1}, "'skip'"),
        ({"skip": 10**30}, "'skip'"),
        ({"fields": []}, "'fields'"),
        ({"fields": "name"}, "'fields'"),
        ({"fields": ["owner"]}, "'fields[0]' must be one of"),
        ({"fields": ["name"] * 10**5}, "'fields'"),
        ({"stat": "failed"}, "did you mean 'state'"),
    ],
)
def test_filters_that_cannot_be_used(service, params, said):
    answer = call(service, "jobs.list", params)
    assert (answer["jobs"], answer["code"]) == ([], "invalid_job")
    assert said in answer["error"]


@pytest.mark.parametrize(
    "params", [{"x" * 20_000_000: 1}, {"limit": [0] * 5_000_000}, {"labels": {"a": [[]] * 10**6}}]
)
def test_what_is_huge_is_refused_at_once(service, params):
    began = time.process_time()
    json.dumps(params)
    written = time.process_time()
    answer = call(service, "jobs.list", params)
    # In linear time: a search for similar names would take hours.
    assert time.process_time() - written < 10 * (written - began)
    assert (answer["code"], len(answer["error"]) < 500) == ("invalid_job", True)


def test_an_end_that_the_events_tell_is_the_status_from_then_on(service, monkeypatch):
    apply, committed, go = JobStore.apply, threading.Event(), threading.Event()

    def slowly(store, changes):
        told = apply(store, changes)
        if any(change.state.is_terminal() for change in changes):
            committed.set()
            go.wait(60)
        return told

    monkeypatch.setattr(JobStore, "apply", slowly)
    job_id = call(service, "jobs.submit", VALUE)["job_id"]
    try:
        while not committed.wait(0.01):
            call(service, "jobs.status", job_id=job_id)  # it is remembered, and believed
        assert call(service, "jobs.events", job_ids=[job_id])["events"][-1]["to"] == "completed"
        (told,) = call(service, "jobs.status_many", job_ids=[job_id])["jobs"]
        assert told["status"] == "completed"
    finally:
        go.set()


# --- the loop ------------------------------------------------------------------------------------


def test_a_running_loop_is_not_blocked(service):
    run(service, VALUE)
    database = sqlite3.connect(service.config.home / "jobs.sqlite", isolation_level=None)

    async def submit_while_the_database_is_busy():
        database.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(METHODS["jobs.submit"](service, VALUE))
        computed, slowest = time.thread_time(), 0.0
        for _ in range(50):
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            slowest = max(slowest, time.perf_counter() - began)
        computed = time.thread_time() - computed
        waiting = not task.done()
        database.execute("ROLLBACK")
        return waiting, slowest, computed, await task

    try:
        waiting, slowest, computed, answer = asyncio.run(submit_while_the_database_is_busy())
    finally:
        database.close()
    assert waiting
    # SQLite waits for 30 s, and a busy machine may be elsewhere for a while.
    assert slowest < 10
    assert computed < 0.2
    assert answer["status"] == "pending"
    assert finish(service, answer["job_id"])["status"] == "completed"


# --- last, as these cost the warm worker ---------------------------------------------------------


def test_cancel(service):
    job_id = call(service, "jobs.submit", VALUE, recipe="lab_recipes.long_sleep")["job_id"]
    asked = {"job_id": job_id, "cancelled": True, "error": None}
    assert call(service, "jobs.cancel", job_id=job_id) == asked
    done = finish(service, job_id)
    assert (done["status"], done["error"], done["result"]) == ("cancelled", "cancelled", None)
    assert done["cancel_requested_at"] <= done["finished_at"]
    assert call(service, "jobs.cancel", job_id=job_id)["cancelled"] is False


def test_no_controller_is_the_service_of_this_home(home, lab):
    answer = call(None, "jobs.submit", VALUE, recipe="lab_recipes.long_sleep", name="mine")
    try:
        assert default_service().job(answer["job_id"]).name == "mine"
        assert default_service().config.home == home
        assert (home / "jobs.sqlite").exists()
        assert [job["job_id"] for job in call(None, "jobs.list")["jobs"]] == [answer["job_id"]]
        assert call(None, "jobs.cancel", job_id=answer["job_id"])["cancelled"] is True
        assert finish(None, answer["job_id"])["status"] == "cancelled"
    finally:
        default_service().close()
