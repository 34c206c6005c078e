"""What jobs take on the disk is measured and thrown away; their record stays."""

import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import eventually
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.reading.job_results import move_of
from server.written_home import RELAX, VASP, Home

pytestmark = pytest.mark.server

STATIC = "quacc.recipes.espresso.core.static_job"
DAY = 86400.0


@pytest.fixture
def here(home):
    here = Home(home)
    yield here
    here.close()


def blocks(path):
    """Return what a file or a folder itself takes on the disk, in bytes."""
    return path.lstat().st_blocks * 512


def heavy_blocks(folder):
    names = ("WAVECAR*", "CHG*", "POTCAR.gz", "*wfc1*")
    return sum(blocks(path) for name in names for path in folder.rglob(name))


def test_usage_is_told_in_all_and_by_state_recipe_and_label(here):
    one = here.make(VASP, labels={"project": "a", "k": "1"})
    here.make({"pw/pwscf.save/wfc1.dat": 2000, "pw/pwscf.wfc1": 80}, recipe=STATIC)
    here.make(VASP, state="failed", labels={"project": "a"})
    (here.jobs / one / "1.work" / "away").symlink_to("/usr")
    usage = here.call("jobs.usage")
    assert usage["total"]["jobs"] == 3
    assert usage["total"]["heavy_size"] == heavy_blocks(here.jobs)
    told = subprocess.check_output(["du", "-s", "--block-size=1", here.jobs], text=True)
    assert usage["total"]["size"] == int(told.split()[0]) - blocks(here.jobs)
    assert [(one["recipe"], one["jobs"]) for one in usage["recipes"]] == [(RELAX, 2), (STATIC, 1)]
    assert [(one["state"], one["jobs"]) for one in usage["states"]] == [
        ("completed", 2),
        ("failed", 1),
    ]
    assert [(one["label"], one["value"], one["jobs"]) for one in usage["labels"]] == [
        ("project", "a", 2),
        ("k", "1", 1),
    ]
    for groups in ("recipes", "states"):
        for key in ("jobs", "files", "size", "heavy_size"):
            assert sum(one[key] for one in usage[groups]) == usage["total"][key]
    assert here.call("jobs.usage", labels={"k": "1"})["total"]["jobs"] == 1
    assert here.call("jobs.usage", state="cancelled")["total"] == {
        "jobs": 0,
        "files": 0,
        "size": 0,
        "heavy_size": 0,
        "packed": 0,
    }


def test_more_jobs_are_measured_than_are_asked_for_at_once(here, monkeypatch):
    monkeypatch.setattr("crystalmath.running.pruning.PAGE", 2)
    for _ in range(5):
        here.make({"CHG": 1})
    assert here.call("jobs.usage")["total"]["heavy_size"] == heavy_blocks(here.jobs) >= 5


def test_du_is_a_table_of_recipes_labels_and_all(here, cli):
    here.make({"WAVECAR": 3 * 2**20, "vasprun.xml": 2**19}, labels={"project": "alloys"})
    here.make(state="failed")
    header, relax, project, everything = cli("du").lines
    assert header.split() == ["SIZE", "HEAVY", "FILES", "JOBS"]
    assert relax.split() == ["3.5", "MB", "3.0", "MB", "6", "2", "vasp.core.relax_job"]
    assert project.split()[-2:] == ["1", "project=alloys"]
    assert everything.split()[-2:] == ["2", "all"]
    document = cli("du", "--state", "failed", "--json").json
    assert (document["total"]["jobs"], document["total"]["heavy_size"]) == (1, 0)
    assert cli("du", "--state", "lost").code == 2


# --- thrown away -----------------------------------------------------------------------------


def pruned(here, **asked):
    """Throw away, and give the ids of the jobs whose files were removed."""
    answer = here.call("jobs.prune", **asked)
    assert answer["error"] is None
    return {job["job_id"] for job in answer["jobs"]}


