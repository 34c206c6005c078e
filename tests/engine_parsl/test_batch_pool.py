"""Pilot jobs that are refused, that hang, and that are asked for, on a Slurm made of scripts."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath import worker
from crystalmath.engines import handover, schedulers
from crystalmath.errors import ConfigError, InvalidJob
from crystalmath.models import Attempt, JobSpec
from crystalmath.quacc import get_runner
from crystalmath.quacc.runner import generate_job_id
from engine_parsl.scripted_slurm import Slurm

pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")

from crystalmath_engine_parsl import (
    batch_pool,
    batch_pools,
    config,
    idle_blocks,
    sent_blocks,
    task,
)
from crystalmath_engine_parsl.ownership import BLOCKS

pytestmark = pytest.mark.by_turns

AL = bulk("Al", a=4.0, cubic=True)
CLUSTER = """
[clusters.there]
engine = "parsl"
scheduler = "slurm"
address = "127.0.0.1"
workers_per_node = 1
"""
#: What sbatch says.
MUNGE = "sbatch: error: Batch job submission failed: Protocol authentication error"
NO_PARTITION = "sbatch: error: invalid partition specified: nosuch"
#: The name of a pilot job, and a claim that was made in it.
PILOT = "parsl.there.block-0.7"
CLAIM = f'{{"format": 1, "containment": {{"allocation": "1 {PILOT}"}}}}\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    slurm = Slurm(tmp_path / "slurm")
    scripts = [str(tmp_path / "slurm/bin"), os.path.dirname(sys.executable)]
    monkeypatch.setenv("PATH", os.pathsep.join([*scripts, os.environ["PATH"]]))
    return slurm


@pytest.fixture
def start(home, lab, slurm):
    """Yield a runner whose cluster has further keys, and the reasons that it tells."""
    runners = []

    def start(more=""):
        (home / "config.toml").write_text(CLUSTER + more)
        runner: Any = get_runner("parsl")
        reasons = []
        runner.subscribe(lambda changes: reasons.extend(c.reason for c in changes if c.reason))
        runners.append(runner)
        return runner, reasons

    yield start
    for runner in runners:
        runner.close()


def ends(runner, job):
    eventually(lambda: runner.get_status(job).is_terminal(), 300, "the job did not end")
    assert runner.get_status(job).value == "completed", runner.get_result(job)


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def state(pid):
    """Tell what the kernel says that a process does: sleep, for one."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_slurm_says_to_a_pilot_job_that_it_refuses_is_the_reason(slurm, start):
    slurm.refusal.write_text(f"{MUNGE}\n")
    runner, reasons = start()
    job = runner.submit("lab_recipes.value", AL, "there")
    said = f"Slurm takes no pilot job: {MUNGE}; it is requested again after"
    eventually(lambda: any(said in reason for reason in reasons), 300)
    slurm.refusal.unlink()
    ends(runner, job)
    assert slurm.jobs == ["1"]


def test_a_pilot_job_that_slurm_will_never_take_fails_what_waits_for_it(slurm, start, tmp_path):
    slurm.refusal.write_text(f"{MUNGE}\n")
    runner, reasons = start()
    early = runner.submit("lab_recipes.value", AL, "there")
    eventually(lambda: any(MUNGE in reason for reason in reasons), 300)
    slurm.refusal.write_text(f"{NO_PARTITION}\n")
    late = runner.submit("lab_recipes.value", AL, "there")
    eventually(lambda: runner.get_status(late).is_terminal(), 300)
    eventually(lambda: runner.get_status(early).is_terminal(), 300)
    for job in (early, late):
        said = runner.get_result(job)["error"]
        assert said.endswith(f": Slurm takes no pilot job: {NO_PARTITION}"), said


