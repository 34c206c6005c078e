"""How often the other machine is asked, and what a lost connection changes."""

import contextlib
import hashlib
import os
import random
import shlex
import threading
import time

import pytest
from ase.build import bulk
from ase.io import write

from commands import ran
from conftest import AL, eventually
from crystalmath.client import Submission, connect, over_ssh
from crystalmath.errors import Unreachable
from crystalmath.remotes import ssh
from remotes.conftest import Turns

pytestmark = pytest.mark.server

CELL = bulk("Al")
#: How long everything takes there, and back, where the network is slow.
DELAY_S = 0.08
#: How often each test cuts all connections. Once in 50 times they are silent instead, for so long.
CUTS = int(os.environ.get("CUTS", "5"))
SILENT_S = 1.0 if CUTS < 50 else 30.0


def test_the_commands_of_every_day_take_few_round_trips(there, turns, go, tmp_path):
    for arguments in (["list"], ["list", "--json"]):
        assert there(*arguments).code == 0
        assert turns() == 1
    many = tmp_path / "many.extxyz"
    write(many, [bulk("Al", a=4 + number / 1e4) for number in range(1000)])
    waited = there("submit", "lab_recipes.wait_for", AL, "--param", f"path={go}").out.strip()
    turns()
    answer = there("submit", "lab_recipes.value", many, "--after", waited)
    assert len(set(answer.lines)) == 1000, answer.err
    assert turns() <= 3
    assert there("cancel", waited, "--with-successors").code == 0


def test_a_list_takes_few_round_trips_where_each_takes_long(hawk, home, there, sockets, tmp_path):
    turns = Turns(tmp_path / "turns")
    way = ["-o", f"ProxyCommand={shlex.join(turns.words(DELAY_S, hawk.port))}", *hawk.ssh]
    (home / "config.toml").write_text(hawk.table(ssh=way))
    shared = [f"-oControlPath={sockets}/bare", "-oControlMaster=auto", "-oControlPersist=60"]
    hawk.run("list")  # it has a server now
    counted = []
    for ask in (lambda: ran("ssh", *shared, *way, "true", check=True), lambda: there("list")):
        ask()
        # Where the machine is busy, what is sent together may arrive apart.
        counted.append((turns(), min((ask(), turns())[1] for _ in range(3))))
    ran("ssh", *shared, "-Oexit", *way, check=True)
    (fresh_ssh, shared_ssh), (fresh, again) = counted
    assert 0 < fresh <= fresh_ssh + 3
    assert 0 < again <= shared_ssh + 1


def test_a_request_of_many_that_is_refused_is_told(hawk):
    with connect(on="hawk") as client:
        answer = client.call("jobs.submit_many", {"jobs": [{}] * 2, "nonsense": 1})
        assert (answer["code"], answer["jobs"]) == ("invalid_job", [])
        answer = client.call("jobs.submit_many", {"jobs": [{"recipe": "x"}] * 2})
        assert [job["job_id"] for job in answer["jobs"]] == [None, None]


# --- a network that fails ---------------------------------------------------------------------


@contextlib.contextmanager
def cutting(machine, count=CUTS):
    """Cut all connections to a machine at random, so often; at the end it has happened."""
    ending = threading.Event()
    done = []
    chance = random.Random(1)

    def cut():
        while len(done) < count and not ending.wait(chance.uniform(0.05, 1.0)):
            if len(done) % 50 == 2:
                with machine.silent():
                    ending.wait(SILENT_S)
            else:
                machine.cut()
            done.append(time.monotonic())

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield lambda: thread.is_alive() and len(done) < count
    finally:
        ending.set()
        thread.join()
        assert done


@pytest.fixture
def quick(monkeypatch):
    """Connect again soon."""
    monkeypatch.setattr(over_ssh, "PAUSE_S", 0.05)
    monkeypatch.setattr(over_ssh, "LONGEST_S", 0.5)


def test_cut_submissions_make_one_job_each(hawk, quick):
    names = []
    with connect(on="hawk") as client, cutting(hawk) as goes_on:
        while goes_on():
            some = [f"cut {len(names) + number}" for number in range(7)]
            submissions = [
                Submission(recipe="lab_recipes.value", atoms=CELL, name=name, labels={"set": "cut"})
                for name in some
            ]
            jobs = client.submit_many(submissions)
            assert [job.name for job in jobs] == some
            names += some
    with connect(on="hawk") as client:
        listed = [job.name for job in client.list(labels={"set": "cut"})]
    assert sorted(listed) == sorted(names)


def test_cut_waits_miss_nothing(hawk, quick):
    with connect(on="hawk") as client, cutting(hawk) as goes_on:
        while goes_on():
            job = client.submit("lab_recipes.value", CELL, {"number": 3})
            assert job.result(timeout=120) == 3
            list(client.wait([job], timeout=120))


def test_cut_downloads_are_whole(hawk, quick, tmp_path):
    big = random.Random(2).randbytes(30 * 2**20)
    source = tmp_path / "big"
    source.write_bytes(big)
    with connect(on="hawk") as client:
        job = client.submit("lab_recipes.copied", CELL, {"path": str(source)})
        job.result(timeout=60)
        with cutting(hawk) as goes_on:
            number = 0
            while goes_on():
                number += 1
                there = client.download(job.job_id, tmp_path / str(number))
                (one,) = [each for each in there if each.file == "big"]
                assert (tmp_path / str(number) / "big").read_bytes() == big
                assert one.sha256 == hashlib.sha256(big).hexdigest()
                assert one.size == len(big)


def test_a_machine_that_was_never_reached_is_told_at_once(hawk, home):
    (home / "config.toml").write_text(hawk.table().replace(str(hawk.port), "1"))
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        connect(on="hawk")
    assert time.monotonic() - begun < 10


def test_a_connection_that_stays_lost_is_told_in_the_end(hawk, quick, caplog, monkeypatch):
    monkeypatch.setattr(over_ssh, "LOST_S", 1.0)
    with connect(on="hawk") as client:
        hawk.process.send_signal(19)  # no new connection is accepted
        try:
            monkeypatch.setitem(ssh._OPTIONS, "ConnectTimeout", 1)
            hawk.cut()
            with pytest.raises(over_ssh.ConnectionLost, match="hawk"):
                client.totals()
            assert any("trying again" in text for text in caplog.messages)
        finally:
            hawk.process.send_signal(18)


def test_closing_leaves_no_process_on_either_side(hawk):
    with connect(on="hawk") as client:
        job = client.submit("lab_recipes.value", CELL)
        job.result(timeout=60)
        assert hawk.bridges()
    eventually(lambda: not hawk.bridges())