def test_files_are_removed_by_age_state_label_recipe_and_size(here):
    old = here.make(VASP, ended_s=40 * DAY, labels={"project": "a"})
    failed = here.make(VASP, ended_s=40 * DAY, state="failed", labels={"project": "b"})
    young = here.make({"WAVECAR": 90_000}, ended_s=DAY, recipe=STATIC)
    for asked, expected in (
        ({"older_s": 30 * DAY}, {old, failed}),
        ({"older_s": 30 * DAY, "state": "failed"}, {failed}),
        ({"labels": {"project": "a"}}, {old}),
        ({"recipe": STATIC}, {young}),
        ({"larger": 50_000}, {young}),
        ({"larger": 50_000, "keep_results": True}, {young}),
        ({"larger": 10**9}, set()),
        ({"energy_min": 0}, set()),
        ({"energy_max": 0, "exclude": {"recipe": STATIC}}, {old}),
        ({"older_s": 0, "labels": {"project": "b"}, "state": ["completed"]}, set()),
        ({"job_ids": [young, old]}, {young, old}),
        ({"job_ids": []}, set()),
    ):
        assert pruned(here, dry_run=True, **asked) == expected, asked
    assert all((here.jobs / job_id / "spec").is_file() for job_id in (old, failed, young))
    assert pruned(here, older_s=30 * DAY) == {old, failed}
    assert not (here.jobs / old).exists()
    assert list((here.jobs / ".removed").iterdir()) == []
    assert (here.jobs / young / "spec").is_file()
    assert pruned(here, older_s=30 * DAY) == set()


def test_nothing_is_removed_of_a_job_that_has_not_ended(here):
    live = [here.make(VASP, state="pending"), here.make(VASP, state="running")]
    ended = here.make(VASP)
    # Its outcome is there, and its owner has not read it yet.
    here.make(VASP, state="pending")
    answer = here.call("jobs.prune", job_ids=[*live, ended, "0" * 8])
    assert [job["job_id"] for job in answer["jobs"]] == [ended]
    assert [one["job_id"] for one in answer["left"]] == [*live, "0" * 8]
    assert "is pending; cancel it first" in answer["left"][0]["error"]
    assert answer["left"][2]["code"] == "unknown_job"
    refused = here.call("jobs.prune", state=["failed", "running"])
    assert refused["code"] == "invalid_job"
    assert "the files of running jobs are never removed" in refused["error"]
    assert pruned(here, older_s=0) == set()
    assert all((here.jobs / job_id / "spec").is_file() for job_id in live)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "name the jobs whose files"),
        ({"labels": {}, "prefix": ""}, "name the jobs whose files"),
        ({"keep_results": True}, "name the jobs whose files"),
        ({"job_ids": [], "state": "failed"}, "leave out one of both"),
        ({"older_s": -1}, "older_s"),
    ],
)
def test_what_says_too_little_removes_nothing(here, asked, said):
    job_id = here.make(VASP)
    refused = here.call("jobs.prune", **asked)
    assert refused["code"] == "invalid_job"
    assert said in refused["error"]
    assert len(here.files_of(job_id)) == len(VASP)


def test_files_that_an_unfinished_job_is_to_read_stay(here):
    read = here.make(VASP)
    parameters = f'{{}}\n{{"prev_dir": "{here.jobs}/{read}/1.work/s"}}'
    reader = here.make(state="pending", specification=parameters)
    answer = here.call("jobs.prune", older_s=0)
    assert answer["jobs"] == []
    assert answer["left"][0]["job_id"] == read
    assert f"the unfinished job {reader} will read its files" in answer["left"][0]["error"]


