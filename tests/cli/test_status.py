"""`status`, `show` and `progress`, asking a server."""

import json
from pathlib import Path

import pytest

from cli.shell import names, submit
from conftest import eventually
from crystalmath import config, processes
from crystalmath.client import connect, remote
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).parents[2] / "examples"
AL, CU = str(EXAMPLES / "Al.poscar"), str(EXAMPLES / "Cu.poscar")


def test_status_shows_the_parameters(here, cli):
    more = {"kpts": "(3, 3, 3)", "opt_params": '{"fmax": 0.1}', "name": "x" * 100}
    given = [text for key, value in more.items() for text in ("--param", f"{key}={value}")]
    said = cli("status", submit(cli, "report", *given)).out
    assert 'kpts=[3,3,3], opt_params={"fmax":0.1}, name="xxx' in said
    assert "x" * 60 not in said


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_status_takes_one_round_trip(here, cli, asked, monkeypatch, more):
    job_id = submit(cli, "value")
    assert cli("wait", job_id).code == 0
    ask, rounds = remote.Connection.ask_both, []

    def noted(connection, requests, *waited):
        rounds.append([method for method, _ in requests])
        return ask(connection, requests, *waited)

    monkeypatch.setattr(remote.Connection, "ask_both", noted)
    asked.clear()
    assert cli("status", job_id[:13], *more).code == 0
    assert asked == ["system.version", "jobs.specification"]
    assert asked in rounds


def test_show_says_where_the_body_of_a_flow_runs(here, cli, flow):
    shown = " ".join(cli("show", flow[0]).out.split())
    assert "engine other, cluster local " in shown
    assert "body local, cluster here " in shown
    assert cli("show", flow[0], "--json").json["body"] == {"engine": "local", "cluster": "here"}
    assert cli("show", flow[1], "--json").json["body"] is None
    assert "body" not in cli("show", flow[1]).out


def test_the_result_of_a_flow_in_one_job_is_said_to_be_its_last(here, cli, served):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(served.home))
        url = config.load().database_url
    asked = '{"in_one_job": true}\n{"parameters": {}, "atoms": null}'
    job = new_job(recipe="quacc.recipes.emt.slabs.bulk_to_slabs_flow", specification=asked)
    summary = {"energy_ev": -1.5, "steps": 4}
    with JobStore(url) as store:
        store.insert([job])
        ended = {"state": JobState.COMPLETED, "at": 1.7e9, "summary": summary}
        store.apply([Change(job_id=job.job_id, **ended)])
    shown = " ".join(cli("status", job.job_id).out.split())
    assert "energy -1.5000000000 eV" in shown
    assert "steps 4 in one job; energy, force, formula and work dir are those of the last" in shown


def test_the_progress_of_a_flow_is_a_bar_over_its_steps(here, cli, flow):
    header, row = cli("progress", flow[0]).lines
    assert "STEPS" in header
    assert "━━━─────── 1/3, 1 failed" in row
    (told,) = cli("progress", flow[0], "--json").json["jobs"]
    assert told["steps"] == {"completed": 1, "failed": 1, "pending": 1}
    with connect(start=False) as client:
        assert client.job(flow[0]).steps == told["steps"]
        assert [step.job_id for step in client.future(flow[0]).steps()] == flow[1:]
        assert client.future(flow[1]).steps() == []


def test_a_failed_flow_whose_step_completed_when_run_again_says_what_to_do(here, cli):
    asked = {"specification": '{}\n{"parameters": {}, "atoms": null}'}
    job = new_job(recipe="a.flow", stage="steps", **asked)
    parent = {"job_id": job.job_id, "role": "flow", "step": "relax_job#0"}
    tries = [new_job(parents=[parent], **asked) for _ in range(2)]
    ends = [("failed", "boom"), ("completed", None), ("failed", "StepFailed: relax_job#0 failed")]
    with JobStore(config.load().database_url) as store:
        store.insert([job, *tries])
        store.apply(
            [
                Change(job_id=one.job_id, state=JobState(state), at=1.7e9, error=error)
                for one, (state, error) in zip([*tries, job], ends, strict=True)
            ]
        )
    told = f"go on crystalmath retry {job.job_id[:8]}: all its steps have completed since"
    assert told in " ".join(cli("status", job.job_id).out.split())


