"""The commands, as people and scripts use them, on the real thing."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from attrs import evolve

from commands import finish, limited, start
from conftest import AL, LAB, eventually
from crystalmath import cli as command_line
from crystalmath.cli import submit
from crystalmath.cli.shared import output
from crystalmath.cli.shared.places import option_at
from crystalmath.jobs.cgroups import ControlGroup
from crystalmath.jobs.changes import Change
from crystalmath.processes import start_time
from crystalmath.quacc import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job

COMMANDS = ("run", "submit", "check", "list", "status", "wait", "result", "logs", "path", "cancel")
COMMANDS += ("files", "counts", "du", "prune", "engines", "recipes", "serve", "stop")
COMMANDS += ("init", "doctor", "conform")
COMMANDS += ("plot",)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Yield a home with a job of each kind, and the service that runs them."""
    from crystalmath.models import Submission
    from crystalmath.quacc.engines import close_all
    from crystalmath.service import JobService

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(tmp_path_factory.mktemp("shared")))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        patch.syspath_prepend(LAB)
        jobs = {
            "relaxed": ("quacc.recipes.emt.core.relax_job", bulk("Cu"), {}),
            "failed": ("lab_recipes.fail", bulk("Cu"), {"message": "no such luck"}),
            "value": ("lab_recipes.value", bulk("Cu"), {"number": 7}),
            "sleeping": ("lab_recipes.long_sleep", bulk("Cu"), {}),
        }
        with JobService() as service:
            ids = {
                name: service.submit(
                    Submission(
                        recipe=recipe,
                        atoms=atoms,
                        parameters=parameters,
                        engine="local",
                        name=name,
                        labels={"kind": name},
                    )
                ).job_id
                for name, (recipe, atoms, parameters) in jobs.items()
            }
            finished = [ids[name] for name in ("relaxed", "failed", "value")]
            assert len(list(service.wait(finished, timeout=120))) >= 3
            eventually(lambda: service.job(ids["sleeping"]).state is JobState.RUNNING)
            yield ids, os.environ["CRYSTALMATH_HOME"]
        close_all()


@pytest.fixture
def jobs(shared, monkeypatch):
    ids, home = shared
    monkeypatch.setenv("CRYSTALMATH_HOME", home)
    return ids


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(cli, command, flag):
    answer = cli(command, flag)
    assert answer.code == 0
    assert f"Example: crystalmath {command}" in answer.out
    assert "--json" in answer.out
    assert "--verbose" in answer.out


def test_status(cli, jobs):
    for job_id in (jobs["relaxed"], jobs["relaxed"][:8]):
        document = cli("status", job_id, "--json").json
        assert document["job_id"] == jobs["relaxed"]
        assert document["status"] == "completed"
        assert document["error"] is None
        assert document["result"]["energy_ev"] == pytest.approx(-0.005681511358581304, abs=1e-9)
        assert document["result"].keys() >= {"max_force_ev_ang", "formula", "work_dir"}
    said = cli("status", jobs["relaxed"])
    assert said.code == 0
    assert "-0.0056815114 eV" in said.out
    assert cli("status", jobs["sleeping"], "--json").json["status"] == "running"
    assert "parameters  number=7" in cli("status", jobs["value"]).out
    document = cli("status", jobs["value"], "--json").json
    assert (document["params"], document["attempt"]) == ({"number": 7}, 1)


def test_an_unknown_job(cli, jobs):
    for command in ("status", "result", "path", "cancel", "logs"):
        answer = cli(command, "ffffffff-0000", "--json")
        assert answer.code == 1
        document = answer.json
        assert (document["status"], document["code"]) == ("error", "unknown_job")
        assert document["job_id"] == "ffffffff-0000"
        assert "ffffffff-0000" in document["error"]
        assert "ffffffff-0000" in answer.err
    assert cli("cancel", "ffffffff-0000", "--json").json["cancelled"] is False


def test_asking_makes_no_database(cli, home):
    assert cli("status", "ffffffff").code == 1
    assert cli("list", "--json").json == {"jobs": [], "totals": {}, "error": None}
    assert list(home.iterdir()) == []