def test_the_record_outlives_the_directory(here, cli, alone):
    job_id = here.make(VASP, key="mine", name="bulk", labels={"project": "a"})
    before = here.call("jobs.status", job_id=job_id)
    assert pruned(here, job_ids=[job_id]) == {job_id}
    after = here.call("jobs.status", job_id=job_id)
    assert after["removed"] == "all"
    assert abs(after["removed_at"] - time.time()) < 600
    told = {"removed", "removed_at", "revision"}
    assert {k: v for k, v in after.items() if k not in told} == {
        k: v for k, v in before.items() if k not in told
    }
    assert here.call("jobs.list")["jobs"] == [after]
    assert here.call("jobs.status_many", job_ids=[job_id])["jobs"] == [after]
    assert here.store.by_key(["mine"])["mine"].job_id == job_id
    *_, event = here.call("jobs.events", job_ids=[job_id])["events"]
    assert (event["from"], event["to"]) == ("completed", "completed")
    assert event["reason"] == "run directory removed"
    again = here.call("jobs.prune", job_ids=[job_id])
    assert (again["jobs"], again["left"][0]["code"]) == ([], "files_removed")
    for method in ("jobs.result", "jobs.logs", "jobs.files"):
        answer = here.call(method, job_id=job_id)
        assert answer["code"] == "files_removed", method
        assert f"the run directory of job {job_id} was removed on 20" in answer["error"]
    for command in ("path", "logs", "files"):
        assert "was removed on 20" in cli(command, job_id).err
        assert cli(command, job_id, "--json").json["code"] == "files_removed"
    assert "was removed on 20" in cli("status", job_id).out
    assert "completed, removed" in cli("list").out
    said = cli("result", job_id)
    assert (said.code, "-1.5" in said.out) == (0, True)
    assert "was removed on 20" in said.err
    for command in (("plot", job_id), ("retry", job_id, "--continue")):
        said = cli(*command)
        assert (said.code, "was removed on 20" in said.err) == (1, True), said.err


def test_only_heavy_files_are_removed_where_results_are_kept(here, cli):
    job_id = here.make(VASP)
    nothing = here.make({"OUTCAR": 5})
    freed = heavy_blocks(here.jobs)
    answer = here.call("jobs.prune", older_s=0, keep_results=True)
    assert [(job["job_id"], job["size"]) for job in answer["jobs"]] == [(job_id, freed)]
    assert here.files_of(job_id) == ["s/CONTCAR", "s/OUTCAR.gz", "s/POTCAR.titel"]
    assert here.files_of(nothing) == ["OUTCAR"]
    for _ in range(3):  # from the database, from memory, as it was written for the last answer
        assert here.call("jobs.status", job_id=job_id)["removed"] == "heavy"
    assert here.call("jobs.status", job_id=nothing)["removed"] is None
    assert here.call("jobs.result", job_id=job_id)["result"]["energy"] == -1.5
    assert "densities and the like were removed on 20" in cli("status", job_id).out
    assert pruned(here, older_s=0, keep_results=True) == set()
    assert pruned(here, job_ids=[job_id]) == {job_id}
    assert here.call("jobs.status", job_id=job_id)["removed"] == "all"


def test_a_link_in_a_run_directory_is_removed_and_not_followed(here, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "WAVECAR").write_text("mine")
    job_id, linked = here.make(), here.make()
    (here.jobs / job_id / "1.work").mkdir()
    (here.jobs / job_id / "1.work" / "s").symlink_to(tmp_path / "precious")
    (here.jobs / job_id / "1.work" / "CHGCAR").symlink_to(tmp_path / "precious" / "WAVECAR")
    shutil.move(here.jobs / linked, tmp_path / "elsewhere")
    (here.jobs / linked).symlink_to(tmp_path / "elsewhere")
    assert pruned(here, job_ids=[job_id], keep_results=True) == {job_id}
    assert here.files_of(job_id) == ["s"]
    answer = here.call("jobs.prune", job_ids=[job_id, linked])
    assert [job["job_id"] for job in answer["jobs"]] == [job_id]
    assert "is a link to" in answer["left"][0]["error"]
    assert (tmp_path / "precious" / "WAVECAR").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "spec").is_file()


def test_what_cannot_be_written_is_removed_too(here):
    job_id = here.make(VASP)
    os.chmod(here.jobs / job_id / "1.work" / "s", 0o500)
    assert pruned(here, job_ids=[job_id]) == {job_id}
    assert list((here.jobs / ".removed").iterdir()) == []


