"""Ends of jobs in real run directories; `tests/simulation` draws lives at random."""

import os
import shutil
import subprocess
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from crystalmath import processes
from crystalmath._permissions import make_own
from crystalmath.errors import BadFile
from crystalmath.jobs import life
from crystalmath.jobs.documents import write
from crystalmath.jobs.facts import Record
from crystalmath.jobs.host import Host
from crystalmath.jobs.identities import IDENTITIES, LITTER_S, IdentityFile
from crystalmath.jobs.journal import JOURNALS, Journal, record
from crystalmath.jobs.reading import view
from crystalmath.jobs.reconcile import Job, Reconciler
from crystalmath.jobs.rundir import RunDirectory, outcome_document
from crystalmath.models import Job as JobRow
from crystalmath.quacc.runner import JobState
from crystalmath.reading.current_jobs import Onlooker
from crystalmath.worker.publishing import Publisher

pytestmark = pytest.mark.processes


def dead_process():
    process = subprocess.Popen(["sleep", "600"])
    alive = processes.own_identity()
    identity = replace(
        alive, pid=process.pid, start_time=processes.start_time(process.pid), lock=""
    )
    process.kill()
    process.wait()
    assert identity.is_dead()
    return identity


DEAD = dead_process()
ELSEWHERE = replace(DEAD, host="elsewhere", boot_id="0" * 36, machine_id="0" * 32)


def read_state(directory):
    record = Record(job_id=Path(directory.path).name, place=directory.path)
    return view(directory, record, Host(Path(directory.path).parent)).state


class Calm(Host):
    """A host where nothing of an attempt is left running."""

    def has_processes(self, attempt):
        return False

    def end_processes(self, attempt):
        return True


def followed(home):
    job_id = str(uuid.uuid4())
    header = {"job_id": job_id, "attempt": 1, "cluster": "local", "walltime_s": None}
    job = Job.of(header, "{}", RunDirectory(home / job_id), Calm(home))
    job.directory.write_spec(header, "{}")
    job.update(written=True)
    return job


@pytest.mark.parametrize("claimed", [False, True])
def test_a_run_directory_that_was_removed_does_not_leave_a_job_for_ever(home, claimed, monkeypatch):
    monkeypatch.setattr(life, "GONE_S", 0.0)
    job, owner = followed(home), Reconciler(Calm(home))
    (home / "ids").mkdir()
    if claimed:
        job.directory.claim(1, IdentityFile(home / "ids", processes.own_identity()))
        assert [change.state for change in owner.look(job).changes] == [JobState.RUNNING]
    shutil.rmtree(job.directory.path)
    looks = [owner.look(job).changes for _ in range(life.GONE_LOOKS)]
    assert not any(looks[:-1])
    (change,) = looks[-1]
    assert change.state is JobState.FAILED
    assert job.directory.path in change.error


def test_a_cancel_that_meets_a_dead_supervisor_reads_cancelled(home):
    job = followed(home)
    job.directory.claim(1, IdentityFile(home / "ids", DEAD))
    job.update(cancelled=True)
    job.directory.request_cancel()
    states = [change.state for change in Reconciler(Calm(home)).look(job).changes]
    assert states[-1] is JobState.CANCELLED
    assert read_state(job.directory) is JobState.CANCELLED


# --- journals ---


def publisher_of(jobs):
    """Make a folder of jobs, and a publisher as its only claimant; give its identity, too."""
    jobs.mkdir()
    identity = IdentityFile(jobs / IDENTITIES, processes.own_identity())
    return identity, Publisher(str(jobs), identity, lambda: True)


def journal_of(jobs, count, writer=DEAD):
    """Write outcomes of claimed jobs into a journal; give it, and their run directories."""
    writer = replace(writer, lock="0123456789abcdef")
    jobs.mkdir(exist_ok=True)
    claim = IdentityFile(jobs / IDENTITIES, writer)
    directories = [RunDirectory(jobs / str(uuid.uuid4())) for _ in range(count)]
    outcomes = []
    for number, each in enumerate(directories):
        each.make()
        header = {"state": "completed", "error": f"no {number}"}
        name = f"{Path(each.path).name}.1"
        outcomes.append((each.path, name, outcome_document(header, b"result")))
    journal = Journal(str(jobs), writer)
    for outcome in outcomes:
        journal.append([outcome])
    claim.remove()
    return journal, directories


