"""VASP jobs from end to end, on engines of ours, with the stand-in for VASP and quacc as it is."""

import gzip
import importlib.util
import json
import os
import re
import shutil
import uuid
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from conftest import eventually
from crystalmath import processes
from crystalmath.errors import JobRefused
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState, Submission
from crystalmath.models.reference import JobValue
from crystalmath.recipes import codec
from crystalmath.store.records import group_errors
from ends import ENGINES, completed, failed, finish, opened, submit
from vasp import potcars

pytestmark = [pytest.mark.vasp, pytest.mark.by_turns]

#: What the stand-in binds each atom by, in eV (`standin_run.BINDING`).
BINDING = 4.0
#: What a relaxation of quacc's `vasp.core.relax_job` ends at, in eV/Å.
FORCE = 0.02
SLABS = {"max_index": 1, "min_slab_size": 3.0, "min_length_width": 2.0, "max_normal_search": 1}

AL = bulk("Al", a=4.1, cubic=True)
AL.rattle(0.05, seed=1)
MIXED = bulk("Cu", a=3.9, cubic=True)
MIXED.symbols[1:3] = "Al"  # Cu Al Al Cu: three blocks for ASE to sort

needs_atomate2 = pytest.mark.skipif(
    importlib.util.find_spec("atomate2") is None,
    reason="quacc's MP24 recipes need atomate2: pip install quacc[atomate2]",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return tmp_path_factory.mktemp("vasp")


@pytest.fixture(scope="module")
def environment(tree):
    """What the submitter has set; the same for nearly all, so that one worker stays warm."""
    more = {
        "QUACC_VASP_PARALLEL_CMD": "",
        # Those that watch a running VASP look after it every ten seconds.
        "QUACC_VASP_CUSTODIAN_HANDLERS": '["UnconvergedErrorHandler"]',
        "QUACC_VASP_CUSTODIAN_MAX_ERRORS": "1",
    }
    return potcars.beside_vasp(tree, "Al", "Cu", "Cu_pv", versions=["52", "54", "64"], **more)


@pytest.fixture(scope="module", params=ENGINES)
def service(open_mpi_as_root, request, tmp_path_factory):
    """One service for each engine, so that its workers are warm after the first jobs."""
    with opened(tmp_path_factory.mktemp("home"), request.param) as service:
        yield service


@pytest.fixture
def run(service, environment):
    def run(recipe, /, atoms=AL, **parameters):
        return finish(service, submit(service, f"vasp.{recipe}", atoms, environment, **parameters))

    return run


# --- what it computes ----------------------------------------------------------------------------


def emt(atoms):
    """Return energy and largest force as bare EMT has them, and the stand-in binds them.

    The force is on what may move, as ASE gives it.
    """
    atoms = atoms.copy()
    atoms.calc = EMT()
    forces = (atoms.get_forces() ** 2).sum(axis=1) ** 0.5
    return atoms.get_potential_energy() - BINDING * len(atoms), forces.max()


def relaxed(atoms, *, cell=False):
    atoms = atoms.copy()
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms) if cell else atoms, logfile=None).run(fmax=FORCE)
    return atoms


def check_summary(job, atoms, steps=None):
    """The summary says of the last step what bare EMT says of its atoms."""
    energy, force = emt(atoms)
    assert job.summary["energy_ev"] == pytest.approx(energy, abs=1e-6)
    assert job.summary["max_force_ev_ang"] == pytest.approx(force, abs=1e-6)
    assert job.summary["formula"] == atoms.get_chemical_formula()
    assert job.summary["natoms"] == len(atoms)
    assert job.summary.get("steps") == steps
    assert os.path.exists(os.path.join(job.summary["work_dir"], "OUTCAR.gz"))
    assert job.job_id in job.summary["work_dir"]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
@pytest.mark.parametrize("custodian", [True, False])
def test_vasp_gets_exactly_the_ranks_asked_for(service, environment, custodian):
    asked = submit(
        service,
        "vasp.core.static_job",
        MIXED,
        environment,
        resources={"ranks": 2},
        use_custodian=custodian,
    )
    job = finish(service, asked)
    completed(service, job)
    check_summary(job, MIXED)
    with gzip.open(f"{job.summary['work_dir']}/RANKS.gz", "rt") as ranks:
        assert sorted(ranks) == ["0 of 2\n", "1 of 2\n"]