def test_a_job_ended_when_its_outcome_says_not_when_somebody_looks(here):
    job_id, began = here.make(state="running"), time.time() - 3600.0
    head = {"state": "failed", "error": "it broke", "started": began, "finished": began + 5.0}
    RunDirectory(here.jobs / job_id).publish(1, head)
    told = here.call("jobs.show", job_id=job_id)["job"]
    assert (told["status"], told["finished_at"]) == ("failed", began + 5.0)
    here.service.take_over()
    eventually(lambda: here.store.get(job_id).finished_at)
    recorded = here.store.get(job_id)
    assert (recorded.started_at, recorded.finished_at) == (began, began + 5.0)


def test_pages_of_jobs(here):
    made = {here.make(VASP) for _ in range(5)}
    first = here.call("jobs.prune", older_s=0, limit=2, dry_run=True)
    assert len(first["jobs"]) == 2
    second = here.call("jobs.prune", older_s=0, limit=3, dry_run=True, cursor=first["cursor"])
    assert len(second["jobs"]) == 3
    third = here.call("jobs.prune", older_s=0, dry_run=True, cursor=second["cursor"])
    assert (third["jobs"], third["cursor"]) == ([], None)
    assert {job["job_id"] for job in first["jobs"] + second["jobs"]} == made
    listed = sorted(made)
    named = here.call("jobs.prune", job_ids=listed, limit=2)
    assert [job["job_id"] for job in named["jobs"]] == listed[:2]
    rest = here.call("jobs.prune", job_ids=listed, cursor=named["cursor"])
    assert [job["job_id"] for job in rest["jobs"]] == listed[2:]


