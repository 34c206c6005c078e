"""Jobs that refer to others, or come after them: they wait, and go on when those have ended."""

import re
import shutil
from types import SimpleNamespace

import pytest
from ase.build import bulk
from attrs import evolve

from conftest import NOBODY, eventually
from crystalmath.client import in_process
from crystalmath.models import JobState, Reference
from crystalmath.quacc.runner import get_runner
from crystalmath.running.recorder import Recorder
from crystalmath.service import JobService, dependencies
from crystalmath.submitting.admission import Admission
from ends import lab_job
from server.home_server import HomeServer, lab_request

pytestmark = pytest.mark.server

WAITED = "waits for job"


@pytest.fixture
def blocked(served, go):
    """Return a running job that ends when the file is there."""
    return served.submit("wait_for", params={"path": str(go)}, labels={"step": str(go)})


def value(job_id, *path):
    return {"$job": job_id, "path": list(path)}


def echoed(server, job_id):
    """Return what a job of `echo` got."""
    job = server.finish(job_id)
    assert job["status"] == "completed", job
    return server.call("jobs.result", job_id=job_id)["result"]["text"]


def refused(server, recipe="echo", **params):
    answer = server.call("jobs.submit", **lab_request(recipe, **params))
    assert answer["job_id"] is None, answer
    return answer["error"]


# --- waiting and going on ------------------------------------------------------------------------


def test_a_job_waits_for_the_values_that_it_refers_to(served, blocked, go):
    params = {"saw": value(blocked, "saw"), "deep": [{"dir": value(blocked, "dir_name")}]}
    job_id = served.submit("echo", params=params)
    after = served.submit("echo", params={"x": value(job_id, "text")}, structure=None)
    job = served.status(job_id)
    assert (job["status"], job["reason"]) == ("pending", f"{WAITED} {blocked}")
    assert job["parents"] == [
        {"job_id": blocked, "role": "value", "awaited": "ok", "place": place, "path": path}
        for place, path in (("saw", ["saw"]), ("deep[0].dir", ["dir_name"]))
    ]
    assert not (served.home / "jobs" / job_id).exists()
    assert served.call("jobs.specification", job_id=job_id)["params"] == params
    assert [job_id] == [
        each["job_id"] for each in served.call("jobs.show", job_id=blocked)["children"]
    ]
    go.touch()
    text = echoed(served, job_id)
    work = served.home / "jobs" / blocked / "1.work"
    assert text == repr({"saw": str(go), "deep": [{"dir": work}]})
    assert echoed(served, after) == repr({"x": text})
    job = served.status(job_id)
    assert job["reason"] is None
    assert job["parents"] == [
        {"job_id": blocked, "role": "value", "place": place, "path": path}
        for place, path in (("saw", ["saw"]), ("deep[0].dir", ["dir_name"]))
    ]
    assert "$job" not in str(served.call("jobs.specification", job_id=job_id)["params"])


def test_a_structure_of_a_job_that_has_not_ended(served, go):
    first = served.submit("write_and_wait", params={"files": {}, "path": str(go)})
    moved = served.submit("shift", after=[first])
    final = served.submit("report", structure={"format": "job", "job_id": moved})
    frame = served.submit("report", structure={"format": "job", "job_id": moved, "frame": 1})
    given = served.submit("report", structure={"format": "job", "job_id": moved, "frame": 0})
    at = served.submit("report", structure=value(moved, "atoms"))
    assert served.status(final)["formula"] is None
    # What a job was given is there already.
    assert served.finish(given)["status"] == "completed"
    go.touch()
    for job_id, x in ((final, 0.3), (frame, 0.1), (at, 0.3)):
        job = served.finish(job_id)
        assert (job["status"], job["formula"]) == ("completed", "Al")
        data = served.call("jobs.specification", job_id=job_id)["structure"]["data"]
        assert data["positions"]["__ndarray__"][2][0] == pytest.approx(x)