def test_answers_that_nobody_can_read_fail_no_job(slurm, start):
    runner, reasons = start()
    squeue = slurm.replace("squeue", r"printf '\377\376|\n'")
    job = runner.submit("lab_recipes.value", AL, "there")
    eventually(lambda: any("what squeue answers cannot be read" in each for each in reasons), 300)
    sbatch = slurm.replace("sbatch", r"printf '<html>\377\n'")
    slurm.replace("squeue", squeue)
    eventually(lambda: any("Could not read job ID" in each for each in reasons), 300)
    assert runner.get_status(job).value == "pending"
    slurm.replace("sbatch", sbatch)
    ends(runner, job)
    assert slurm.jobs == ["1"]


@pytest.mark.parametrize("first", ["counted", "replaced", "requested"])
def test_the_third_pilot_job_in_a_row_that_ends_before_a_job_began_is_the_last(
    slurm, start, tmp_path, monkeypatch, first
):
    monkeypatch.setattr(handover, "PROBE_S", 0.2)
    if first == "replaced":  # the end of a pilot job is seen where its pool is looked at
        trouble = batch_pool.BatchPool._block_trouble

        def seen_anew(pool):
            pool._queue.forget()
            return trouble(pool)

        monkeypatch.setattr(batch_pool.BatchPool, "_block_trouble", seen_anew)
    if first == "requested":  # it is seen where another pilot job would be requested
        grow = batch_pools.BatchPools._grow

        def grown(pools, pool):
            pool._queue.forget()
            grow(pools, pool)

        monkeypatch.setattr(batch_pools.BatchPools, "_grow", grown)
    mended, said = tmp_path / "mended", "bash: line 9: module: command not found"
    init = f"[ -e {mended} ] || {{ echo {said!r} >&2; exit 1; }}"
    runner, _ = start(f"worker_init = '''{init}'''\n")

    def fails(number):
        job = runner.submit("lab_recipes.value", AL, "there")
        eventually(lambda: runner.get_status(job).is_terminal(), 300)
        why = (
            f"3 pilot jobs ended before a job began in them, the last, {number} (COMPLETED): {said}"
        )
        assert runner.get_result(job)["error"] == f"the engine cannot begin it: {why}"
        assert slurm.jobs[-1] == number

    fails("3")
    fails("4")  # one more try for what is submitted after that
    mended.touch()
    ends(runner, runner.submit("lab_recipes.value", AL, "there"))
    assert slurm.jobs == ["1", "2", "3", "4", "5"]


def test_a_pilot_job_that_slurm_took_without_saying_so_is_no_strangers(slurm, start, monkeypatch):
    monkeypatch.setenv("SBATCH_JOB_NAME", "mine")
    slurm.late.write_text("sbatch: error: Batch job submission failed: Socket timed out on send\n")
    runner, _ = start('max_idletime = "0:00:01"\n')
    ends(runner, runner.submit("lab_recipes.value", AL, "there"))
    assert slurm.jobs == ["1"]
    # It ends as the others do, when it has nothing to do.
    eventually(lambda: slurm.lines("cancelled") == ["1"], 300)


def test_a_pilot_job_that_slurm_shows_only_later_is_not_asked_for_twice(slurm, start):
    slurm.late.write_text("sbatch: error: Batch job submission failed: Socket timed out on send\n")
    slurm.is_busy.touch()
    runner, reasons = start()
    job = runner.submit("lab_recipes.value", AL, "there")
    eventually(lambda: any("Socket timed out" in reason for reason in reasons), 300)
    slurm.is_busy.unlink()
    ends(runner, job)
    assert slurm.jobs == ["1"]


def test_the_trouble_of_one_cluster_does_not_hide_that_another_was_removed(slurm, start, tmp_path):
    slurm.refusal.write_text(f"{NO_PARTITION}\n")
    runner, _ = start()
    there = Attempt(id="a.1", job_id="a", directory=tmp_path / "a", cluster="there")
    removed = Attempt(id="b.1", job_id="b", directory=tmp_path / "b", cluster="elsewhere")
    try:
        answers = runner.launch([there, removed])
        assert {type(each) for each in answers.values()} == {ConfigError}
        assert {key: str(each) for key, each in answers.items()} == {
            "a.1": f"Slurm takes no pilot job: {NO_PARTITION}",
            "b.1": "[clusters.elsewhere] is not in the configuration file any more",
        }
    finally:
        runner.stop()


