"""What becomes of a job whose time is up, or nearly so: its walltime, or its allocation's."""

import os
import time
from pathlib import Path

import pytest

from crystalmath import worker
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.worker import running_job
from crystalmath.worker.running_job import RunningJob

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("chains_end")]


def test_the_walltime_counts_from_when_the_recipe_begins(make, tmp_path, monkeypatch):
    """Neither the import of quacc nor that of the recipe's module is the recipe's doing."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    code = "import time\ntime.sleep(3.5)\ndef f(atoms, seconds): time.sleep(seconds)\n"
    (tmp_path / "edited.py").write_text(code)
    environment = {"VASP_OWN": "a runner of its own"}
    directory = make("edited.f", environment=environment, walltime_s=3.0, seconds=0)
    worker.run(directory.path)
    assert directory.outcome(1)["state"] == "completed", directory.outcome(1)
    directory = make("edited.f", environment=environment, walltime_s=0.5, seconds=600)
    worker.run(directory.path)
    outcome = directory.outcome(1)
    assert (outcome["state"], "walltime of 0.5 s" in outcome["error"]) == ("failed", True)
    assert outcome["finished"] - outcome["started"] < 60


#: What a VASP writes that is in its third ionic step, and what is told of that.
OSZICAR = """printf '%s\\n' '   2 F= -.14890E+02 E0= -.14889E+02  d E =-.1E-02' \\
'DAV:   4    -0.148895E+02   -0.1E-02' > OSZICAR"""
REACHED = (
    "\nwhat it had reached: VASP, calculation 1, ionic step 3, electronic step 4, -14.889000 eV"
)


def test_what_was_reached_when_the_walltime_was_over_is_told(make):
    vasp = ["sh", "-c", f"{OSZICAR}; exec sleep 600"]
    for walltime_s in (3.0, 60.0):  # a busy machine may not come to it in the first
        directory = make("lab_recipes.run_command", walltime_s=walltime_s, command=vasp)
        worker.run(directory.path)
        if Path(directory.work(1), "OSZICAR").exists():
            break
    over = f"stopped: the walltime of {walltime_s:g} s is over"
    assert directory.outcome(1)["error"] == f"{over}{REACHED}"


@pytest.mark.parametrize(
    ("walltime_s", "shared", "state"),
    [(None, False, "failed"), (None, True, "lost"), (600.0, True, "failed")],
)
def test_a_job_is_ended_before_its_allocation_is(make, monkeypatch, walltime_s, shared, state):
    """Afterwards nobody could say why; of a pilot job the next may be fresh."""
    monkeypatch.setenv(worker.ENDS, str(time.time() + 2))
    directory = make("lab_recipes.long_sleep", walltime_s=walltime_s)
    worker.run(directory.path, shared=shared)
    assert {key: directory.outcome(1)[key] for key in ("state", "error")} == {
        "state": state,
        "error": "stopped: the walltime of its allocation is over",
    }


def test_a_walltime_that_is_over_before_the_allocation_is_told_as_the_jobs_own(make, monkeypatch):
    monkeypatch.setenv(worker.ENDS, str(time.time() + 600))
    directory = make("lab_recipes.long_sleep", walltime_s=0.3)
    worker.run(directory.path)
    assert "stopped: the walltime of 0.3 s is over" in directory.outcome(1)["error"]


@pytest.mark.parametrize(("shared", "state"), [(False, "failed"), (True, "lost")])
def test_a_program_is_asked_to_stop_before_its_allocation_ends(make, monkeypatch, shared, state):
    # What begins too late for its notice is asked half way through what is left.
    monkeypatch.setenv(worker.ENDS, str(time.time() + 60))
    notice = {"CRYSTALMATH_WALLTIME_NOTICE_S": "50.0"}
    vasp = f"{OSZICAR}; while ! [ -e STOPCAR ]; do sleep 0.1; done; exit 3"
    directory = make("lab_recipes.run_command", environment=notice, command=["sh", "-c", vasp])
    worker.run(directory.path, shared=shared)
    outcome = directory.outcome(1)
    said = "the walltime of its allocation was nearly over, and STOPCAR asked the program to stop: "
    assert outcome["state"] == state, outcome
    assert said in outcome["error"]
    assert outcome["error"].endswith(REACHED)
    assert "are left of the walltime of its allocation: wrote" in Path(directory.log(1)).read_text()


#: Where a program is found, what lies beside that, and what asks it to stop: at first, and later.
PROGRAMS = [
    ("OSZICAR", {}, "STOPCAR", ("LSTOP = .TRUE.\n", "LABORT = .TRUE.\n")),
    ("pw.out", {"pw.in": "&CONTROL\n  prefix = 'si'\n/\n"}, "si.EXIT", ("", "")),
    ("pw.out", {"pw.in": "&CONTROL\n/\n"}, "pwscf.EXIT", ("", "")),
]


@pytest.mark.parametrize(("output", "inputs", "file", "texts"), PROGRAMS)
def test_with_half_of_the_notice_left_a_program_is_to_stop_as_soon_as_it_can(
    make, monkeypatch, output, inputs, file, texts
):
    monkeypatch.setattr(running_job, "ASK_S", 0.0)
    notice = {"CRYSTALMATH_WALLTIME_NOTICE_S": "60.0"}
    directory = make("lab_recipes.value", environment=notice, walltime_s=600.0)
    folder = Path(directory.work(1), "quacc-2026")
    folder.mkdir(parents=True)
    for name, text in {output: "", **inputs}.items():
        (folder / name).write_text(text)
    job = RunningJob(directory, WrittenSpec.read(directory), notice, lambda: True)
    job.left(begun=True)
    job.ask_to_stop(61.0)
    assert not (folder / file).exists()
    for left, text in zip((59.0, 29.0), texts, strict=True):
        job.ask_to_stop(left)
        assert (folder / file).read_text() == text
        assert directory.asked_to_stop(1) == {
            "file": file,
            "time": "the walltime",
            "end": "failed",
        }
    # pw.x takes it away when it has begun: then it is asked again.
    (folder / file).unlink()
    job.ask_to_stop(20.0)
    assert (folder / file).exists()
    job.log.close()