def test_keys_tuples_and_arrays_survive(served):
    job_id = served.submit("grid")
    paths = {
        "whole": ["results"],
        "number": ["results", 2, "q"],
        "one": ["results", 1, "q", -1],
        "row": ["forces", 1],
        "dots": ["name.with.dots", 0, "a"],
        "odd": ["like a reference"],
    }
    params = {name: {"$job": job_id, "path": path} for name, path in paths.items()}
    expected = {
        "whole": "{1: {'q': (0.0, 0.5)}, 2: {'q': (0.5, 0.5)}}",
        "number": "(0.5, 0.5)",
        "one": "0.5",
        "row": "array([3., 4., 5.])",
        "dots": "1",
        "odd": "[{'$job': 'x', 'more': {'$job': 'y'}}]",
    }
    early = served.submit("echo", params=params)
    served.finish(job_id)
    late = served.submit("echo", params=params)
    told = ", ".join(f"{name!r}: {text}" for name, text in expected.items())
    assert echoed(served, early) == echoed(served, late) == f"{{{told}}}"
    assert echoed(served, served.retry(late)) == f"{{{told}}}"


def test_what_a_result_does_not_have(served, blocked, go):
    words = {
        ("sat",): r"has no \['sat'\]; it has the keys 'saw'",
        ("saw", "x"): r"has no \['saw'\]\['x'\]; \['saw'\] is '/",
    }
    jobs = {path: served.submit("echo", params={"x": value(blocked, *path)}) for path in words}
    shape = served.submit("echo", structure=value(blocked, "saw"))
    # An array without dimensions has no length. It holds up nobody else.
    first = served.submit("numbers", after=[blocked])
    flat = served.submit("echo", params={"x": value(first, "scalar array", 0)})
    beside = served.submit("echo", params={"x": value(first, "scalar array")})
    go.touch()
    for path, job_id in jobs.items():
        job = served.finish(job_id)
        assert job["status"] == "failed"
        assert re.search(rf"params.x: the result of job {blocked} .*{words[path]}", job["error"])
    assert "its result['saw'] is no structure of ASE's" in served.finish(shape)["error"]
    assert "has no ['scalar array'][0]; ['scalar array'] is " in served.finish(flat)["error"]
    assert echoed(served, beside) == "{'x': array(1.5)}"
    told = refused(served, params={"x": value(first, "scalar array", 0)})
    assert "['scalar array'] is array(1.5)" in told
    # Of one that has completed it is told at once.
    assert "has no ['sat']; it has the keys 'saw'" in refused(
        served, params={"x": value(blocked, "sat")}
    )
    # A check tells all else that is wrong beside it.
    check = lab_request("echo", engine="nowhere", params={"x": value(blocked, "sat")})
    told = served.call("jobs.check", **check)
    missing, engine = (finding["message"] for finding in told["findings"])
    assert "has no ['sat']" in missing
    assert "nowhere" in engine
    grid = served.submit("grid")
    served.finish(grid)
    assert "into which no path leads" in refused(
        served, params={"x": value(grid, "atoms", "numbers")}
    )


def test_jobs_come_after_others(served, blocked, go, tmp_path):
    mark = tmp_path / "mark"
    failing = served.submit("fail", params={"message": "no"})
    served.finish(failing)
    ends = [{"job_id": failing, "ends": "any"}, blocked[:8]]
    job_id = served.submit("touch", params={"path": str(mark)}, after=ends)
    both = served.submit("echo", after=[blocked, job_id, served.submit("grid")])
    assert served.status(job_id)["reason"] == f"{WAITED} {blocked}"
    assert served.status(both)["reason"].startswith("waits for the jobs ")
    assert not mark.exists()
    go.touch()
    assert served.finish(both)["status"] == "completed"
    assert mark.exists()


# --- which jobs are meant ------------------------------------------------------------------------


