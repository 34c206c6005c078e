"""Jobs that one call of a batched function computes, of which each ends by itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk

import conftest
from crystalmath import config
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.models import JobState, Submission
from crystalmath.running.pruning import Choice
from crystalmath.service import JobService

pytestmark = pytest.mark.processes

COUNT = 40
JOB_S = 300.0


def eventually(condition):
    return conftest.eventually(condition, JOB_S)


@pytest.fixture
def batch(home, lab, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "batch_recipes,lab_recipes")
    (home / "config.toml").write_text(
        "[engines.local]\nworkers = 1\n[engines.parsl]\nworkers = 1\n"
    )


@pytest.fixture
def service(batch):
    with JobService(config.load()) as service:
        yield service


def structure(tag):
    atoms = bulk("Al", cubic=True)
    atoms.set_tags(tag)
    atoms.positions[0, 0] = tag
    return atoms


def submissions(notes, count=COUNT, engine=None, walltime_s=None, **parameters):
    return [
        Submission(
            recipe="batch_recipes.sum_job",
            atoms=structure(tag),
            parameters={"notes": str(notes), **parameters},
            engine=engine,
            walltime_s=walltime_s,
            labels={"tag": str(tag)},
        )
        for tag in range(count)
    ]


def submit(service, asked):
    return [job.job_id for job in service.submit_many(asked)]


def ended(service, jobs):
    eventually(lambda: all(service.job(each).state.is_terminal() for each in jobs))
    return [service.job(each) for each in jobs]


def calls(notes):
    """Return the tags of each call of the batched function, and of the recipe itself."""
    lines = [line.split() for line in notes.read_text().splitlines()]
    tags = {"many": [], "one": []}
    for word, *rest in lines:
        tags[word].append([int(each) for each in rest])
    return tags["many"], [tag for (tag,) in tags["one"]]


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


def right(service, jobs, bad=()):
    """Check that all jobs have their own results, apart from the bad ones."""
    for tag, job in enumerate(ended(service, jobs)):
        if tag in bad:
            assert job.state is JobState.FAILED
        else:
            assert job.state is JobState.COMPLETED, job.error
            assert service.result(job.job_id)["tag"] == tag
        assert job.attempt == 1


@pytest.mark.parametrize("engine", ["local", "parsl"])
def test_jobs_that_wait_together_are_computed_by_few_calls(service, notes, engine):
    if engine == "parsl":
        pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")
    jobs = submit(service, submissions(notes, engine=engine))
    right(service, jobs)
    many, one = calls(notes)
    assert sorted(sum(many, one)) == list(range(COUNT))
    assert len(many) + len(one) <= 4
    assert service.job(jobs[-1]).summary["batch"] == len(many[-1])


def test_jobs_of_one_call_are_packed_and_unpacked_each_by_itself(service, notes):
    jobs = submit(service, submissions(notes))
    ended(service, jobs)
    summaries = [service.job(job_id).summary for job_id in jobs]
    assert sorted(at_once(service.pack(Choice())).job_ids) == sorted(jobs)
    right(service, jobs)
    unpacked = at_once(service.unpack(Choice(job_ids=jobs[::2]))).job_ids
    assert sorted(unpacked) == sorted(jobs[::2])
    right(service, jobs)
    assert [service.job(job_id).summary for job_id in jobs] == summaries
    for job_id in jobs:
        RunDirectory(service.config.jobs_directory / job_id).check_outcome(1)


def test_one_job_alone_is_computed_by_its_recipe(service, notes):
    right(service, submit(service, submissions(notes, 1)))
    assert calls(notes) == ([], [0])


@pytest.mark.parametrize("how", ["raise", "yield", "short", "none", "return", "kill"])
def test_a_bad_structure_fails_alone_with_its_own_error(service, notes, how):
    bad = [7, 23]
    jobs = submit(service, submissions(notes, bad=bad, how=how))
    right(service, jobs, bad)
    many, one = calls(notes)
    words = "SIGSEGV" if how == "kill" else "ValueError: bad tag"
    for tag in bad:
        assert words in service.job(jobs[tag]).error
        assert service.job(jobs[tag]).error.count("bad tag") == (how != "kill")
    computed = sum(map(len, many)) + len(one)
    if how == "return":
        assert len(one) <= 1
        assert computed == COUNT
    if how in {"none", "yield"}:
        assert {*bad} <= {*one}
        assert len(one) <= 3


def test_a_call_that_needs_too_much_memory_is_halved_and_the_limit_is_kept(service, notes):
    jobs = submit(service, submissions(notes, how="memory", room=10))
    right(service, jobs)
    many, _ = calls(notes)
    sizes = list(map(len, many))
    failed = [size for size in sizes if size > 10]
    assert len(failed) <= 2
    assert max(sizes[len(failed) + 1 :]) <= 10


def owned(memory_group, notes, **more):
    """Own jobs in a process of a control group until all have ended; return their ids."""
    code = (
        f"import sys; open({str(memory_group)!r}, 'w').write('0')\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from worker.test_batch_jobs import JobService, config, submissions, submit\n"
        "with JobService(config.load()) as service:\n"
        f"    jobs = submit(service, submissions({str(notes)!r}, how='hoard', **{more!r}))\n"
        f"    for _ in service.wait(jobs, {JOB_S}): pass\n"
        "    print(*jobs)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=JOB_S, check=True)
    return done.stdout.split()


def test_a_call_that_the_kernel_ends_for_want_of_memory_is_halved(batch, memory_group, notes):
    """40 MB for each structure: 800 MB have room for 10 of them, beside all processes."""
    jobs = owned(memory_group, notes, room=40)
    with JobService(config.load()) as service:
        right(service, jobs)
        replaced = service.job(jobs[0]).summary["process_replaced"]
    many, _ = calls(notes)
    sizes = list(map(len, many))
    killed = sum(size > 10 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert killed >= 1
    (why,) = replaced
    assert "for want of memory by the kernel" in why
    assert replaced[why] == killed


def test_a_structure_that_the_memory_does_not_hold_fails_alone(batch, memory_group, notes):
    jobs = owned(memory_group, notes, room=1, bad=[11])
    with JobService(config.load()) as service:
        right(service, jobs, [11])
        assert "for want of memory by the kernel" in service.job(jobs[11]).error
    many, one = calls(notes)
    assert {11} <= {*one}
    assert len(one) <= 2
    # It alone is to blame, so the others go together again.
    assert len(many) <= 10


def test_the_walltime_of_one_job_is_that_of_a_call_without_a_result(service, notes):
    """A call takes 0.2 s for each structure: 8 s in all, and 2 s for 10 of them."""
    jobs = submit(service, submissions(notes, walltime_s=3.0, each=0.2))
    right(service, jobs)
    many, _ = calls(notes)
    late = [call for call in many if len(call) > 15]
    assert late
    assert max(map(len, many[len(late) :])) <= 15
    replaced = service.job(jobs[0]).summary["process_replaced"]
    assert replaced["its batch had no result within the walltime of one job"] >= len(late)


def test_the_walltime_counts_from_each_result_that_a_generator_yields(service, notes):
    jobs = submit(service, submissions(notes, walltime_s=5.0, how="yield", pause=0.3))
    right(service, jobs)
    many, one = calls(notes)
    assert len(many) + len(one) <= 4


def test_a_structure_that_hangs_fails_alone_at_its_walltime(service, notes):
    jobs = submit(service, submissions(notes, walltime_s=3.0, how="hang", bad=[11]))
    right(service, jobs, [11])
    assert "the walltime of 3 s is over" in service.job(jobs[11]).error
    many, one = calls(notes)
    assert len(one) <= 4
    assert len(many) <= 12


def test_jobs_of_other_walltimes_have_calls_of_their_own(service, notes):
    short, long = (submissions(notes, 10, walltime_s=time_s) for time_s in (60.0, 90.0))
    jobs = submit(service, [each for pair in zip(short, long, strict=True) for each in pair])
    ended(service, jobs)
    many, _ = calls(notes)
    assert all(len({*call}) == len(call) for call in many)


def test_jobs_of_other_parameters_have_calls_of_their_own(service, notes):
    asked = submissions(notes, factor=1.0) + submissions(notes, factor=2.0)
    asked = [each for pair in zip(asked[:COUNT], asked[COUNT:], strict=True) for each in pair]
    jobs = submit(service, asked)
    for number, job in enumerate(ended(service, jobs)):
        tag, factor = number // 2, 1 + number % 2
        atoms = structure(tag)
        energy = service.result(job.job_id)["results"]["energy"]
        assert energy == pytest.approx(factor * atoms.positions[:, 0].sum())
    many, one = calls(notes)
    assert len(many) + len(one) <= 8


def test_a_call_has_no_more_structures_and_atoms_than_its_limits(service, notes):
    jobs = submit(service, submissions(notes, 150))
    right(service, jobs)
    many, _ = calls(notes)
    assert max(map(len, many)) == 64  # and 256 of 400 atoms


def begun(notes, tags):
    """Wait until a call with these tags has begun; return its tags."""

    def call():
        if not notes.exists():
            return None
        return next((each for each in calls(notes)[0] if {*tags} <= {*each}), None)

    return eventually(call)


def test_a_cancelled_job_leaves_the_call_and_the_others_are_computed_again(service, notes, home):
    jobs = submit(service, submissions(notes, pause=3.0))
    call = begun(notes, [COUNT - 1])
    gone = call[1]
    assert service.cancel(jobs[gone])
    for tag, job in enumerate(ended(service, jobs)):
        assert job.state is (JobState.CANCELLED if tag == gone else JobState.COMPLETED)
    many, _ = calls(notes)
    assert [tag for tag in call if tag != gone] in many
    replaced = service.job(jobs[call[0]]).summary["process_replaced"]
    assert replaced == {"another job of its batch was cancelled": 1}


def test_a_generator_publishes_each_result_at_once(service, notes):
    jobs = submit(service, submissions(notes, how="yield", pause=0.3))
    call = begun(notes, [COUNT - 1])
    eventually(lambda: service.job(jobs[call[1]]).state is JobState.COMPLETED)
    assert service.job(jobs[call[-1]]).state is JobState.RUNNING
    gone = call[-1]
    service.cancel(jobs[gone])
    for tag, job in enumerate(ended(service, jobs)):
        assert job.state is (JobState.CANCELLED if tag == gone else JobState.COMPLETED)
    many, one = calls(notes)
    again = [tag for each in many for tag in each] + one
    assert again.count(call[1]) == 1  # it was published


def test_the_output_of_a_call_is_in_the_log_of_each_of_its_jobs(service, notes, home):
    jobs = submit(service, submissions(notes))
    right(service, jobs)
    call = calls(notes)[0][-1]
    logs = [home / "jobs" / jobs[tag] / "1.log" for tag in call]
    assert {log.read_text() for log in logs} == {f"computing {len(call)}\n"}
    assert len({log.stat().st_ino for log in logs}) == 1


def test_only_the_call_that_ran_is_repeated_when_its_supervisor_is_killed(service, notes, home):
    jobs = submit(service, submissions(notes, 150, pause=1.5))
    begun(notes, [30])
    call = calls(notes)[0][-1]
    claimant = RunDirectory(home / "jobs" / jobs[call[0]]).claimant(1)
    os.kill(claimant.pid, signal.SIGKILL)
    for tag, job in enumerate(ended(service, jobs)):
        assert job.state is JobState.COMPLETED, job.error
        assert job.attempt == (2 if tag in call else 1)
    many, one = calls(notes)
    computed = [tag for each in many for tag in each] + one
    assert all(computed.count(tag) == (2 if tag in call else 1) for tag in range(150))