@pytest.mark.parametrize("custodian", [True, False])
def test_a_static_job(service, run, custodian):
    job = run("core.static_job", MIXED, use_custodian=custodian)
    result = completed(service, job)
    check_summary(job, MIXED)
    assert result["nelements"] == 2
    spec = [each["titel"] for each in result["calcs_reversed"][0]["input"]["potcar_spec"]]
    assert spec == ["PAW_PBE Cu 01Jan2001", "PAW_PBE Al 01Jan2001"]


@pytest.mark.parametrize("cell", [False, True])
def test_a_relaxation(service, run, cell):
    job = run("core.relax_job", relax_cell=cell)
    atoms = completed(service, job)["atoms"]
    check_summary(job, atoms)
    expected = relaxed(AL, cell=cell)
    assert job.summary["energy_ev"] == pytest.approx(emt(expected)[0], abs=1e-6)
    assert atoms.cell.volume == pytest.approx(expected.cell.volume, abs=1e-4)
    assert bool(abs(atoms.cell - AL.cell).max() > 0.01) is cell


def test_a_double_relaxation_is_summarised_by_its_second_one(service, run):
    job = run("core.double_relax_flow")
    result = completed(service, job)
    check_summary(job, result["relax2"]["atoms"], steps=2)
    assert job.summary["work_dir"].endswith(result["relax2"]["dir_name"].name)
    expected = relaxed(relaxed(AL, cell=True), cell=True)
    assert job.summary["energy_ev"] == pytest.approx(emt(expected)[0], abs=1e-6)


def test_slabs_are_summarised_by_the_last_of_them(service, run):
    job = run("slabs.bulk_to_slabs_flow", bulk("Cu"), make_slabs_kwargs=SLABS)
    result = completed(service, job)
    assert len(result["static"]) == len(result["relax"]) >= 2
    for relaxation, static in zip(result["relax"], result["static"], strict=True):
        assert static["results"]["energy"] == pytest.approx(emt(static["atoms"])[0], abs=1e-6)
        assert relaxation["results"]["energy"] == pytest.approx(static["results"]["energy"])
    check_summary(job, result["static"][-1]["atoms"], steps=2 * len(result["static"]))


@needs_atomate2
@pytest.mark.parametrize(
    "recipe", ["mp_prerelax_job", "mp_metagga_relax_job", "mp_metagga_static_job"]
)
def test_the_materials_projects_jobs(service, run, recipe):
    job = run(f"mp24.{recipe}")
    check_summary(job, completed(service, job)["atoms"])


@needs_atomate2
def test_the_materials_projects_flow(service, run):
    job = run("mp24.mp_metagga_relax_flow")
    check_summary(job, completed(service, job)["static"]["atoms"], steps=4)


def test_a_potcar_that_is_replaced_while_the_job_waits_is_named(service, tree, environment):
    place = tree / "potcars/potpaw_PBE.54/Cu_pv/POTCAR"
    options = {"pp_version": "54", "setups": {"Cu": "_pv"}}
    busy = [
        submit(service, "vasp.core.static_job", AL, environment, system="STANDIN_SLEEP=3")
        for _ in os.sched_getaffinity(0)
    ]
    waits = submit(service, "vasp.core.static_job", bulk("Cu"), environment, **options)
    before = place.read_text()
    place.write_text(potcars.potcar("Cu_pv", zval=17.0))
    try:
        done = finish(service, waits)
    finally:
        place.write_text(before)
    assert done.summary["changed_files"] == [str(place)]
    for job in busy:
        assert "changed_files" not in finish(service, job).summary


# --- how it fails --------------------------------------------------------------------------------

SAID = "Error EDDDAV: Call to ZHEGV failed. Returncode = 12 2 8"