def test_the_longest_job_that_is_taken_fits_into_a_pilot_job_that_has_begun(home, monkeypatch):
    (home / "config.toml").write_text(f'{CLUSTER}walltime = "00:10:00"\n')
    there = {"job_id": generate_job_id(), "recipe": "lab_recipes.value", "cluster": "there"}
    runner: Any = get_runner("parsl")
    longest = runner.allotted(JobSpec(**there, walltime_s=540.0)).walltime_s
    with pytest.raises(InvalidJob, match="lasts 600 s"):
        runner.allotted(JobSpec(**there, walltime_s=541.0))
    monkeypatch.setenv("CRYSTALMATH_ALLOCATION", "17")
    # It takes some time until a job can begin; and a job that is stopped is still written down.
    monkeypatch.setenv("CRYSTALMATH_ALLOCATION_ENDS", str(time.time() + 565))
    ran = []
    monkeypatch.setattr(worker, "run", lambda directory, *_, **more: ran.append(directory))
    task.run("run", longest)
    assert ran == ["run"]
    monkeypatch.setenv("CRYSTALMATH_ALLOCATION_ENDS", str(time.time() + 550))
    with pytest.raises(task.BlockEndsTooSoonError):
        task.run("run", longest)


def test_a_job_that_would_be_asked_to_stop_at_once_begins_in_another_pilot_job(make, monkeypatch):
    """Else what a pilot job's end has just stopped would be tried again in the rest of it."""
    asked = make("lab_recipes.value", environment={"CRYSTALMATH_WALLTIME_NOTICE_S": "600.0"})
    monkeypatch.setenv("CRYSTALMATH_ALLOCATION", "17")
    ran = []
    monkeypatch.setattr(worker, "run", lambda directory, *_, **more: ran.append(more["shared"]))

    def begins(left, job=asked, block_s=3600.0):
        monkeypatch.setenv("CRYSTALMATH_ALLOCATION_ENDS", str(time.time() + left))
        ran.clear()
        try:
            task.run(job.path, None, block_s=block_s)
        except task.BlockEndsTooSoonError:
            return False
        return ran == [True]

    assert begins(900)
    assert not begins(590)
    # A pilot job that is shorter than that is asked for, too.
    assert begins(590, block_s=900.0)
    assert not begins(440, block_s=900.0)
    unasked = make("lab_recipes.value")
    assert begins(300, unasked)
    assert not begins(10, unasked)


class Interchange:
    """A pool of pilot jobs that have nothing to do, as Parsl's executor is asked about it."""

    def __init__(self, jobs, others=()):
        self.label = "there"
        self.provider = self
        self.script_dir = "/nowhere"
        self.blocks_to_job_id = {f"block {job}": job for job in jobs}
        self.blocks = [*others, *self.blocks_to_job_id]
        self.job_ids_to_block = {job: block for block, job in self.blocks_to_job_id.items()}
        self.interchange_proc, self.bad_state_is_set = None, False
        self.command_client = self
        self.held = []
        self.fails = False
        self.ok = True

    def run(self, command, **_):
        if command == "MANAGERS":
            idle = {"tasks": 0, "idle_duration": 1000.0}
            return [
                {"manager": block, "block_id": block, "active": block not in self.held, **idle}
                for block in self.blocks
            ]
        if self.fails:
            raise TimeoutError
        self.held.append(command[1])
        return None


def sent(parsls):
    return sent_blocks.SentBlocks(parsls, Path(os.devnull))


def test_a_pilot_job_in_which_a_job_runs_is_not_idle_whatever_parsl_knows_of_it(slurm, caplog):
    jobs = [slurm.put(number, f"pilot.{number}") for number in "123"]
    parsls = Interchange(jobs, others=["of a sbatch that has not answered"])
    idle = idle_blocks.IdleBlocks(
        parsls, sent(parsls), 0.01, lambda: {jobs[0], None}, logging.getLogger("test")
    )
    idle.start()
    eventually(lambda: idle.ended == {*jobs[1:]})
    idle.stop()
    assert slurm.lines("cancelled") == ["2", "3"]
    assert set(parsls.held) == {f"block {job}" for job in jobs[1:]}
    assert not [record for record in caplog.records if "not ended" in record.message]


