"""Where a server is, who serves, and which places are not trusted."""

import json
import os
import socket
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from crystalmath import processes
from crystalmath.errors import PlaceError, ServedElsewhere
from crystalmath.jobs.identities import IDENTITIES
from crystalmath.server.endpoint import LONGEST, Place, Server, require_socket
from crystalmath.server.lock import HomeLock

pytestmark = pytest.mark.server


@pytest.fixture
def place(tmp_path):
    place = Place.of(tmp_path / "home", {})
    place.make()
    return place


@pytest.fixture
def listening(place):
    """Listen at the place's socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket))
        yield place.socket


def write_lock(place, **changes):
    server = Server(
        identity=processes.own_identity(), socket="/some/socket", version="7", started_at=1.0
    )
    text = server.write()
    for name, value in changes.items():
        text = text.replace(str(getattr(server.identity, name)), str(value))
    place.lock.write_text(text)


def test_all_of_it_is_private_and_below_the_home(place):
    assert place.socket == place.home / "server" / "socket"
    assert {path.parent for path in (place.lock, place.log, place.output)} == {place.directory}
    assert stat.S_IMODE(place.directory.stat().st_mode) == 0o700


def test_a_path_too_long_goes_below_the_runtime_directory(tmp_path):
    home = tmp_path / ("x" * LONGEST)
    place = Place.of(home, {"XDG_RUNTIME_DIR": "/run/user/7"})
    assert str(place.socket.parent) == "/run/user/7/crystalmath"
    assert Place.of(home / "other", {"XDG_RUNTIME_DIR": "/run/user/7"}).socket != place.socket


@pytest.mark.parametrize("runtime", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "relative"}])
def test_without_a_runtime_directory_it_goes_to_a_folder_of_the_users_own(tmp_path, runtime):
    home = tmp_path / ("x" * LONGEST)
    assert str(Place.of(home, runtime).socket.parent) == f"/tmp/crystalmath-{os.geteuid()}"


def test_the_longest_path_that_fits_is_used(tmp_path):
    def place(length):
        return Place.of(tmp_path / ("x" * length), {})

    short = LONGEST - len(os.fsencode(place(0).socket)) - 1
    assert place(short).socket.is_relative_to(tmp_path)
    assert len(os.fsencode(place(short).socket)) == LONGEST
    assert not place(short + 1).socket.is_relative_to(tmp_path)


def test_the_variable_names_the_socket(tmp_path):
    named = {"CRYSTALMATH_SOCKET": str(tmp_path / "own" / "socket")}
    assert Place.of(tmp_path / "home", named).socket == tmp_path / "own" / "socket"


def test_a_variable_too_long_is_refused(tmp_path):
    with pytest.raises(PlaceError, match=f"CRYSTALMATH_SOCKET.*at most {LONGEST}"):
        Place.of(tmp_path, {"CRYSTALMATH_SOCKET": "/" + "x" * LONGEST})


def test_a_home_that_cannot_be_made_names_the_setting():
    with pytest.raises(PlaceError, match=r"cannot make the home /proc/x: .* CRYSTALMATH_HOME"):
        Place.of(Path("/proc/x"), {}).make()


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "server").symlink_to(tmp_path / "theirs")
    with pytest.raises(PlaceError, match="symbolic link"):
        Place.of(tmp_path / "home", {}).make()


def test_a_folder_open_to_others_is_refused(place):
    place.directory.chmod(0o750)
    with pytest.raises(PlaceError, match="mode 750.*chmod 700"):
        place.make()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(place):
    os.chown(place.directory, 12345, -1)
    with pytest.raises(PlaceError, match="belongs to the user 12345"):
        place.make()


def test_the_socket_of_the_variable_needs_a_private_folder_too(tmp_path):
    tmp_path.chmod(0o755)
    place = Place.of(tmp_path / "home", {"CRYSTALMATH_SOCKET": str(tmp_path / "socket")})
    with pytest.raises(PlaceError, match="open to others"):
        place.make()


def test_a_good_socket_is_trusted(listening):
    require_socket(listening)


def test_a_link_to_a_socket_is_not(listening):
    link = listening.with_name("link")
    link.symlink_to(listening)
    with pytest.raises(PlaceError, match="no socket"):
        require_socket(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
def test_a_socket_of_somebody_else_is_not(listening):
    os.chown(listening, 12345, -1)
    with pytest.raises(PlaceError, match="belongs to the user 12345"):
        require_socket(listening)


def test_a_lock_names_who_serves(place):
    write_lock(place)
    server = place.read_lock()
    assert server.identity == processes.own_identity()
    assert str(place.address()) == server.socket == "/some/socket"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_lock_without_a_name_names_nobody(place, content):
    if content is not None:
        place.lock.write_bytes(content)
    assert place.read_lock() is None
    assert place.address() == place.socket


@pytest.mark.parametrize(
    "change",
    [
        {"start_time": 1},
        {"start_time": 1, "host": "renamed"},
        {"boot_id": "former"},
    ],
)
def test_the_lock_of_a_dead_process_names_nobody(place, change):
    write_lock(place, **change)
    assert place.read_lock() is None
    assert place.has_crashed()


@pytest.mark.parametrize(
    "change",
    [
        {"boot_id": "theirs", "machine_id": "theirs"},
        {"boot_id": "theirs", "host": "elsewhere"},
        {"boot_id": "theirs", "machine_id": "theirs", "host": "elsewhere"},
        # It has told of no lock that could be asked.
        {"namespace": "pid:[1]"},
    ],
)
def test_a_server_elsewhere_is_told_and_taken_for_alive(place, change):
    write_lock(place, **change, start_time=1)
    with pytest.raises(ServedElsewhere, match=r"process \d+ on .* there.*remove .*lock"):
        place.address()


def test_a_server_of_another_container_is_alive_as_long_as_it_holds_the_lock(place):
    with HomeLock(place) as lock:
        lock.take(0)
        text = place.lock.read_text().replace(processes.own_identity().namespace, "pid:[1]")
        place.lock.write_text(text)
        with pytest.raises(ServedElsewhere):
            place.address()
        # The next one holds the lock on the home, and has not written its name yet.
        place.lock.write_text(text.replace(json.loads(text)["lock"], "of_the_dead"))
        assert place.has_crashed()
        assert place.address() == place.socket
    place.lock.write_text(text)
    with HomeLock(place) as lock:
        lock.take(0)
        assert place.read_lock().identity == processes.own_identity()


def test_a_lock_in_a_folder_that_is_not_safe_is_not_read(place):
    write_lock(place)
    place.directory.chmod(0o777)
    for ask in (place.read_lock, place.has_crashed, place.address):
        with pytest.raises(PlaceError, match="mode 777.*chmod 700"):
            ask()


def test_who_gives_up_waiting_for_a_server_elsewhere_leaves_its_name(place, monkeypatch):
    identities = place.home / "jobs" / IDENTITIES
    identities.mkdir(parents=True)
    theirs = {"boot_id": "theirs", "machine_id": "theirs", "lock": "theirs"}
    write_lock(place)
    text = json.dumps({**json.loads(place.lock.read_text()), **theirs})
    place.lock.write_text(text)
    heart = {"format": 1, "heart": "1", "lease_s": 1200.0}
    (identities / "theirs").write_text(json.dumps({**json.loads(text), **heart}) + "\n")

    def interrupt(seconds):
        raise KeyboardInterrupt

    here = SimpleNamespace(**{**vars(time), "sleep": interrupt})
    monkeypatch.setattr("crystalmath.server.lock.time", here)
    with pytest.raises(KeyboardInterrupt), HomeLock(place) as lock:
        lock.take(0)
    assert place.lock.read_text() == text


def test_who_leaves_does_not_remove_the_name_of_who_took_its_place(place):
    with HomeLock(place) as lock:
        lock.take(0)
        write_lock(place, boot_id="theirs", machine_id="theirs")
        text = place.lock.read_text()
    assert place.lock.read_text() == text
    place.lock.unlink()
    with HomeLock(place) as lock:
        lock.take(0)
    assert place.lock.read_text() == ""
