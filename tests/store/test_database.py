"""The job store's SQLite file: durable, private, and refused in plain words where it must be."""

import contextlib
import os
import re
import sqlite3
import stat
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from conftest import eventually
from crystalmath.errors import StoreError
from crystalmath.quacc.store import JobStore, NewJob
from crystalmath.store import plain_sql
from crystalmath.store.plain_sql import HEAD

JOB = NewJob(
    job_id="1", recipe="r", engine="local", spec_hash="h", specification="{}", created_at=1.0
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "home" / "jobs.sqlite"


def pragma(store, name):
    with store._database.reading() as snapshot:
        return next(iter(snapshot.row(f"PRAGMA {name}")))


def test_commits_are_durable_and_files_private(file):
    with JobStore(f"sqlite:///{file}") as store:
        store.insert([JOB])
        names = ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
        assert [pragma(store, name) for name in names] == [2, "wal", 1, 30000]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
        assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_who_waits_for_another_writer_says_so(file, caplog):
    with (
        JobStore(f"sqlite:///{file}") as store,
        contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        inserting = pool.submit(store.insert, [JOB])
        eventually(lambda: "another program writes to the job database" in caplog.text)
        other.execute("COMMIT")
        assert [job.job_id for job in inserting.result()] == ["1"]
        assert pragma(store, "busy_timeout") == 30000


def test_what_is_in_use_when_it_is_closed_is_closed_when_let_go(file):
    def opened():
        return [fd for fd in os.listdir("/proc/self/fd") if is_of_file(f"/proc/self/fd/{fd}")]

    def is_of_file(link):
        with contextlib.suppress(FileNotFoundError):
            return os.readlink(link).startswith(str(file))
        return False

    store = JobStore(f"sqlite:///{file}")
    with store._database.reading(), store._database.writing():
        store.close()
        assert opened()
    assert opened() == []


@pytest.mark.parametrize("version", ["0017", "0999", "ae1027a6acf"])
def test_an_unknown_schema_is_refused_with_both_remedies(file, version):
    JobStore(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])
    connection.close()
    with pytest.raises(StoreError, match=f"{version}.*{HEAD}.*upgrade crystalmath") as refused:
        JobStore(f"sqlite:///{file}")
    # Nobody can tell whether a newer release made it or an older build, before any release.
    assert "If an older unreleased build has, stop the server" in str(refused.value)
    assert "jobs without a run directory are lost" in str(refused.value)


def test_tables_of_an_unreleased_build_are_named_with_the_remedy(file, cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(file.parent))
    with JobStore(f"sqlite:///{file}") as store:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("ALTER TABLE jobs RENAME COLUMN stage TO step")
        with pytest.raises(StoreError, match=r"no such column.*`crystalmath doctor --rebuild`"):
            store.insert([JOB])
    listed = cli("list")
    assert listed.code == 1
    assert f"{file} cannot be used: no such column" in listed.err
    assert "`crystalmath doctor --rebuild` records its jobs again" in listed.err


def test_nothing_is_written_once_a_newer_release_has_migrated_an_open_database(file):
    with JobStore(f"sqlite:///{file}") as store:
        store.insert([JOB])
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.close()
        with pytest.raises(StoreError, match=f"0999.*{HEAD}.*upgrade crystalmath"):
            store.insert([attrs.evolve(JOB, job_id="2")])
        assert [job.job_id for job in store.get_many(["1", "2"])] == ["1"]


def test_who_only_looks_brings_no_older_schema_forward(file):
    url = f"sqlite:///{file}"
    with JobStore(url) as store:
        store.insert([JOB])
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.close()
    with pytest.raises(StoreError, match=f"0000.*{HEAD}.*`crystalmath serve`.*brings it forward"):
        JobStore(url, create=False)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("0000",)]
    connection.close()


