"""The commands, asking a server: what a shell user does all day."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.shell import imported, names, submit
from commands import finish, limited, start
from conftest import eventually
from crystalmath.cli import check
from crystalmath.errors import ServerError
from server.home_server import HomeServer

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).parents[2] / "examples"
AL, CU = str(EXAMPLES / "Al.poscar"), str(EXAMPLES / "Cu.poscar")


def test_wait_tells_what_failed(here, cli):
    good = submit(cli, "value", "--label", "set=wait")
    bad = submit(cli, "fail", "--param", "message=bad luck\nand more", "--label", "set=wait")
    assert cli("wait", good).code == 0
    answer = cli("wait", good, bad, "--json")
    assert answer.code == 1
    assert [job["status"] for job in answer.json["jobs"]] == ["completed", "failed"]
    assert "bad luck" in answer.err
    *_, more, counts = answer.err.splitlines()
    assert more == f"for the whole error: crystalmath result {bad[:8]}"
    assert counts == "2 jobs: 1 completed, 1 failed"
    assert "and more" not in answer.err
    assert cli("wait", "--label", "set=wait").code == 1
    assert cli("wait", "--label", "set=wait", "--state", "completed").code == 0
    assert cli("wait", "--label", "set=nothing").code == 1
    assert cli("wait", "--label", "set=wait", "--error", "bad luck").code == 1
    chosen = cli("wait", "--label", "set=wait", "--exclude", "state=failed", "--json")
    assert [job["job_id"] for job in chosen.json["jobs"]] == [good]
    assert cli("wait").code == 2
    assert cli("wait", "ffffffff").code == 1


def test_logs_follow_a_job_to_its_end(here, cli, tmp_path):
    job_id = submit(cli, "talk", "--param", f"path={tmp_path / 'go'}")
    process = start("logs", job_id[:8], "--follow")
    with limited(process):
        said = [process.stdout.readline() for _ in range(3)]
        assert said == ["line 0\n", "line 1\n", "line 2\n"]
        (tmp_path / "go").touch()
        answer = finish(process)
    assert (answer.code, answer.out) == (0, "the last line\n")
    assert cli("logs", job_id, "--tail", 2).out == "line 2\nthe last line\n"
    document = cli("logs", job_id, "--json").json
    assert document["text"].splitlines()[-1] == "the last line"
    assert document["finished"]
    assert cli("logs", job_id, "--follow").out == document["text"]
    assert cli("logs", job_id, "--follow", "--json").code == 2


def test_a_beginning_of_an_id_is_enough(here, cli):
    job_id = submit(cli, "value")
    cli("wait", job_id[:13])
    for command in ("status", "result", "path", "logs", "cancel"):
        assert cli(command, job_id[:13], "--json").json["job_id"] == job_id
    firsts = [job_id[0]]
    while len(set(firsts)) == len(firsts):  # of 17 ids at most two begin alike
        firsts.append(submit(cli, "value")[0])
    assert "several job ids" in cli("status", firsts[-1]).err


@pytest.mark.parametrize(
    "command",
    [["status"], ["result"], ["cancel"], ["wait"], ["retry"], ["prune", "--dry-run"]],
    ids=" ".join,
)
def test_an_empty_id_is_no_beginning_of_one(here, cli, command):
    submit(cli, "value")
    answer = cli(*command, "")
    assert answer.code != 0
    assert "the id of a job is empty" in " ".join(answer.err.split())


def test_run_uses_the_server(here, cli, served):
    answer = cli("run", "lab_recipes.value", AL, "--json")
    assert answer.code == 0
    owner = served.process.pid
    assert cli("status", answer.json["job_id"], "--json").json["status"] == "completed"
    spec = (served.home / "jobs" / answer.json["job_id"] / "spec").read_text().splitlines()[0]
    assert json.loads(spec)["owner"]["pid"] == owner
    failed = cli("run", "lab_recipes.fail", AL, "--param", "message=bad")
    assert failed.code == 1
    assert "error: RuntimeError: bad" in failed.err


def test_a_warning_of_the_server_is_one_line(here, cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes,elsewhere")
    answer = finish(start("list", "--limit", 1))
    assert answer.code == 0
    warning, more = answer.err.splitlines()
    assert " more; --limit 0 shows all" in more
    assert warning.startswith("warning: the server does not admit the recipes of elsewhere")


def test_asking_the_server_imports_nothing_heavy(here, with_quacc, cli):
    job_id = submit(cli, "value")
    cli("wait", job_id)
    questions = [(command, job_id) for command in ("status", "wait", "path", "cancel", "logs")]
    assert imported(*questions, ("result", job_id, "--json"), ("list", "--json")) == "[]"


def test_of_named_jobs_filters_leave_those_that_fit(here, cli, tmp_path):
    one, other = (submit(cli, "value", "--label", f"of={name}") for name in "ab")
    assert cli("wait", one, other).code == 0
    table, archive = tmp_path / "jobs.jsonl", tmp_path / "jobs.zip"
    told = {
        command: cli(*command.split(), one[:12], other, "--label", "of=a", "--json")
        for command in (
            "wait",
            "progress",
            "cancel",
            "retry --dry-run",
            "prune --dry-run",
            "plot --x of --y energy",
            f"export --archive {archive}",
            f"export {table}",
        )
    }
    assert [job["job_id"] for job in told["wait"].json["jobs"]] == [one]
    assert [job["job_id"] for job in told["progress"].json["jobs"]] == [one]
    assert [job["job_id"] for job in told["cancel"].json["jobs"]] == [one]
    assert [job["retry_of"] for job in told["retry --dry-run"].json["jobs"]] == [one]
    assert [job["job_id"] for job in told["prune --dry-run"].json["jobs"]] == [one]
    assert f"job {one[:8]}: " in told["plot --x of --y energy"].json["error"]
    assert told[f"export --archive {archive}"].json["jobs"] == 1
    assert [json.loads(line)["job_id"] for line in table.read_text().splitlines()] == [one]
    for command in ("wait", "progress", "cancel", "retry", "plot", f"export {tmp_path}/no.csv"):
        none = cli(*command.split(), one, "--label", "of=b")
        assert (none.code, none.err) == (1, "error: there is no job labelled of=b\n"), command


def test_cancel_of_several(here, cli):
    chosen = ["--label", "set=cancel"]
    ids = [submit(cli, "long_sleep", *chosen) for _ in range(4)]
    one = cli("cancel", ids[0][:12], "--json")
    assert one.json == {"job_id": ids[0], "cancelled": True, "error": None}
    cli("wait", ids[0])
    two = cli("cancel", ids[0], ids[1], "ffffffff", "--json")
    assert two.code == 1
    assert [job["cancelled"] for job in two.json["jobs"]] == [False, True, False]
    ended = "the job was cancelled before"
    told = {"cancelled": False, "status": "error", "code": "ended", "error": ended}
    assert two.json["jobs"][0] == {"job_id": ids[0], **told}
    assert two.json["jobs"][2]["code"] == "unknown_job"
    assert cli("cancel", ids[0], "--json").json == {"job_id": ids[0], **told}
    rest = cli("cancel", *chosen, "--state", "pending", "--state", "running")
    assert rest.code == 0
    assert {*ids[2:]} <= {line.split()[2] for line in rest.lines} <= {*ids[1:]}
    assert cli("wait", *chosen).code == 1
    assert {job["status"] for job in cli("wait", *chosen, "--json").json["jobs"]} == {"cancelled"}
    assert "no pending or running job labelled set=cancel" in cli("cancel", *chosen).err
    assert cli("cancel").code == 2


def test_ctrl_c_during_run_cancels_the_servers_job(here, cli):
    process = start("run", "lab_recipes.long_sleep", AL, "--label", "set=ctrl-c")
    eventually(lambda: names(cli, "--label", "set=ctrl-c", "--state", "running"))
    process.send_signal(signal.SIGINT)
    answer = finish(process)
    assert answer.code == 130
    assert answer.err.splitlines()[-1].endswith("cancelled")
    assert names(cli, "--label", "set=ctrl-c")["Al"]["status"] == "cancelled"


def test_closing_the_terminal_changes_nothing(lab, alone, cli, tmp_path):
    command = f"{sys.executable} -m crystalmath submit lab_recipes.wait_for {AL}"
    shell = subprocess.Popen(
        ["sh", "-c", f"{command} --param path={tmp_path}/go; exec sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    job_id = shell.stdout.readline().strip()
    server = alone.call("system.version")["pid"]
    os.killpg(shell.pid, signal.SIGHUP)
    shell.communicate(timeout=60)
    assert cli("status", job_id, "--json").json["status"] in {"pending", "running"}
    assert alone.call("system.version")["pid"] == server


def test_who_looks_at_a_job_survives_its_server(lab, alone, cli, tmp_path):
    alone.start()
    path = f"path={tmp_path / 'go'}"
    job_id = cli("submit", "lab_recipes.talk", AL, "--param", path).out.strip()
    running = start("run", "lab_recipes.wait_for", AL, "--param", path)
    logs = start("logs", job_id, "--follow")
    watch = start("list", "--watch")
    with limited(running, logs, watch, seconds=180):
        assert any("running" in line for line in iter(running.stderr.readline, ""))
        said = [logs.stdout.readline() for _ in range(3)]
        assert said == ["line 0\n", "line 1\n", "line 2\n"]
        lines = iter(watch.stdout.readline, "")
        assert any("running" in line and job_id[:8] in line for line in lines)
        alone.kill()
        (tmp_path / "go").touch()
        assert finish(running).code == 0
        answer = finish(logs)
        assert (answer.code, answer.out) == (0, "the last line\n")
        assert any("completed" in line and job_id[:8] in line for line in lines)
        watch.send_signal(signal.SIGINT)
        assert finish(watch).code == 0


def test_serve_writes_one_document(lab, alone, cli, monkeypatch):
    def fail(*_, ready, **__):
        ready()
        raise ServerError("the server failed")

    monkeypatch.setattr("crystalmath.server.daemon.serve", fail)
    answer = cli("serve", "--json")
    assert (answer.code, answer.json["error"]) == (1, None)
    assert answer.err == "error: the server failed\n"
    assert cli("serve", "--stdio", "--json").code == 2


@pytest.mark.parametrize("command", [["prune", "--older"], ["list", "--since"]], ids=" ".join)
def test_a_month_is_no_span_of_time(here, cli, command):
    told = cli(*command, "2M")
    assert (told.code, told.out) == (2, "")
    assert "'2M'" in told.err
    assert "60d" in told.err


def test_a_check_goes_on_without_a_server_that_dies_meanwhile(lab, tmp_path, monkeypatch, cli):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path))
    asked = check.checked
    with HomeServer(tmp_path) as alone:

        def after_its_death(client, *arguments, **options):
            monkeypatch.setattr(check, "checked", asked)
            alone.kill()
            return asked(client, *arguments, **options)

        monkeypatch.setattr(check, "checked", after_its_death)
        alone.start()
        told = cli("check", "lab_recipes.value", AL)
    assert (told.code, told.lines[-1]) == (0, "this job would be accepted"), told.err