def test_of_a_torn_journal_what_is_whole_is_published(tmp_path):
    journal, directories = journal_of(tmp_path / "jobs", 3)
    content = Path(journal.path).read_bytes()
    os.close(journal._descriptor)  # and with it the lock
    starts = [content.index(f"crystalmath {Path(each.path).name}".encode()) for each in directories]
    ends = [*starts[1:], len(content)]
    for cut in range(0, len(content) + 1, 7):
        home = tmp_path / f"cut at {cut}" / "jobs"
        for each in directories:
            (home / Path(each.path).name).mkdir(parents=True)
        make_own(home / JOURNALS)
        damaged = bytearray(content[:cut])
        if cut % 2 and cut > starts[0]:
            damaged[-1] ^= 1  # a page that is there, and not as it was written
        write(f"{home}/{JOURNALS}/torn", bytes(damaged))
        Host(home).publish_left()
        whole = [end < cut or (end == cut and not cut % 2) for end in ends]
        found = [RunDirectory(home / Path(each.path).name).outcome(1) for each in directories]
        assert [outcome is not None for outcome in found] == whole, cut
        for number, outcome in enumerate(found):
            assert outcome is None or outcome["error"] == f"no {number}"
        assert not (home / JOURNALS / "torn").exists() or cut < starts[0]


def test_a_journal_that_is_being_written_is_left_alone(tmp_path):
    journal, directories = journal_of(tmp_path / "jobs", 2, processes.own_identity())
    begun = [tmp_path / "jobs" / JOURNALS / name for name in (".by somebody", ".by the killed")]
    for each in begun:
        each.touch()
    os.utime(begun[1], (0, time.time() - LITTER_S - 1))
    Host(tmp_path / "jobs").publish_left()
    assert [each.exists() for each in begun] == [True, False]
    assert not any(each.decided(1) for each in directories)
    assert directories[0].publish_in(1, journal.path)
    journal.close()
    assert not Path(journal.path).exists()
    assert directories[0].payload(1) == b"result"
    directories[0].check_outcome(1)
    assert not directories[1].decided(1)


