"""Hosts that see nothing of each other but files: hearts, leases, and who was cut off."""

import json
import os
import threading
import time
from dataclasses import replace

import attrs
import pytest

from conftest import eventually
from crystalmath import config, processes
from crystalmath.jobs.facts import Claim, Engine, Files, Moment, Record, Silence
from crystalmath.jobs.heartbeat import Heart, Heartbeat, Hearts
from crystalmath.jobs.host import Host
from crystalmath.jobs.identities import IDENTITIES, IdentityFile, own_identity
from crystalmath.jobs.life import step
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Capabilities, JobState, Sighting

HERE = processes.own_identity()
THERE = replace(HERE, host="node1", boot_id="another", machine_id="another")
RUNNING = Record(job_id="a", place="/a", state=JobState.RUNNING, launched=True, written=True)
VOUCHES = Capabilities(gone_means_dead=True, workers_here=False)


@pytest.fixture
def directory(tmp_path):
    made = RunDirectory(tmp_path / "jobs" / "one")
    os.makedirs(made.path)
    return made


def identity(directory, who=HERE, **more):
    return IdentityFile(f"{os.path.dirname(directory.path)}/{IDENTITIES}", who, **more)


# --- what beats -------------------------------------------------------------------------------


def test_a_beat_is_seen_in_the_claim_and_changes_nothing_else(directory):
    file = identity(directory, lease_s=30.0)
    directory.claim(1, file)
    before, size = directory.heart(1), os.path.getsize(directory.file("1.claim"))
    file.beat()
    assert directory.heart(1) != before
    assert directory.heart(1).lease_s == 30.0
    assert directory.claimant(1) == HERE
    assert os.path.getsize(directory.file("1.claim")) == size
    file.remove()


def test_all_claims_and_a_file_that_was_tidied_away_beat(directory):
    file = identity(directory)
    directory.claim(1, file)
    os.unlink(f"{os.path.dirname(directory.path)}/{IDENTITIES}/{file.identity.lock}")
    directory.claim(2, file)
    before = directory.heart(1), directory.heart(2)
    file.beat()
    assert directory.heart(1) != before[0]
    assert directory.heart(2) != before[1]
    file.remove()
    file.beat()  # who has left in order does not come again
    assert os.listdir(f"{os.path.dirname(directory.path)}/{IDENTITIES}") == []


def test_who_cannot_beat_for_half_of_its_lease_ends_what_it_runs_and_stays_overdue():
    away, ended = threading.Event(), threading.Event()

    def beat():
        if away.is_set():
            raise OSError("the file system is away")

    heart = Heartbeat(beat, 6.0, ended.set)
    heart.begin()
    end = time.monotonic() + 3.5
    eventually(lambda: time.monotonic() > end)
    assert not heart.is_overdue()
    away.set()
    eventually(heart.is_overdue)
    assert ended.wait(30)
    away.clear()
    assert heart.is_overdue()  # somebody may have been told that it is dead
    heart.begin()
    assert not heart.is_overdue()
    heart.stop()


def test_who_only_owns_jobs_beats_again_once_it_can():
    away, beaten = threading.Event(), threading.Event()

    def beat():
        if away.is_set():
            raise OSError("the file system is away")
        beaten.set()

    heart = Heartbeat(beat, 0.5)
    away.set()
    heart.begin()
    eventually(heart.is_overdue)
    away.clear()
    assert beaten.wait(60), "other hosts take its jobs, though it lives"
    heart.stop()


def test_a_heart_whose_thread_cannot_be_started_beats_once_it_can(monkeypatch):
    beaten = threading.Event()
    heart = Heartbeat(beaten.set, 0.5)

    def fails(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError):
            heart.begin()
    heart.begin()
    assert beaten.wait(60), "other hosts take its jobs, though it lives"
    heart.stop()


@pytest.mark.parametrize("sleeps", [True, False])
def test_a_night_asleep_counts_where_other_hosts_see_the_files(monkeypatch, sleeps):
    """On a file system that no other host sees, a job goes on in the morning."""
    times = {time.CLOCK_MONOTONIC: 0.0, time.CLOCK_BOOTTIME: 0.0}
    monkeypatch.setattr("crystalmath.jobs.heartbeat.time.clock_gettime", times.__getitem__)
    heart = Heartbeat(lambda: None, 1200.0, sleeps=sleeps)
    heart.begin()
    times[time.CLOCK_BOOTTIME] += 8 * 3600.0
    assert heart.is_overdue() is not sleeps
    heart.stop()


def test_a_beat_that_hangs_holds_nobody_up():
    hangs, ended = threading.Event(), threading.Event()
    heart = Heartbeat(hangs.wait, 0.5, ended.set)
    heart.begin()
    assert ended.wait(30)
    hangs.set()
    heart.stop()


# --- who listens ------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return attrs.make_class("Clock", {"now": attrs.field(default=0.0)})()


@pytest.fixture
def hearts(clock):
    return Hearts(lambda: clock.now)


def test_silence_is_timed_by_the_clock_of_who_listens(hearts, clock):
    heard = []
    for clock.now in range(0, 50, 10):
        heard.append(hearts.listen("a", Heart("1", 60.0)).for_s)
    assert heard == [0, 10, 20, 30, 40]
    assert hearts.listen("a", Heart("2", 60.0)).for_s == 0


def test_who_did_not_listen_counts_anew(hearts, clock):
    hearts.listen("a", Heart("1", 60.0))
    clock.now = 31.0
    assert hearts.listen("a", Heart("1", 60.0)).for_s == 0