def test_whoever_is_killed_loses_no_record_and_can_do_it_again(home):
    # Every file operation and every transaction is once the last one; see there.
    script = Path(__file__).with_name("killed_prune.py")
    done = subprocess.run(
        [sys.executable, script, home], capture_output=True, text=True, check=False, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 10  # so many moments


def test_whoever_is_killed_while_it_packs_loses_and_doubles_nothing(home):
    script = Path(__file__).with_name("killed_pack.py")
    done = subprocess.run(
        [sys.executable, script, home], capture_output=True, text=True, check=False, timeout=900
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 50  # so many moments


def test_a_directory_that_was_removed_by_hand_is_gone(here, cli):
    job_id, kept = here.make(VASP), here.make(VASP)
    assert here.call("jobs.status", job_id=job_id)["removed"] is None
    shutil.rmtree(here.jobs / job_id)
    assert here.call("jobs.status", job_id=job_id)["removed"] == "gone"
    assert [job["removed"] for job in here.call("jobs.list")["jobs"]] == [None, "gone"]
    assert here.call("jobs.result", job_id=job_id)["code"] == "files_removed"
    assert here.call("jobs.logs", job_id=job_id)["code"] == "files_removed"
    assert "completed, gone" in cli("list").out
    assert "is gone: it was removed or moved" in cli("path", job_id).err
    assert pruned(here, older_s=0) == {job_id, kept}
    assert here.call("jobs.status", job_id=job_id)["removed"] == "all"


def test_a_directory_that_was_seen_is_looked_for_once_something_goes(here, monkeypatch):
    job_id, other, _ = (here.make(VASP) for _ in range(3))
    looked, look = [], RunDirectory.is_gone

    def noted(directory):
        looked.append(Path(directory.path).name)
        return look(directory)

    def status():
        looked.clear()
        return here.call("jobs.status", job_id=job_id)["removed"], looked

    monkeypatch.setattr(RunDirectory, "is_gone", noted)
    assert status() == (None, [job_id])
    assert status() == (None, [])
    shutil.rmtree(here.jobs / other)
    assert status() == (None, [])
    (here.jobs / job_id).rename(here.jobs / "away")
    assert status() == ("gone", [job_id])
    (here.jobs / "away").rename(here.jobs / job_id)
    assert status() == (None, [job_id])
    # All of them at once, as where the file system is mounted no more.
    here.jobs.rename(here.jobs.with_name("elsewhere"))
    assert status() == (None, [job_id])
    here.jobs.with_name("elsewhere").rename(here.jobs)
    shutil.rmtree(here.jobs / job_id)
    assert status() == ("gone", [job_id])


def test_a_home_that_is_not_mounted_loses_no_job(here):
    job_id = here.make(VASP)
    here.jobs.rename(here.jobs.with_name("away"))
    here.jobs.mkdir()
    assert here.call("jobs.status", job_id=job_id)["removed"] is None


def test_another_process_that_removes_is_noticed(here, home):
    job_id = here.make(VASP)
    assert here.call("jobs.status", job_id=job_id)["removed"] is None
    other = Home(home)
    assert pruned(other, job_ids=[job_id]) == {job_id}
    other.close()
    assert here.call("jobs.status", job_id=job_id)["removed"] == "all"


# --- the command -----------------------------------------------------------------------------


def test_prune_shows_first_and_removes_what_it_showed(here, cli):
    job_id = here.make({"WAVECAR": 2**20}, ended_s=40 * DAY, name="bulk", labels={"p": "a"})
    here.make(VASP, ended_s=DAY)
    shown = cli("prune", "--older", "30d", "--dry-run")
    assert shown.code == 0
    header, row, total, results = shown.lines
    assert header.split() == ["SIZE", "NAME", "STATE", "RECIPE", "ENDED", "ID"]
    assert row.split() == [
        *("1.0", "MB", "bulk", "completed", "vasp.core.relax_job", "40", "d", "ago", job_id[:8])
    ]
    assert total == "the run directories of 1 job: 1.0 MB"
    assert results == "with them go the results of 1 job, which --keep-results would keep"
    assert "results" not in cli("prune", job_id, "--dry-run", "--keep-results").out
    refused = cli("prune", "--older", "30d")
    assert (refused.code, "use --dry-run, then --yes" in refused.err) == (2, True)
    assert here.call("jobs.status", job_id=job_id)["removed"] is None
    done = cli("prune", "--older", "30d", "--label", "p=a", "--yes", "--keep-results", "--json")
    assert done.json["jobs"][0].items() >= {"job_id": job_id, "size": 2**20}.items()
    assert done.err == "removed 1.0 MB of 1 job\n"
    assert here.files_of(job_id) == []
    assert cli("prune", job_id[:8], "--yes").code == 0
    assert not (here.jobs / job_id).exists()
    again = cli("prune", job_id, "--yes")
    assert (again.code, "was removed on 20" in again.err) == (1, True)
    assert cli("prune", "--older", "30d", "--yes").err == "there is nothing to remove\n"


def test_prune_says_what_the_steps_of_a_flow_keep(here, cli):
    flow = here.make({"CHG": 2**20}, stage="steps")
    parent = {"job_id": flow, "role": "flow", "step": "relax_job#0"}
    step = here.make({"CHG": 2**20}, parents=[parent])
    told = cli("prune", flow, "--dry-run").err
    assert told.startswith(
        f"the steps of {flow[:8]} keep their files, 1.0 MB; crystalmath prune --par"
    )
    assert cli("prune", flow, step, "--dry-run").err == ""
    assert cli("prune", "--parent", flow[:8], "--yes").err == "removed 1.0 MB of 1 job\n"
    assert cli("prune", flow, "--yes").err == "removed 1.0 MB of 1 job\n"


def test_the_lines_of_the_page(here, cli):
    job_id = here.make(VASP, ended_s=40 * DAY)
    page = Path(__file__).parents[2] / "docs/command-line.md"
    commands = ("crystalmath files ", "crystalmath du ", "crystalmath pack ", "crystalmath prune ")
    lines = [each for each in page.read_text("utf-8").splitlines() if each.startswith(commands)]
    assert len(lines) == len(commands)
    for line in lines:
        _, *arguments = shlex.split(line.replace("$id", job_id), comments=True)
        answer = cli(*arguments)
        assert (answer.code, answer.err) == (0, ""), line
        assert answer.out, line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--keep-results"],
        ["--older", "long ago"],
        ["--older", "1"],
        ["--older", "0.5 "],
        ["--larger", "huge"],
        ["--label", "x"],
        ["00000000", "--state", "failed"],
    ],
)
def test_prune_that_is_wrong_usage_removes_nothing(here, cli, arguments):
    job_id = here.make(VASP)
    assert cli("prune", *arguments, "--yes").code in {1, 2}
    assert here.files_of(job_id) == sorted(VASP)