def test_references_to_no_job_are_refused_with_their_place(served, blocked):
    assert f"params.a.b[1]: no job has the id '{NOBODY}'" in refused(
        served, params={"a": {"b": [0, value(NOBODY)]}}
    )
    assert "after[1]: no job has the id 'zz'" in refused(served, after=[blocked, "zz"])
    assert len(refused(served, params={"x": value("z" * 100_000)})) < 200
    told = refused(served, structure=value(NOBODY, "atoms"))
    assert f"structure: no job has the id '{NOBODY}'" in told
    answer = served.call("jobs.submit", **lab_request("echo", after=[NOBODY]))
    assert answer["code"] == "unknown_job"
    for wrong, words in (
        ({"$job": 5}, "'$job' must be a job's id, not 5"),
        ({"path": "atoms"}, "'path' must be a list of keys and whole numbers, not 'atoms'"),
        ({"path": [1.5]}, "'path' must be a list of keys and whole numbers"),
        ({"at": "atoms"}, "an unknown key 'at'"),
    ):
        told = refused(served, params={"x": {**value(blocked), **wrong}})
        assert "params.x: " in told
        assert words in told
    assert "after[1]: 'ends' must be one of ok, any" in refused(
        served, after=[blocked, {"job_id": blocked, "ends": "some"}]
    )
    assert "'on_failure' must be one of wait, fail" in refused(served, on_failure="go")


def test_a_text_that_looks_like_a_reference_skips_no_check(home, lab, judge):
    asked = lab_job("report", parameters={"number": "doomed", "note": "$job"})
    with JobService() as service:
        assert "doomed" in [finding.code for finding in service.check(asked).findings]
        (refused,) = service.submit_many([asked])
        assert "it would die" in str(refused)


def test_filters_name_one_job(served, blocked, go):
    one = {"labels": {"step": str(go)}}
    job_id = served.submit("echo", params={"x": value(one, "saw")}, after=[{"job_id": one}])
    assert {each["job_id"] for each in served.status(job_id)["parents"]} == {blocked}
    assert "params.x: no job fits the filters" in refused(
        served, params={"x": value({"labels": {"step": "none"}})}
    )
    served.submit("grid", labels=one["labels"])
    assert "2 jobs fit the filters" in refused(served, after=[{"job_id": one}])
    assert "structure: 'lables' is not a known parameter" in refused(
        served, structure=value({"lables": {}}, "atoms")
    )


def test_labels_are_inherited(served):
    first = served.submit("grid", labels={"project": "p", "step": "first", "set": "a"})
    second = served.submit("grid", labels={"project": "q", "extra": "e"})
    job_id = served.submit(
        "report",
        structure=value(first, "atoms"),
        after=[second],
        labels={"step": "next"},
        inherit_labels=True,
    )
    expected = {"project": "p", "step": "next", "set": "a", "extra": "e"}
    assert served.status(job_id)["labels"] == expected
    listed = served.call("jobs.list", labels={"extra": "e", "step": "next"})["jobs"]
    assert [job["job_id"] for job in listed] == [job_id]
    many = [
        served.submit("grid", labels={f"{name}{at}": "" for at in range(40)}) for name in ("a", "b")
    ]
    told = refused(served, after=many, inherit_labels=True)
    assert "with the labels that it inherits: 'labels' must be an object of at most 64" in told


def test_the_same_key_gives_the_same_job_whatever_has_become_of_the_other(served, blocked, go):
    def asked(name):
        return served.submit("echo", params={"x": value(blocked, name)}, key=f"k{go}")

    first = asked("saw")
    assert asked("saw") == first
    go.touch()
    echoed(served, first)
    assert asked("saw") == first
    params = {"x": value(blocked, "other")}
    assert "belongs to" in refused(served, params=params, key=f"k{go}")
    check = lab_request("echo", key=f"k{go}", params={"x": value(blocked, "saw")})
    told = served.call("jobs.check", **check)
    assert [finding["code"] for finding in told["findings"]] == ["key_known"]
    served.call("jobs.prune", job_ids=[blocked])
    assert asked("saw") == first
    assert "was removed on" in refused(served, params={"x": value(blocked, "saw")})