def test_who_looks_sees_what_a_journal_has_left_as_its_owner_will(tmp_path):
    journal, (only,) = journal_of(tmp_path / "jobs", 1)
    job = JobRow(job_id=Path(only.path).name, recipe="lab.f", engine="local", created_at=0.0)
    onlooker = Onlooker(tmp_path / "jobs")
    assert onlooker.seen([job]) == [job]  # it is being written
    os.close(journal._descriptor)
    assert onlooker.seen([job])[0].state is JobState.COMPLETED
    assert not only.decided(1)  # who looks publishes nothing
    assert only.claim(1, IdentityFile(tmp_path / "jobs" / IDENTITIES, processes.own_identity()))
    assert onlooker.seen([job])[0].state is JobState.RUNNING  # somebody else runs it
    Host(tmp_path / "jobs").publish_left()
    assert not only.decided(1)


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_a_journal_of_a_host_that_does_not_return_is_published(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("crystalmath._storage.file_system", lambda _: kind)
    journal, directories = journal_of(tmp_path / "jobs", 2, ELSEWHERE)
    host = Host(tmp_path / "jobs")
    host.publish_left()  # it is being written
    assert not any(each.decided(1) for each in directories)
    os.close(journal._descriptor)  # and with it the lock
    host.publish_left()
    if kind == "nfs4":
        # Its host may see that lock held, as this one sees none of the locks there.
        assert not any(each.decided(1) for each in directories)
        os.utime(journal.path, (0, time.time() - LITTER_S - 1))
        host.publish_left()
    assert [each.outcome(1)["error"] for each in directories] == ["no 0", "no 1"]
    assert not Path(journal.path).exists()


def test_a_writer_whose_journal_another_process_has_removed_publishes_all_the_same(tmp_path):
    jobs = tmp_path / "jobs"
    identity, publisher = publisher_of(jobs)
    directories = [RunDirectory(jobs / str(uuid.uuid4())) for _ in range(3)]
    for number, each in enumerate(directories):
        each.make()
        publisher.add(each, 1, outcome_document({"state": "completed", "error": f"no {number}"}))
        publisher.flush()
        if number == 0:
            for left in os.listdir(jobs / JOURNALS):
                (jobs / JOURNALS / left).unlink()
    publisher.close()
    identity.remove()
    assert [each.outcome(1)["error"] for each in directories] == ["no 0", "no 1", "no 2"]


def test_of_two_ends_of_an_attempt_the_first_counts_also_against_a_journal(tmp_path):
    journal, (first, second) = journal_of(tmp_path / "jobs", 2)
    assert first.publish(1, {"state": "lost", "error": "it was given up"})
    assert not first.publish_in(1, journal.path)
    os.close(journal._descriptor)
    Host(tmp_path / "jobs").publish_left()
    assert first.outcome(1)["state"] == "lost"
    assert second.outcome(1)["error"] == "no 1"
    assert not second.publish(1, {"state": "lost", "error": "it was given up"})
    assert not Path(journal.path).exists()


@pytest.mark.parametrize("by", ["who takes over", "who gives up"])
def test_what_a_killed_writer_may_not_have_synced_is_synced_first(tmp_path, monkeypatch, by):
    journal, (only,) = journal_of(tmp_path / "jobs", 1)
    os.close(journal._descriptor)
    number, calls = os.stat(journal.path).st_ino, []
    fsync, link = os.fsync, os.link

    def synced(descriptor):
        calls.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def linked(source, target):
        calls.append(("link", os.stat(source).st_ino))
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    if by == "who takes over":
        Host(tmp_path / "jobs").publish_left()
    else:
        claimant = replace(DEAD, lock="0123456789abcdef")
        monkeypatch.setattr(RunDirectory, "claimant", lambda *_: claimant)
        assert only.publish_left(1)
    assert only.outcome(1)["state"] == "completed"
    assert calls.index(("sync", number)) < calls.index(("link", number))


def test_an_outcome_that_cannot_be_published_keeps_its_journal(tmp_path):
    journal, (first, second, third) = journal_of(tmp_path / "jobs", 3)
    os.close(journal._descriptor)
    Path(first.path).rmdir()  # it was removed: nobody misses its outcome
    Path(second.path).rmdir()
    Path(second.path).touch()  # not a directory
    Host(tmp_path / "jobs").publish_left()
    assert third.decided(1)
    assert Path(journal.path).exists()
    Path(second.path).unlink()
    second.make()
    Host(tmp_path / "jobs").publish_left()
    assert second.outcome(1)["error"] == "no 1"
    assert not Path(journal.path).exists()


def test_a_supervisor_that_cannot_publish_leaves_that_to_others(tmp_path):
    jobs = tmp_path / "jobs"
    identity, publisher = publisher_of(jobs)
    directory = RunDirectory(jobs / str(uuid.uuid4()))
    Path(directory.path).touch()  # not a directory
    publisher.add(directory, 1, outcome_document({"state": "completed"}))
    with pytest.raises(NotADirectoryError):
        publisher.flush()
    publisher.close()
    identity.remove()
    (name,) = os.listdir(jobs / JOURNALS)
    Path(directory.path).unlink()
    directory.make()
    assert directory.publish_in(1, f"{jobs}/{JOURNALS}/{name}")
    assert directory.outcome(1)["state"] == "completed"


def test_a_damaged_record_fails_no_other_job_of_its_journal(tmp_path):
    journal, (first, second) = journal_of(tmp_path / "jobs", 2)
    assert first.publish_in(1, journal.path)
    assert second.publish_in(1, journal.path)
    content = Path(journal.path).read_bytes()
    with open(journal.path, "r+b") as file:
        file.seek(content.index(b"no 0"))
        file.write(b"on 1")
    with pytest.raises(BadFile, match="without the outcome"):
        first.outcome(1)
    assert second.outcome(1)["error"] == "no 1"
    journal.close()


def test_what_looks_like_a_record_in_the_result_of_another_job_misleads_nobody(tmp_path):
    journal, (first, second) = journal_of(tmp_path / "jobs", 2)
    content = Path(journal.path).read_bytes()
    name = f"{Path(second.path).name}.1"
    start = content.index(f"crystalmath {name}".encode())
    # Whole, cut short, and with the checksum of another job's.
    fakes = [content[start:-1] + b"!", content[start : start + 80], content[:start]]
    fakes.append(fakes[-1].replace(Path(first.path).name.encode(), Path(second.path).name.encode()))
    with open(journal.path, "wb") as file:
        file.write(record(f"{Path(first.path).name}.1", outcome_document({}, b"\n".join(fakes))))
        file.write(content[start:])
    assert first.publish_in(1, journal.path)
    assert second.publish_in(1, journal.path)
    assert first.outcome(1)["size"] > 0
    assert second.outcome(1)["error"] == "no 1"
    journal.close()


def test_a_journal_that_cannot_be_read_hides_no_other(tmp_path, caplog):
    journal, (only,) = journal_of(tmp_path / "jobs", 1)
    os.close(journal._descriptor)
    unreadable = tmp_path / "jobs" / JOURNALS / "0"
    unreadable.mkdir()
    host = Host(tmp_path / "jobs")
    for _ in range(3):
        host.publish_left()
    assert only.outcome(1)["error"] == "no 0"
    assert caplog.text.count(f"the journal {unreadable}, which may hold outcomes, cannot be") == 1
