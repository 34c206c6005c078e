"""A job's pseudopotentials, from where it is checked to where its record is shown."""

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from conftest import LAB, eventually
from crystalmath import config
from crystalmath.errors import JobRefused
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Submission
from crystalmath.preflight import inspector
from crystalmath.quacc.store import JobStore
from crystalmath.service import JobService
from server.home_server import HomeServer
from vasp.potcars import library, potcar

pytestmark = pytest.mark.vasp

ALUMINIUM = str(Path(__file__).parents[2] / "examples" / "Al.poscar")
STATIC = "quacc.recipes.vasp.core.static_job"
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for the module: a new path would be a new environment, and cost a new child."""
    yield tmp_path_factory.mktemp("pots")
    inspector.close()


@pytest.fixture(scope="module")
def mpirun(tmp_path_factory):
    """Return a launcher that is there, wherever these tests run."""
    program = tmp_path_factory.mktemp("mpi") / "mpirun"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.fixture(autouse=True)
def pots(folder, mpirun, monkeypatch):
    """Return the empty folder of the POTCARs; nothing of the developer's settings is read."""
    for path in folder.iterdir():
        shutil.rmtree(path)
    monkeypatch.setenv("VASP_PP_PATH", str(folder))
    monkeypatch.setenv("QUACC_CONFIG_FILE", str(folder / "quacc.yaml"))
    monkeypatch.setenv("ASE_CONFIG_PATH", str(folder / "ase.ini"))
    monkeypatch.setenv("QUACC_VASP_PARALLEL_CMD", f"{mpirun} -np {CORES}")
    monkeypatch.setenv("QUACC_VASP_CMD", sys.executable)  # is found, as VASP would be
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "asked_recipes")
    monkeypatch.syspath_prepend(LAB)
    return folder


@pytest.fixture(autouse=True)
def one_worker(home):
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")


@pytest.fixture
def perovskite(tmp_path):
    """Return a file of barium aluminate copper: three elements, of which one has a variant."""
    atoms = Atoms("BaAlCu", positions=[(0, 0, 0), (2, 2, 2), (2, 2, 0)], cell=[4] * 3, pbc=True)
    write(tmp_path / "POSCAR", atoms, format="vasp")
    return str(tmp_path / "POSCAR")


def left_in(home):
    return sorted(path.name for path in home.iterdir() if path.name != "config.toml")


# --- check ---------------------------------------------------------------------------------------


def test_a_good_tree_is_a_table_of_files(pots, cli, home, perovskite):
    library(pots, "Ba_sv", "Al", "Cu")
    answer = cli("check", "vasp.core.relax_job", perovskite)
    assert answer.code == 0, answer.out
    assert f"reads, below {pots}/potpaw_PBE.64:" in answer.lines
    at = next(n for n, line in enumerate(answer.lines) if line.startswith("SYMBOL"))
    rows = [line.split() for line in answer.lines[at : at + 4]]
    assert rows[0] == ["SYMBOL", "SETUP", "TITEL", "FILE"]
    told = {row[0]: row[1:] for row in rows[1:]}
    assert told["Ba"] == ["Ba_sv", "PAW_PBE", "Ba_sv", "01Jan2001", "Ba_sv/POTCAR"]
    assert told.keys() == {"Ba", "Al", "Cu"}
    assert all(len(line) <= 80 for line in answer.lines[at : at + 4])
    words = "checked with these variables of your environment: "
    (seen,) = [line for line in answer.lines if line.startswith(words)]
    assert "PATH" in seen
    assert "VASP_PP_PATH" in seen
    assert answer.lines[-1] == "this job would be accepted"
    assert "error" not in answer.out
    assert left_in(home) == []