def test_the_same_key_gives_the_same_job_whichever_job_its_filters_fit_now(served, blocked, go):
    one = {"labels": {"step": str(go)}}
    asked = {
        "structure": {"format": "job", "job_id": one, "frame": 0},
        "params": {"x": value(one, "saw")},
        "after": [{"job_id": one}],
        "key": f"k{go}",
    }

    def same():
        told = served.call("jobs.check", **lab_request("echo", **asked))
        assert [finding["code"] for finding in told["findings"]] == ["key_known"]
        return served.submit("echo", **asked) == job_id

    job_id = served.submit("echo", **asked)
    served.call("jobs.cancel", job_id=blocked)
    served.finish(blocked)
    assert same()
    again = served.retry(blocked)
    assert same()
    go.touch()
    assert echoed(served, job_id) == repr({"x": str(go)})
    assert {each["job_id"] for each in served.status(job_id)["parents"]} == {blocked}
    assert same()
    served.submit("grid", labels=one["labels"])
    assert same()
    params = {"x": value(again, "saw")}
    assert "belongs to" in refused(served, **{**asked, "params": params})


def test_a_runner_keeps_no_job_that_waits(served, home, lab):
    runner = get_runner("local")
    for given, place in (
        (value(NOBODY, "atoms"), "x.y"),
        ({Reference(NOBODY)}, r"x.y.data\[0\]"),
        ([SimpleNamespace(job_id=NOBODY)], r"x.y\[0\]"),
    ):
        with pytest.raises(ValueError, match=f"the parameter {place} refers to another job"):
            runner.submit("lab_recipes.echo", None, x={"y": given})


def test_what_is_waited_for_is_not_pruned(served, blocked, go):
    first = served.submit("grid")
    served.finish(first)
    job_id = served.submit("echo", params={"x": value(first, "forces", 0, 1)}, after=[blocked])
    told = served.call("jobs.prune", job_ids=[first])
    assert (told["jobs"], told["left"][0]["job_id"]) == ([], first)
    assert f"the unfinished job {job_id} will read its files" in told["left"][0]["error"]
    go.touch()
    assert echoed(served, job_id) == "{'x': 1.0}"
    assert [job["job_id"] for job in served.call("jobs.prune", job_ids=[first])["jobs"]] == [first]


def test_large_files_that_were_removed_are_told_to_who_takes_the_folder(served, go):
    go.touch()
    params = {"files": {"pwscf.save/charge-density.dat": "x"}, "path": str(go)}
    first = served.submit("write_and_wait", params=params)
    served.finish(first)
    params = {"x": value(first, "dir_name"), "y": value(first, "saw")}
    assert served.finish(served.submit("echo", params=params))["warnings"] == []
    pruned = served.call("jobs.prune", job_ids=[first], keep_results=True)
    assert [job["job_id"] for job in pruned["jobs"]] == [first]
    (told,) = served.status(served.submit("echo", params=params))["warnings"]
    assert (told["code"], told["place"]) == ("large_files_removed", "params.x")
    assert f"of job {first} were removed" in told["message"]
    again = served.retry(first)
    served.finish(again)
    params["x"] = value(again, "dir_name")
    assert served.status(served.submit("echo", params=params))["warnings"] == []


