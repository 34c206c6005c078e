"""The PSI/J engine on a stand-in for Flux: one job, one allocation, and Flux's word for its end."""

import contextlib
import json
import logging
import os
import time

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath import config
from crystalmath.errors import ConfigError
from crystalmath.models import Attempt, Cluster, EngineSettings, JobState, Resources, Submission
from crystalmath.service import JobService
from ends import finish
from engine_psij.scripted_flux import Flux

pytest.importorskip("psij")

from crystalmath_engine_psij.batch_queues import FluxQueue, flux_id
from crystalmath_engine_psij.runner import PsijRunner

ID = "3f2a91c4-0000-4000-8000-000000000000.1"
AL = bulk("Al")
TABLE = '[clusters.flux]\nengine = "psij"\nscheduler = "flux"\n'


@pytest.fixture
def flux(tmp_path, monkeypatch):
    made = Flux(tmp_path / "flux")
    monkeypatch.setenv("PATH", f"{made.install()}{os.pathsep}{os.environ['PATH']}")
    yield made
    made.is_stopped.unlink(missing_ok=True)
    for number in made.jobs():
        with contextlib.suppress(SystemExit):  # it is over
            made.cancel([str(number)])


@pytest.fixture
def opened(home, lab, monkeypatch):
    """Open services, one after another, which ask soon."""
    for name in ("PROBE_S", "RUNNING_S"):
        monkeypatch.setattr(f"crystalmath.engines.handover.{name}", 0.5)
    services = []
    (home / "config.toml").write_text(TABLE)

    def open_():
        services.append(JobService(config.load()))
        return services[-1]

    yield open_
    for service in services:
        service.close()


def submit(service, recipe, /, resources=None, walltime_s=None, **parameters):
    asked = Submission(
        recipe=f"lab_recipes.{recipe}",
        atoms=AL,
        cluster="flux",
        parameters=parameters,
        resources=resources,
        walltime_s=walltime_s,
    )
    return service.submit(asked).job_id


def test_a_job_runs_in_an_allocation_with_its_ranks(flux, opened, tmp_path):
    service = opened()
    (tmp_path / "rank.sh").write_text(f"#!/bin/sh\necho $FLUX_TASK_RANK >> {tmp_path}/ranks\n")
    (tmp_path / "rank.sh").chmod(0o755)
    command = ["sh", "-c", f"$QUACC_VASP_PARALLEL_CMD {tmp_path}/rank.sh; env"]
    asked = {"ranks": 2, "cores_per_rank": 3, "account": "ab12", "queue": "main"}
    job_id = submit(service, "run_command", asked, walltime_s=3600.0, command=command)
    job = finish(service, job_id)
    assert job.state is JobState.COMPLETED, job.error
    assert (tmp_path / "ranks").read_text().split() == ["0", "1"]
    (made,) = flux.jobs().values()
    told = service.result(job_id)["lines"]
    assert f"CRYSTALMATH_ALLOCATION={made['jobid']}" in told
    ends = next(line for line in told if line.startswith("CRYSTALMATH_ALLOCATION_ENDS="))
    assert 3000 < int(ends.partition("=")[2]) - time.time() <= 3600
    assert made["name"] == f"{job_id}.1"
    places = {"cwd", "output"}
    given = {key: value for key, value in made["asked"].items() if value and key not in places}
    assert given == {
        "nodes": 1,
        "nslots": 2,
        "cores_per_slot": 3,
        "bank": "ab12",
        "queue": "main",
        "time_limit": "3600s",
        "job_name": f"{job_id}.1",
    }


def test_a_job_that_waits_says_for_what_and_can_be_cancelled(flux, opened):
    flux.is_stopped.touch()
    service = opened()
    job_id = submit(service, "value")
    eventually(lambda: service.job(job_id).reason == "insufficient resources", 120)
    assert service.cancel(job_id)
    assert finish(service, job_id).state is JobState.CANCELLED
    eventually(lambda: [job.get("result") for job in flux.jobs().values()] == ["CANCELED"])