def test_a_bad_tree_is_told_in_full(pots, cli, home, perovskite):
    library(pots, "Ba", "Al", "Cu")
    cut = pots / "potpaw_PBE.64" / "Cu" / "POTCAR"
    cut.write_text(potcar("Cu").replace(" End of Dataset\n", ""))
    aluminium = pots / "potpaw_PBE.64" / "Al" / "POTCAR"
    aluminium.unlink()
    aluminium.mkdir()
    answer = cli("check", "vasp.core.relax_job", perovskite, "--param", "encutt=520")
    assert answer.code == 1
    errors = [line for line in answer.lines if line.startswith("error: ")]
    for said in ("Ba_sv", "Cu/POTCAR", "Al/POTCAR"):
        assert any(said in line for line in errors), answer.out
    (typo,) = [line for line in errors if "encutt" in line]
    assert "lax (--lax) lets it pass" in typo
    assert "encut" in typo.replace("encutt", "")
    assert "this job would be accepted" not in answer.out
    assert left_in(home) == []


@pytest.mark.parametrize(
    ("recipe", "parameters", "codes", "said"),
    [
        ("relax_job", {"ediffg": 0.01}, {"parameter_sign"}, "less than 0.01 eV, however large"),
        ("relax_job", {"ediffg": -0.01}, set(), ""),
        ("relax_job", {"ediffg": 1e-4}, set(), ""),
        ("static_job", {"ediffg": 0.01}, set(), ""),
        (
            "static_job",
            {"xc": "r2scan"},
            {"parameter_algo", "parameter_dispersion"},
            "IVDW = 12 (DFT-D3) with METAGGA = R2SCAN: VASP has no damping parameters",
        ),
        ("static_job", {"xc": "r2scan", "algo": "all", "ivdw": 0}, set(), ""),
        ("static_job", {"preset": "DefaultSetMetaGGA"}, set(), ""),
        ("static_job", {"preset": "DefaultSetHybrid"}, set(), ""),
        ("static_job", {"xc": "scan"}, {"parameter_algo"}, "ALGO = FAST with METAGGA = SCAN"),
        ("static_job", {"xc": "am05"}, {"parameter_dispersion"}, "with GGA = AM"),
        ("static_job", {"xc": "am05", "vdw_s8": 1, "vdw_a1": 0.4, "vdw_a2": 4.8}, set(), ""),
        ("double_relax_flow", {"relax1_kwargs": {"ediffg": 0.1}}, {"parameter_sign"}, "in step 1"),
    ],
)
def test_tags_that_vasp_takes_and_nobody_means_are_told(pots, recipe, parameters, codes, said):
    library(pots, "Al")
    asked = Submission(
        recipe=f"quacc.recipes.vasp.core.{recipe}", atoms=bulk("Al"), parameters=parameters
    )
    with JobService() as service:
        found = service.check(asked).findings
    told = [one for one in found if one.code.startswith("parameter_")]
    assert {(one.code, one.severity) for one in told} == {(code, "warning") for code in codes}
    assert said in " ".join(one.message for one in told)


def test_a_flow_is_a_tree_of_the_jobs_that_it_calls(pots, cli):
    library(pots, "Al")
    asked = ["check", "vasp.core.double_relax_flow", ALUMINIUM]
    answer = cli(*asked, "--param", 'relax2_kwargs={"setups": {"Al": "_GW"}}')
    assert answer.code == 1
    at = answer.lines.index(next(line for line in answer.lines if line.startswith("STEP")))
    first, second = [line.split(maxsplit=2) for line in answer.lines[at + 1 : at + 3]]
    assert (first[:2], second[:2]) == (["relax_job#0", "Al4"], ["relax_job#1", "Al4"])
    assert "error" not in first[2]
    assert "error: see below" in second[2]
    (missing,) = [line for line in answer.lines if line.startswith("error: no POTCAR")]
    assert ", in step 2 of 2" in missing
    fine = cli(*asked, "--inputs", "--json")
    assert fine.code == 0
    told = fine.json["flow"]
    assert [(one["name"], one["known"], one["calculations"]) for one in told["steps"]] == [
        ("relax_job#0", True, [1]),
        ("relax_job#1", True, [2]),
    ]
    assert told["rest"] is None
    assert all(each["severity"] == "warning" for each in told["steps"][0]["findings"])
    assert [each["step"] for each in fine.json["inputs"]["steps"]] == ["relax_job#0", "relax_job#1"]
    wrong = ["emt.slabs.bulk_to_slabs_flow", ALUMINIUM, "--param", "job_params.relaxjob.fmax=1"]
    fails = cli("check", *wrong)
    assert fails.code == 1
    assert "did you mean job_params.relax_job?" in fails.out
    # A submission, which does not ask the body, refuses it with the same words.
    refused = cli("run", *wrong)
    assert refused.code == 1
    assert "did you mean job_params.relax_job?" in refused.err


