"""The run directories are the truth: rows that are gone are made again from them."""

import contextlib
import shutil
import sqlite3
import threading

import pytest
from ase.build import bulk
from attrs import evolve

from conftest import eventually
from crystalmath.client import in_process
from crystalmath.errors import StoreError
from crystalmath.jobs.host import Host
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.models.reference import JobValue
from crystalmath.service import JobService
from ends import finish, lab_job

pytestmark = pytest.mark.processes


def value(number, **more):
    return lab_job("value", parameters={"number": number}, **more)


def waiting(path, **more):
    return lab_job("wait_for", parameters={"path": str(path)}, **more)


@pytest.fixture
def service(home, lab):
    cluster = "[clusters.here]\nengine = 'local'\nwalltime = '1h'\n"
    (home / "config.toml").write_text(f"[engines.local]\nworkers = 1\n{cluster}")
    with JobService() as service:
        yield service


def remove(home):
    for path in home.glob("jobs.sqlite*"):
        path.unlink()


def test_doctor_rebuilds_what_is_gone(service, home, cli):
    asked = value(1, key="k", name="n", labels={"a": "b"}, cluster="here")
    job = finish(service, service.submit(asked).job_id)
    service.close()
    remove(home)
    answer = cli("list", "--json")
    assert answer.code == 1
    assert "doctor --rebuild" in answer.out + answer.err
    with JobService() as other, pytest.raises(StoreError, match="doctor --rebuild"):
        other.job(job.job_id)
    checks = cli("doctor", "--json").checks
    assert checks["database"]["state"] == "error"
    assert "doctor --rebuild" in checks["database"]["remedy"]
    checks = cli("doctor", "--rebuild", "--json").checks
    told = checks["rebuild"]["message"]
    assert told.startswith("recorded 1 jobs again")
    assert "those that waited for others" in told
    with JobService() as other:
        again = other.job(job.job_id)
        assert (again.state, again.name, again.key) == (JobState.COMPLETED, "n", "k")
        assert (again.labels, again.spec_hash) == ({"a": "b"}, job.spec_hash)
        assert again.formula == job.formula == "Al4"
        assert again.walltime_s == job.walltime_s == 3600.0
        for filters in ({"elements": ["Al"]}, {"formula": "Al"}):
            assert [one.job_id for one in other.jobs(**filters)] == [job.job_id]
        assert other.result(job.job_id) == {"value": 1}
        # Who asks for it once more has asked for no walltime either.
        assert other.submit(value(1, key="k", cluster="here")).job_id == job.job_id


def test_a_rebuilt_job_is_the_same_whose_filters_named_another(service, home, cli, tmp_path):
    go = tmp_path / "go"
    first = service.submit(waiting(go, labels={"step": "a"}))
    given = JobValue({"labels": {"step": "a"}}, ("saw",))
    asked = lab_job("echo", parameters={"x": given}, key="k")
    job_id = service.submit(asked).job_id
    go.touch()
    assert finish(service, job_id).state is JobState.COMPLETED
    service.close()
    remove(home)
    cli("doctor", "--rebuild", "--json")
    with JobService() as other:
        assert [parent["job_id"] for parent in other.job(job_id).parents] == [first.job_id]
        assert other.submit(asked).job_id == job_id


def test_what_waits_is_kept_where_others_read_as_the_database_is_removed(service, home, tmp_path):
    held = service.submit(waiting(tmp_path / "go"))
    waits = service.submit(lab_job("echo", parameters={"x": JobValue(held.job_id, ("saw",))}))
    store = service._recorder.store
    reading = [store.mentioning("echo") for _ in range(4)]  # by all connections that are open
    assert [next(each)[0] for each in reading] == [waits.job_id] * 4
    remove(home)
    service.submit(value(1))
    assert service.job(waits.job_id).reason == waits.reason is not None
    for each in reading:
        each.close()


