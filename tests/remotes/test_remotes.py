"""``crystalmath remotes``, and several remotes at a time."""

import itertools
import json
import os
import signal
import zipfile

import pytest

from commands import finish, limited, start
from conftest import AL, NOBODY, eventually
from crystalmath.client import connect
from crystalmath.errors import Unreachable
from crystalmath.server.endpoint import Place

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def kite(machine):
    """Yield another home on the machine."""
    kite = machine.folder / "kite"
    yield kite
    machine.run("--home", kite, "stop", "--cancel")
    assert Place.of(kite, {}).read_lock() is None


@pytest.fixture
def two(hawk, kite, home):
    """Name two homes of the machine: ``hawk``, and ``kite`` beside it."""
    (home / "config.toml").write_text(hawk.table() + hawk.table("kite", home=str(kite)))
    return kite


@pytest.fixture
def typed(cli):
    """Return a function that types a command with --on."""
    return lambda name, *arguments: cli("--on", name, *arguments)


def test_two_clusters_side_by_side(two, typed, cli, hawk):
    ids = {}
    for name in ("hawk", "kite"):
        answer = typed(name, "submit", "lab_recipes.value", AL, "--name", f"on {name}")
        ids[name] = answer.out.strip()
        assert typed(name, "wait", ids[name]).code == 0
    assert str(two) in typed("kite", "path", ids["kite"]).out
    shown = typed("hawk,kite", "list").lines
    assert shown[0].split()[:3] == ["REMOTE", "NAME", "STATE"]
    assert [line.split()[0] for line in shown[1:]] == ["kite", "hawk"]
    listed = typed("hawk,kite", "list", "--json", "--sort", "name").json
    assert [job["remote"] for job in listed["jobs"]] == ["hawk", "kite"]
    assert listed["totals"]["completed"] == 2
    assert typed("hawk,kite", "list", "--summary", "--json").json["states"]["completed"] == 2
    counted = typed("hawk,kite", "counts", "--json", "--bucket", "1d").json
    assert counted["states"]["completed"] == 2
    assert counted["bucket_s"] == 86400
    assert sum(one["states"]["completed"] for one in counted["buckets"]) == 2
    for name, job_id in ids.items():
        assert typed("hawk,kite", "status", job_id, "--json").json["remote"] == name
        assert f"remote     {name}" in typed("hawk,kite", "status", job_id).out
    assert "no job has the id" in typed("hawk,kite", "status", "ffffffff").err
    refused = typed("hawk,kite", "submit", "lab_recipes.value", AL)
    assert refused.code == 1
    assert "list, status, counts and progress take; name one" in refused.err
    listed = cli("remotes", "--json").json["remotes"]
    assert [(one["name"], one["error"]) for one in listed] == [("hawk", None), ("kite", None)]


def test_running_jobs_of_several_remotes_are_followed(two, typed, go):
    ids = {}
    for name in ("hawk", "kite"):
        answer = typed(name, "submit", "lab_recipes.wait_for", AL, "--param", f"path={go}")
        ids[answer.out.strip()] = name
        eventually(lambda name=name: typed(name, "list", "--json").json["totals"]["running"])
    process = start("--on", "hawk,kite", "list", "--watch", start_new_session=True)
    with limited(process):
        lines = itertools.takewhile(lambda line: "2 running" not in line, process.stdout)
        shown = "".join(lines)
        os.killpg(process.pid, signal.SIGINT)
        assert finish(process).err == ""
    assert {"hawk", "kite"} <= set(shown.split())
    for named in ([], list(ids)):
        assert typed("hawk,kite", "progress", *named).lines[0].split()[:2] == ["REMOTE", "ID"]
        jobs = typed("hawk,kite", "progress", *named, "--json").json["jobs"]
        assert {job["job_id"]: job["remote"] for job in jobs} == ids
    table = typed("hawk,kite", "list", "--csv", "--columns", "job_id,state").lines
    assert table[0] == "remote,job_id,state"
    assert {f"{name},{job_id},running" for job_id, name in ids.items()} <= set(table)
    assert typed("hawk,kite", "progress", *ids, "ffffffff").code == 1
    go.touch()
    for job_id, name in ids.items():
        assert typed(name, "wait", job_id).code == 0


@pytest.mark.parametrize("command", ["wait", "result", "show", "du", "doctor", "stop"])
def test_a_command_for_one_remote_refuses_several(two, typed, command):
    job = [NOBODY] if command in {"wait", "result", "show"} else []
    answer = typed("hawk,kite", command, *job, "--json")
    assert answer.code == 1
    assert "list, status, counts and progress take; name one" in answer.json["error"]
    assert answer.err == f"error: {answer.json['error']}\n"


@pytest.mark.parametrize("command", ["doctor", "stop"])
def test_a_command_that_runs_there_says_what_is_wrong(hawk, home, typed, command):
    answer = typed("kite", command)
    assert (answer.code, answer.out) == (1, "")
    assert "error: there is no remote 'kite' in" in answer.err
    (home / "config.toml").write_text(hawk.table(command="nowhere/crystalmath"))
    answer = typed("hawk", command, "--json")
    assert (answer.code, answer.json["code"]) == (1, "unreachable")
    assert "has no program 'nowhere/crystalmath'" in answer.err