@pytest.mark.parametrize("count", [999, 1000, 1001])
def test_show_says_where_it_tells_the_first_events_only(here, cli, count):
    text = '{"engine": "local", "cluster": "local"}\n{"parameters": {}, "atoms": null}'
    # It is this process's own: the server leaves it alone.
    job = new_job(specification=text, owner=vars(processes.own_identity()))
    change = {"job_id": job.job_id, "at": 1.7e9}
    with JobStore(config.load().database_url) as store:
        store.insert([job])
        noted = {**change, "state": JobState.PENDING}
        store.apply([Change(**noted, reason=f"for {number}") for number in range(1, count)])
        told = cli("show", job.job_id).out
        store.apply([Change(**change, state=JobState.CANCELLED)])
    assert f"for {min(count, 1000) - 1}\n" in told
    assert ("(the first 1000; more may follow" in told) == (count >= 1000)


OSZICAR = """\
DAV:   3    -0.372214035530E+01   -0.21119E+00   -0.21012E+00  3216   0.112E+01
   4 F= -.37221404E+01 E0= -.37210001E+01  d E =-.228072E-02
DAV:   1    -0.372241135530E+01   -0.21119E-03   -0.21012E-03  3216   0.112E-01
"""


def test_progress_tells_how_far_a_calculation_has_come(here, cli, asked):
    go = here / "go"
    given = ["--param", f"files={json.dumps({'tmp-1/OSZICAR': OSZICAR})}", "--param", f"path={go}"]
    job = submit(cli, "write_and_wait", *given, "--label", "set=progress")
    try:
        # The file is there before it is whole.
        eventually(lambda: (read_progress(cli, job) or {}).get("ionic_step") == 5)
        # And that may be before the record says that the job runs.
        eventually(lambda: names(cli, "--label", "set=progress", "--state", "running"))
        told = read_progress(cli, job)
        assert (told["program"], told["calculation"], told["file"]) == (
            "VASP",
            1,
            "tmp-1/OSZICAR",
        )
        assert (told["ionic_step"], told["electronic_step"]) == (5, 1)
        assert (told["energy_ev"], told["max_force_ev_ang"]) == (-3.7210001, None)
        header, row = cli("progress", "--label", "set=progress").lines
        assert header.split()[:6] == ["ID", "NAME", "PROGRAM", "CALC", "IONIC", "SCF"]
        assert row.split()[:7] == [job[:8], "Al", "VASP", "1", "5", "1", "-3.7210"]
        asked.clear()
        status = cli("status", job).out
        assert asked == ["system.version", "jobs.specification"]
        assert "VASP, calculation 1, ionic step 5, electronic step 1, -3.721000 eV" in status
    finally:
        go.touch()
    assert cli("wait", job).code == 0
    assert read_progress(cli, job)["ionic_step"] == 5
    assert "completed" in cli("progress", job).lines[1].split()
    answer = cli("progress", "--label", "set=progress")
    assert (answer.code, answer.out, answer.err) == (0, "", "no running jobs\n")
    nobody = cli("progress", "0" * 36, "--json")
    assert (nobody.code, nobody.json["code"], nobody.json["jobs"]) == (1, "unknown_job", [])


def test_status_of_a_failed_relaxation_tells_what_it_reached(here, cli):
    unreachable = ["--param", "opt_params.fmax=1e-9", "--param", "opt_params.max_steps=3"]
    job = cli("submit", "emt.core.relax_job", AL, *unreachable).out.strip()
    assert cli("wait", job).code == 1
    told = cli("status", job).out
    assert "ASE, calculation 1, ionic step 3, -0.0" in told
    assert f"crystalmath retry {job[:8]} --continue" in told
    broken = submit(cli, "fail", "--param", "message=bad")
    assert cli("wait", broken).code == 1
    assert "retry" not in cli("status", broken).out


def read_progress(cli, job):
    (told,) = cli("progress", job, "--json").json["jobs"]
    return told["progress"]
