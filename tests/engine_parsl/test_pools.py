"""Pools of Parsl's that die, that hang, that never start, and that nobody owns any more."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath import processes
from crystalmath.engines import handover
from crystalmath.models import Attempt
from crystalmath.quacc import get_runner
from crystalmath.testing.owner import Owner
from crystalmath.testing.traces import is_leaked, segments

pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")

from crystalmath_engine_parsl import executor, ownership, pools, tether
from crystalmath_engine_parsl.ownership import MARK

pytestmark = pytest.mark.by_turns

AL = bulk("Al", a=4.0, cubic=True)


@pytest.fixture
def reasons():
    """Collect what the engine says about waiting jobs."""
    return []


@pytest.fixture
def runner(home, lab, reasons):
    """Yield a runner with one worker."""
    (home / "config.toml").write_text("[engines.parsl]\nworkers = 1\n")
    runner: Any = get_runner("parsl")
    runner.subscribe(lambda changes: reasons.extend(c.reason for c in changes if c.reason))
    yield runner
    runner.close()
    assert processes.marked(MARK, runner._of["local"]._ownership.token) == []


def run(runner, timeout=300.0):
    """Run a job to its end; give the pids of its worker and of the worker's manager."""
    job = runner.submit("lab_recipes.value", AL, "local")
    eventually(lambda: runner.get_status(job).is_terminal(), timeout, "the job did not end")
    assert runner.get_status(job).value == "completed", runner.get_result(job)
    worker = parent(runner._driver.directory(job).claimant(1).pid)
    return worker, parent(worker)


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def state(pid):
    """Tell what the kernel says that a process does: sleep, for one."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def commands(pids):
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it ends meanwhile
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def of_parsl(found):
    # A supervisor that nobody gives a job leaves after a minute.
    return {pid: each for pid, each in found.items() if "crystalmath.worker" not in each}


def test_a_worker_that_died_with_the_lock_of_its_queue(runner, reasons, monkeypatch):
    # A new pool that has no core is waited for; one that has run something is not.
    monkeypatch.setattr(processes, "starved_s", lambda _: 300.0)
    with monkeypatch.context() as patched:
        patched.setattr(pools, "START_S", 0.1)
        patched.setattr(handover, "PROBE_S", 0.1)
        worker, manager = run(runner)
    assert not any("left work alone" in reason for reason in reasons)
    # One that waits for work holds the lock; the next one waits for it, and all seems well.
    eventually(lambda: not runner._of["local"]._tasks and state(worker) == "S")
    before = set(processes.children(manager))
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: set(processes.children(manager)) - before, message="it was not replaced")
    run(runner)
    assert "Parsl's workers left work alone for 10 s; a new pool is started" in reasons


def test_a_record_that_cannot_be_written_is_written_the_next_time(runner, tmp_path):
    runs = tmp_path / "runs"
    runs.touch()  # in the way
    mine = ownership.Ownership(runs, runner)
    with pytest.raises(OSError, match="runs"):
        mine.record()
    runs.unlink()
    mine.record()
    assert (mine.directory / "owner.json").exists()
    mine.forget()
    assert list(runs.iterdir()) == []


def test_a_pool_starts_though_temporary_files_were_tidied_up(runner):
    """Many machines do that, and a server may live for months."""
    _, manager = run(runner)
    mine = runner._of["local"]._ownership
    started = processes.start_time(manager)
    os.kill(manager, signal.SIGKILL)
    eventually(lambda: not processes.is_alive(manager, started))
    shutil.rmtree(mine.temporary, ignore_errors=True)  # what is left of the pool does so, too
    run(runner)
    assert os.path.isdir(mine.temporary)


def test_an_interchange_that_dies_while_it_starts(runner, reasons):
    token = runner._of["local"]._ownership.token
    killed = []

    def kill():
        while not killed:
            for pid, command in commands(processes.marked(MARK, token)).items():
                if "interchange.py" in command:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    run(runner)
    thread.join()
    told = "Parsl's interchange ended (-9); a new pool is started after 1 s"
    assert reasons[0] == f"trying again: {told}"


def test_an_interchange_that_dies_before_it_has_read_its_configuration(
    runner, reasons, monkeypatch
):
    class Killed(subprocess.Popen):
        def __init__(self, command, *arguments, **options):
            super().__init__(command, *arguments, **options)
            if "interchange.py" in str(command) and not dead:
                dead.append(self)
                self.kill()
                self.wait()

    dead = []
    monkeypatch.setattr(subprocess, "Popen", Killed)
    run(runner)
    told = "Parsl's interchange ended (-9); a new pool is started after 1 s"
    assert reasons[0] == f"trying again: {told}"
    assert dead[0].stdin.closed


def test_pools_that_do_not_start_are_replaced_later_and_later(runner, reasons, monkeypatch):
    broken = []

    def break_two(*arguments):
        made = original(*arguments)
        if len(broken) < 2:
            broken.append(made)
            made.launch_cmd = "echo no such queue >&2; exit 3"
        return made

    original = executor.local_executor
    monkeypatch.setattr(executor, "local_executor", break_two)
    run(runner)
    why = "Parsl's workers ended (3): no such queue; a new pool is started after"
    told = {reason.removeprefix("trying again: ") for reason in reasons}
    # On a busy machine the third may be taken for one that leaves work alone.
    assert {each for each in told if each.startswith(why)} == {f"{why} 1 s", f"{why} 2 s"}


@pytest.fixture
def owner(home, lab, monkeypatch):
    """Start processes that own jobs of the home; what they start carries a mark of theirs."""
    owners = []

    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes,crystalmath.testing.recipes")

    def start():
        mark = f"{os.getpid()}-{len(owners)}"
        owner = Owner("parsl", {**os.environ, "PARSL_TEST": mark}, home / f"{mark}.err")
        owners.append((owner, mark))
        job = owner.ask("submit", "value")[0]  # of the kit
        eventually(lambda: owner.ask("status", job) == "completed", 300, "the job did not end")
        return owner, lambda: commands(processes.marked("PARSL_TEST", mark))

    yield start
    for each, mark in owners:
        each.kill()
        processes.end_processes(functools.partial(processes.marked, "PARSL_TEST", mark))


def test_what_a_dead_pool_left_is_ended_by_the_next_owner(owner, runner, home):
    _, others = owner()
    killed, left = owner()
    interchange = processes.children(killed.process.pid)
    managers = [pid for pid, command in left().items() if "process_worker_pool.py" in command]
    # Stopped first, no guard has the time to end the others.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (killed.process.pid, *interchange, *managers):
            with contextlib.suppress(ProcessLookupError):  # a manager ends with its guard
                os.kill(pid, number)
    killed.kill()
    time.sleep(5)
    # The server of the manager's shared objects looks after nobody.
    assert any("multiprocessing" in command for command in left().values()), left()
    before = of_parsl(others())
    run(runner)
    eventually(lambda: left() == {}, message="something of the dead pool is left")
    assert of_parsl(others()) == before
    records = {file.parent.name for file in (home / "engines/parsl/runs").glob("*/owner.json")}
    assert len(records) == 2  # the killed owner's is gone


def test_semaphores_of_a_killed_pool_are_removed(owner):
    """What removes them ends after the others: its guard sees to that, and no other guard kills it.

    One of the two guards is slow here.
    """
    since = time.time()
    killed, left = owner()
    scripts = [pid for pid, command in left().items() if "tether.py" in command]
    manager, interchange = (
        next(pid for pid in scripts if name in left()[pid] and parent(pid) not in scripts)
        for name in ("process_worker_pool.py", "interchange.py")
    )
    mapped = {segment for pid in left() for segment in segments(pid)}
    semaphores = {each for each in mapped if "/sem.mp-" in each}
    assert semaphores
    os.kill(manager, signal.SIGSTOP)
    killed.kill()
    eventually(lambda: interchange not in left(), message="the interchange's guard does not end")
    assert manager in left()
    os.kill(manager, signal.SIGCONT)
    eventually(lambda: left() == {}, message="something of the pool is left")
    assert {each for each in semaphores if is_leaked(each, since)} == set()


def test_what_is_left_where_all_of_a_pool_is_killed_at_once_goes_with_the_next_start(
    owner, runner, home, tmp_path, monkeypatch
):
    since = time.time()
    monkeypatch.setenv("TMPDIR", str(temporary := Path(tempfile.mkdtemp(dir="/tmp"))))
    killed, left = owner()
    all_of_it = {killed.process.pid, *left()}
    mapped = {segment for pid in all_of_it for segment in segments(pid)}
    semaphores = {each for each in mapped if "/sem.mp-" in each}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in all_of_it:
            with contextlib.suppress(ProcessLookupError):  # the job's supervisor ends by itself
                os.kill(pid, number)
    killed.kill()
    folders = list(temporary.glob("parsl-*"))
    assert folders
    assert {each for each in semaphores if is_leaked(each, since)}
    runner.probe([Attempt(id="a.1", job_id="a", directory=tmp_path / "a", cluster="local")])
    assert {each for each in semaphores if is_leaked(each, since)} == set()
    assert not any(map(Path.exists, folders))
    shutil.rmtree(temporary)


def test_of_a_dead_owner_only_a_folder_of_the_engines_own_is_removed(tmp_path, monkeypatch):
    monkeypatch.delenv(MARK, raising=False)
    ended = subprocess.Popen(["true"])
    ended.wait()
    others = tmp_path / "others"
    others.mkdir()
    own = Path(ownership.temporary_folder())
    for folder in (others, own):
        tether._tidy_up(ended.pid, 0, str(folder))
    assert (others.exists(), own.exists()) == (True, False)