def test_a_job_that_runs_is_cancelled_with_its_allocation(flux, opened):
    service = opened()
    job_id = submit(service, "long_sleep")
    eventually(lambda: service.job(job_id).state is JobState.RUNNING, 120)
    assert service.cancel(job_id)
    assert finish(service, job_id).state is JobState.CANCELLED
    eventually(lambda: [job["state"] for job in flux.jobs().values()] == ["INACTIVE"])


def test_a_server_that_comes_back_finds_its_allocations_again(flux, opened):
    flux.is_stopped.touch()
    service = opened()
    job_id = submit(service, "value", number=3)
    eventually(lambda: service.job(job_id).reason == "insufficient resources", 120)
    service.close(cancel=False)
    flux.is_stopped.unlink()
    eventually(lambda: [job["state"] for job in flux.jobs().values()] == ["INACTIVE"])
    service = opened()
    assert finish(service, job_id).state is JobState.COMPLETED
    assert flux.calls("batch") == 1


def test_a_job_of_which_three_allocations_began_nothing_fails_with_their_last_words(
    flux, opened, home, monkeypatch
):
    service = opened()
    (home / "config.toml").write_text(f"{TABLE}worker_init = 'module load nosuch'")
    service = opened()
    job = finish(service, submit(service, "value"))
    assert job.state is JobState.FAILED
    assert "3 allocations ended without having begun it" in job.error
    assert "module: command not found" in job.error
    assert flux.calls("batch") == 3


def test_what_flux_refuses_says_why(flux, opened):
    flux.refusal.write_text("flux-batch: ERROR: [Errno 22] 'nope' is not a valid queue")
    service = opened()
    job = finish(service, submit(service, "value", {"queue": "nope"}))
    assert job.state is JobState.FAILED
    assert "'nope' is not a valid queue" in job.error


# --- what Flux says ------------------------------------------------------------------------------


@pytest.fixture
def asked(flux, tmp_path):
    """Launch, and give the runner and attempt."""
    clusters = {"there": Cluster(name="there", engine="psij", scheduler="flux")}
    runner = PsijRunner(EngineSettings(name="psij", home=tmp_path, clusters=clusters))
    attempt = Attempt(id=ID, job_id=ID[:-2], directory=tmp_path / "run", cluster="there")
    attempt.directory.mkdir()
    return runner, attempt


def test_an_allocation_whose_id_was_never_recorded_is_found_by_its_name(flux, asked):
    runner, attempt = asked
    flux.is_stopped.touch()
    assert runner.probe([attempt])[ID].state == "gone"
    handles = runner.launch([attempt])
    assert handles == {ID: flux_id(flux.jobs()[1000]["jobid"])}
    eventually(lambda: runner.probe([attempt])[ID].reason == "insufficient resources")
    runner.release([attempt])
    eventually(lambda: runner.probe([attempt])[ID].reason == "CANCELED")


def test_one_that_ends_before_it_is_cancelled_is_no_trouble(flux, asked, monkeypatch):
    runner, attempt = asked
    runner.launch([attempt])
    eventually(lambda: runner.probe([attempt])[ID].state == "gone")
    rows = FluxQueue.rows

    def late(*arguments):
        return [type(row)(row.native_id, row.name, "running") for row in rows(*arguments)]

    monkeypatch.setattr(FluxQueue, "rows", late)
    runner.release([attempt])
    assert flux.calls("cancel") == 1


def test_what_no_flux_can_give_is_refused_also_for_a_job_that_asked_another(asked):
    from crystalmath_engine_psij.batch_jobs import BatchJobs

    _, attempt = asked
    jobs = BatchJobs("flux", attempt.directory, logging.getLogger("test"))
    cluster = Cluster(
        name="there", engine="psij", scheduler="flux", resources=Resources(memory_mb=1)
    )
    answer = jobs.launch([attempt], cluster)[attempt.id]
    assert isinstance(answer, ConfigError)
    assert "'memory_mb' cannot be honoured: Flux hands out" in str(answer)


def job(number, state, **more):
    return {"id": number, "jobid": f"ƒ{number}", "name": f"n{number}", "state": state, **more}


def raised(kind, note="", severity=0):
    return {"occurred": True, "severity": severity, "type": kind, "note": note}