def test_pilot_jobs_end_when_nothing_runs_though_the_interchange_answers_no_more(slurm):
    parsls, going_on = Interchange([]), {None}  # a job has not begun
    parsls.ok = False
    names = [f"parsl.there.block-{number}.7" for number in "12"]
    blocks = sent(parsls)
    for name in names:
        blocks.record(name)
    idle = idle_blocks.IdleBlocks(parsls, blocks, 0.01, lambda: going_on, logging.getLogger("test"))
    jobs = [slurm.put(number, name) for number, name in zip("12", names, strict=True)]
    idle._end_unanswered()
    assert slurm.lines("cancelled") == []
    going_on = {jobs[0]}
    idle.start()
    eventually(lambda: idle.ended == {jobs[1]})
    going_on = set()
    eventually(lambda: idle.ended == {*jobs})
    idle.stop()
    assert slurm.lines("cancelled") == ["2", "1"]


def test_a_pilot_job_is_held_once_more_where_that_failed_or_a_manager_came_since():
    parsls = Interchange(["1"])
    idle = idle_blocks.IdleBlocks(parsls, sent(parsls), 600.0, set, logging.getLogger("test"))
    parsls.fails = True
    with pytest.raises(TimeoutError):
        idle.hold("1")
    parsls.fails = False
    idle.hold("1")
    assert parsls.held == ["block 1"]
    idle.hold("1")
    assert parsls.held == ["block 1"]
    parsls.held.clear()  # another manager
    idle.hold("1")
    assert parsls.held == ["block 1"]


def test_two_threads_never_ask_an_interchange_at_once():
    parsls, inside, leave, asked = Interchange(["1"]), Event(), Event(), []
    idle = idle_blocks.IdleBlocks(parsls, sent(parsls), 600.0, set, logging.getLogger("test"))

    def run(command, **_):
        asked.append(command)
        inside.set()
        assert leave.wait(300)
        return []

    parsls.run = run
    threads = [Thread(target=idle.managers) for _ in range(2)]
    threads[0].start()
    assert inside.wait(300)
    threads[1].start()
    threads[1].join(0.2)
    assert len(asked) == 1
    leave.set()
    for thread in threads:
        thread.join(300)
    assert len(asked) == 2


@pytest.fixture
def process():
    """Yield the pid of a process that may be ended, with its group."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as sleeping:
        yield sleeping.pid
        sleeping.kill()


@pytest.fixture
def one_pilot(start, slurm, process, tmp_path, monkeypatch):
    """Have a pilot job that was given a task, which it may have begun."""
    monkeypatch.setattr(batch_pool.BatchPool, "end", lambda _: None)
    runner, _ = start()
    pools = runner._of["there"]
    directory = tmp_path / "runs/a"
    directory.mkdir(parents=True)
    attempt = Attempt(id="a.1", job_id="a", directory=directory, cluster="there")
    pools._unended = {attempt.id: attempt}
    log = logging.getLogger("test")
    job = slurm.put("1", PILOT, process)
    parsls = Interchange([job])
    blocks = sent(parsls)
    blocks.record(PILOT)
    idle = idle_blocks.IdleBlocks(parsls, blocks, 600.0, pools._going_on, log)
    idle.busy = frozenset([job])
    there = runner._blocks["there"]
    queue = pools._queue
    pool = batch_pool.BatchPool(parsls, tmp_path / "parsl", there, queue, sent=blocks, idle=idle)
    return pools, pool, directory


def test_an_id_that_slurm_has_given_to_another_job_names_no_pilot_job(one_pilot, slurm, process):
    """Slurm's controller has lost its state, and counts from 1 again."""
    pools, pool, directory = one_pilot
    assert list(pool.states()) == [f"1 {PILOT}"]
    slurm.put("1", "the_users_other_work", process)
    pools._queue.cancel([f"1 {PILOT}"])
    assert pool.states() == {}
    (attempt,) = pools._unended.values()
    (directory / "1.claim").write_text(CLAIM)
    seen = pools._see(attempt)
    assert (seen.state, seen.unseen) == ("gone", True)
    pools._end(pool)
    assert slurm.lines("cancelled") == []