def test_the_result_is_the_whole_of_what_the_recipe_returned(cli, jobs):
    answer = cli("result", jobs["relaxed"], "--json")
    assert answer.code == 0
    assert answer.json["status"] == "completed"
    assert answer.json["result"]["results"]["energy"] == pytest.approx(-0.00568151, abs=1e-7)
    told = cli("result", jobs["relaxed"]).out
    assert "work dir" in told
    assert "returned   atoms={...}, " in told
    assert " more (--field NAME prints one, --json all)" in told


def test_the_result_of_a_failed_job_is_its_error_and_traceback(cli, jobs):
    answer = cli("result", jobs["failed"])
    assert answer.code == 1
    assert answer.out == ""
    assert "RuntimeError: no such luck" in answer.err
    assert "in fail" in answer.err
    document = cli("result", jobs["failed"], "--json").json
    assert (document["status"], document["result"]) == ("failed", None)
    assert "no such luck" in document["error"]


def test_a_job_that_runs_has_no_result_yet(cli, jobs):
    answer = cli("result", jobs["sleeping"])
    assert (answer.code, answer.out) == (1, "")
    assert "running" in answer.err


def test_logs(cli, jobs):
    assert "no such luck" in cli("logs", jobs["failed"]).out
    assert "BFGS" in cli("logs", jobs["relaxed"], "opt.log").out
    document = cli("logs", jobs["relaxed"], "opt.log", "--json").json
    assert "BFGS" in document["text"]
    refused = cli("logs", jobs["relaxed"], "../spec")
    assert refused.code == 1
    assert refused.out == ""


def test_files(cli, jobs):
    table = cli("files", jobs["relaxed"][:8])
    assert table.code == 0
    header, *rows = table.lines
    assert header.split() == ["SIZE", "AGE", "FILE"]
    assert any("/opt.log" in row and row == row.rstrip() for row in rows)
    document = cli("files", jobs["relaxed"], "--json").json
    for file in document["files"]:
        seen = Path(document["work_dir"], file["file"]).lstat()
        assert (file["size"], file["modified_at"]) == (seen.st_size, seen.st_mtime)
    paths = [file["file"] for file in document["files"]]
    assert paths == sorted(paths)
    assert "BFGS" in cli("logs", jobs["relaxed"], next(p for p in paths if "opt.log" in p)).out
    nothing = cli("files", jobs["value"])
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err.startswith("there are no files below ")
    refused = cli("files", jobs["relaxed"], "--attempt", 2, "--json")
    assert (refused.code, refused.json["files"]) == (1, [])
    assert "has had 1 attempt, " in refused.json["error"]


def test_path_is_known_in_any_state(cli, jobs):
    for name in ("relaxed", "failed", "sleeping"):
        printed = cli("path", jobs[name]).out
        assert Path(printed.rstrip("\n")).is_dir()
        assert cli("path", jobs[name], "--json").json["path"] == printed.rstrip("\n")