@pytest.mark.parametrize(
    ("custodian", "first"),
    [
        (True, "ValidationError: Validation failed: VasprunXMLValidator"),
        (False, "CalculationFailed: vasp in ... returned an error: {} stderr forrtl: severe (174)"),
    ],
)
@pytest.mark.parametrize(("crash", "code"), [("174", 174), ("kill", 137)])
def test_vasp_crashes_or_is_killed(service, run, custodian, first, crash, code):
    job = run("core.static_job", use_custodian=custodian, system=f"STANDIN_CRASH={crash}")
    files = failed(
        service,
        job,
        "\nthe end of vasp.out:\n",
        "Call to ZHEGV failed",
        "\nthe end of OUTCAR:\n",
        "  total plane-waves  NPLWV =",
        "SIGSEGV, segmentation fault occurred",
    )
    assert {"INCAR", "OUTCAR", "POTCAR.titel", "vasp.out"} <= set(files)
    assert not {"POTCAR", "POTCAR.orig"} & set(files)
    assert "/failed-quacc-" in job.error
    # A hundred of them are one line of what fails.
    another = job.error.replace(job.job_id, str(uuid.uuid4()))
    (group,) = group_errors([(job.error, job.job_id), (another, "another")])
    assert group.error.startswith(f"VASP: {SAID} ({first.format(code)}")
    assert "vasp_custodian.py" in job.traceback or not custodian


def test_what_vasp_refuses_is_told_in_its_own_words(service, run):
    left_handed = bulk("Al", cubic=True)
    left_handed.set_cell([[0, 4.05, 0], [4.05, 0, 0], [0, 0, 4.05]])
    job = run("core.static_job", left_handed)
    failed(service, job, "VasprunXMLValidator", "I REFUSE TO CONTINUE", "triple product")


def test_an_unconverged_run_that_quacc_refuses(service, run):
    job = run("core.static_job", use_custodian=False, system="STANDIN_UNCONVERGED=1")
    files = failed(
        service,
        job,
        "RuntimeError: VASP calculation did not converge. Will not store task data.",
        "\nthe end of vasp.out.gz:\n",
        "\nthe end of OUTCAR.gz:\n",
        "  General timing and accounting informations for this job:",
    )
    assert "vasprun.xml.gz" in files


def test_custodian_gives_up(service, run):
    job = run("core.static_job", system="STANDIN_UNCONVERGED=1")
    files = failed(service, job, "MaxCorrectionsPerJobError: Max errors per job reached: 1.")
    assert "error.1.tar.gz" in files


# --- before its time is up -----------------------------------------------------------------------


def test_vasp_is_asked_to_stop_before_the_walltime_is_over(environment, tmp_path):
    """It ends after a whole ionic step, whose geometry is there; killed, it would leave none."""
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home/config.toml").write_text("[walltime]\nnotice_s = 590\n")
    elsewhere = {
        "QUACC_SCRATCH_DIR": str(tmp_path / "scratch"),
        "QUACC_CHECK_CONVERGENCE": "false",
    }
    endless = {"ibrion": 0, "nsw": 10_000, "system": "STANDIN_STEP_SLEEP=0.2"}
    with opened(tmp_path / "home", "local") as service:
        jobs = [
            service.submit(
                Submission(
                    recipe="quacc.recipes.vasp.core.static_job",
                    atoms=AL,
                    parameters={"use_custodian": False, **endless},
                    environment=environment | more,
                    walltime_s=600,
                )
            )
            for more in ({}, elsewhere)
        ]
        checked, unchecked = [finish(service, job.job_id) for job in jobs]
        words = "the walltime was nearly over, and STOPCAR asked the program to stop: "
        failed(service, checked, words, "did not converge")
        completed(service, unchecked)
        assert unchecked.summary["asked_to_stop"] is True
        for job in jobs:
            log = Path(RunDirectory(service.config.jobs_directory / job.job_id).log(1)).read_text()
            assert re.search(r"s are left of the walltime: wrote /\S+/STOPCAR", log)


# --- cancelling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("custodian", [True, False])
def test_cancelling_ends_vasp_and_all_above_it(service, environment, custodian):
    sleeping = {"use_custodian": custodian, "system": "STANDIN_SLEEP=600"}
    job_id = submit(service, "vasp.core.static_job", AL, environment, **sleeping)
    vasp = eventually(lambda: _standins(job_id), 60, "VASP was not started")
    assert service.cancel(job_id) is True
    assert finish(service, job_id).state is JobState.CANCELLED
    assert not any(processes.is_alive(pid, start) for pid, start in vasp.items())
    assert _standins(job_id) == {}