def test_a_pilot_job_that_slurm_took_without_saying_so_keeps_its_pool(one_pilot, slurm):
    pools, pool, _ = one_pilot
    late = "parsl.there.block-1.8"
    pool._sent.record(late)
    slurm.put("1", PILOT, pid=1 << 30)  # it is over
    slurm.put("2", late)
    assert list(pool.states()) == [f"2 {late}"]
    assert pool._block_trouble() is None
    pools._end(pool)
    assert slurm.lines("cancelled") == ["2"]


def test_pilot_jobs_of_ended_pools_that_wait_are_cancelled_by_their_names(
    one_pilot, slurm, process
):
    """Nobody was told the id of one that Slurm took after `sbatch` had given up."""
    pools, _, _ = one_pilot
    ownership = pools._ownership
    ownership.record()
    (ownership.directory / BLOCKS).write_text("parsl.there.block-1.8\nparsl.there.block-2.9\n")
    slurm.put("1", "the_users_other_work")
    slurm.put("2", "parsl.there.block-1.8")
    slurm.put("3", "parsl.there.block-2.9", process)  # it runs
    slurm.put("4", "parsl.there.block-1.8x")
    squeue = slurm.replace("squeue", "echo '<html>try again later</html>'")
    assert not ownership.cancel_waiting()
    slurm.replace("squeue", squeue)
    ownership.forget()
    assert slurm.lines("cancelled") == ["2"]
    assert not ownership.directory.exists()


def test_pilot_jobs_are_spared_while_nobody_can_read_what_runs_in_them(
    one_pilot, slurm, monkeypatch
):
    monkeypatch.setattr(batch_pools, "STUCK_S", 0.0)
    pools, pool, directory = one_pilot
    away = directory.rename(directory.with_name("away"))
    directory.symlink_to(directory)  # ELOOP
    pools._end_stuck(pool)
    pools._end(pool)
    assert slurm.lines("cancelled") == []
    directory.unlink()
    away.rename(directory)
    pools._end_stuck(pool)
    assert slurm.lines("cancelled") == ["1"]


def test_a_pilot_job_in_which_a_job_begins_while_the_pool_is_ended_is_spared(
    one_pilot, slurm, monkeypatch
):
    pools, pool, directory = one_pilot
    pool._idle.busy = frozenset()
    monkeypatch.setattr(
        pools._ownership, "end_processes", lambda: (directory / "1.claim").write_text(CLAIM)
    )
    pools._end(pool)
    assert slurm.lines("cancelled") == []
    (directory / "1.outcome").touch()
    pools._end(pool)
    assert slurm.lines("cancelled") == ["1"]


def test_a_pilot_job_that_may_just_begin_its_task_is_spared(one_pilot, slurm):
    pools, pool, directory = one_pilot
    pools._end(pool)
    assert slurm.lines("cancelled") == []
    (directory / "1.outcome").touch()
    pools._end(pool)
    assert slurm.lines("cancelled") == ["1"]


def test_a_slurm_that_does_not_answer_fails_no_job(slurm, start, monkeypatch):
    sbatch = slurm.replace("sbatch", "echo asked >> $(dirname $0)/../refused; exec sleep 600")
    runner, reasons = start()
    with monkeypatch.context() as soon:
        soon.setattr(schedulers, "ANSWER_S", 2.0)
        job = runner.submit("lab_recipes.value", AL, "there")
        eventually(lambda: any("sbatch did not answer in 2 s" in each for each in reasons), 300)
    slurm.replace("sbatch", sbatch)
    ends(runner, job)
    # All clusters wait while it is asked.
    assert len(slurm.lines("refused")) < 3


