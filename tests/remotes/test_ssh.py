"""Commands on another machine, over ssh."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from ase.build import bulk

from commands import finish, limited, start
from conftest import AL, eventually
from crystalmath import processes
from crystalmath.client import connect
from crystalmath.remotes import ssh
from remotes.machine import arguments_of

pytestmark = pytest.mark.server

AL_CELL = bulk("Al")


@pytest.fixture(scope="module")
def jobs(machine):
    """Return ids of jobs on the machine: one that completed, and one that failed."""
    good = machine.run("submit", "lab_recipes.value", AL, "--name", "good", "--label", "set=a")
    bad = machine.run("submit", "lab_recipes.fail", AL, "--name", "bad", "--label", "set=a")
    ids = [answer.stdout.strip() for answer in (good, bad)]
    machine.run("wait", *ids)
    return ids


READING = [
    "list",
    "list --label set=a --sort name",
    "list --summary",
    "list --tree",
    "status GOOD",
    "status BAD",
    "show GOOD",
    "result GOOD",
    "result BAD",
    "wait GOOD BAD",
    "progress --label set=a",
    "logs BAD",
    "files GOOD",
    "path GOOD",
    "inputs GOOD",
    "du",
    "counts --bucket 1d --last 30d",
    "prune --older 0s --dry-run --label set=a",
    "recipes emt.core.relax_job",
    "presets",
    "engines",
    "clusters",
    "export --script GOOD",
    "cancel GOOD",
    "check lab_recipes.value AL",
    "check lab_recipes.value AL --param nmber=1",
    "check lab_recipes.none AL",
    "presets none",
    "reread GOOD",
    "status ffffffff",
    "import none.zip",
]


@pytest.mark.parametrize("command", READING)
def test_a_command_answers_here_as_there(there, hawk, jobs, command):
    words = dict(zip(("GOOD", "BAD"), jobs, strict=True)) | {"AL": AL}
    arguments = [words.get(word, word) for word in command.split()]
    here, other = there(*arguments, "--json"), hawk.run(*arguments, "--json")
    assert (here.code, _plain(here.out)) == (other.returncode, _plain(other.stdout)), here.err


def _plain(text):
    """Return JSON without the free bytes and the ages, which change all the time."""
    return re.sub(r'"(free|looked_at|pid|seconds)": [\d.]+', "", text)


def test_a_job_is_submitted_there_and_followed_from_here(there, hawk):
    answer = there("submit", "lab_recipes.value", AL, "--name", "one", "--json")
    assert answer.code == 0, answer.err
    assert answer.json.keys() == {"job_id", "status", "error", "name"}
    job_id = answer.json["job_id"]
    assert there("wait", job_id).code == 0
    assert job_id[:8] in there("list").out
    assert f"hawk:{hawk.home}/jobs/{job_id}" in there("show", job_id).out
    assert there("path", job_id).out.startswith(f"hawk:{hawk.home}/jobs/")


def test_what_is_read_and_written_lies_here(there, hawk, jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cell.poscar").write_text(Path(AL).read_text())
    (tmp_path / "more.toml").write_text("number = 5\n")
    arguments = ["lab_recipes.value", "cell.poscar", "--params", "more.toml", "--label", "set=w"]
    answer = there("run", *arguments, "--json")
    assert answer.code == 0, answer.err
    job_id = answer.json["job_id"]
    assert there("result", job_id, "--json").json["result"] == 5
    # A job there is the structure of the next.
    chain = there("chain", "cell.poscar", "--step", "a=lab_recipes.shift", "--json").json["jobs"]
    moved = there("run", "lab_recipes.value", f"job:{chain[0]['job_id']}", "--json")
    assert moved.code == 0, moved.err
    again = there("retry", job_id, "--param", "number=6", "--json").json["jobs"][0]["job_id"]
    assert there("wait", again).code == 0
    assert there("result", chain[0]["job_id"], "--structure", "moved.extxyz").code == 0
    assert there("export", "table.csv", "--label", "set=w").code == 0
    assert there("inputs", job_id, "--dir", "inputs").code == 0
    relaxed = there("run", "lab_recipes.relax", "cell.poscar", "--json").json["job_id"]
    drawn = there("plot", relaxed, "--output", "steps.svg")
    assert drawn.code == 0, drawn.err
    names = {path.name for path in tmp_path.iterdir()}
    assert {"moved.extxyz", "steps.svg", "table.csv"} <= names
    assert again in (tmp_path / "table.csv").read_text()
    follows = there("logs", jobs[1], "--follow")
    other = hawk.run("logs", jobs[1], "--follow")
    assert (follows.code, follows.out) == (other.returncode, other.stdout), follows.err
    assert there("prune", again, "--yes").code == 0


def test_nothing_of_the_environment_here_travels(there, hawk, monkeypatch):
    monkeypatch.setenv("OMP_OF_THE_TEST", "here")
    monkeypatch.setenv("QUACC_VASP_CMD", "of the laptop")
    checked = there("check", "lab_recipes.value", AL, "--json").json
    assert "OMP_NUM_THREADS" in checked["environment"]
    assert "OMP_OF_THE_TEST" not in checked["environment"]
    assert "the environment of hawk" in there("check", "lab_recipes.value", AL).out
    monkeypatch.setenv("CRYSTALMATH_ON", "hawk")
    with connect() as client:
        future = client.submit("lab_recipes.where", AL_CELL)
        seen = future.result(timeout=60)["environment"]
    assert seen["OMP_NUM_THREADS"] == "1"
    assert not {"OMP_OF_THE_TEST", "QUACC_VASP_CMD"} & seen.keys()


def test_futures_and_maps_are_followed(hawk):
    with connect(on="hawk") as client:
        assert repr(client) == "<Client: the server of hawk (127.0.0.1)>"
        results = client.map("lab_recipes.value", [AL_CELL] * 3, {"number": 7})
        assert results == [7, 7, 7]


def test_run_ends_with_ctrl_c_and_leaves_nothing(there, hawk, go):
    environment = {**os.environ, "CRYSTALMATH_ON": "hawk"}
    arguments = ["lab_recipes.wait_for", AL, "--param", f"path={go}"]
    process = start("run", *arguments, env=environment, start_new_session=True)
    with limited(process):
        eventually(lambda: there("list", "--state", "running", "--json").json["jobs"])
        os.killpg(process.pid, 2)
        answer = finish(process)
    assert answer.code == 130, answer.err
    assert "stopping job" in answer.err
    assert there("list", "--state", "running", "--json").json["jobs"] == []
    eventually(lambda: not hawk.bridges())


def test_the_doctor_and_stop_run_there(there, hawk, jobs):
    assert f"{hawk.home}" in there("doctor").out
    assert there("stop", "--json").json["stopped"]
    assert not there("stop", "--json").json["stopped"]
    assert there("status", jobs[0]).code == 0


@pytest.mark.parametrize("command", ["init", "serve", "conform", "engine-template"])
def test_what_is_for_this_machine_is_refused(there, command):
    answer = there(command)
    assert answer.code == 2
    assert "for this machine alone" in answer.err


def test_a_remote_is_not_configured_from_here(there, home):
    before = (home / "config.toml").read_text()
    answer = there("clusters", "init", "slurm")
    assert answer.code == 2
    assert "log in to hawk" in answer.err
    assert "`crystalmath clusters init slurm`, typed on hawk, writes" in there("clusters").err
    assert (home / "config.toml").read_text() == before


def test_an_unknown_remote_is_told(hawk, cli):
    answer = cli("--on", "hwak", "list", "--json")
    assert (answer.code, answer.json["jobs"]) == (1, [])
    assert "there is no remote 'hwak'" in answer.json["error"]
    assert "did you mean 'hawk'?" in answer.err


def test_the_shared_connection_is_private_and_ends_by_itself(there, sockets, monkeypatch):
    monkeypatch.setitem(ssh._OPTIONS, "ControlPersist", 1)
    assert there("list").code == 0
    (private,) = sockets.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    (shared,) = private.iterdir()
    assert shared.is_socket()
    eventually(lambda: not shared.exists())


@pytest.mark.parametrize("command", [["wait"], ["logs", "--follow"], ["list", "--watch"]])
def test_ctrl_c_leaves_no_process_on_either_side(there, hawk, tmp_path, command):
    go = tmp_path / "go"
    job_id = there("submit", "lab_recipes.wait_for", AL, "--param", f"path={go}").out.strip()
    first, *options = command
    words = [first, *([] if first == "list" else [job_id]), *options]
    process = start("--on", "hawk", *words, start_new_session=True)
    with limited(process):
        eventually(hawk.bridges)
        eventually(lambda: len(left_here(hawk)) > 1)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        assert finish(process).code in {0, 130}
    eventually(lambda: not (left_here(hawk) or hawk.bridges()))
    assert there("status", job_id, "--json").json["status"] in {"pending", "running"}
    go.touch()
    assert there("wait", job_id).code == 0


@pytest.fixture(scope="module")
def large(machine):
    """Return the id of a job with a large file."""
    big = machine.folder / "big"
    with big.open("wb") as file:
        file.truncate(100 * 2**20)
    answer = machine.run("run", "lab_recipes.copied", AL, "--param", f"path={big}", "--json")
    return json.loads(answer.stdout)["job_id"]


@pytest.mark.parametrize("way", ["killed", "silent"])
def test_ctrl_c_while_the_connection_is_cut(there, hawk, large, tmp_path, way):
    go, fetched = tmp_path / "go", tmp_path / "fetched"
    waiting = there("submit", "lab_recipes.talk", AL, "--param", f"path={go}").out.strip()

    def begin(*words):
        return start("--on", "hawk", *words, start_new_session=True)

    eventually(lambda: not hawk.bridges())
    begun = [begin("wait", waiting)]
    with limited(*begun):
        eventually(lambda: len(hawk.bridges()) > 1)  # it waits with a connection of its own
        begun.append(begin("list", "--watch"))
        assert begun[-1].stdout.readline().startswith("NAME")
        begun.append(begin("logs", waiting, "--follow"))
        # Before its first answer a cut is an error, not something to go on after.
        eventually(lambda: "line 2" in begun[-1].stdout.readline())
        begun.append(begin("files", large, "--get", str(fetched)))
        eventually(lambda: list(fetched.glob("*")))
        with hawk.silent():
            if way == "killed":
                hawk.cut()
            begun.append(begin("submit", "lab_recipes.value", AL, "--name", "cut off"))
            with limited(*begun):
                time.sleep(1)  # all look for a connection
                assert len(left_here(hawk)) > len(begun)
                for one in begun:
                    os.killpg(one.pid, signal.SIGINT)
                answers = [finish(one) for one in begun]
    # To end the list is not to break it off.
    assert [one.code for one in answers] == [130, 0, 130, 130, 130]
    assert not any("Traceback" in one.err for one in answers)
    eventually(lambda: not (left_here(hawk) or hawk.bridges()))
    assert not (fetched / "big").exists()
    go.touch()
    assert there("wait", waiting).code == 0


def test_commands_go_on_after_a_cut_with_a_word(there, hawk, tmp_path):
    go = tmp_path / "go"
    job_id = there("submit", "lab_recipes.talk", AL, "--param", f"path={go}").out.strip()
    commands = ["wait", job_id], ["logs", "--follow", job_id], ["list", "--watch"]
    begun = [start("--on", "hawk", *words) for words in commands]
    with limited(*begun):
        assert begun[2].stdout.readline().startswith("NAME")
        eventually(lambda: "line 2" in begun[1].stdout.readline())
        eventually(lambda: len(hawk.bridges()) > 3)  # `wait` has two
        with hawk.away():
            words = [each.stderr.readline() for each in begun]
            go.touch()
        waited, followed = map(finish, begun[:2])
        assert any("answers again" in line for line in begun[2].stderr)
        begun[2].send_signal(signal.SIGINT)
        assert finish(begun[2]).code == 0
    assert (waited.code, followed.code) == (0, 0), (words, waited.err, followed.err)
    assert followed.out == "the last line\n"
    assert "waiting for jobs goes on once a server answers" in words[0]
    assert all("trying again" in each for each in words[1:])
    assert "answers again" in followed.err
    assert "Traceback" not in waited.err + followed.err


def left_here(hawk):
    """Return the processes of commands here, without the connection that they share."""
    marked = processes.marked("XDG_RUNTIME_DIR", str(hawk.folder))
    return [pid for pid in marked if b"[mux]" not in b" ".join(arguments_of(pid))]
