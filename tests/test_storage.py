"""Where a home's data lies: on what file system, in which database, in whose folders."""

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from ase.build import bulk

from conftest import AL
from crystalmath import config
from crystalmath._storage import file_system, is_network
from crystalmath.client import in_process
from crystalmath.errors import ConfigError, PlaceError
from crystalmath.quacc import get_runner

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /home rw,relatime shared:9 - nfs4 filer:/home rw,vers=4.2
41 22 0:51 / /scratch rw,relatime - lustre mds:/scratch rw
42 22 0:52 / /data/my\\040disk rw - fuse.beegfs none rw
43 22 0:53 / /gpfs rw - gpfs fs1 rw
44 40 8:2 / /home/local rw - xfs /dev/sdb1 rw
45 22 0:54 / /over rw - nfs filer:/a rw
46 45 0:55 / /over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/srv/x", "ext4", False),
        ("/home/me/.local/share/crystalmath", "nfs4", True),
        ("/homes", "ext4", False),
        ("/home/local/me", "xfs", False),
        ("/scratch", "lustre", True),
        ("/data/my disk/home", "fuse.beegfs", True),
        ("/gpfs/me", "gpfs", True),
        ("/over/me", "tmpfs", False),
    ],
)
def test_a_file_system_is_known_by_the_table_of_mounts(path, kind, network):
    assert file_system(Path(path), MOUNTS) == kind
    assert is_network(kind) is network


def test_this_machine_has_a_table_of_mounts(home):
    assert file_system(home) != "unknown"
    assert not is_network(file_system(Path("/proc")))


def test_a_database_may_lie_elsewhere(home, tmp_path):
    (home / "config.toml").write_text(f'[storage]\ndatabase = "{tmp_path}/db/jobs.sqlite"\n')
    assert config.load().database_url == f"sqlite:///{tmp_path}/db/jobs.sqlite"
    (home / "config.toml").write_text('database_url = "sqlite:////x"\n[storage]\ndatabase = "/y"\n')
    with pytest.raises(ConfigError, match="both database_url and storage.database"):
        config.load()


def test_run_directories_on_another_file_system_follow_the_home(
    home, lab, cli, tmp_path, monkeypatch
):
    runs, setting = tmp_path / "scratch", home / "config.toml"
    setting.write_text(f'[storage]\nruns = "{runs}"\n')
    ran = cli("run", "lab_recipes.value", AL, "--json").json
    kept = cli("run", "lab_recipes.value", AL, "--json").json
    (own,) = runs.iterdir()
    assert {path.name for path in own.glob("[!.]*")} == {ran["job_id"], kept["job_id"]}
    assert Path(cli("path", ran["job_id"]).out.strip()).resolve().is_relative_to(own)

    # Another home may name the same folder, and the home may be moved.
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "config.toml").write_text(f'[storage]\nruns = "{runs}"\n')
    config.load({"CRYSTALMATH_HOME": str(other)})
    assert len(list(runs.iterdir())) == 2
    moved = tmp_path / "moved"
    home.rename(moved)
    monkeypatch.setenv("CRYSTALMATH_HOME", str(moved))
    assert cli("result", kept["job_id"], "--json").code == 0

    # The rows are made again from there, and what is pruned is gone there.
    for file in moved.glob("jobs.sqlite*"):
        file.unlink()
    rebuilt = cli("doctor", "--rebuild", "--json").checks
    assert "recorded 2 jobs" in rebuilt["rebuild"]["message"]
    assert cli("prune", ran["job_id"], "--yes", "--json").code == 0
    assert {path.name for path in own.glob("[!.]*")} == {kept["job_id"]}

    # What has run stays where it is; the setting is not followed past it.
    (moved / "config.toml").write_text(f'[storage]\nruns = "{tmp_path}/new"\n')
    with pytest.raises(ConfigError, match=f"run directories are in {own}.*take the setting back"):
        config.load()
    (moved / "config.toml").write_text("")
    assert cli("result", kept["job_id"], "--json").code == 0


def test_run_directories_that_are_there_are_not_left_behind(home, tmp_path):
    (home / "jobs" / "a-job").mkdir(parents=True)
    (home / "config.toml").write_text(f'[storage]\nruns = "{tmp_path}/scratch"\n')
    with pytest.raises(ConfigError, match=f"mv {home}/jobs/.*take the setting back"):
        config.load()
    assert (home / "jobs" / "a-job").is_dir()


def checks_of(cli):
    found = cli("doctor", "--json").json["checks"]
    return [(one["state"], one["message"]) for one in found if one["name"] == "storage"]