@pytest.mark.parametrize(
    ("told", "state", "reason"),
    [
        (job(3, "DEPEND", dependencies=["after-finish=ƒ2"]), "queued", "DEPEND: after-finish=ƒ2"),
        (job(3, "PRIORITY"), "queued", "PRIORITY"),
        (job(3, "SCHED", urgency=16, priority=16), "queued", "SCHED"),
        (job(3, "SCHED", urgency=0, priority=0), "queued", "held"),
        (job(3, "RUN"), "running", None),
        (job(3, "CLEANUP"), "running", "CLEANUP"),
        (job(3, "NEWER"), "unknown", "NEWER"),
        (job(3, "INACTIVE", result="COMPLETED"), "gone", "COMPLETED"),
        (job(3, "INACTIVE", result="FAILED"), "gone", "FAILED"),
        (job(3, "INACTIVE", result="CANCELED", exception=raised("cancel")), "gone", "CANCELED"),
        (
            job(3, "INACTIVE", result="CANCELED", exception=raised("cancel", "for the upgrade")),
            "gone",
            "CANCELED: for the upgrade",
        ),
        (
            job(3, "INACTIVE", result="FAILED", exception=raised("exec", "no shell")),
            "gone",
            "FAILED: exec: no shell",
        ),
        # An exception of a lesser severity has not ended it.
        (
            job(3, "INACTIVE", result="FAILED", exception=raised("warning", "slow", 7)),
            "gone",
            "FAILED",
        ),
    ],
)
def test_states_and_reasons(told, state, reason):
    (row,) = FluxQueue().rows(lambda _: json.dumps(told), ["f3"])
    assert (row.native_id, row.name, row.state, row.reason) == ("f3", "n3", state, reason)
    assert not row.fatal


def test_ends_that_another_attempt_would_meet_again_and_those_of_nodes(tmp_path, monkeypatch):
    ends = {
        "TIMEOUT": raised("timeout", "resource allocation expired"),
        "FAILED": raised("alloc", 'alloc denied due to type="unsatisfiable"'),
        "LOST": raised("node-failure", "node failure on n1 (shell rank 0)"),
    }
    jobs = [
        job(1, "INACTIVE", result="TIMEOUT", exception=ends["TIMEOUT"]),
        job(2, "INACTIVE", result="FAILED", exception=ends["FAILED"]),
        job(3, "INACTIVE", result="FAILED", exception=ends["LOST"]),
    ]
    command = tmp_path / "flux"
    says = f"echo $* >> {tmp_path}/calls; cat {tmp_path}/told; echo 'JobID f9 unknown' >&2"
    command.write_text(f"#!/bin/sh\n{says}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "told").write_text(
        json.dumps({"jobs": [{**each, "name": f"a.{each['id']}"} for each in jobs]})
    )
    clusters = {"there": Cluster(name="there", engine="psij", scheduler="flux")}
    runner = PsijRunner(EngineSettings(name="psij", home=tmp_path, clusters=clusters))
    told = {"job_id": "a", "directory": tmp_path, "cluster": "there"}
    attempts = [Attempt(id=f"a.{n}", handle=f"f{n}", **told) for n in (1, 2, 3, 9)]
    seen = [runner.probe(attempts)[attempt.id] for attempt in attempts]
    assert [(each.reason, each.fatal, each.unseen) for each in seen] == [
        ("TIMEOUT", True, False),
        ('FAILED: alloc: alloc denied due to type="unsatisfiable"', True, False),
        ("NODE_FAIL", False, True),
        ("flux does not know it (any more)", False, True),
    ]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert set(calls) == {"jobs --json f1 f2 f3 f9"}


@pytest.mark.parametrize(
    "told", ["ƒM7Zq9AKHno\n", "fM7Zq9AKHno", "Æ\x92M7Zq9AKHno\n", "note\nƒM7Zq9AKHno"]
)
def test_an_id_is_read_in_any_locale(told):
    assert flux_id(told) == "fM7Zq9AKHno"


def test_what_is_no_id_is_none():
    assert flux_id("") is None
    assert flux_id("flux-batch: done") is None