@pytest.mark.parametrize("older", [False, True], ids=["removed", "an older copy"])
def test_a_database_that_is_replaced_under_a_living_service(service, home, tmp_path, older):
    first = finish(service, service.submit(value(1)).job_id)
    copy = tmp_path / "copy"
    with (
        contextlib.closing(sqlite3.connect(home / "jobs.sqlite")) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    second = finish(service, service.submit(value(2)).job_id)
    go = tmp_path / "go"
    held = service.submit(waiting(go))
    # It has no run directory, but the file that was removed is still open.
    saw = JobValue(held.job_id, ("saw",))
    echo = lab_job("echo", parameters={"x": saw}, key="k")
    waits = service.submit(echo)
    remove(home)
    if older:
        shutil.move(copy, home / "jobs.sqlite")
    third = service.submit(value(3))
    assert service.job(waits.job_id).reason == waits.reason is not None
    go.touch()
    jobs = (first, second, held, waits, third)
    for job in jobs:
        assert finish(service, job.job_id).state is JobState.COMPLETED
    with JobService() as other:
        assert [job.job_id for job in other.jobs()] == [job.job_id for job in reversed(jobs)]
        assert other.submit(echo).job_id == waits.job_id


def test_a_database_that_a_newer_release_migrated_takes_no_jobs(service, home):
    job = finish(service, service.submit(value(1)).job_id)
    with contextlib.closing(sqlite3.connect(home / "jobs.sqlite")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="upgrade crystalmath"):
        service.submit(value(2))
    assert service.job(job.job_id).state is JobState.COMPLETED
    with contextlib.closing(sqlite3.connect(home / "jobs.sqlite")) as database, database:
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
        database.execute("UPDATE alembic_version SET version_num = ?", [_head()])


def test_a_home_of_an_older_build_goes_on_once_its_database_is_set_aside(home, lab, cli):
    with JobService() as service:
        job = finish(service, service.submit(evolve(value(1), key="kept")).job_id)
    database = home / "jobs.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0017'")
    listed = cli("list")
    assert listed.code == 1
    for words in ("schema version 0017", "older unreleased build", "crystalmath doctor --rebuild"):
        assert words in " ".join(listed.err.split())
    checks = cli("doctor", "--json").json["checks"]
    (wrong,) = [each for each in checks if each["name"] == "database"]
    assert "older unreleased build" in wrong["message"]
    for file in home.glob("jobs.sqlite*"):
        file.rename(home / f"old-{file.name}")
    rebuilt = cli("doctor", "--rebuild", "--json").json["checks"]
    (message,) = [each["message"] for each in rebuilt if each["name"] == "rebuild"]
    assert message.startswith("recorded 1 jobs again")
    with JobService() as service:
        assert service.job(job.job_id).state is JobState.COMPLETED
        assert service.submit(evolve(value(1), key="kept")).job_id == job.job_id


def _head():
    from crystalmath.store.plain_sql import HEAD

    return HEAD


def test_what_is_not_written_down_yet_when_the_database_is_removed(home, lab, monkeypatch):
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    go = threading.Event()
    monkeypatch.setattr(Host, "make_room", lambda _: go.wait())
    with JobService() as service:
        jobs = [service.submit(value(number, key=f"key {number}")) for number in (1, 2)]
        assert not any((home / "jobs" / job.job_id / "spec").exists() for job in jobs)
        remove(home)
        again = [service.submit(value(number, key=f"key {number}")) for number in (1, 2)]
        assert [job.job_id for job in again] == [job.job_id for job in jobs]
        go.set()
        for number, job in zip((1, 2), jobs, strict=True):
            assert finish(service, job.job_id).state is JobState.COMPLETED
            assert service.result(job.job_id) == {"value": number}


@pytest.mark.usefixtures("lab")
def test_whoever_waits_for_a_job_is_told_of_its_end_by_the_new_database(home, tmp_path):
    """The rows and events that are made again are fewer than those that there were."""
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with in_process() as client:
        ended = [client.submit("lab_recipes.value", bulk("Al")) for _ in range(3)]
        for job in ended:
            job.result(60)
        client.prune([job.job_id for job in ended])
        waiting = client.submit("lab_recipes.wait_for", bulk("Al"), {"path": str(tmp_path / "go")})
        told = client.wait([waiting.job_id], 60)
        assert next(told).job_id == waiting.job_id
        eventually(lambda: client.job(waiting.job_id).state is JobState.RUNNING)
        remove(home)
        (tmp_path / "go").touch()
        assert waiting.exception(60) is None
        *_, last = told
        assert last.state is JobState.COMPLETED


def test_a_log_that_is_made_again_goes_on_above_the_one_that_was_lost(service, home):
    first = finish(service, service.submit(value(1)).job_id)
    _, last = service.events(0)
    remove(home)
    second = finish(service, service.submit(value(2)).job_id)
    told, _ = service.events(last)
    assert {event.job_id for event in told} == {first.job_id, second.job_id}


def test_a_job_that_the_database_refuses_does_not_stop_the_others(service, home, cli):
    jobs = [finish(service, service.submit(value(number)).job_id) for number in range(4)]
    service.close()
    remove(home)
    large, no_body, ended, _ = [RunDirectory(home / "jobs" / job.job_id) for job in jobs]
    header, body = large.read_spec()
    large.write_spec({**header, "priority": 10**30}, body)
    no_body.write_spec(no_body.read_header(), "{}")
    ended.replace_outcome(1, {**ended.outcome(1), "started": 10**400})
    answer = cli("doctor", "--rebuild", "--json").json
    (check,) = [check for check in answer["checks"] if check["name"] == "rebuild"]
    told = check["remedy"]
    for job in jobs[:3]:
        assert job.job_id in told
    with JobService() as other:
        assert other.job(jobs[3].job_id).state is JobState.COMPLETED