def test_a_missing_database_is_made_only_on_request(file):
    url = f"sqlite:///{file}"
    assert not JobStore.exists(url)
    with pytest.raises(StoreError, match="no job database"):
        JobStore(url, create=False)
    assert not file.parent.exists()
    JobStore(url).close()
    assert JobStore.exists(url)


def test_a_file_that_is_no_database_is_refused_and_kept(file):
    file.parent.mkdir()
    file.write_text("important notes " * 100)
    with pytest.raises(StoreError, match=r"jobs\.sqlite.*not a database"):
        JobStore(f"sqlite:///{file}")
    assert file.read_text().startswith("important notes")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="CRYSTALMATH_HOME"):
        JobStore(f"sqlite:///{tmp_path}/file/jobs.sqlite")


@pytest.fixture
def private():
    """Yield a folder of somebody to whom the mode of a file means something, and be him."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, 12345, -1)
        os.seteuid(12345)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_a_database_that_is_writable_again_is_written_at_once(private):
    """SQLite opens what it may not write for reading, and stays so."""
    file = private / "jobs.sqlite"
    JobStore(f"sqlite:///{file}").close()
    file.chmod(0o400)
    with JobStore(f"sqlite:///{file}") as store:
        with store._database.reading(), store._database.reading():
            pass  # several connections
        with pytest.raises(StoreError, match="readonly"):
            store.insert([JOB])
        for each in private.iterdir():  # those beside it have its mode
            each.chmod(0o600)
        store.insert([JOB])
        assert store.get("1").job_id == "1"


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with JobStore("sqlite:///jobs.sqlite") as store:
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.insert([JOB])
        assert repr(store) == f"JobStore('{tmp_path}/jobs.sqlite')"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "100%", "%s", "a@b:c", "ü", "#1", "a?b=c&d"])
def test_any_folder_name_will_do(tmp_path, name):
    with JobStore(f"sqlite:///{tmp_path}/{name}/jobs.sqlite") as store:
        store.insert([JOB])
    assert (tmp_path / name / "jobs.sqlite").exists()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense:se%cret",
        "user:s3cret@host/db",
        "mysql://user:s3cret@host/db",
        "postgresql://user:s3cret@host:nan/db",
        "postgresql+psycopg9://user:s3cret@host/db?password=s3cret",
        "postgresql+psycopg2://user:s3cret@127.0.0.1:1/db?password=s3cret",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_its_password(url, monkeypatch):
    monkeypatch.setattr(plain_sql, "TIMEOUT_S", 0.5)  # a server may just be starting
    with pytest.raises(StoreError) as caught:
        JobStore(url)
    assert "cret" not in "".join(traceback.format_exception(caught.value))


def test_no_insertion_of_many_rows_returns_any(file):
    """The module of Python 3.13 does not take the second of them."""

    def trace(connection, _):
        connection.set_trace_callback(told.append)

    told = []
    event.listen(Engine, "connect", trace)
    try:
        with JobStore(f"sqlite:///{file}") as store:
            store.insert([attrs.evolve(JOB, job_id=name, labels={"a": "b"}) for name in "12"])
    finally:
        event.remove(Engine, "connect", trace)
    tables = "jobs|listed|specifications|labels|events"
    insertions = [text for text in told if re.match(rf"INSERT INTO ({tables}) ", text)]
    assert len(insertions) == 2 * 5
    assert [text for text in insertions if "RETURNING" in text] == []


def test_a_creation_that_was_cut_short_is_taken_up_again(file):
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    assert file.stat().st_size
    assert not JobStore.exists(f"sqlite:///{file}")
    with JobStore(f"sqlite:///{file}") as store:
        assert store.insert([JOB]) == store.list()
    assert JobStore.exists(f"sqlite:///{file}")


def test_a_migration_that_fails_leaves_no_half_schema(file):
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE events (x)")
    with pytest.raises(StoreError, match="events already exists"):
        JobStore(f"sqlite:///{file}")
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert names == {"events"}