def test_files_that_somebody_removed_are_missed_only_until_a_retry(served, blocked, go):
    first = served.submit("grid")
    served.finish(first)
    job_id = served.submit("echo", params={"x": value(first, "forces", 0, 1)}, after=[blocked])
    shutil.rmtree(served.home / "jobs" / first)
    go.touch()
    gone = f"{WAITED} {first}: the run directory of job {first} is gone"
    eventually(lambda: (served.status(job_id)["reason"] or "").startswith(gone))
    assert served.status(job_id)["held_up_by"] == first
    (listed,) = served.call("jobs.list", prefix=job_id, fields=["reason"])["jobs"]
    assert listed["reason"].startswith(gone)
    again = served.retry(first)
    assert echoed(served, job_id) == "{'x': 1.0}"
    (taken,) = [each for each in served.status(job_id)["parents"] if each["role"] == "value"]
    assert taken["taken_from"] == again


def test_a_job_that_never_got_its_values_travels(served, blocked, tmp_path):
    job_id = served.submit("echo", params={"x": value(blocked)}, structure=value(blocked, "atoms"))
    served.call("jobs.cancel", job_id=job_id)
    asked = served.call("jobs.specification", job_id=job_id)
    assert asked["structure"] == value(blocked, "atoms")
    told = served.call("jobs.inputs", job_id=job_id)
    assert told["error"].endswith(f"it never got the values of {blocked}")
    path = str(tmp_path / "archive.zip")
    assert served.call("jobs.archive", file=path, job_ids=[job_id])["error"] is None
    other = HomeServer(tmp_path / "o", light=True).start()
    try:
        assert other.call("jobs.import", file=path)["error"] is None
        job = other.status(job_id)
        assert (job["status"], job["parents"]) == ("cancelled", served.status(job_id)["parents"])
        again = other.call("jobs.retry", job_ids=[job_id])["jobs"][0]
        assert f"no job has the id '{blocked}'" in again["error"]
    finally:
        other.end()


# --- those that fail -----------------------------------------------------------------------------


def test_a_job_goes_on_when_what_has_failed_is_retried(served, tmp_path):
    path = tmp_path / "go"
    params = {"path": str(path), "message": "no luck"}
    first = served.submit("wait_and_fail", params=params)
    job_id = served.submit("echo", params={"x": value(first, "saw")}, after=[first])
    path.touch()
    served.finish(first)
    reason = eventually(lambda: (r := served.status(job_id)["reason"]) != f"{WAITED} {first}" and r)
    assert f"{WAITED} {first}: job {first} failed; it starts once" in reason
    # One that is submitted now waits as well, and says so.
    late = served.call("jobs.submit", **lab_request("echo", after=[first]))
    assert [each["code"] for each in late["warnings"]] == ["predecessor_failed"]
    again = served.retry(first)
    served.finish(again)
    eventually(lambda: again in served.status(job_id)["reason"])
    # The recipe that fails cannot succeed: its place is taken by one that does, as a user mends it.
    assert served.status(job_id)["status"] == "pending"
    done = served.call("jobs.cancel", job_id=late["job_id"])
    assert (done["cancelled"], served.status(late["job_id"])["error"]) == (True, "cancelled")


def test_a_retry_gives_its_values_in_the_place_of_the_other(served, blocked, go):
    job_id = served.submit("echo", params={"x": value(blocked, "saw")}, after=[blocked])
    served.call("jobs.cancel", job_id=blocked)
    served.finish(blocked)
    eventually(lambda: "was cancelled" in served.status(job_id)["reason"])
    first, second = (served.retry(one) for one in (blocked, blocked))
    eventually(lambda: served.status(job_id)["reason"] == f"{WAITED} {blocked}")
    go.touch()
    assert echoed(served, job_id) == repr({"x": str(go)})
    parents = served.status(job_id)["parents"]
    assert {each["taken_from"] for each in parents} <= {first, second}
    assert {each["job_id"] for each in parents} == {blocked}