def test_files_are_brought_over(hawk, there, tmp_path):
    source = tmp_path / "result.txt"
    source.write_text("here\n")
    answer = there("run", "lab_recipes.copied", AL, "--param", f"path={source}", "--json")
    job_id = answer.json["job_id"]
    answer = there("files", job_id, "--get", tmp_path / "out", "--json")
    assert (tmp_path / "out/result.txt").read_text() == "here\n"
    assert [one["file"] for one in answer.json["files"]] == ["result.txt"]
    listed = there("files", job_id, "*.txt", "--json").json["files"]
    assert [one["file"] for one in listed] == ["result.txt"]
    unknown = there("files", job_id, "result.tx", "--get", tmp_path / "none")
    assert (unknown.code, (tmp_path / "none").exists()) == (1, False)
    assert "no file of the job fits 'result.tx'; did you mean 'result.txt'?" in unknown.err
    some = there("files", job_id, "--get", tmp_path / "some", "*.txt", "--json").json["files"]
    assert [one["file"] for one in some] == ["result.txt"]
    assert "1 file with 5 B in" in there("files", job_id, "--get", tmp_path / "out").out
    assert there("logs", job_id, "result.txt").out == "here\n"
    assert there("files", job_id, "--get", "x", "--attempt", "1").code == 2


def test_packed_jobs_are_read_from_afar(hawk, there, tmp_path):
    source = tmp_path / "result.txt"
    source.write_text("here\n")
    answer = there("run", "lab_recipes.copied", AL, "--param", f"path={source}", "--json")
    job_id = answer.json["job_id"]
    place = hawk.home / "jobs" / job_id
    result = there("result", job_id, "--json").json

    def pack():
        assert there("pack", job_id).out == "1 job packed\n"
        assert not place.exists()

    pack()
    assert there("result", job_id, "--json").json == result
    assert there("list", "--json").json["jobs"][0]["removed"] is None
    archive = tmp_path / "jobs.zip"
    assert there("export", "--archive", archive, job_id, "--json").json["left_out"] == []
    assert not place.exists()
    with zipfile.ZipFile(archive) as written:
        assert written.read(f"{job_id}/files/1.work/result.txt") == b"here\n"
    answer = there("files", job_id, "--get", tmp_path / "out", "--json")
    assert (tmp_path / "out/result.txt").read_text() == "here\n"
    pack()
    assert there("logs", job_id, "result.txt").out == "here\n"
    pack()
    assert there("path", job_id).out == f"hawk:{place}/1.work\n"
    assert place.exists()
    pack()
    assert there("unpack").out == "1 job unpacked\n"


def test_archives_are_carried_both_ways(two, typed, tmp_path):
    archive = tmp_path / "jobs.zip"
    job_id = typed("hawk", "submit", "lab_recipes.value", AL, "--label", "set=archive").out.strip()
    assert typed("hawk", "wait", job_id).code == 0
    answer = typed("hawk", "export", "--archive", archive, job_id, "--json")
    assert answer.json == {"file": str(archive), "jobs": 1, "left_out": [], "error": None}
    assert zipfile.is_zipfile(archive)
    again = typed("hawk", "export", "--archive", archive, job_id)
    assert "is there already, and is not overwritten" in again.err
    assert typed("kite", "import", archive, "--json").json["job_ids"] == [job_id]
    assert typed("kite", "result", job_id).code == 0
    assert list((two / "server/transfers").iterdir()) == []
    archive.write_text("no archive")
    assert typed("kite", "import", archive).code == 1


def test_check_says_what_there_is_and_what_is_wrong(hawk, home, cli):
    checks = cli("remotes", "check", "hawk", "--json").checks
    assert checks.keys() == {"ssh", "version", "home"}
    assert checks["home"]["message"].startswith(f"hawk:{hawk.home}, served by process ")
    (home / "config.toml").write_text(hawk.table(command="nowhere/crystalmath"))
    answer = cli("remotes", "check", "hawk")
    assert answer.code == 1
    assert "has no program 'nowhere/crystalmath'" in answer.out
    assert "full path" in answer.lines[1]
    answer = cli("remotes")
    assert "cannot be reached" in answer.out
    assert answer.err.startswith("hawk: hawk (127.0.0.1) has no program")
    with pytest.raises(Unreachable, match="full path") as raised:
        connect(on="hawk")
    error = raised.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_add_writes_one_that_answers(hawk, home, cli):
    (home / "config.toml").unlink()
    assert "there is none" in cli("remotes").err
    answer = cli("remotes", "add", "hawk", "--command", hawk.command, "--", *hawk.ssh)
    assert answer.code == 0, answer.err
    assert "crystalmath remotes check hawk" in answer.out
    assert cli("remotes", "check", "hawk").code == 0
    assert json.loads(cli("remotes", "--json").out)["remotes"][0]["command"] == str(hawk.command)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek", "hawk"], "write check NAME, add NAME ME@HOST"),
        (["check"], "write check NAME"),
        (["add", "new"], "name the host as ssh does"),
    ],
)
def test_wrong_use_is_refused(home, cli, arguments, said):
    answer = cli("remotes", *arguments)
    assert answer.code == 2
    assert said in answer.err