def test_a_pilot_job_that_runs_none_of_its_tasks_is_replaced(slurm, start, monkeypatch):
    monkeypatch.setattr(idle_blocks, "LOOK_S", 0.2)
    monkeypatch.setattr(handover, "PROBE_S", 0.5)
    runner, _ = start()
    first = runner.submit("lab_recipes.value", AL, "there")
    ends(runner, first)
    worker = runner._driver.directory(first).claimant(1).pid
    while b"crystalmath.worker" in Path(f"/proc/{worker}/cmdline").read_bytes():
        worker = parent(worker)  # there may be a guardian
    # One that waits for work holds the lock of its queue.
    eventually(lambda: not runner._of["there"]._tasks and state(worker) == "S")
    os.kill(worker, signal.SIGKILL)
    second = runner.submit("lab_recipes.value", AL, "there")
    with monkeypatch.context() as soon:
        # A healthy worker may take as long as Parsl's watchdog, 5 s, and what it needs to start.
        soon.setattr(batch_pools, "STUCK_S", 15.0)
        eventually(lambda: slurm.lines("cancelled"), 300, "it was left alone")
    ends(runner, second)
    assert set(slurm.lines("cancelled")) == {"1"}
    assert slurm.jobs == ["1", "2"]


def test_an_interchange_that_answered_late_is_replaced(slurm, start):
    runner, _ = start()
    ends(runner, runner.submit("lab_recipes.value", AL, "there"))
    runner._of["there"]._pool._executor.command_client.ok = False
    ends(runner, runner.submit("lab_recipes.value", AL, "there"))
    assert slurm.jobs == ["1", "2"]


def test_pilot_jobs_that_begin_too_late_for_a_job_are_not_asked_for_without_end(
    slurm, start, monkeypatch
):
    monkeypatch.setattr(handover, "PROBE_S", 0.2)
    # What a cluster's commands take is part of a pilot job's time: they see when it is over.
    late = 'worker_init = "CRYSTALMATH_ALLOCATION_ENDS=$((CRYSTALMATH_ALLOCATION_ENDS - 3600))"\n'
    runner, reasons = start(f"max_blocks = 5\n{late}")
    there = {"job_id": generate_job_id(), "recipe": "lab_recipes.value", "cluster": "there"}
    runner.start(JobSpec(**there, atoms=AL, walltime_s=60.0))
    said = "2 pilot jobs, the last 2, had not enough time for a job; one is requested again after"
    eventually(lambda: any(said in reason for reason in reasons), 300)


def test_another_pilot_job_is_asked_for_when_all_workers_of_the_first_have_a_job(
    start, slurm, tmp_path, monkeypatch
):
    monkeypatch.setattr(handover, "PROBE_S", 0.1)
    monkeypatch.setattr(config, "BEGIN_S", 600.0)
    runner, reasons = start('max_blocks = 2\nwalltime = "01:00:00"\n')

    def submit():
        path = str(tmp_path / "go")
        return runner.submit("lab_recipes.wait_for", AL, "there", path=path)

    first = submit()
    eventually(lambda: runner.get_status(first).value == "running", 300)
    assert slurm.jobs == ["1"]
    slurm.refusal.write_text("sbatch: error: QOSMaxSubmitJobPerUserLimit\n")
    second = submit()
    said = "takes no pilot job: sbatch: error: QOSMaxSubmitJobPerUserLimit; it is requested again"
    eventually(lambda: any(said in reason for reason in reasons), 300)
    slurm.refusal.unlink()
    eventually(lambda: runner.get_status(second).value == "running", 300)
    assert slurm.jobs == ["1", "2"]
    (tmp_path / "go").touch()
    ends(runner, first)
    ends(runner, second)


def test_a_job_on_this_machine_is_cancelled_without_asking_where_other_clusters_are(
    start, tmp_path, monkeypatch
):
    runner, _ = start()
    monkeypatch.setattr(runner, "probe", lambda attempts: {})
    job = runner.submit("lab_recipes.wait_for", AL, path=str(tmp_path / "go"))
    eventually(lambda: runner.get_status(job).value == "running", 300)
    assert runner.cancel(job)
    eventually(lambda: runner.get_status(job).value == "cancelled", 60)
