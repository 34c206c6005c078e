"""Who owns and runs jobs: the files that tell it, their locks, and what they tell of the dead."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from commands import piped
from conftest import eventually
from crystalmath import processes
from crystalmath.jobs import identities
from crystalmath.jobs.identities import IDENTITIES, IdentityFile, is_alive, own_identity
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.processes import Identity

HOLDER = """
import os, sys, time
from crystalmath.jobs.identities import own_identity
identity = own_identity(sys.argv[1]).identity
if sys.argv[2:] and os.fork():
    os._exit(0)
print(os.getpid(), identity.lock, flush=True)
time.sleep(600)
"""


@pytest.fixture
def jobs(tmp_path):
    return tmp_path / "jobs"


@pytest.fixture
def hold(jobs):
    """Start a process that has an identity; give the process, and its identity."""
    started = []

    def start(*arguments):
        process = piped(sys.executable, "-c", HOLDER, jobs, *arguments, stdin=None)
        pid, lock = process.stdout.readline().split()
        process.stdout.close()
        started.append((int(pid), process))
        text = (jobs / IDENTITIES / lock).read_text()
        return process, Identity.read(json.loads(text))

    yield start
    for pid, process in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def files(jobs):
    return sorted((jobs / IDENTITIES).iterdir())


def own_file(jobs):
    return jobs / IDENTITIES / own_identity(jobs).identity.lock


def elsewhere(identity, **changes):
    """Return it as another container of this host would have it."""
    return replace(identity, namespace="pid:[1]", **changes)


def kill(process):
    process.kill()
    process.wait()


def test_a_process_is_alive_until_it_is_killed_for_this_container_and_others(jobs, hold):
    process, identity = hold()
    assert identity.is_here()
    assert is_alive(identity, jobs) is True
    assert is_alive(elsewhere(identity), jobs) is True
    kill(process)
    assert is_alive(identity, jobs) is False
    assert is_alive(elsewhere(identity), jobs) is False


def test_a_lock_that_is_held_tells_more_than_any_name(jobs, hold):
    _, identity = hold()
    for changes in ({"boot_id": "another"}, {"boot_id": "another", "machine_id": "another"}):
        assert is_alive(replace(identity, **changes), jobs) is True


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({"boot_id": "another"}, False),  # booted again
        ({"boot_id": "another", "machine_id": "another"}, None),
        ({"boot_id": "another", "host": "another"}, None),
        ({"machine_id": "another"}, False),  # a container of this kernel that has one of its own
        ({"host": "another"}, False),
    ],
)
def test_what_a_free_lock_tells_depends_on_whose_kernel_it_was(jobs, hold, changes, alive):
    process, identity = hold()
    kill(process)
    assert is_alive(replace(identity, **changes), jobs) is alive


def test_the_host_of_a_process_may_change_its_name(jobs):
    mine = own_identity(jobs).identity
    assert replace(mine, host="its name before").is_here()
    assert is_alive(replace(mine, host="its name before", start_time=1), jobs) is False


def test_a_claim_tells_of_its_maker_when_its_file_is_gone(jobs, tmp_path):
    directory = RunDirectory(tmp_path / "job")
    os.mkdir(directory.path)
    assert directory.is_claimant_alive(1) is None
    claim = textwrap.dedent(
        """
        import sys, time
        from dataclasses import replace
        from crystalmath import processes
        from crystalmath.jobs.identities import IdentityFile
        from crystalmath.jobs.rundir import RunDirectory
        me = replace(processes.own_identity(), namespace="pid:[1]")
        print(RunDirectory(sys.argv[1]).claim(1, IdentityFile(sys.argv[2], me)), flush=True)
        time.sleep(600)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", claim, directory.path, str(jobs)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"True\n"
    process.stdout.close()
    for file in jobs.iterdir():
        file.unlink()
    assert directory.is_claimant_alive(1) is True
    kill(process)
    assert directory.is_claimant_alive(1) is False