def test_hosts_are_counted_by_their_hearts(hearts, clock):
    def listen():
        hearts.listen("b", Heart(str(clock.now), 60.0), "one")
        hearts.listen("c", Heart("1", 60.0), "two")
        hearts.listen("d", Heart("1", 60.0), "three")
        return hearts.listen("a", Heart("1", 60.0), "one")

    for clock.now in range(0, 40, 5):
        silence = listen()
    assert (silence.hosts, silence.silent_hosts) == (3, 2)
    hearts.forget("d")
    silence = hearts.listen("a", Heart("1", 60.0), "one")
    assert (silence.hosts, silence.silent_hosts) == (2, 1)


# --- what follows -----------------------------------------------------------------------------


ENGINE = Engine()


def decided(silence=None, engine=ENGINE, alive=None):
    files = Files(attempt=1, claim=Claim("pid 1 on node1", alive, silence), cancel=False)
    decision = step(RUNNING, files, now=Moment(0.0, 0.0), engine=engine)
    return [action.state for action in decision.actions], decision.waits


@pytest.mark.parametrize("alive", [None, True])  # a lock may stay for ever
def test_an_attempt_is_lost_when_its_lease_has_ended_whatever_a_lock_says(alive):
    assert decided(Silence(for_s=9.0, lease_s=20.0), alive=alive) == ([], None)
    lost, waits = decided(Silence(for_s=12.0, lease_s=20.0), alive=alive)
    assert lost == []
    assert "nothing was heard of its supervisor (pid 1 on node1)" in waits
    assert decided(Silence(for_s=20.0, lease_s=20.0), alive=alive) == (["lost"], None)


def test_hosts_that_fall_silent_at_once_are_an_outage_that_is_waited_for_and_told():
    lost, waits = decided(Silence(for_s=30.0, lease_s=20.0, hosts=3, silent_hosts=3))
    assert lost == []
    assert "as if their file system were out" in waits
    assert decided(Silence(for_s=30.0, lease_s=20.0, hosts=4, silent_hosts=2))[0] == ["lost"]
    assert decided(Silence(for_s=60.0, lease_s=20.0, hosts=3, silent_hosts=3))[0] == ["lost"]


def test_the_schedulers_word_goes_before_the_lease_where_it_saw_the_end():
    fresh = Silence(for_s=0.0, lease_s=20.0)
    over, unseen = Sighting("gone", "CANCELLED"), Sighting("gone", "NODE_FAIL", unseen=True)
    assert decided(fresh, Engine(over, VOUCHES))[0] == ["lost"]
    assert decided(fresh, Engine(unseen, VOUCHES))[0] == []
    assert decided(fresh, Engine(over, Capabilities(workers_here=False)))[0] == []


# --- whose jobs they are -----------------------------------------------------------------------


def test_an_owner_on_another_host_is_one_until_its_lease_has_ended(directory, tmp_path):
    host = Host(tmp_path / "jobs")
    owner = identity(directory, THERE, lease_s=0.5)
    fields = owner.identity.as_dict()
    assert not host.is_orphan(fields)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        owner.beat()
        assert not host.is_orphan(fields)
    owner.remove()  # the lock goes, and the file; nothing is heard from now on
    left = json.dumps({"format": 1, "heart": "1", "lease_s": 0.5, **fields})
    (tmp_path / "jobs" / IDENTITIES / fields["lock"]).write_text(left + "\n")
    eventually(lambda: host.is_orphan(fields))


def test_what_an_older_release_left_has_no_heart_and_is_never_taken_for_dead(directory, tmp_path):
    fields = replace(THERE, lock="old").as_dict()
    (tmp_path / "jobs" / IDENTITIES).mkdir()
    (tmp_path / "jobs" / IDENTITIES / "old").write_text(json.dumps({"format": 1, **fields}) + "\n")
    host = Host(tmp_path / "jobs")
    assert host.silence(THERE) is None
    assert not host.is_orphan(fields)


# --- claims on a network ------------------------------------------------------------------------


@pytest.fixture
def lossy(monkeypatch):
    """Have a network lose the answer to the next link, which is then asked for again."""
    link = os.link

    def link_twice(source, name):
        link(source, name)
        monkeypatch.setattr(os, "link", link)
        link(source, name)

    def lose():
        monkeypatch.setattr(os, "link", link_twice)

    return lose


def test_a_claim_whose_answer_was_lost_is_ours_and_made_once(directory, lossy):
    file = identity(directory)
    lossy()
    assert directory.claim(1, file) is True
    assert directory.claim(1, file) is False
    assert directory.claim(1, identity(directory)) is False
    file.remove()


def test_an_outcome_whose_answer_was_lost_is_ours(directory, lossy):
    lossy()
    assert directory.publish(1, {"state": "completed"}) is True
    assert directory.publish(1, {"state": "failed"}) is False
    assert os.listdir(directory.path) == ["1.outcome"]


# --- litter, and settings -----------------------------------------------------------------------


def test_what_hosts_that_never_come_back_left_is_removed_after_a_day(tmp_path):
    jobs = tmp_path / "jobs"
    (jobs / IDENTITIES).mkdir(parents=True)
    for name, age_s in (("old", 90000), ("new", 3600)):
        path = jobs / IDENTITIES / name
        header = {"format": 1, "heart": "1", "lease_s": 20.0, **THERE.as_dict(), "lock": name}
        path.write_text(json.dumps(header) + "\n")
        os.utime(path, (time.time() - age_s,) * 2)
    own = own_identity(jobs).identity.lock
    assert sorted(os.listdir(jobs / IDENTITIES)) == sorted(["new", own])


def test_the_lease_is_a_setting(home):
    (home / "config.toml").write_text("[jobs]\nlease_s = 30\n")
    assert config.load({"CRYSTALMATH_HOME": str(home)}).lease_s == 30.0
