"""Jobs of workers that see nothing of the home, whose specifications and answers are bytes.

`tests/together/test_dask_apart.py` runs them through a real engine.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import eventually
from crystalmath import processes
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Attempt, Capabilities
from crystalmath.reading.job_results import StoredResults
from crystalmath.worker import apart

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("chains_end")]
#: Runs the job of standard input, as an engine's worker does, and answers on standard output.
WORKER = (
    "import sys; from crystalmath.worker import apart; "
    "sys.stdout.buffer.write(apart.run_apart(sys.stdin.buffer.read()))"
)
#: What root needs before it to be refused a file without read permission, as others are.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
ENDED = {"state": "completed", "error": None, "summary": None, "started": 1.0, "finished": 2.0}
TITLE = "   TITEL  = PAW_PBE Al 04Jan2001\n"


@pytest.fixture
def attempt(make):
    """Write down a job; give its attempt."""

    def attempt(recipe, /, **parameters):
        path = Path(make(f"lab_recipes.{recipe}", **parameters).path)
        return Attempt(id=f"{path.name}.1", job_id=path.name, directory=path)

    return attempt


def collected(attempt, answer):
    """Collect an answer that counts; give the outcome's header."""
    assert apart.collect(attempt, answer)
    return RunDirectory(attempt.directory).outcome(1)


def answer_of(job, members, **outcome):
    """Make an answer of a worker by hand; without a result if `members` has none."""
    answer = io.BytesIO()
    with zipfile.ZipFile(answer, "w") as archive:
        told = {"attempt": job.id, "outcome": {**ENDED, **outcome}, "work": "/there\udcff/1.work"}
        for name, content in {"answer.json": json.dumps(told), **members}.items():
            archive.writestr(name, content)
    return answer.getvalue()


def test_an_answer_brings_result_log_and_files_and_no_second_one_replaces_them(attempt):
    texts = {"step/OUTCAR": "first", "step/POTCAR": TITLE}
    job = attempt("leave_files", texts=texts)
    answer = apart.run_apart(apart.pack(job))
    assert os.listdir(job.directory) == ["spec"]
    assert apart.running_apart() == []
    outcome, work = collected(job, answer), job.directory / "1.work"
    assert outcome["state"] == "completed"
    # A result is told with the paths of the home, where its files are now.
    row = SimpleNamespace(job_id=job.job_id, attempt=1, summary=outcome["summary"])
    results = StoredResults(lambda _: RunDirectory(job.directory))
    assert json.loads(b"".join(results.chunks(row)))["dir_name"] == str(work)
    RunDirectory(job.directory).check_outcome(1)
    assert (work / "step/OUTCAR").read_text() == "first"
    assert {path.name for path in (work / "step").iterdir()} == {"OUTCAR", "POTCAR.titel"}
    (work / "step/OUTCAR").write_text("kept")
    for second in (answer, OSError("late")):
        assert not apart.collect(job, second)
    assert (work / "step/OUTCAR").read_text() == "kept"
    assert sorted(os.listdir(job.directory)) == ["1.claim", "1.outcome", "1.work", "spec"]


def test_a_worker_whose_folder_was_tidied_away_goes_on(attempt):
    for _ in range(2):
        job = attempt("leave_files", texts={})
        assert collected(job, apart.run_apart(apart.pack(job)))["state"] == "completed"
        shutil.rmtree(apart._jobs(os.getpid()))


def test_a_failure_travels_with_its_traceback_and_large_files_stay_behind(attempt, monkeypatch):
    monkeypatch.setattr(apart, "MOST", 10)
    job = attempt("leave_files", texts={"large": "x" * 11, "small": "y"}, end="fail")
    apart.note_begun(job, "node7")
    assert "it runs at node7" in (job.directory / "1.log").read_text()
    outcome = collected(job, apart.run_apart(apart.pack(job)))
    assert (outcome["state"], outcome["error"]) == ("failed", "RuntimeError: no luck")
    assert "leave_files" in outcome["traceback"]
    log = (job.directory / "1.log").read_text()
    assert "RuntimeError: no luck" in log
    assert "(more than 10 bytes do not travel): large (11 bytes)\n" in log
    assert {path.name for path in (job.directory / "1.work").iterdir()} == {"small", "written"}