# --- a home that was moved -------------------------------------------------------------------


def test_a_home_that_was_moved_gives_paths_that_are_there(home, tmp_path, monkeypatch):
    before = Home(home)
    job_id = before.make(VASP, notes=["/jobs/", f"{home}/jobs", "x" * 300_000])
    old = before.call("jobs.status", job_id=job_id)["result"]["work_dir"]
    before.close()
    moved = tmp_path / "another disk, 50 % full" / "é"
    moved.parent.mkdir()
    home.rename(moved)
    here = Home(moved)
    job = here.call("jobs.status", job_id=job_id)
    new = f"{moved}/jobs/{job_id}/1.work"
    assert (old, job["result"]["work_dir"]) == (f"{home}/jobs/{job_id}/1.work/s", f"{new}/s")
    assert job["work_dir"] == new
    result = here.call("jobs.result", job_id=job_id)["result"]
    assert result["dir_name"] == f"{new}/s"
    assert result["notes"] == ["/jobs/", f"{home}/jobs", "x" * 300_000]
    assert here.service.result(job_id)["dir_name"] == f"{new}/s"
    size = at_once(here.service.results.measured(here.service.job(job_id)))
    assert size == len(here.service.result_json(job_id))
    assert here.call("jobs.files", job_id=job_id)["files"] != []
    assert here.call("jobs.result", job_id=job_id, field="dir_name")["result"] == f"{new}/s"
    assert here.call("jobs.result", job_id=job_id, brief=True)["result"]["dir_name"] == f"{new}/s"
    here.close()


def test_a_field_of_a_large_result_is_read_without_the_rest(tmp_path):
    steps = [{"number": at, "text": random.Random(at).randbytes(1000).hex()} for at in range(900)]
    here = Home(tmp_path)
    job_id = here.make(VASP, notes=[*steps, f"{tmp_path}/jobs"])

    def field(name):
        return here.call("jobs.result", job_id=job_id, field=name)

    assert field("notes.450.number")["result"] == 450
    outcome = tmp_path / "jobs" / job_id / "1.outcome"
    data = bytearray(outcome.read_bytes())
    middle = len(data) // 2
    data[middle - 1000 : middle + 1000] = bytes(2000)
    outcome.write_bytes(data)
    assert field("energy")["result"] == -1.5
    assert [field(f"notes.{at}.number")["result"] for at in (0, 899)] == [0, 899]
    assert field("notes.7")["result"] == steps[7]
    assert "'notes' has no field '901.x'; there are 0, 1," in field("notes.901.x")["error"]
    assert "'notes.7' has no field 'x'; there are number, text" in field("notes.7.x")["error"]
    part = here.call("jobs.result", job_id=job_id, brief=True)
    assert (part["result"]["energy"], part["brief"]) == (-1.5, True)
    small = here.call("jobs.result", job_id=here.make(VASP, notes=["all of it"]), brief=True)
    assert (small["result"]["notes"], "brief" in small) == (["all of it"], False)
    damaged = field("notes.450.number")
    assert (damaged["status"], "is damaged" in damaged["error"]) == ("error", True)
    here.close()


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_a_place_is_found_wherever_a_text_is_cut(size):
    move = move_of("/old/jobs/1-2/1.work/s", "/a/new/home/jobs/1-2")
    text = b'["/old/jobs/1-2/1.work", "/old/jobs/1-23", "/old/jobs/1-2"]' * 3
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    changed = text.replace(b"/old/", b"/a/new/home/")
    assert b"".join(move.texts(pieces)) == changed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/old/jobs/7/1.work", "/new/jobs/7/1.work"),
        ("/old/jobs/7", "/new/jobs/7"),
        ("/new/jobs/7/1.work", None),
        ("/old/jobs/77/1.work", None),
        (".", None),
        (None, None),
    ],
)
def test_a_move_is_known_by_what_was_written(path, expected):
    move = move_of(path, "/new/jobs/7")
    assert (move and move.path(path)) == expected
