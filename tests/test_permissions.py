"""What is not the user's own, or open to others, is neither read nor run."""

import grp
import os
import pwd
import stat

import pytest

from conftest import AL
from crystalmath import _permissions, config
from crystalmath.errors import PlaceError
from crystalmath.server.endpoint import Place

SOMEBODY = 12345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def below(home):
    """Make what a home holds; give its parts by name."""
    (home / "jobs").mkdir(mode=0o700)
    for name in ("jobs.sqlite", "jobs.sqlite-wal"):
        (home / name).touch()
    # It would be refused as a configuration, if it were read.
    (home / "config.toml").write_text("engin = 1")
    return {name: home / name for name in (".", *_permissions.READ)}


@as_root
@pytest.mark.parametrize("name", [".", *_permissions.READ])
def test_what_belongs_to_somebody_else_is_refused_before_it_is_read(below, name):
    os.chown(below[name], SOMEBODY, -1)
    with pytest.raises(PlaceError, match=rf"belongs to the user {SOMEBODY}.*CRYSTALMATH_HOME"):
        config.load()


@pytest.mark.parametrize("name", [".", *_permissions.READ])
def test_what_others_can_write_to_is_refused_before_it_is_read(below, name):
    below[name].chmod(below[name].stat().st_mode | stat.S_IWOTH)
    with pytest.raises(PlaceError, match=r"written to by others \(mode .*chmod go-w .*_HOME"):
        config.load()


@pytest.mark.parametrize("name", ["file", "file/home", "file/some/home"])
def test_a_home_that_is_no_folder_is_refused_with_the_remedy(tmp_path, monkeypatch, cli, name):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / name))
    for command in (["serve"], ["submit", "emt.core.static_job", AL], ["list"], ["stop"]):
        answer = cli(*command)
        assert answer.code == 1, command
        assert "is no folder; set CRYSTALMATH_HOME to a folder of your own" in answer.err


@as_root
def test_somebody_elses_link_is_refused_and_a_link_to_what_is_theirs_too(home, tmp_path):
    (tmp_path / "config.toml").touch()
    link = home / "config.toml"
    link.symlink_to(tmp_path / "config.toml")
    assert config.load().home == home
    os.chown(link, SOMEBODY, -1, follow_symlinks=False)
    with pytest.raises(PlaceError, match="belongs"):
        config.load()
    os.chown(link, os.geteuid(), -1, follow_symlinks=False)
    os.chown(tmp_path / "config.toml", SOMEBODY, -1)
    with pytest.raises(PlaceError, match="belongs"):
        config.load()


def test_a_group_may_write_only_if_it_is_the_users_own(home, monkeypatch):
    """Where each user has a group, as on Debian and Fedora, files are made with umask 002."""
    home.chmod(0o775)
    me = pwd.getpwuid(os.geteuid()).pw_name
    groups = {
        (me, ()): True,
        (me, (me,)): True,
        (me, (me, "friend")): False,
        ("staff", ()): False,
    }
    for (name, members), fine in groups.items():
        group = grp.struct_group((name, "x", home.stat().st_gid, list(members)))
        monkeypatch.setattr(grp, "getgrgid", {home.stat().st_gid: group}.__getitem__)
        if fine:
            assert config.home() == home
        else:
            with pytest.raises(PlaceError, match="mode 775"):
                config.home()
    monkeypatch.setattr(grp, "getgrgid", {}.__getitem__)
    with pytest.raises(PlaceError, match="mode 775"):
        config.home()


def test_a_home_that_is_not_there_is_made_so_that_it_is_ones_own(tmp_path):
    environ = {"CRYSTALMATH_HOME": str(tmp_path / "new")}
    Place.of(config.home(environ), environ).make()
    assert stat.S_IMODE(config.home(environ).stat().st_mode) == 0o700


def test_nobody_is_told_to_close_a_folder_that_all_use(monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTALMATH_HOME", "/tmp")
    with pytest.raises(PlaceError) as told:
        config.home()
    assert "chmod" not in str(told.value)
    assert "set CRYSTALMATH_HOME to a folder of your own" in str(told.value)
    tmp_path.chmod(0o1777)
    for socket in ("/tmp/socket", str(tmp_path / "socket")):
        with pytest.raises(PlaceError) as told:
            Place.of(tmp_path / "home", {"CRYSTALMATH_SOCKET": socket}).make()
        assert "chmod" not in str(told.value)
        assert "set CRYSTALMATH_SOCKET" in str(told.value)


def elsewhere(home, folder, said):
    """Have a home keep its data in another folder, and give the file or folder that it uses."""
    if said == "runs":
        (home / "config.toml").write_text(f'[storage]\nruns = "{folder}"\n')
        config.load()
        return folder
    (folder / "jobs.sqlite").touch(mode=0o600)
    table = "[storage]\ndatabase" if said == "database" else "database_url"
    prefix = "" if said == "database" else "sqlite:///"
    if said != "variable":
        (home / "config.toml").write_text(f'{table} = "{prefix}{folder}/jobs.sqlite"\n')
    else:
        os.environ["CRYSTALMATH_DATABASE_URL"] = f"sqlite:///{folder}/jobs.sqlite"
    return folder / "jobs.sqlite"


@pytest.fixture(params=["database", "database_url", "variable", "runs"])
def data(request, home, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_DATABASE_URL", "")
    used = elsewhere(home, tmp_path, request.param)
    assert config.load().home == home
    return used


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_data_in_a_folder_that_others_can_write_to_is_refused(data, tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(PlaceError, match=rf"{tmp_path}.*mode {mode:o}.*\[storage\]") as told:
        config.load()
    assert ("chmod go-w" in str(told.value)) is (mode == 0o777)


@as_root
def test_data_of_somebody_else_is_refused(data, tmp_path):
    for each in {data, tmp_path}:
        os.chown(each, SOMEBODY, -1)
        with pytest.raises(PlaceError, match=rf"{each} .*belongs to the user .*\[storage\]"):
            config.load()
        os.chown(each, 0, -1)
    assert config.load()


def test_a_database_elsewhere_that_others_can_write_to_is_refused(home, tmp_path):
    file = elsewhere(home, tmp_path, "database")
    for each in (file, tmp_path / "jobs.sqlite-wal"):
        each.touch(mode=0o600)
        each.chmod(0o666)
        with pytest.raises(PlaceError, match=rf"the database {each} can be written to by others"):
            config.load()
        each.chmod(0o600)
    assert config.load()


@as_root
def test_the_folder_of_data_may_be_roots(home, tmp_path, monkeypatch):
    elsewhere(home, tmp_path, "database")
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    for each in (home, home / "config.toml", tmp_path / "jobs.sqlite"):
        os.chown(each, SOMEBODY, -1)
    assert config.load()


@as_root
def test_commands_say_so_and_run_nothing(home, cli, below):
    os.chown(home / "jobs", SOMEBODY, -1)
    for command in (["list"], ["stop"], ["serve"], ["submit", "emt.core.static_job", AL]):
        answer = cli(*command, "--json")
        assert (answer.code, answer.json["code"]) == (1, "place"), command
        assert str(home / "jobs") in answer.json["error"]
    (check,) = [c for c in cli("doctor", "--json").json["checks"] if c["name"] == "config"]
    assert str(home / "jobs") in check["message"]