def test_a_file_that_cannot_be_read_stays_behind_and_the_log_names_the_home(attempt):
    script = "touch kept secret; chmod 0 secret; touch $(printf 'n\\377'); pwd >&2"
    job = attempt("run_command", command=["sh", "-c", script])
    worker = [sys.executable, "-c", WORKER]
    ran = subprocess.run(
        worker if os.geteuid() else [*WITHOUT_RIGHTS, *worker],
        input=apart.pack(job),
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    outcome = collected(job, ran.stdout)
    assert outcome["state"] == "completed"
    assert os.listdir(job.directory / "1.work") == ["kept"]
    log = (job.directory / "1.log").read_text()
    assert "secret (Permission denied)" in log
    assert "n\\xff (its name is no UTF-8)" in log
    assert f"{job.directory}/1.work\n" in log


@pytest.mark.parametrize("begun", [True, False])
def test_what_is_not_wanted_is_stopped_where_it_runs_or_never_begun(attempt, tmp_path, begun):
    job, answers = attempt("wait_for", path=str(tmp_path / "never")), []
    run = threading.Thread(target=lambda: answers.append(apart.run_apart(apart.pack(job))))
    if begun:
        run.start()
        eventually(lambda: processes.marked("CRYSTALMATH_ATTEMPT", job.id))
        assert apart.running_apart() == [job.id]
    apart.running_apart(cancel=[job.id])
    if not begun:
        run.start()
    run.join()
    (job.directory / "cancel").touch()
    outcome = collected(job, answers[0])
    assert outcome["state"] == "cancelled"
    assert (outcome["started"] is not None) is begun


def test_a_job_ends_with_its_worker(attempt, tmp_path):
    job = attempt("wait_for", path=str(tmp_path / "never"))
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE) as worker:
        worker.stdin.write(apart.pack(job))
        worker.stdin.close()
        eventually(lambda: processes.marked("CRYSTALMATH_ATTEMPT", job.id))
        worker.kill()
    eventually(lambda: not processes.marked("CRYSTALMATH_ATTEMPT", job.id))


@pytest.mark.parametrize("answer", [b"", b"PK\5\6" + bytes(18), ConnectionError("node7 is gone")])
def test_no_answer_is_a_lost_attempt(attempt, answer):
    job = attempt("value")
    (job.directory / "cancel").touch()
    outcome = collected(job, answer)
    assert (outcome["state"], outcome["cancelled"]) == ("lost", True)
    assert outcome["error"].startswith("no answer came from its worker")
    assert sorted(os.listdir(job.directory)) == ["1.claim", "1.log", "1.outcome", "cancel", "spec"]


@pytest.mark.parametrize(
    ("members", "outcome", "said"),
    [
        ({}, {}, "no item named 'result'"),
        ({"answer.json": "[" * 100_000}, {}, "recursion"),
        ({"answer.json": '{"attempt": "%s", "outcome": []}'}, {}, "no attribute"),
        ({"result": ""}, {"summary": "text"}, "its summary is 'text'"),
        ({"result": ""}, {"error": 1}, "no attribute"),
        ({"result": ""}, {"state": "waits"}, "its state is 'waits'"),
        ({"result": ""}, {"state": "cancelled"}, "without a request"),
    ],
)
def test_an_answer_that_can_never_be_stored_is_a_lost_attempt(attempt, members, outcome, said):
    job = attempt("value")
    members = {name: text.replace("%s", job.id) for name, text in members.items()}
    lost = collected(job, answer_of(job, members, **outcome))
    assert lost["state"] == "lost"
    assert said in lost["error"]


def test_a_file_that_the_home_cannot_name_is_left_out(attempt, monkeypatch):
    monkeypatch.setattr(apart, "MOST", 10)
    job, deep = attempt("value"), "/".join(["d" * 200] * 25)
    names = ("a" * 300, f"{deep}/f", "kept", "kept/below", "..")
    members = {
        "result": "",
        "log": b"/there\xff/1.work/y\n",
        "work": "",
        **{f"work/{name}": "x" for name in names},
    }
    answer = answer_of(
        job, {**members, "work/large": "x" * 11}, state="failed", error="/there\\xff/1.work/x"
    )
    outcome, work = collected(job, answer), job.directory / "1.work"
    assert (outcome["state"], outcome["error"]) == ("failed", f"{work}/x")
    assert [path.name for path in work.iterdir() if path.is_file()] == ["kept"]
    log = (job.directory / "1.log").read_text()
    assert log.startswith(f"{work}/y\n")
    assert f"{'a' * 300} (File name too long), {deep}/f (File name too long), kept/below (" in log
    assert "large (11 bytes)" in log


def test_an_answer_of_another_attempt_or_for_a_removed_job_does_not_count(attempt):
    first, second = attempt("value"), attempt("value")
    answer = apart.run_apart(apart.pack(first))
    assert "it is of attempt" in collected(second, answer)["error"]
    (first.directory / "spec").unlink()
    first.directory.rmdir()
    assert not apart.collect(first, answer)


@pytest.mark.parametrize("more", [{"workers_here": False}, {"gone_means_dead": True}])
def test_an_engine_without_shared_files_must_vouch_for_ends(more):
    with pytest.raises(ValueError, match="only the engine can see"):
        Capabilities(shares_files=False, **more)