def test_list(cli, jobs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = cli("list").out.splitlines()
    assert len(table) == 5
    assert max(map(len, table)) <= 80
    assert "quacc.recipes" not in table[4]
    assert "emt.core.relax_job" in table[4]
    assert jobs["relaxed"][:8] in table[4]
    failed = cli("list", "--state", "failed", "--json").json["jobs"]
    assert [job["name"] for job in failed] == ["failed"]
    labelled = cli("list", "--label", "kind=value", "--engine", "local", "--json").json["jobs"]
    assert [job["job_id"] for job in labelled] == [jobs["value"]]
    assert len(cli("list", "--limit", "2", "--json").json["jobs"]) == 2
    assert cli("list", "--engine", "another", "--json").json["jobs"] == []
    assert cli("list", "--state", "asleep").code == 2


def test_cancel_of_a_finished_job_changes_nothing(cli, jobs):
    answer = cli("cancel", jobs["relaxed"], "--json")
    assert answer.code == 1
    assert answer.json["cancelled"] is False
    assert cli("status", jobs["relaxed"], "--json").json["status"] == "completed"


def test_cancel_from_another_process(cli, jobs):
    answer = finish(start("cancel", jobs["sleeping"][:13], "--json"))
    assert answer.code == 0
    assert answer.json == {"job_id": jobs["sleeping"], "cancelled": True, "error": None}
    status = ("status", jobs["sleeping"], "--json")
    eventually(lambda: cli(*status).json["status"] == "cancelled")


def test_run_prints_the_result(cli, lab):
    found = "results={'energy': -1.5, 'forces': [[0, 0, 0.01]]}"
    answer = cli("run", "lab_recipes.tell", AL, "--param", found)
    assert answer.code == 0, answer.err
    assert "energy" in answer.out
    assert " eV/Å" in answer.out
    lines = answer.err.splitlines()
    assert [line.split()[-1] for line in lines] == ["pending", "running", "completed"]
    document = cli("status", answer.out.split()[-1], "--json").json
    assert document["name"] == "Al"
    assert document["result"]["max_force_ev_ang"] == 0.01


def test_run_of_a_job_that_fails_on_a_terminal(lab, tmp_path):
    ours, theirs = pty.openpty()
    given = ("--param", f"path={tmp_path / 'go'}", "--param", "message=bad")
    process = start("run", "lab_recipes.wait_and_fail", AL, *given, "--json", stderr=theirs)
    os.close(theirs)
    shown = b""
    with limited(process, seconds=120), contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(ours, 4096):
            shown += part
            # One that had ended before it was looked at would not have been shown to run.
            if b"s  running" in shown:
                (tmp_path / "go").touch()
    answer = finish(process)
    os.close(ours)
    assert answer.code == 1
    assert answer.json["status"] == "failed"
    assert "bad" in answer.json["error"]
    assert "s  running" in shown.decode()
    assert "\x1b[" in shown.decode()


def run_sleeper(tmp_path):
    """Start `run` with a recipe that has children; give the process and its children's pids."""
    pids = tmp_path / "pids"
    process = start("run", "lab_recipes.sleeping_grandchild", AL, "--param", f"pids={pids}")
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    return process, [int(pid) for pid in pids.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_for_real(lab, cli, tmp_path, number):
    process, children = run_sleeper(tmp_path)
    process.send_signal(number)
    answer = finish(process)  # which does not wait for as long as the job sleeps
    assert answer.code == 128 + number
    assert "stopping job" in answer.err
    assert answer.err.splitlines()[-1].endswith("cancelled")
    assert not any(map(start_time, children))
    assert cli("list", "--json").json["jobs"][0]["status"] == "cancelled"


def test_a_second_signal_leaves_at_once(home, lab, tmp_path):
    # For so long at least the job is being stopped: one of its processes ignores SIGTERM.
    (home / "config.toml").write_text("[cancel]\ngrace_s = 5\n")
    process, children = run_sleeper(tmp_path)
    with limited(process):
        process.send_signal(signal.SIGINT)
        # Two that come before the first is heard are one.
        assert any("stopping job" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert (finish(process).code, said) == (130, "")
    eventually(lambda: not any(map(start_time, children)), message="the job lives on")


def test_a_refused_job_is_recorded_nowhere(cli, home, lab, judge):
    doomed = ("lab_recipes.value", AL, "--param", "number=doomed")
    answer = cli("run", *doomed, "--json")
    assert answer.code == 1
    document = answer.json
    assert (document["job_id"], document["status"], document["code"]) == (None, "error", "refused")
    assert "VASP_PP_PATH" in document["error"]
    assert [finding["severity"] for finding in document["findings"]].count("error") == 2
    assert cli("list", "--json").json["jobs"] == []
    answer = cli("check", *doomed)
    assert answer.code == 1
    *_, first, second, third, seen = answer.out.splitlines()
    assert first == "error: it would die (set VASP_PP_PATH)"
    assert (second, third) == ("error: it would die twice", "warning: it is odd")
    assert "checked with these variables of your environment: CRYSTALMATH_RECIPES, " in seen
    assert list(home.iterdir()) == []


def test_what_a_job_reads_is_shown_where_it_is_checked_and_asked_about(cli, lab, judge):
    odd = ("lab_recipes.value", AL, "--param", "number=odd")
    answer = cli("check", *odd)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == "reads, below /pp/potpaw_PBE.64:"
    assert lines[1].split() == ["SYMBOL", "SETUP", "TITEL", "FILE"]
    assert lines[2].split() == ["Al", "Al", "PAW_PBE", "Al", "04Jan2001", "Al/POTCAR"]
    assert lines[-1] == "this job would be accepted"
    assert all(len(line) <= 80 for line in lines[:3])
    document = cli("check", *odd, "--json").json
    assert (document["ok"], document["potcars"][0]["setup"]) == (True, "Al")
    ran = cli("run", *odd, "--json")
    assert "warning: it is odd (do not)\n" in ran.err
    job_id = ran.json["job_id"]
    told = cli("status", job_id).out
    assert "POTCARs     Al: PAW_PBE Al 04Jan2001 (Al, 1a2b3c4d…)" in told
    assert "warnings    it is odd (do not)" in told
    # All of the hash, for programs.
    assert cli("status", job_id, "--json").json["potcars"] == document["potcars"]
    assert "warning: it is odd (do not)" in cli("result", job_id).err


def test_submit_puts_a_warning_into_the_same_words(capsys):
    finding = {"severity": "warning", "message": "it is odd", "remedy": "do not"}
    output.tell_alike([{"job_id": "x", "name": "Al", "warnings": [finding]}])
    assert capsys.readouterr().err == "warning: it is odd (do not)\n"


@pytest.mark.parametrize(
    ("place", "option"),
    [
        ("by_step", "--step-cluster/--step-resources"),
        ("by_step.emt.*", "--step-cluster/--step-resources emt.*"),
        ("by_step.a.b*.resources.memory_mb", "--step-resources a.b*=memory"),
        ("by_step.a.walltime_s", "--step-resources a=walltime"),
        ("by_step.a.cluster", "--step-cluster a"),
        ("walltime_total_s", "--walltime-total"),
        ("resources.ranks", "--ranks"),
        ("force", "--force"),
        ("params.opt_params.fmax", None),
    ],
)
def test_findings_name_the_option_of_their_place(place, option):
    assert option_at(place) == option
    finding = {"message": f"{place!r} must be set", "place": place}
    assert output.sentence(finding) == f"{option or repr(place)} must be set"
    assert output.sentence(finding | {"place": None}) == f"{place!r} must be set"


@pytest.mark.parametrize("command", ["submit", "check", "run"])
def test_errors_name_the_option_of_their_place(command, cli, lab, alone):
    answer = cli(command, "emt.core.relax_job", AL, "--serial")
    assert answer.code == 1
    assert "--serial is for flows" in answer.out + answer.err


def test_an_error_of_several_lines(cli, lab):
    job_id = cli("run", "lab_recipes.fail", AL, "--param", "message=one\n two", "--json").json[
        "job_id"
    ]
    lines = cli("status", job_id).lines
    (first,) = [n for n, line in enumerate(lines) if line.endswith("RuntimeError: one")]
    assert lines[first].startswith("error ")
    assert lines[first + 1] == " " * lines[first].index("Runtime") + " two"
    said = cli("list", "--summary").lines
    assert "       1 RuntimeError: one" in said
    assert not any("two" in line for line in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["emt.core.relax_jo", AL], "relax_job"),
        (["emt.core.__class__", AL], "not permitted"),
        (["emt.core.relax_job", AL, "--param", "fmax_=1", "--engine", "nope"], "nope"),
        (["emt.core.relax_job", AL, "--cluster", "nope"], "nope"),
        (["emt.core.relax_job", AL, "--param", "atoms=1"], "atoms"),
        (["emt.core.relax_job", __file__], "test_cli.py"),
    ],
)
def test_what_is_refused(cli, arguments, said):
    for command in ("run", "check"):
        answer = cli(command, *arguments)
        assert answer.code == 1
        assert said in answer.out + answer.err
        assert "Traceback" not in answer.err
        assert cli(command, *arguments, "--json").json["status"] == "error"


@pytest.mark.parametrize(
    "arguments",
    [
        ["emt.core.relax_job"],
        ["emt.core.relax_job", "nowhere.poscar"],
        ["emt.core.relax_job", AL, "--param", "kpts=[3,3"],
        ["emt.core.relax_job", AL, "--param", "a=1", "--param", "a.b=1"],
        ["emt.core.relax_job", AL, "--params", "nowhere.json"],
        ["emt.core.relax_job", AL, "--walltime", "soon"],
        ["emt.core.relax_job", AL, "--label", "no-value"],
        ["emt.core.relax_job", AL, "--surprise"],
    ],
)
def test_wrong_usage(cli, arguments):
    answer = cli("run", *arguments, "--json")
    assert answer.code == 2
    assert answer.json["code"] == "usage"
    assert "Usage: crystalmath run" in answer.err


@pytest.mark.parametrize("option", ["--on", "--home"])
def test_an_option_of_all_commands_comes_before_them(cli, option):
    answer = cli("list", option, "hawk")
    assert answer.code == 2
    assert answer.err.endswith(f"No such option: {option}; write it before the command\n")


def test_verbose_shows_the_traceback_of_an_expected_error(cli):
    answer = cli("run", "emt.core.nothing", AL, "--verbose")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "InvalidJob" in answer.err


def test_check_names_everything_at_once(cli):
    document = cli("check", "vasp.core.no_job", AL, "--engine", "nope", "--json").json
    assert len(document["findings"]) >= 2
    fine = cli("check", "emt.core.relax_job", AL, "--param", "relax_cell=true", "--json")
    assert fine.code == 0
    same = {"status": "ok", "error": None, "findings": [], "potcars": [], "copies": []}
    assert fine.json == {"ok": True, **same, "environment": ["PATH"]}


def test_a_configuration_that_cannot_be_read_is_one_message(cli, home):
    (home / "config.toml").write_text("engin = 'local'")
    for command in (["list"], ["engines"], ["status", "1"], ["recipes"], ["doctor"]):
        answer = cli(*command)
        assert answer.code == 1
        assert "did you mean 'engine'" in answer.out + answer.err
        assert "Traceback" not in answer.err


def test_engines(cli):
    infos = {info["name"]: info for info in cli("engines", "--json").json["engines"]}
    assert infos["local"]["loads"]
    assert infos["local"]["configured"]
    assert "local" in cli("engines").out


def test_engines_say_what_keeps_one_from_running_jobs(cli, home):
    (home / "config.toml").write_text("[engines.local]\nwrokers = 2\n")
    infos = {info["name"]: info for info in cli("engines", "--json").json["engines"]}
    (finding,) = infos["local"]["findings"]
    assert (finding["severity"], finding["code"]) == ("error", "config")
    assert "wrokers" in finding["message"]
    table = cli("engines")
    assert finding["message"] in " ".join((table.out + table.err).split())


def test_recipes(cli):
    document = cli("recipes", "emt.core.relax_job", "--json").json["recipe"]
    assert document["name"] == "quacc.recipes.emt.core.relax_job"
    assert {"name": "relax_cell", "default": "False"}.items() <= document["parameters"][0].items()
    text = cli("recipes", "emt.core.relax_job").out
    assert "relax_cell=False" in text
    assert "Carry out a geometry optimization." in text
    names = [recipe["name"] for recipe in cli("recipes", "emt", "--json").json["recipes"]]
    assert "quacc.recipes.emt.slabs.bulk_to_slabs_flow" in names
    assert "vasp.core.double_relax_flow" in cli("recipes").out
    assert cli("recipes", "emt.core.nothing").code == 1


def test_own_recipes_by_the_start_of_their_module(cli, tmp_path, monkeypatch):
    package = tmp_path / "ourlab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "recipes.py").write_text(
        "from quacc import job\n\n\n@job\ndef count(atoms):\n    return {'n': len(atoms)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "ourlab.recipes")
    for name in ("ourlab", "ourlab.recipes"):
        (told,) = cli("recipes", name, "--json").json["recipes"]
        assert told["name"] == "ourlab.recipes.count"


def test_doctor_looks_without_writing(cli, home):
    document = cli("doctor", "--json").json
    assert document["status"] == "ok"
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert states["database"] == "ok"
    assert states["POTCARs"] == "warning"
    assert list(home.iterdir()) == []


def test_doctor_takes_no_file_system_without_room_for_a_disk(cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", "/sys/crystalmath")
    checks = cli("doctor", "--json").checks
    assert (checks["home"]["state"], checks["disk"]["state"]) == ("error", "warning")


def test_doctor_tells_what_ends_the_processes_of_a_job(cli):
    check = cli("doctor", "--json").checks["processes"]
    group = ControlGroup.make()
    assert ("guardian" in check["message"]) is (group is None)
    if group is not None:
        group.remove()
        assert str(Path(group.path).parent) in check["message"]


def test_doctor_tells_where_potcars_are_looked_for(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    there = cli("doctor", "--json").checks["POTCARs"]
    assert there["state"] == "warning"
    assert f"no PBE folder (potpaw_PBE* or PBE*) in {tmp_path} (from VASP_PP_PATH)" in str(there)
    (tmp_path / "potpaw_PBE.64" / "Al").mkdir(parents=True)
    there = cli("doctor", "--json").checks["POTCARs"]
    assert there["state"] == "ok"
    assert there["message"] == f"{tmp_path} (from VASP_PP_PATH); potpaw_PBE.64: 1"


def test_doctor_tells_that_there_is_no_vasp(cli, monkeypatch):
    monkeypatch.setenv("QUACC_VASP_CMD", "/no/vasp_std")
    monkeypatch.setenv("QUACC_VASP_GAMMA_CMD", "/no/vasp_gam")
    answer = cli("doctor")
    assert "/no/vasp_std (QUACC_VASP_CMD) nor /no/vasp_gam" in answer.out
    assert "only VASP's recipes need it" in answer.out
    assert answer.code == 0


def test_doctor_names_a_plugin_that_cannot_load(cli, install):
    install("sick-check", "sick", "import no_such_module\n", group="crystalmath.plugins")
    checks = cli("doctor", "--json").checks
    assert checks["plugin"]["state"] == "warning"
    for said in ("'sick' of 'sick-check'", "no_such_module"):
        assert said in checks["plugin"]["message"]


def test_doctor_names_what_prevents_running(cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_ENGINE", "nope")
    answer = cli("doctor")
    assert answer.code == 1
    assert "'nope' is wanted and not installed" in answer.out
    assert "pip install crystalmath-engine" not in answer.out


def test_doctor_sees_a_home_that_cannot_be_made(cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", "/proc/x")
    checks = cli("doctor", "--json").checks
    assert checks["home"]["state"] == "error"
    assert "CRYSTALMATH_HOME" in checks["home"]["remedy"]


def test_doctor_looks_at_the_configuration(cli, home):
    (home / "config.toml").write_text("[engines.foo]\nx = 1\n[engines.local]\nworker = 1\n")
    checks = cli("doctor", "--json").json["checks"]
    (warning,) = [check for check in checks if "foo" in check["message"]]
    assert (warning["name"], warning["state"]) == ("config", "warning")
    (local,) = [check for check in checks if check["message"].startswith("local,")]
    assert local["state"] == "error"
    assert "worker is no option; did you mean 'workers'?" in local["remedy"]
    (home / "config.toml").write_text("engine = parsl")
    *_, last = cli("doctor", "--json").json["checks"]
    assert (last["name"], last["state"]) == ("config", "error")
    assert last["remedy"]


def test_doctor_runs_a_job(cli, jobs, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")  # as there: its worker is warm
    answer = cli("doctor", "--run", "--engine", "local", "--json")
    assert answer.code == 0, answer.err
    check = answer.json["checks"][-1]
    assert (check["name"], check["state"]) == ("run", "ok")
    assert "energy -0.00" in check["message"]


HEAVY = ("ase", "quacc", "parsl", "numpy", "alembic", "rich", "pymatgen", "monty")


def test_a_cold_start_imports_nothing_heavy(jobs):
    code = (
        "import sys\nfrom crystalmath.cli import main\n"
        f"try: main(['path', {jobs['relaxed']!r}])\n"
        "except SystemExit as left: assert not left.code\n"
        f"print('HEAVY', sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY!r})))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.splitlines()[-1] == "HEAVY []"


def test_the_reader_may_go_away(jobs):
    command = f"{sys.executable} -m crystalmath result {jobs['relaxed']} --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_recipe_that_takes_no_structure(cli, lab):
    answer = cli("run", "lab_recipes.without_structure", "--param", "number=3", "--json")
    assert (answer.code, answer.json["status"]) == (0, "completed")
    assert cli("check", "lab_recipes.without_structure").code == 0
    answer = cli("run", "lab_recipes.without_structure", AL)
    assert (answer.code, "takes no structure" in answer.err) == (1, True)
    answer = cli("run", "lab_recipes.value")
    assert (answer.code, "needs a structure" in answer.err) == (2, True)
    shown = cli("recipes", "espresso.dos.dos_job").out
    assert "Parameters; it takes no structure:\n    copy_files=None" in shown


def test_the_jobs_of_a_sweep_without_a_structure_are_named_by_it(home):
    swept = [({"number": str(number)}, {"number": number}, {}) for number in (1, 2)]
    requests = list(submit._requests("lab.f", [(None, None)], swept, {}))
    assert [name for name, _ in requests] == ["number=1", "number=2"]
    assert all("structure" not in job for _, job in requests)


def test_show_tells_of_each_relative_once_and_in_which_ways(cli, home):
    old, new = (f"{number}" * 8 + "-0000-4000-8000-000000000000" for number in (1, 2))
    told = {"specification": '{"owner": {}}\n{"parameters": {}}', "created_at": 1.0}
    job = new_job(old, recipe="quacc.recipes.emt.core.relax_job", **told)
    taken = {"job_id": old, "role": "structure", "file": "1.work/opt.traj"}
    parents = [taken, {"job_id": old, "role": "retry"}]
    home.mkdir(exist_ok=True)
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        store.insert([job])
        store.insert([evolve(job, job_id=new, parents=parents)])
    led_to = f"led to {new} (from a geometry of it, a retry of it): emt.core.relax_job, pending"
    assert led_to in " ".join(cli("show", old).out.split())
    came_of = f"came of {old} (the geometry in 1.work/opt.traj, a retry of it): emt.core.relax_job"
    assert came_of in " ".join(cli("show", new).out.split())


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_errors_of_all_commands_have_one_shape(cli, name):
    answer = cli(name, "--no-such-option", "--json")
    assert answer.code == 2
    document = answer.json
    assert (document["status"], document["code"]) == ("error", "usage")
    assert "--no-such-option" in document["error"]
    assert document.keys() == {
        "job_id",
        "status",
        "error",
        "code",
        *command_line.COMMANDS[name].answer,
    }


def test_an_error_has_the_keys_that_an_answer_has(home, cli):
    document = cli("check", "emt.core.static_job", "no/such/file", "--json").json
    assert (document["ok"], document["findings"], document["status"]) == (False, [], "error")
    for command in ("clusters", "engines", "recipes", "presets", "list", "du", "counts", "stop"):
        answer = cli(command, "--json")
        assert answer.json["error"] is None, command
        assert answer.json.keys() >= command_line.COMMANDS[command].answer.keys(), command


def test_doctor_warns_of_flows_in_the_configuration_that_there_are_not(home, cli):
    home.mkdir(mode=0o700, exist_ok=True)
    given = '["bulk_to_slabs_flw", "emt.core.*", "nothing", "*.phonon_flow"]'
    (home / "config.toml").write_text(f"[flows]\non_cluster = {given}\n")
    told = [one for one in cli("doctor", "--json").json["checks"] if "on_cluster" in one["message"]]
    assert [one["message"].split("config.toml: ")[1] for one in told] == [
        f"'{name}' means no flow that there is"
        for name in ("bulk_to_slabs_flw", "emt.core.*", "nothing")
    ]
    assert told[0]["remedy"] == "did you mean 'bulk_to_slabs_flow'?"


def test_lines_of_a_table_end_with_their_last_word(cli):
    lines = cli("recipes").out.splitlines()
    assert lines
    assert [line for line in lines if line != line.rstrip()] == []


def test_on_a_terminal_it_is_told_that_unfinished_jobs_have_no_server(home, cli, monkeypatch):
    told = {"specification": '{"owner": {}}\n{"atoms": null, "parameters": {}}'}
    waiting, ended = new_job(**told), new_job(**told)
    home.mkdir(exist_ok=True)
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        store.insert([waiting])
        end = Change(job_id=ended.job_id, state=JobState.CANCELLED, at=1.0)
        store.insert_ended([(ended, end)])
    commands = (
        *(("list",), ("status", waiting.job_id), ("show", waiting.job_id)),
        ("progress", waiting.job_id),
    )
    assert [cli(*command).err for command in commands] == [""] * 4
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for command in commands:
        assert cli(*command).err.startswith("no server runs: pending jobs start when one does")
    for command in (("list", "--json"), ("list", "--state", "cancelled"), ("status", ended.job_id)):
        assert cli(*command).err == ""
