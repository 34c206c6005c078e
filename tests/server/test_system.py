"""What a server says of itself: workers, what waits for them, the disk, what failed lately."""

import json
import shutil

import pytest

from conftest import eventually
from crystalmath.cli.shared.health import waits_for_database

pytestmark = pytest.mark.server


def test_status_tells_workers_and_what_waits_for_them(served, go):
    waiting = [served.submit("wait_for", params={"path": str(go)}) for _ in range(3)]
    eventually(lambda: served.call("system.status")["jobs"] == {"running": 2, "pending": 1})
    status = served.call("system.status")
    assert (status["workers"], status["backlog"]) == ({"local": 2}, {"local": 1})
    doctor = served.run("doctor").stdout
    assert "(local: 2 workers, 1 waiting)" in doctor
    go.touch()
    for job_id in waiting:
        served.finish(job_id)
    eventually(lambda: served.call("system.status")["backlog"] == {"local": 0})


def test_status_tells_the_room_on_the_disk(served):
    eventually(lambda: served.call("system.status")["disk"] is not None)
    disk = served.call("system.status")["disk"]
    assert disk["size"] == shutil.disk_usage(served.home).total
    assert 0 <= disk["free"] <= disk["size"]
    assert disk["full"] is False
    assert disk["path"].startswith(str(served.home))


def test_status_tells_what_failed_last(served):
    for number in range(7):
        served.finish(served.submit("fail", params={"message": f"number {number}\nmore"}))
    last = served.submit("fail", name="Fe", params={"message": "the last"})
    ended = served.finish(last)
    failures = served.call("system.status")["failures"]
    assert len(failures) == 5
    assert failures[0] == {
        "job_id": last,
        "name": "Fe",
        "recipe": "lab_recipes.fail",
        "at": ended["finished_at"],
        "error": ended["error"].partition("\n")[0],
    }
    told = [failure["error"].rpartition(" ")[2] for failure in failures]
    assert told == ["last", "6", "5", "4", "3"]
    checks = json.loads(served.run("doctor", "--json").stdout)["checks"]
    failed = [check["message"] for check in checks if check["name"] == "failed"]
    assert len(failed) == 3
    assert failed[0].startswith(f"{last[:8]} Fe, ")
    assert failed[0].endswith("the last")


def test_the_doctor_tells_over_the_wire_what_it_tells_in_a_terminal(served):
    told = served.call("system.doctor")
    assert told["error"] is None
    here = json.loads(served.run("doctor", "--json").stdout)
    assert told["ok"] is (here["status"] == "ok")
    assert [(check["name"], check["state"]) for check in told["checks"]] == [
        (check["name"], check["state"]) for check in here["checks"]
    ]
    assert {"home", "disk", "database", "server", "engine"} <= {
        check["name"] for check in told["checks"]
    }
    assert all(check.keys() == here["checks"][0].keys() for check in told["checks"])


def test_the_doctor_tells_of_a_configuration_that_cannot_be_read(server):
    server.start()
    (server.home / "config.toml").write_text("[jobs\n")
    told = server.call("system.doctor")
    assert (told["ok"], told["error"]) == (False, None)
    assert [check["name"] for check in told["checks"]] == ["platform", "config"]


def test_of_a_file_that_is_no_database_no_command_says_that_it_is_locked(server, monkeypatch):
    server.home.mkdir()
    (server.home / "jobs.sqlite").write_text("important notes " * 100)
    server.start()
    assert "failures" not in server.call("system.status")
    monkeypatch.setenv("CRYSTALMATH_HOME", str(server.home))
    assert not waits_for_database()
