"""What only Parsl can get wrong: its processes, its interchange, its deaths."""

import os
import signal
import subprocess
import sys
import uuid
from typing import Any

import psutil
import pytest
from ase.build import bulk

from commands import piped, ran
from conftest import eventually
from crystalmath import processes
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.quacc import JobState, get_runner

pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")

from crystalmath_engine_parsl.ownership import MARK
from crystalmath_engine_parsl.tether import tethered

AL = bulk("Al", a=4.0, cubic=True)
#: How long a script may take to end, and all that it has started, in seconds.
END_S = 120.0
#: How long a job may take to begin or to end, also where a new pool is started first, in seconds.
JOB_S = 300.0

SCRIPT = """
import sys, time
from ase.build import bulk
from crystalmath.quacc import get_runner

recipe, end, *seconds = sys.argv[1:]
runner = get_runner("parsl")
parameters = {"seconds": float(seconds[0])} if seconds else {}
job = runner.submit(f"lab_recipes.{recipe}", bulk("Al"), "local", **parameters)
wanted = "completed" if end == "normal" else "running"
while (state := runner.get_status(job).value) != wanted:
    assert state in ("pending", "running"), runner.get_result(job)
    time.sleep(0.02)
print(job, flush=True)
if end == "exception":
    raise RuntimeError("on purpose")
if end == "wait":
    time.sleep(60)
"""


@pytest.fixture
def script(home, lab):
    """Start the script in a session and an environment of its own; nothing of it may stay."""
    mark = uuid.uuid4().hex
    started = []

    def start(*arguments):
        # The environment is not activated: Parsl's own scripts are not on PATH.
        environment = {**os.environ, "PATH": "/usr/bin:/bin", "PARSL_TEST": mark}
        options = {"stdin": None, "stderr": subprocess.PIPE, "start_new_session": True, "cwd": home}
        process = piped(sys.executable, "-c", SCRIPT, *arguments, env=environment, **options)
        started.append(process)
        job = process.stdout.readline().strip()
        assert job, process.stderr.read()
        return process, job, lambda: processes.marked("PARSL_TEST", mark)

    yield start
    for process in started:
        process.kill()
        process.communicate()
    processes.end_processes(lambda: processes.marked("PARSL_TEST", mark))


def outcome(home, job):
    return RunDirectory(home / "jobs" / job).outcome(1)


def test_normal_end_without_an_activated_environment(script, home):
    process, job, alive = script("value", "normal")
    _, errors = process.communicate(timeout=END_S)
    assert (process.returncode, alive()) == (0, [])
    assert errors == ""
    assert outcome(home, job)["state"] == "completed"
    assert list((home / "engines" / "parsl" / "runs").iterdir()) == []


def test_an_exception_cancels_the_job_and_leaves_no_process(script, home):
    process, job, alive = script("long_sleep", "exception")
    _, errors = process.communicate(timeout=END_S)
    assert (process.returncode, alive()) == (1, [])
    assert "RuntimeError: on purpose" in errors
    assert outcome(home, job)["state"] == "cancelled"


def test_ctrl_c_cancels_the_job_and_leaves_no_process(script, home):
    process, job, alive = script("long_sleep", "wait")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=END_S)
    assert alive() == []
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # ours; the interchange did not hear of it
    assert outcome(home, job)["state"] == "cancelled"


def test_a_killed_owner_leaves_only_the_job_that_runs(script, home):
    process, job, alive = script("long_sleep", "wait", "3")
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=END_S)
    eventually(lambda: not alive(), END_S, "processes were left behind")
    assert outcome(home, job)["state"] == "completed"


#: A script of Parsl's, as its interchange and its manager are, which starts workers.
TELLS = """
import multiprocessing, sys
import parsl
def told():
    return [name in sys.modules for name in ("parsl", "sqlalchemy", "boto3")]
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        print(told(), workers.apply(told))
"""


def test_parsls_own_processes_import_only_what_they_need(tmp_path):
    """Each of a pool's would import SQLAlchemy for nothing."""
    script = tmp_path / "script.py"
    script.write_text(TELLS)
    done = ran(*tethered(str(tmp_path), str(script)))
    assert done.stdout == "[True, False, False] [True, False, False]\n", done.stderr


@pytest.fixture
def runner(lab):
    runner: Any = get_runner("parsl")
    yield runner
    runner.close()


def victims(runner, job):
    """Name Parsl's processes, the worker of a job first: each is killed in turn."""
    directory = runner._driver.directory(job)
    # Where no control group can be had, there is a guardian between worker and supervisor.
    guardian = directory.containment(1).get("guardian", [])
    worker = psutil.Process(guardian[0] if guardian else directory.claimant(1).pid).parent()
    interchange = runner._of["local"]._pool._executor.interchange_proc.pid
    return {"worker": worker.pid, "manager": worker.ppid(), "interchange": interchange}


def test_jobs_outlive_parsl_and_new_ones_run(runner, tmp_path):
    """A worker, the manager and the interchange are killed, each under a running job."""
    for victim in ("worker", "manager", "interchange"):
        go = tmp_path / victim
        running = runner.submit("lab_recipes.wait_for", AL, "local", path=str(go))
        eventually(lambda job=running: runner.get_status(job) is JobState.RUNNING, JOB_S)
        os.kill(victims(runner, running)[victim], signal.SIGKILL)
        waiting = runner.submit("lab_recipes.value", AL, "local")
        go.touch()
        for job in (running, waiting):
            eventually(lambda job=job: runner.get_status(job).is_terminal(), JOB_S, victim)
            assert runner.get_status(job) is JobState.COMPLETED, (victim, runner.get_result(job))
            # It was not started again.
            assert not runner._driver.directory(job).claimed(2)
    runner.close()
    assert processes.marked(MARK, runner._of["local"]._ownership.token) == []
