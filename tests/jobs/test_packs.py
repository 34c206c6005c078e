"""Packs hold run directories as they were, and say which jobs are in them."""

import hashlib
import os
import random
import shutil
import sqlite3
import stat
import threading
import tracemalloc
import uuid
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystalmath.errors import BadFile, CrystalMathError
from crystalmath.jobs import packs
from crystalmath.jobs.rundir import RunDirectory

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in {b".", b".."}
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.integers(0, 2**21).map(lambda size: bytes(range(256)) * (size // 256)),
)
TREES = st.recursive(
    st.one_of(CONTENTS, st.tuples(st.just("link"), NAMES)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


def write(folder, tree):
    """Write a tree of names (as bytes) and contents; a dict is a folder, a tuple is a link."""
    os.mkdir(folder, 0o700)
    for name, node in tree.items():
        path = os.path.join(folder, name)
        if isinstance(node, dict):
            write(path, node)
        elif isinstance(node, tuple):
            os.symlink(node[1], path)
        else:
            with open(path, "wb") as file:
                file.write(node)
            os.chmod(path, 0o640)
            os.utime(path, ns=(1, 10**18 + len(node)))


def seen(folder):
    """Return all that a folder has: contents, modes and times."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            key = os.path.relpath(path, folder)
            if stat.S_ISLNK(status.st_mode):
                found[key] = os.readlink(path)
            elif stat.S_ISDIR(status.st_mode):
                found[key] = status.st_mode
            else:
                with open(path, "rb") as file:
                    found[key] = (status.st_mode, status.st_mtime_ns, file.read())
    return found


def pack(jobs, *job_ids, name="one", kept=()):
    """Put run directories into a pack, and remove them."""
    os.makedirs(jobs / ".packs", mode=0o700, exist_ok=True)
    there = packs.packs_of(str(jobs))
    writer = packs.Writer(there, name)
    for job_id in kept:
        for _ in writer.add(job_id, packs.contents_in(there.path(name), job_id)):
            pass
    for job_id in job_ids:
        place = str(jobs / job_id)
        for _ in writer.add(job_id, contents(place)):
            pass
    writer.finish()
    with packs.changing(str(jobs)):
        writer.publish(kept)
    for job_id in job_ids:
        shutil.rmtree(jobs / job_id)


def contents(place):
    return packs.contents_of(place, packs.entries_of(place), RunDirectory(place).journaled)


def make(jobs, number=0, count=1):
    job_ids = [str(uuid.uuid4()) for _ in range(count)]
    for job_id in job_ids:
        directory = RunDirectory(jobs / job_id)
        directory.write_spec({"job_id": job_id, "attempt": 1, "number": number}, "body" * 50)
        directory.publish(1, {"state": "completed"}, b"result " + job_id.encode())
    return job_ids


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TREES, min_size=1, max_size=3))
def test_what_is_unpacked_is_as_it_was(tmp_path, trees):
    jobs = tmp_path / str(uuid.uuid4())
    jobs.mkdir()
    job_ids = [str(uuid.uuid4()) for _ in trees]
    for job_id, tree in zip(job_ids, trees, strict=True):
        write(os.fsencode(jobs / job_id), tree)
    before = {job_id: seen(os.fsencode(jobs / job_id)) for job_id in job_ids}
    pack(jobs, *job_ids)
    assert packs.packs_of(str(jobs)).ids() == set(job_ids)
    for job_id in job_ids:
        with packs.copied(str(jobs), job_id) as place:
            assert seen(os.fsencode(place)) == before[job_id]
        assert not (jobs / job_id).exists()
    for job_id in job_ids:
        assert packs.unpack(str(jobs), job_id)
        assert seen(os.fsencode(jobs / job_id)) == before[job_id]
        assert packs.packs_of(str(jobs)).find(job_id) is None
    shutil.rmtree(jobs)


def test_a_run_directory_is_read_where_it_is(tmp_path):
    one, other = make(tmp_path, 1, count=2)
    directory = RunDirectory(tmp_path / one)
    pack(tmp_path, one)
    assert directory.read_header()["number"] == 1
    assert directory.read_spec()[1] == "body" * 50
    assert directory.payload(1) == b"result " + one.encode()
    directory.check_outcome(1)
    assert directory.decided(1)
    assert not directory.is_gone()
    assert not directory.cancel_requested()
    assert directory.claimant(1) is None
    assert directory.outcome(2) is None
    assert RunDirectory(tmp_path / other).decided(1)
    with packs.changing(str(tmp_path)):
        packs.packs_of(str(tmp_path)).discard([one])
    assert directory.is_gone()
    assert directory.outcome(1) is None
    with pytest.raises(FileNotFoundError):
        directory.read_header()


def test_a_directory_in_its_place_goes_before_a_pack(tmp_path):
    (job_id,) = make(tmp_path, 1)
    shutil.copytree(tmp_path / job_id, tmp_path / "kept")
    pack(tmp_path, job_id)
    directory = RunDirectory(tmp_path / "kept")
    directory.write_spec({"job_id": job_id, "attempt": 1, "number": 2}, "")
    (tmp_path / "kept").rename(tmp_path / job_id)
    assert RunDirectory(tmp_path / job_id).read_header()["number"] == 2
    assert packs.unpack(str(tmp_path), job_id)
    assert RunDirectory(tmp_path / job_id).read_header()["number"] == 2
    assert packs.packs_of(str(tmp_path)).find(job_id) is None


def test_an_outcome_in_a_journal_is_packed_alone(tmp_path):
    from crystalmath.jobs.identities import own_identity
    from crystalmath.jobs.journal import Journal
    from crystalmath.jobs.rundir import outcome_document

    job_ids = make(tmp_path, count=3)
    journal = Journal(str(tmp_path), own_identity(tmp_path).identity)
    contents = [outcome_document({"state": "completed"}, one.encode()) for one in job_ids]
    places = [str(tmp_path / one) for one in job_ids]
    names = [f"{one}.1" for one in job_ids]
    journal.append(list(zip(places, names, contents, strict=True)))
    for job_id in job_ids:
        os.unlink(tmp_path / job_id / "1.outcome")
        assert RunDirectory(tmp_path / job_id).publish_in(1, journal.path)
    pack(tmp_path, *job_ids)
    for job_id in job_ids:
        with packs.opened(str(tmp_path), job_id, "1.outcome") as file:
            assert file.read() in contents
        assert RunDirectory(tmp_path / job_id).payload(1) == job_id.encode()


def test_a_large_file_is_read_piece_by_piece(tmp_path):
    content = random.Random(3).randbytes(20 * 2**20 + 7)
    (job_id,) = make(tmp_path)
    (tmp_path / job_id / "big").write_bytes(content)
    (tmp_path / job_id / "empty").touch()
    pack(tmp_path, job_id)
    tracemalloc.start()
    with packs.opened(str(tmp_path), job_id, "big") as file:
        digest = hashlib.sha256()
        while chunk := file.read(2**16):
            digest.update(chunk)
        assert digest.digest() == hashlib.sha256(content).digest()
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
        tracemalloc.stop()
        assert file.seek(0, os.SEEK_END) == len(content)
        assert file.read(1) == b""
        for at in (2**20 - 3, 0, len(content) - 2, 5 * 2**20, len(content) + 9):
            assert file.seek(at) == at
            assert file.read(7) == content[at : at + 7]
    with packs.opened(str(tmp_path), job_id, "empty") as file:
        assert file.read() == b""
    assert packs.opened(str(tmp_path), job_id, "other") is None


def test_a_job_is_unpacked_while_others_hold_the_lock_in_turn(tmp_path, monkeypatch):
    """The files of a large job are written without the lock: the next one need not wait."""
    job_ids = make(tmp_path, count=12)
    pack(tmp_path, *job_ids)
    extract, free = packs._extract, []

    def and_look(*arguments, **options):
        extract(*arguments, **options)
        with packs.changing(str(tmp_path)):
            free.append(True)

    monkeypatch.setattr(packs, "_extract", and_look)
    unpacked = [[], []]

    def unpack(mine):
        for job_id in job_ids:
            mine.append(packs.unpack(str(tmp_path), job_id))

    threads = [threading.Thread(target=unpack, args=(mine,)) for mine in unpacked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert unpacked == [[True] * 12] * 2
    assert len(free) >= 12
    assert packs.packs_of(str(tmp_path)).ids() == set()
    for job_id in job_ids:
        assert RunDirectory(tmp_path / job_id).payload(1) == b"result " + job_id.encode()
    assert {path.name for path in (tmp_path / ".packs").iterdir() if path.is_dir()} == set()


def test_another_process_sees_what_has_changed(tmp_path):
    one, two, three, four = make(tmp_path, count=4)
    pack(tmp_path, one, two)
    watching = packs.Packs(str(tmp_path))
    assert watching.find(one)
    pack(tmp_path, three, name="one", kept=[one, two])  # the same pack, written again
    assert watching.find(three)
    pack(tmp_path, four, name="two")
    assert watching.ids() == {one, two, three, four}
    packs.remove_from_packs(str(tmp_path), [one, four])
    assert (watching.find(one), watching.find(four)) == (None, None)
    assert watching.find(two)
    pack(tmp_path, name="one", kept=[two, three])  # without the one that has gone
    assert watching.find(three)
    assert watching.find(one) is None
    assert watching.ids() == {two, three}


def test_what_goes_while_a_pack_is_written_again_stays_gone(tmp_path):
    one, two = make(tmp_path, count=2)
    pack(tmp_path, one, two)
    there = packs.packs_of(str(tmp_path))
    writer = packs.Writer(there, "one")
    for job_id in (one, two):
        for _ in writer.add(job_id, packs.contents_in(there.path("one"), job_id)):
            pass
    writer.finish()
    packs.remove_from_packs(str(tmp_path), [one])
    with packs.changing(str(tmp_path)):
        writer.publish([one, two])
    assert there.ids() == {two}


def test_a_pack_without_its_index_has_all_of_its_jobs(tmp_path):
    job_ids = make(tmp_path, count=3)
    pack(tmp_path, *job_ids)
    (tmp_path / ".packs/one.index").unlink()
    assert packs.Packs(str(tmp_path)).ids() == set(job_ids)
    assert packs.Packs(str(tmp_path)).find(job_ids[1])
    packs.remove_from_packs(str(tmp_path), job_ids[:1])
    assert packs.Packs(str(tmp_path)).ids() == set(job_ids[1:])
    assert packs.Packs(str(tmp_path)).find(job_ids[0]) is None


def test_anybody_can_read_a_pack(tmp_path):
    """This is what the page about records describes."""
    job_ids = make(tmp_path, count=2)
    pack(tmp_path, *job_ids)
    pack_file = sqlite3.connect(tmp_path / ".packs/one.pack")
    rows = pack_file.execute(
        "SELECT job_id, name, size, base, data FROM jobs JOIN files ON files.job = jobs.number "
        "JOIN pieces ON pieces.number = piece WHERE name = 'spec' ORDER BY job, part"
    ).fetchall()
    assert [row[0] for row in rows] == job_ids
    for job_id, _, size, base, data in rows:
        words = b""
        if base is not None:
            query = "SELECT size, data FROM pieces WHERE number = ?"
            plain, words = pack_file.execute(query, (base,)).fetchone()
            words = words if len(words) == plain else zlib.decompress(words)
        content = data if len(data) == size else zlib.decompressobj(zdict=words).decompress(data)
        assert job_id.encode() in content
    pack_file.close()


def test_equal_files_are_stored_once_and_alike_ones_small(tmp_path):
    job_ids = make(tmp_path, count=200)
    pack(tmp_path, *job_ids)
    assert (tmp_path / ".packs/one.pack").stat().st_size / len(job_ids) < 600


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_a_damaged_pack_is_named(tmp_path, cut):
    (job_id,) = make(tmp_path)
    pack(tmp_path, job_id)
    os.truncate(tmp_path / ".packs/one.pack", cut)
    with pytest.raises((BadFile, FileNotFoundError), match=r"one\.pack|1\.outcome"):
        RunDirectory(tmp_path / job_id).payload(1)
    with pytest.raises(CrystalMathError):
        packs.unpack(str(tmp_path), job_id)
    assert not (tmp_path / job_id).exists()


def test_a_newer_format_is_refused(tmp_path):
    (job_id,) = make(tmp_path)
    pack(tmp_path, job_id)
    with sqlite3.connect(tmp_path / ".packs/one.pack") as newer:
        newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(BadFile, match="newer release"):
        RunDirectory(tmp_path / job_id).payload(1)


def test_what_is_no_file_is_not_packed(tmp_path):
    (job_id,) = make(tmp_path)
    os.mkfifo(tmp_path / job_id / "pipe")
    with pytest.raises(CrystalMathError, match="pipe is no file, folder or link"):
        packs.entries_of(str(tmp_path / job_id))


def test_one_process_packs_at_a_time(tmp_path):
    jobs = str(tmp_path)
    refused = pytest.raises(CrystalMathError, match="another process packs")
    with packs.packing(jobs), refused, packs.packing(jobs):
        pass
    with packs.packing(str(tmp_path)):
        pass


def test_a_directory_stays_in_its_place_while_it_is_read(tmp_path):
    one, other = make(tmp_path, count=2)
    pack(tmp_path, one)
    began, ended = threading.Event(), threading.Event()

    def read():
        began.set()
        with packs.in_place(str(tmp_path), one):
            ended.set()

    place = str(tmp_path / one)
    with packs.in_place(str(tmp_path), one):
        assert (tmp_path / one / "spec").exists()
        with pytest.raises(CrystalMathError, match="reads its files"), packs.unread(place):
            pass
    with packs.unread(place):
        thread = threading.Thread(target=read)
        thread.start()
        assert began.wait(10)
        assert not ended.wait(0.1)
        os.rename(place, tmp_path / "elsewhere")
    thread.join(10)
    assert ended.is_set()
    with packs.in_place(str(tmp_path), other):
        pass
    with packs.in_place(str(tmp_path), str(uuid.uuid4())):
        pass  # a job without a directory


def test_a_directory_that_is_packed_before_it_is_locked_is_unpacked(tmp_path, monkeypatch):
    (one,) = make(tmp_path)
    place, is_there = str(tmp_path / one), os.path.isdir

    def packed_after_a_look(path):
        found = is_there(path)
        if path == place and found:
            monkeypatch.undo()
            pack(tmp_path, one)
        return found

    monkeypatch.setattr(os.path, "isdir", packed_after_a_look)
    with packs.in_place(str(tmp_path), one):
        assert (tmp_path / one / "spec").exists()


def test_a_directory_without_a_specification_is_read_in_its_place(tmp_path):
    (one,) = make(tmp_path)
    (tmp_path / one / "spec").unlink()
    with packs.in_place(str(tmp_path), one):
        assert (tmp_path / one).is_dir()


def test_what_killed_processes_have_left_is_removed(tmp_path):
    (job_id,) = make(tmp_path)
    pack(tmp_path, job_id)
    folder = tmp_path / ".packs"
    for name in (".x.part", "lost.index"):
        (folder / name).touch()
    (folder / ".aside.left").mkdir()
    (folder / ".aside.left/.held").touch()
    with packs.copied(str(tmp_path), job_id) as place:
        packs.remove_left(str(tmp_path))
        left = {path.name for path in folder.iterdir()}
        assert left == {"one.pack", "one.index", ".lock", os.path.basename(os.path.dirname(place))}
    assert RunDirectory(tmp_path / job_id).read_header()["job_id"] == job_id