def _standins(place):
    """Find VASP by its working directory: process ids and start times."""
    found = {}
    for name in os.listdir("/proc"):
        try:
            where = os.readlink(f"/proc/{name}/cwd")
            with open(f"/proc/{name}/cmdline") as file:
                if str(place) in where and "standin.py" in file.read():
                    found[int(name)] = processes.start_time(int(name))
        except OSError:
            continue
    return found


# --- as users have it ----------------------------------------------------------------------------


def test_custodians_own_handlers_mpirun_and_a_scratch_directory(environment, tree, tmp_path):
    """Custodian looks after a running VASP every ten seconds."""
    usual = {key: value for key, value in environment.items() if "CUSTODIAN" not in key}
    usual["QUACC_SCRATCH_DIR"] = str(tmp_path / "scratch")
    mpirun = tree / "bin" / "mpirun"
    mpirun.write_text('#!/bin/sh\nshift 2\nsh -c "$*" &\nwait $!\n')
    mpirun.chmod(0o755)
    usual["QUACC_VASP_PARALLEL_CMD"] = "mpirun -np 1"
    with opened(tmp_path / "home", "local") as service:
        good = submit(service, "vasp.core.static_job", AL, usual)
        crash = {"use_custodian": False, "system": "STANDIN_CRASH=3"}
        bad = submit(service, "vasp.core.static_job", AL, usual, **crash)
        sleeping = {"use_custodian": False, "system": "STANDIN_SLEEP=600"}
        long = submit(service, "vasp.core.static_job", AL, usual, **sleeping)
        job = finish(service, bad)
        place = f"\nthe calculation's files are in {usual['QUACC_SCRATCH_DIR']}/failed-"
        failed(service, job, "returned an error: 3", place)
        job = finish(service, good)
        completed(service, job)
        check_summary(job, AL)
        eventually(lambda: _standins(tmp_path / "scratch"), 60, "VASP was not started")
        assert service.cancel(long) is True
        assert finish(service, long).state is JobState.CANCELLED
        assert _standins(tmp_path / "scratch") == {}


def test_a_chain_whose_steps_wait_for_each_other(service, environment):
    def step(recipe, atoms, **parameters):
        return submit(service, f"vasp.core.{recipe}", atoms, environment, **parameters)

    relaxed = step("relax_job", AL)
    final = {"$job": relaxed, "path": ["atoms"]}
    static = step("static_job", final)
    last = step("non_scf_job", final, prev_dir=JobValue(static, ("dir_name",)))
    assert service.job(last).waits
    first, second, third = (
        completed(service, finish(service, job_id)) for job_id in (relaxed, static, last)
    )
    assert second["atoms"].positions == pytest.approx(first["atoms"].positions, abs=1e-8)
    assert third["results"]["energy"] == pytest.approx(second["results"]["energy"], abs=1e-8)
    # What the recipe reads for the structure was found once that was known.
    assert [potcar["symbol"] for potcar in service.pseudopotentials(last)] == ["Al"]
    document = json.loads(service.specification(last).split("\n", 1)[1])
    given = codec.decode_request(document["parameters"])["prev_dir"]
    assert Path(given).samefile(second["dir_name"])
    assert any(Path(given).glob("CHGCAR*"))


def test_a_missing_potcar_is_found_before_the_structure_is_there(service, environment, tmp_path):
    relaxed = submit(service, "emt.core.relax_job", AL, environment)
    again = submit(service, "emt.core.relax_job", {"$job": relaxed, "path": ["atoms"]}, environment)
    there = {**environment, "VASP_PP_PATH": str(tmp_path)}
    with pytest.raises(JobRefused, match="potpaw_PBE.64"):
        submit(service, "vasp.core.static_job", {"$job": again, "path": ["atoms"]}, there)
    # Of a recipe that makes other structures nothing is known: the job itself tells later.
    slabs = submit(service, "emt.slabs.bulk_to_slabs_flow", AL, environment)
    path = {"$job": slabs, "path": ["static", 0, "atoms"]}
    late = submit(service, "vasp.core.static_job", path, there)
    job = finish(service, late)
    assert job.state is JobState.FAILED
    assert "potpaw_PBE.64" in job.error
