"""Supervisor and runner killed at once: what the job had started is gone before it starts again.

Once with a control group, where this machine lets us make one, and once without.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import eventually
from crystalmath import processes
from crystalmath.jobs.cgroups import ControlGroup, memberships
from crystalmath.jobs.host import Host
from crystalmath.jobs.reading import Depth
from crystalmath.jobs.reconcile import Job, Reconciler
from crystalmath.models import JobState

pytestmark = pytest.mark.processes


def can_make_groups():
    group = ControlGroup.make()
    if group is not None:
        group.remove()
    return group is not None


def without_groups():
    """Return what must stand before a command so that it cannot make control groups."""
    if not can_make_groups():
        return []
    (mount,) = {each.mount for each in memberships(os.getpid()) if each.unified}
    read_only = f"mount --bind {mount} {mount} && mount -o remount,bind,ro {mount}"
    return ["unshare", "--mount", "sh", "-c", f'{read_only} && exec "$@"', "sh"]


@pytest.fixture(params=["cgroup", "guardian"])
def held(request):
    if request.param == "cgroup" and not can_make_groups():
        pytest.skip("no control group can be made here")
    return request.param


@pytest.fixture
def begin(home, lab, held):
    """Run jobs as an engine's worker does, in a process of its own."""
    workers = []

    def begin(*directories):
        names = [directory.path for directory in directories]
        code = f"from crystalmath import worker\nfor each in {names!r}: worker.run(each)"
        prefix = without_groups() if held == "guardian" else []
        workers.append(subprocess.Popen([*prefix, sys.executable, "-c", code]))
        claimant = eventually(lambda: directories[0].claimant(1))
        assert list(directories[0].containment(1)) == [held]
        return workers[-1], claimant

    yield begin
    for worker in workers:
        worker.kill()
        worker.wait()


def started(pids):
    """Name what the job started, once it has: pid to start time."""
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    found = {int(pid): processes.start_time(int(pid)) for pid in pids.read_text().split()}
    assert None not in found.values()
    return found


def living(found):
    return [pid for pid, start in found.items() if processes.is_alive(pid, start)]


def test_both_killed(home, make, begin, tmp_path):
    """No attempt is given up before the last process is gone, environment or not."""
    directory = make("lab_recipes.sleeping_grandchild", pids=str(tmp_path / "pids"))
    _, claimant = begin(directory)
    found = started(tmp_path / "pids")
    (runner,) = processes.children(claimant.pid, claimant.pid)
    os.kill(claimant.pid, signal.SIGSTOP)
    for pid in (runner, claimant.pid):
        os.kill(pid, signal.SIGKILL)
    host = Host(home / "jobs")
    header, body = directory.read_spec()
    job = Job.of({**header, "owner": host.own_fields()}, body, directory, host)
    directory.write_spec(job.header, body)
    job.update(state=JobState.RUNNING, launched=True, written=True)

    def look():
        changes = Reconciler(host).look(job, Depth.THOROUGH).changes
        return changes and (changes, living(found))

    eventually(claimant.is_dead)
    (change,), left = eventually(look)
    assert left == []
    assert change.state is JobState.PENDING
    assert "died" in change.reason


def test_nothing_stays_of_a_chain(make, begin, tmp_path):
    """Groups, guardians and supervisors go with the worker."""
    directory = make("lab_recipes.value")
    worker, claimant = begin(directory)
    assert worker.wait(60) == 0
    eventually(claimant.is_dead)
    held = directory.containment(1)
    if "cgroup" in held:
        eventually(lambda: not os.path.exists(held["cgroup"]))
    else:
        eventually(lambda: not processes.is_alive(*held["guardian"]))


@pytest.mark.parametrize("held", ["guardian"], indirect=True)
class TestGuardian:
    def test_its_death_ends_no_job(self, make, begin, tmp_path):
        """But the chain: the next job has another one."""
        go = tmp_path / "go"
        first = make("lab_recipes.wait_for", path=str(go))
        second = make("lab_recipes.where")
        worker, claimant = begin(first, second)
        (guardian, start) = first.containment(1)["guardian"]
        os.kill(guardian, signal.SIGKILL)
        eventually(lambda: not processes.is_alive(guardian, start))
        go.touch()
        assert worker.wait(60) == 0
        for directory in (first, second):
            assert directory.outcome(1)["state"] == "completed"
        assert second.claimant(1) != claimant
        assert second.containment(1) != first.containment(1)

    def test_it_ends_by_itself_what_a_killed_supervisor_leaves(self, make, begin, tmp_path):
        directory = make("lab_recipes.sleeping_grandchild", pids=str(tmp_path / "pids"))
        _, claimant = begin(directory)
        found = started(tmp_path / "pids")
        os.kill(claimant.pid, signal.SIGKILL)
        eventually(lambda: not living(found))
        eventually(lambda: not processes.is_alive(*directory.containment(1)["guardian"]))

    def test_a_sigterm_reaches_the_supervisor(self, make, begin):
        directory = make("lab_recipes.long_sleep")
        begin(directory)
        os.kill(directory.containment(1)["guardian"][0], signal.SIGTERM)
        eventually(lambda: directory.decided(1))
        assert directory.outcome(1)["state"] == "lost"

    def test_it_is_small(self, make, begin, tmp_path):
        """What it has of its own: the rest it shares with its supervisor."""
        go = tmp_path / "go"
        directory = make("lab_recipes.talk", path=str(go))
        begin(directory)
        log = Path(directory.log(1))
        eventually(lambda: log.exists() and "line 2" in log.read_text())
        guardian = directory.containment(1)["guardian"][0]
        lines = Path(f"/proc/{guardian}/smaps_rollup").read_text().splitlines()
        go.touch()
        private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        assert private < 8_000, f"{private} kB"


@pytest.mark.parametrize("held", ["cgroup"], indirect=True)
def test_empty_groups_of_the_dead_are_removed(held):
    code = "from crystalmath.jobs.cgroups import ControlGroup\nprint(ControlGroup.make().path)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left = made.stdout.strip()
    assert os.path.exists(left)
    group = ControlGroup.make()
    group.remove()
    assert not os.path.exists(left)