def test_a_job_that_is_to_fail_with_another(served, tmp_path):
    path = tmp_path / "go"
    first = served.submit("wait_and_fail", params={"path": str(path), "message": "no luck"})
    job_id = served.submit("echo", after=[first], on_failure="fail")
    last = served.submit("echo", params={"x": value(job_id, "text")}, on_failure="fail")
    path.touch()
    assert served.finish(job_id)["error"] == f"it needs job {first}: job {first} failed"
    assert served.finish(last)["error"] == f"it needs job {job_id}: job {job_id} failed"
    assert f"it needs job {first}" in refused(served, after=[first], on_failure="fail")
    # It was never given anything, and waits again.
    again = served.call("jobs.retry", job_ids=[last])["jobs"][0]
    assert "it needs job" in again["error"]
    # Of one request each sees what the others do, in whatever order they stand in it.
    for step in range(2):
        asked = [last, job_id, first]
        told = served.call("jobs.retry", job_ids=asked, dry_run=True)["jobs"]
        assert [job["status"] for job in told] == ["ok"] * 3, told
        told = served.call("jobs.retry", job_ids=asked)["jobs"]
        assert [(job["retry_of"], job["error"]) for job in told] == [(one, None) for one in asked]
        last, job_id, first = (job["job_id"] for job in told)
        assert "it needs job" in served.finish(last)["error"], step


def test_a_cancel_takes_the_successors_along(served, blocked):
    second = served.submit("echo", params={"x": value(blocked, "saw")}, on_failure="fail")
    third = served.submit("echo", after=[second])
    other = served.submit("echo", after=[blocked])
    told = served.call("jobs.cancel", job_id=second, with_successors=True)
    assert (told["cancelled"], told["successors"]) == (True, [third])
    assert [served.status(one)["status"] for one in (second, third)] == ["cancelled"] * 2
    assert served.status(other)["status"] == "pending"
    again = served.retry(second)
    assert served.status(again)["reason"] == f"{WAITED} {blocked}"
    told = served.call("jobs.cancel_many", job_ids=[blocked], with_successors=True)
    assert told["jobs"][0]["job_id"] == blocked
    assert {each["job_id"] for each in told["jobs"]} == {blocked, other, again}
    assert served.finish(again)["status"] == "cancelled"
    assert not (served.home / "jobs" / again).exists()


def test_a_cancel_counts_where_the_thread_ends_the_job_first(home, lab, go, monkeypatch):
    """The thread sees the recorded cancel, perhaps before the request goes on."""
    note = Recorder.note_cancel

    with JobService() as service:

        def end_first(recorder, job_ids):
            note(recorder, job_ids)
            eventually(lambda: all(service.job(one).state.is_terminal() for one in job_ids))

        first = service.submit(lab_job("wait_for", parameters={"path": str(go)})).job_id
        one, other = (service.submit(lab_job("echo", after=[first])).job_id for _ in range(2))
        monkeypatch.setattr(Recorder, "note_cancel", end_first)
        assert service.cancel_waiting([one]) == {one}
        assert service.cancel(other)
        assert not service.cancel(other)
        monkeypatch.undo()
        go.touch()


def test_a_retry_that_would_wait_for_itself_is_refused(served, blocked):
    second = served.submit("echo", params={"x": value(blocked, "saw")})
    third = served.submit("echo", after=[second])
    served.call("jobs.cancel", job_id=blocked)
    served.finish(blocked)
    for one in (blocked, second, third):
        told = served.call("jobs.retry", job_ids=[blocked], params={"path": value(one)})["jobs"][0]
        assert "it would wait for itself" in told["error"], told


def test_a_fault_of_one_job_holds_up_no_other(home, lab, go, monkeypatch, caplog):
    read = Admission.read

    def faulty(admission, submission, *more):
        if submission.name == "bad" and (go.exists() or not submission.after):
            raise ZeroDivisionError(str(submission.parameters))
        return read(admission, submission, *more)

    monkeypatch.setattr(Admission, "read", faulty)
    told = "it cannot be checked: ZeroDivisionError, an error in CrystalMath itself; its log"
    with JobService() as service:
        one = lab_job("wait_for", parameters={"path": str(go)})
        refused, first = service.submit_many([evolve(one, name="bad"), one])
        assert str(refused).startswith(told)
        later = lab_job("echo", after=[first.job_id])
        jobs = service.submit_many([evolve(later, name="bad"), later])
        go.touch()
        ends = {job.job_id: job for job in service.wait([job.job_id for job in jobs], 120)}
        bad, good = (ends[job.job_id] for job in jobs)
        assert (bad.state, good.state) == (JobState.FAILED, JobState.COMPLETED), (bad, good)
        assert bad.error.startswith(told)
    assert "in faulty" in caplog.text
    assert str(go) not in caplog.text