def test_the_database_of_a_home_on_a_network_has_no_memory_to_share(home, lab, cli, tmp_path):
    (said,) = checks_of(cli)
    assert said[0] == "ok"
    assert said[1].endswith("a local file system; SQLite keeps a write-ahead log")
    assert cli("run", "lab_recipes.value", AL, "--json").code == 0

    # A home that turns out to be on a network keeps its jobs.
    (home / "config.toml").write_text("[storage]\nnetwork = true\n")
    assert len(cli("list", "--json").json["jobs"]) == 1
    with sqlite3.connect(home / "jobs.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
    assert cli("run", "lab_recipes.value", AL, "--json").code == 0
    assert {file.name for file in home.glob("jobs.sqlite*")} == {"jobs.sqlite", "jobs.sqlite.lock"}
    (said,) = checks_of(cli)
    assert said[0] == "ok"
    assert "a network file system ([storage] network says so)" in said[1]
    assert "rollback journal, as its write-ahead log needs memory" in said[1]


def test_a_database_of_one_host_is_told(home, cli):
    (home / "config.toml").write_text(
        '[storage]\nnetwork = true\ndatabase = "/proc/nowhere/jobs.sqlite"\n'
    )
    apart, alone = checks_of(cli)
    assert apart[1].endswith("the database is apart, at /proc/nowhere/jobs.sqlite")
    assert alone[0] == "warning"
    assert "is on proc, of this host alone" in alone[1]


WITHOUT_LINKS = "a file system without hard links (Operation not permitted)"


def refused_everywhere(home, cli):
    """Check that no job is taken in a home, whoever asks, and that doctor names the remedy."""
    (home / "config.toml").write_text("")
    with in_process() as client:
        with pytest.raises(PlaceError, match="without hard links") as refused:
            client.submit("lab_recipes.value", bulk("Al"))
        assert [*client.list()] == []
    with pytest.raises(PlaceError, match="no job is taken"):
        get_runner("local").submit("lab_recipes.value", bulk("Al"), "local")
    checks = cli("doctor", "--json").json["checks"]
    (storage,) = [each for each in checks if each["name"] == "storage"]
    assert storage["state"] == "error"
    for words in (storage["message"], str(refused.value)):
        assert str(home / "jobs") in words
        assert WITHOUT_LINKS in words
    for words in (storage["remedy"], str(refused.value)):
        assert "set CRYSTALMATH_HOME, or [storage] runs" in words
    assert [*(home / "jobs").glob("[0-9a-f]*")] == []


def test_no_job_is_taken_without_hard_links(home, lab, cli, monkeypatch):
    def link(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        refused_everywhere(home, cli)
    with in_process() as client:  # once it is elsewhere, jobs are taken
        assert client.submit("lab_recipes.value", bulk("Al")).result(60)


@pytest.fixture
def exfat(tmp_path):
    """Yield a folder on exFAT, which has no hard links, where FUSE and a loop device are there."""
    if os.geteuid() or not (shutil.which("mount.exfat-fuse") and shutil.which("mkfs.exfat")):
        pytest.skip("exFAT cannot be mounted: not root, or no exfat-fuse and exfatprogs")
    image, folder = tmp_path / "image", tmp_path / "exfat"
    image.touch()
    os.truncate(image, 64 * 2**20)
    folder.mkdir()

    def run(*command):
        return subprocess.run(command, check=False, capture_output=True, text=True)

    assert run("mkfs.exfat", image).returncode == 0
    loop = run("losetup", "--find", "--show", image)
    if loop.returncode:
        pytest.skip(f"exFAT cannot be mounted: {loop.stderr}")
    device = loop.stdout.strip()
    try:
        mounted = run("mount.exfat-fuse", "-o", "umask=077", device, folder)
        if mounted.returncode:
            pytest.skip(f"exFAT cannot be mounted: {mounted.stderr}")
        yield folder
    finally:
        run("umount", "--lazy", folder)  # this process may hold its identity there
        run("losetup", "--detach", device)


@pytest.mark.file_systems
def test_no_job_is_taken_on_exfat(exfat, lab, cli, monkeypatch):
    home = exfat / "home"
    home.mkdir()
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    refused_everywhere(home, cli)


@contextlib.contextmanager
def read_only(home):
    """Have nobody write to a home meanwhile: root passes all permissions, and mounts it so."""
    if os.geteuid():
        home.chmod(0o500)
        try:
            yield
        finally:
            home.chmod(0o700)
        return
    if subprocess.run(["mount", "--bind", home, home], check=False).returncode:
        pytest.skip("root may not mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", home], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", home], check=True)


def test_a_read_only_home_is_read(home, lab, cli):
    with in_process() as client:
        job = client.submit("lab_recipes.value", bulk("Al"), {"number": 3})
        job.result(60)
    with read_only(home):
        for command in ("list", "status", "show", "result", "logs", "path"):
            answer = cli(command, *([] if command == "list" else [job.job_id]))
            assert answer.code == 0, f"{command}: {answer.err}"
        assert cli("result", job.job_id, "--json").json["result"]
        with in_process() as client:
            assert [one.job_id for one in client.list()] == [job.job_id]
            with pytest.raises(PlaceError, match="is read-only .*nothing can be changed"):
                client.submit("lab_recipes.value", bulk("Al"))
        refused = cli("retry", job.job_id)
        assert refused.code == 1
        for words in (str(home), "ead-only", "set CRYSTALMATH_HOME"):
            assert words in refused.err
    with in_process() as client:
        assert client.submit("lab_recipes.value", bulk("Al")).result(60)


def test_what_was_recorded_last_is_never_left_out_of_a_read_only_home(home, lab, cli, tmp_path):
    with in_process() as client:
        client.submit("lab_recipes.value", bulk("Al")).result(60)
        # As a crash leaves it: the log holds what the file does not have yet.
        copy = tmp_path / "copy"
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("*-shm", "socket"))
    assert (copy / "jobs.sqlite-wal").stat().st_size
    home.rename(tmp_path / "before")
    copy.rename(home)
    with read_only(home):
        told = cli("list")
        assert told.code == 1
        assert "is read-only, and the last records are in" in told.err
        assert "open a copy of the home" in told.err
    assert cli("list", "--json").code == 0