def test_the_json_of_a_check(pots, cli):
    library(pots, "Al")
    fine = cli("check", "vasp.core.static_job", ALUMINIUM, "--json")
    assert fine.code == 0
    (file,) = fine.json["potcars"]
    path = pots / "potpaw_PBE.64" / "Al" / "POTCAR"
    assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    told = {"symbol": "Al", "setup": "Al", "path": str(path), "titel": "PAW_PBE Al 01Jan2001"}
    assert told.items() <= file.items()
    assert (file["lexch"], file["zval"]) == ("PE", 4.0)
    assert fine.json["ok"] is True
    assert "VASP_PP_PATH" in fine.json["environment"]
    # What the file is like is looked at each time.
    path.write_text("")
    bad = cli("check", "vasp.core.static_job", ALUMINIUM, "--json")
    assert bad.code == 1
    assert (bad.json["ok"], bad.json["status"], bad.json["potcars"][:0]) == (False, "error", [])
    (error,) = [finding for finding in bad.json["findings"] if finding["severity"] == "error"]
    assert error.keys() == {"severity", "code", "message", "path", "source", "remedy", "place"}
    assert error["path"] == str(path)


# --- submit --------------------------------------------------------------------------------------


def test_a_refused_job_leaves_nothing(pots, tmp_path, cli, monkeypatch):
    library(pots, "Si")
    new = tmp_path / "new home"
    environ = {"CRYSTALMATH_HOME": str(new), "CRYSTALMATH_RECIPES": "asked_recipes"}
    with JobService(config.load(environ)) as service:
        with pytest.raises(JobRefused, match="Al"):
            service.submit(Submission(recipe=STATIC, atoms=bulk("Al")))
        assert service.engine_states()["local"] == "not loaded"
    assert not new.exists()
    monkeypatch.setenv("CRYSTALMATH_HOME", str(new))
    answer = cli("run", "vasp.core.static_job", ALUMINIUM, "--json")
    assert answer.code == 1
    assert (answer.json["job_id"], answer.json["status"]) == (None, "error")
    assert answer.json["code"] == "refused"
    assert answer.json["error"]
    assert not new.exists()


def test_what_a_job_reads_is_on_record(pots, cli, home):
    library(pots, "Al")
    sha256 = hashlib.sha256(potcar("Al").encode()).hexdigest()
    with JobService() as service:
        parameters = {"encutt": 520}
        asked = Submission(recipe=STATIC, atoms=bulk("Al"), parameters=parameters, lax=True)
        job = service.submit(asked)
        assert any("encutt" in warning["message"] for warning in job.warnings)
        # What becomes of the file later changes nothing.
        shutil.rmtree(pots / "potpaw_PBE.64")
        (file,) = service.pseudopotentials(job.job_id)
        assert (file["symbol"], file["setup"], file["sha256"]) == ("Al", "Al", sha256)
    with JobStore(f"sqlite:///{home / 'jobs.sqlite'}", create=False) as store:
        assert store.pseudopotentials(job.job_id) == [file]
    told = cli("status", job.job_id).lines
    assert f"POTCARs     Al: PAW_PBE Al 01Jan2001 (Al, {sha256[:8]}…)" in told
    (first,) = [n for n, line in enumerate(told) if line.startswith("warnings    ")]
    assert any("encutt" in line for line in told[first:])
    assert "encutt" in cli("result", job.job_id).err