def test_claims_stay_locked_when_their_file_is_made_anew(jobs, tmp_path):
    """As when it has as many links as the file system allows."""
    me = elsewhere(processes.own_identity())
    file = IdentityFile(jobs, me)
    directories = [RunDirectory(tmp_path / name) for name in ("one", "two")]
    for directory in directories:
        os.mkdir(directory.path)
        assert directory.claim(1, file)
        (made,) = jobs.iterdir()
        made.unlink()
    assert [each.is_claimant_alive(1) for each in directories] == [True, True]
    file.remove()
    assert [each.is_claimant_alive(1) for each in directories] == [False, False]


def test_a_claim_in_a_folder_that_was_removed_makes_no_file_anew(jobs, tmp_path):
    file = IdentityFile(jobs, processes.own_identity())
    there = RunDirectory(tmp_path / "there")
    os.mkdir(there.path)
    assert there.claim(1, file)
    with pytest.raises(FileNotFoundError):
        RunDirectory(tmp_path / "removed").claim(1, file)
    (made,) = jobs.iterdir()
    assert made.samefile(there.file("1.claim"))


def test_claims_of_attempts_that_are_over_are_forgotten_and_stay_claimed(
    jobs, tmp_path, monkeypatch
):
    monkeypatch.setattr(identities, "REMEMBERED", 3)
    file = IdentityFile(jobs, processes.own_identity())
    directories = [RunDirectory(tmp_path / str(number)) for number in range(20)]
    for number, directory in enumerate(directories):
        os.mkdir(directory.path)
        assert directory.claim(1, file)
        if number % 4 == 1:
            os.unlink(directory.file("1.claim"))
        elif number % 4:
            (tmp_path / str(number) / "1.outcome").touch()
    assert len(file._claims) <= 3 + 5
    for number, directory in enumerate(directories):
        assert directory.claim(1, file) is (number % 4 == 1), number


def test_a_forked_child_does_not_hold_the_lock_of_its_parent(jobs, hold):
    process, identity = hold("fork")
    process.wait()
    assert identity.pid == process.pid
    eventually(lambda: is_alive(elsewhere(identity), jobs) is False)


def test_the_files_of_killed_processes_are_removed_by_the_next(jobs, hold):
    process, _ = hold()
    (left,) = files(jobs)
    kill(process)
    (jobs / IDENTITIES / ".begun").touch()
    os.utime(jobs / IDENTITIES / ".begun", (0, 0))
    (jobs / IDENTITIES / ".beginning").touch()
    (jobs / IDENTITIES / "no_identity").write_text("[]")
    own = own_file(jobs)
    assert not left.exists()
    assert {file.name for file in files(jobs)} == {own.name, ".beginning", "no_identity"}


def test_the_file_goes_with_its_process(jobs):
    code = "import sys; from crystalmath.jobs.identities import own_identity as own;"
    run = [sys.executable, "-c", code + "print(own(sys.argv[1]).identity.lock)", str(jobs)]
    assert subprocess.run(run, check=True, capture_output=True).stdout.strip()
    assert files(jobs) == []


def test_whoever_asks_does_not_look_like_a_holder(jobs):
    """Two that ask at the same time both find that nobody holds it."""
    path = jobs / "file"
    jobs.mkdir()
    path.touch()
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert processes.is_locked(path) is False
    with path.open() as holding:
        fcntl.flock(holding, fcntl.LOCK_EX)
        assert processes.is_locked(path) is True
    assert processes.is_locked(jobs / "none") is False


def test_without_locks_the_process_table_decides_or_nothing(jobs, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(identities.fcntl, "flock", flock)
    identity = IdentityFile(jobs, processes.own_identity()).identity
    assert identity.lock == ""
    assert is_alive(identity, jobs) is True
    assert is_alive(elsewhere(identity), jobs) is None


def test_a_folder_that_cannot_be_made_is_no_error(jobs):
    jobs.write_text("in the way")
    identity = own_identity(jobs).identity
    assert identity == processes.own_identity()
    assert identity.lock == ""


# --- processes that are tied to this one by a socket ----------------------------------------------


def sockets():
    """Name the sockets that this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # it was that of the list
    return {name for name in found if name.startswith("socket:")}


def test_where_none_can_be_started_no_socket_stays_open(monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = sockets()
    # Who keeps the error keeps what its frames hold.
    with pytest.raises(BlockingIOError) as told:
        processes.start_tied("crystalmath.worker.supervisor")
    assert sockets() == before
    assert told.value.errno == errno.EAGAIN
