"""A runner that was killed: by the kernel for want of memory, or by somebody."""

import os
import signal
import subprocess
import sys

import pytest

from conftest import eventually
from crystalmath import processes, worker
from crystalmath.jobs.reading import read_result
from crystalmath.worker.child import OomKills

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("chains_end")]


def runner_of(directory):
    claimant = eventually(lambda: directory.claimant(1))
    # Its template is another thread's child.
    (runner,) = eventually(lambda: processes.children(claimant.pid, claimant.pid))
    return runner


def test_a_runner_killed_while_it_had_nothing_to_do_costs_no_job(make):
    first, second = make("lab_recipes.where"), make("lab_recipes.where")
    worker.run(first.path)
    runner = runner_of(first)
    os.kill(runner, signal.SIGKILL)
    eventually(lambda: processes.start_time(runner) is None)
    worker.run(second.path)
    assert second.outcome(1)["state"] == "completed"
    assert second.claimant(1) == first.claimant(1)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut short"])
def test_a_whole_outcome_is_published_though_its_runner_was_killed(make, tmp_path, whole):
    count = tmp_path / "count"
    directory = make("lab_recipes.killed_once_prepared", path=str(count), whole=whole)
    worker.run(directory.path)
    outcome = directory.outcome(1)
    assert outcome["state"] == ("completed" if whole else "lost"), outcome
    assert not whole or read_result(directory) == {"value": 42}
    assert count.read_text() == "x"


def test_the_kernels_own_word_for_exhausted_memory(make, memory_group):
    """The worker sits in a group with a limit; the recipe is what goes, and it is told."""
    directory = make("lab_recipes.hoard", megabytes=4000)
    code = (
        f"import os; open({str(memory_group)!r}, 'w').write(str(os.getpid()))\n"
        f"from crystalmath import worker; worker.run({directory.path!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    outcome = directory.outcome(1)
    assert outcome["state"] == "failed"
    assert (
        f"for want of memory by the kernel (oom_kill in {memory_group.parent}/" in outcome["error"]
    )


MOUNT = "31 23 0:28 {root} {mount} rw,relatime - {kind} {kind} rw{options}\n"


@pytest.mark.parametrize(
    ("group", "root", "kind", "options", "file"),
    [
        ("0::/a/job\n", "/", "cgroup2", "", "a/job/memory.events"),
        ("0::/a/job\n", "/", "cgroup2", "", "a/memory.events"),
        ("0::/docker/1/job\n", "/docker/1", "cgroup2", "", "job/memory.events"),
        ("4:cpu,memory:/job\n0::/\n", "/", "cgroup", ",cpu,memory", "job/memory.oom_control"),
    ],
)
def test_where_the_kernel_counts(tmp_path, group, root, kind, options, file):
    proc, mount = tmp_path / "proc", tmp_path / "mount"
    for pid in ("1", "self"):
        (proc / pid).mkdir(parents=True)
    (proc / "1/cgroup").write_text(group)
    (proc / "self/mountinfo").write_text(
        MOUNT.format(root=root, mount=mount, kind=kind, options=options)
    )
    (proc / "vmstat").write_text("pgfault 7\noom_kill 3\n")
    everywhere = OomKills(1, str(proc))
    counter = mount / file
    counter.parent.mkdir(parents=True)
    counter.write_text("oom 1\noom_kill 1\n")
    kills = OomKills(1, str(proc))
    assert kills.file == str(counter)
    assert not kills.grown()
    counter.write_text("oom 1\noom_kill 2\n")
    assert kills.grown()
    kills.note()
    assert not kills.grown()
    assert not everywhere.grown()
    (proc / "vmstat").write_text("pgfault 7\noom_kill 4\n")
    assert everywhere.grown()