def test_a_retry_that_is_refused_says_whose_environment_it_sees(pots, cli, home):
    library(pots, "Al")
    with JobService() as service:
        job = service.submit(Submission(recipe=STATIC, atoms=bulk("Al")))
        eventually(lambda: service.job(job.job_id).finished_at)
    shutil.rmtree(pots / "potpaw_PBE.64")
    answer = cli("retry", job.job_id, "--dry-run")
    assert answer.code == 1
    assert "a retry has the environment (PATH, ...) of its old job" in answer.err


def test_ranks_times_the_engines_workers_are_compared_with_the_cores(pots, home, monkeypatch):
    library(pots, "Al")
    job = Submission(recipe=STATIC, atoms=bulk("Al"))

    def codes():
        with JobService() as service:
            return {finding.code for finding in service.check(job).findings}

    assert "too_many_ranks" not in codes()
    (home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
    assert "too_many_ranks" in codes()
    assert "command_missing" not in codes()
    monkeypatch.setenv("QUACC_VASP_CMD", "/no/vasp_std")
    assert "command_missing" in codes()


def test_a_recipe_that_cannot_be_asked_is_not_refused(pots):
    job = Submission(recipe="asked_recipes.kill_itself", atoms=bulk("Al"))
    with JobService() as service:
        (finding,) = service.check(job).findings
    assert (finding.severity, finding.code) == ("warning", "recipe_unchecked")
    assert "SIGKILL" in finding.message


# --- through a server ----------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    with HomeServer(tmp_path / "home") as server:  # it fails where a process is left
        yield server


def test_start_the_server_then_export_and_submit(server, pots, monkeypatch):
    library(pots, "Al")
    monkeypatch.delenv("VASP_PP_PATH")
    server.start(VASP_PP_PATH="/of/the/server")
    command = ["submit", "vasp.core.static_job", ALUMINIUM, "--json"]
    refused = server.run(*command)
    assert refused.returncode == 1
    assert "potcar_unset" in refused.stdout, refused
    assert "finding the files that the recipe reads" in refused.stderr
    # No VASP is here.
    there = {"VASP_PP_PATH": str(pots), "QUACC_VASP_CMD": sys.executable}
    accepted = server.run(*command, **there)
    assert accepted.returncode == 0, accepted
    job_id = json.loads(accepted.stdout)["job_id"]
    directory = RunDirectory(server.home / "jobs" / job_id)
    eventually(lambda: directory.has("spec"))
    header = directory.read_header()
    assert header["environment"]["VASP_PP_PATH"] == str(pots)
    (file,) = server.call("jobs.specification", job_id=job_id)["potcars"]
    assert file["path"] == f"{pots}/potpaw_PBE.64/Al/POTCAR"
    assert "asking" not in server.run(*command, **there).stderr


def test_while_a_recipe_is_asked_for_the_first_time_others_are_answered(server, tmp_path):
    server.start(CRYSTALMATH_RECIPES="asked_recipes")
    given = {"structure": {"symbols": "Al", "cell": [3.0] * 3, "pbc": True}, "engine": "local"}
    asked = {"recipe": "asked_recipes.wait_for", "params": {"path": str(tmp_path / "go")}}
    ended = []

    def check():
        ended.append(server.call("jobs.check", **asked, **given))

    threads = [threading.Thread(target=check) for _ in range(9)]  # more than a pool has
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    emt = "quacc.recipes.emt.core.static_job"
    try:
        assert server.call("jobs.check", recipe=emt, **given)["ok"]
        assert ended == []
    finally:
        (tmp_path / "go").touch()
        for thread in threads:
            thread.join()
    assert len(ended) == len(threads)