# --- deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_what_waits_survives_the_end_of_the_server(server, go, end):
    server.start()
    first = server.submit("wait_for", params={"path": str(go)})
    job_id = server.submit("echo", params={"x": value(first, "saw")})
    last = server.submit("echo", after=[job_id])
    if end == "killed":
        server.kill()
    else:
        server.call("system.stop")
        server.wait()
    # Whoever looks without a server sees what it waits for.
    assert f"{WAITED} {first}" in server.run("status", job_id, "--json").stdout
    go.touch()
    server.start()
    assert echoed(server, job_id) == repr({"x": str(go)})
    assert server.finish(last)["status"] == "completed"


def test_what_waits_for_a_retry_keeps_no_server(server):
    server.start()
    first = server.submit("leave_files", params={"texts": {}, "end": "fail"})
    second = server.submit("value", after=[first])
    last = server.submit("value", after=[second])
    assert server.finish(first)["status"] == "failed"
    (server.home / "config.toml").write_text("[server]\nquiet_s = 0\n")
    assert server.wait() == 0
    assert "it has been quiet" in server.log()
    (server.home / "config.toml").unlink()
    server.start()
    assert server.status(second)["reason"].startswith(f"{WAITED} {first}: job {first} failed")
    server.retry(first, params={"end": "return"})
    assert server.finish(last)["status"] == "completed"


@pytest.mark.parametrize("ended", [False, True])
def test_who_waits_takes_over_what_nobody_follows(server, go, lab, monkeypatch, ended):
    server.start()
    first = server.submit("wait_for", params={"path": str(go)})
    eventually(lambda: server.status(first)["status"] == "running")
    monkeypatch.setenv("CRYSTALMATH_HOME", str(server.home))
    with JobService() as service:
        asked = lab_job("echo", parameters={"x": Reference(first)["saw"]})
        monkeypatch.setattr(dependencies, "AGAIN_S", 3600.0 if ended else 0.1)
        job_id = service.submit(asked).job_id
        assert service.job(job_id).reason == f"{WAITED} {first}"
        server.kill()
        go.touch()
        if ended:
            eventually(lambda: service.job(first).state is JobState.COMPLETED)
            assert [job.job_id for job in service.wait([first], 120)] == [first]
        *_, job = service.wait([job_id], 60)
        assert job.state is JobState.COMPLETED, job
        assert service.result(job_id) == {"text": repr({"x": str(go)})}


def test_a_job_may_wait_for_one_of_another_process(server, go, lab, monkeypatch):
    server.start()
    monkeypatch.setenv("CRYSTALMATH_HOME", str(server.home))
    with in_process() as client:
        first = client.submit("lab_recipes.wait_for", bulk("Al"), {"path": str(go)})
        job_id = server.submit("echo", params={"x": value(first.job_id, "saw")})
        own = client.submit("lab_recipes.echo", bulk("Al"), {"x": value(job_id, "text")})
        failed = server.submit("fail", params={"message": "no"})
        left = client.submit("lab_recipes.echo", bulk("Al"), after=[failed])
        go.touch()
        assert echoed(server, job_id) == repr({"x": str(go)})
        assert own.result(120) == {"text": repr({"x": repr({"x": str(go)})})}
    # A script that ends stops what it has submitted, and so what waits.
    assert server.status(left.job_id)["status"] == "cancelled"
