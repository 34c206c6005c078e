"""Relax, continue, make static: an antiferromagnet keeps its order, with the stand-in for VASP."""

import asyncio
import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

from crystalmath.errors import InvalidJob
from crystalmath.models import JobState, Submission
from crystalmath.models.retry import Retry
from crystalmath.recipes.structures import parse_structure
from crystalmath.server.handlers import METHODS
from ends import completed, failed, finish, submit
from vasp import potcars

pytestmark = [pytest.mark.vasp, pytest.mark.by_turns]

MOMENTS = [2, 0, -2, 0, -2, 0, 2, 0]


def nickel_oxide():
    """Ni and O in turn, which ASE has to sort for VASP."""
    atoms = bulk("NiO", "rocksalt", a=4.17, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_initial_magnetic_moments(MOMENTS)
    atoms.set_tags(range(8))
    atoms.set_constraint(FixAtoms([0]))
    return atoms


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    root = tmp_path_factory.mktemp("vasp")
    # Custodian looks after a running VASP every ten seconds, if it has handlers.
    more = {"QUACC_VASP_PARALLEL_CMD": "", "QUACC_VASP_CUSTODIAN_HANDLERS": "[]"}
    return potcars.beside_vasp(root, "Ni_pv", "Ni", "O", **more)


@pytest.fixture(scope="module")
def stopped(service, environment):
    """Return a relaxation that did not converge in three steps."""
    asked = {"nsw": 3, "system": "STANDIN_UNCONVERGED=1", "use_custodian": False}
    job = finish(
        service, submit(service, "vasp.core.relax_job", nickel_oxide(), environment, **asked)
    )
    failed(service, job, "VASP calculation did not converge")
    return job


def incar(job):
    with gzip.open(Path(job.summary["work_dir"]) / "INCAR.gz", "rt") as file:
        lines = (line.partition("=") for line in file)
        return {tag.strip(): value.strip() for tag, _, value in lines}


def magmom(job):
    """Return the moments of the ions, in VASP's order: Ni first."""
    words = [word.rpartition("*") for word in incar(job)["MAGMOM"].split()]
    return [float(moment) for count, _, moment in words for _ in range(int(count or 1))]


def rehearsed(service, job):
    """Return the structure from which a job would go on, and the file that it is read from."""
    (row,) = service.retry([job.job_id], Retry(continued=True), dry_run=True)
    if isinstance(row, Exception):
        raise row
    body = json.loads(row.specification.partition("\n")[2])
    atoms = parse_structure({"format": "ase-json", "data": body["atoms"]["data"]})
    return atoms, row.parents[0]["file"]


def test_an_antiferromagnet_keeps_its_order(service, stopped, environment):
    changes = Retry(continued=True, parameters={"nsw": 200, "system": "NiO"})
    (again,) = service.retry([stopped.job_id], changes)
    relaxed = finish(service, again.job_id)
    final = completed(service, relaxed)["atoms"]
    sorted_moments = [2, -2, -2, 2, 0, 0, 0, 0]
    assert magmom(relaxed) == sorted_moments
    assert incar(relaxed)["NSW"] == "200"
    structure = {"format": "job", "job_id": relaxed.job_id}
    asked = Submission(
        recipe="quacc.recipes.vasp.core.static_job", atoms=structure, environment=environment
    )
    static = finish(service, service.submit(asked).job_id)
    result = completed(service, static)
    assert incar(static)["NSW"] == "0"
    assert magmom(static) == sorted_moments
    assert result["atoms"].get_initial_magnetic_moments().tolist() == MOMENTS
    assert np.abs(result["atoms"].positions - final.positions).max() < 1e-5
    assert result["atoms"].get_tags().tolist() == list(range(8))
    assert [fix.get_indices().tolist() for fix in final.constraints] == [[0]]
    assert [parent["role"] for parent in relaxed.parents] == ["structure", "retry"]


def test_files_of_the_last_calculation_go_along(service, stopped, tmp_path):
    copy = ("WAVECAR", "CONTCAR")
    (row,) = service.retry([stopped.job_id], Retry(continued=True, copy=copy), dry_run=True)
    assert not isinstance(row, Exception), row
    body = json.loads(row.specification.partition("\n")[2])
    (spec,) = body["parameters"]["copy_files"]
    assert [name.removesuffix(".gz") for name in spec["filenames"]] == list(copy)
    assert all(Path(spec["source"], name).is_file() for name in spec["filenames"])
    # What the job is given from elsewhere stays, but for what is copied anew.
    for name in ("CHGCAR", "WAVECAR", "vdw_kernel.bindat"):
        (tmp_path / name).write_text("of another job")
    kernel = {"source": str(tmp_path), "filenames": "vdw_kernel.*"}
    files = ["CHGCAR", "WAVECAR"]
    for given, kept in (
        ([kernel, {"source": str(tmp_path), "filenames": files}], [kernel, ["CHGCAR"]]),
        ([{"source": str(tmp_path), "filenames": "WAVECAR"}, kernel], [kernel]),
        (None, []),
    ):
        changes = Retry(copy=copy, parameters={"copy_files": given})
        (row,) = service.retry([stopped.job_id], changes, dry_run=True)
        assert not isinstance(row, Exception), row
        *others, last = json.loads(row.specification.partition("\n")[2])["parameters"]["copy_files"]
        assert last == spec
        assert [one if one == kernel else one["filenames"] for one in others] == kept
    for name, said in (
        ("PROCAR", r"has left no WAVECAR and PROCAR in .*without --copy"),
        ("POTCAR", "'POTCAR' is no file that a calculation can begin with"),
        ("../spec", "is no file that a calculation can begin with"),
    ):
        (told,) = service.retry([stopped.job_id], Retry(copy=("WAVECAR", name)), dry_run=True)
        assert re.search(said, str(told))


def test_the_frames_of_vasp_have_the_order_of_the_atoms_that_were_given(service, stopped):
    answer = asyncio.run(METHODS["jobs.trajectory"](service, {"job_id": stopped.job_id}))
    assert (answer["error"], Path(answer["file"]).name) == (None, "vasprun.xml.gz")
    assert answer["frames"] == answer["positions"]["shape"][0] == 3
    given = nickel_oxide()
    assert answer["numbers"] == given.numbers.tolist()
    values = {
        name: np.frombuffer(base64.b64decode(told["data"]), told["dtype"]).reshape(told["shape"])
        for name, told in answer.items()
        if name in {"positions", "forces", "energies"}
    }
    # The first frame is what the job was given; the fixed atom stays where it is.
    assert np.abs(values["positions"][0] - given.positions).max() < 1e-5
    assert np.abs(values["positions"][-1] - given.positions)[0].max() < 1e-5
    assert np.abs(values["positions"][-1] - given.positions).max() > 1e-3
    assert values["energies"].shape == (3,)
    # Pulled along the forces that stand beside them, atom by atom.
    moved = values["positions"][1] - values["positions"][0]
    assert (moved * values["forces"][0]).sum(axis=1)[1:].min() > 0


def test_files_that_are_torn_are_passed_over(service, stopped):
    directory = service.config.jobs_directory / stopped.job_id
    given = nickel_oxide()

    def cut(name, size):
        path = directory / Path(taken).with_name(f"{name}.gz")
        with gzip.open(path) as file:
            text = file.read()
        with gzip.open(path, "wb") as file:
            file.write(text[:size])

    last, taken = rehearsed(service, stopped)
    assert Path(taken).name == "CONTCAR.gz"
    assert last.symbols.get_chemical_formula("reduce") == "NiONiONiONiO"
    assert 1e-3 < np.abs(last.positions - given.positions)[1:].max() < 0.5
    assert last.get_initial_magnetic_moments().tolist() == MOMENTS
    # The last number has lost its last digits, and is a number still.
    cut("CONTCAR", -3)
    same, taken = rehearsed(service, stopped)
    assert Path(taken).name == "vasprun.xml.gz"
    assert np.abs(same.positions - last.positions).max() < 1e-6
    cut("vasprun.xml", -2000)
    before, taken = rehearsed(service, stopped)
    assert Path(taken).name == "vasprun.xml.gz"
    assert 1e-4 < np.abs(before.positions - last.positions).max() < 0.5
    cut("vasprun.xml", 300)
    with pytest.raises(InvalidJob, match=r"torn, or with other atoms: .*CONTCAR.gz, .*vasprun.xml"):
        rehearsed(service, stopped)


# --- read again ----------------------------------------------------------------------------------


@pytest.fixture
def watched(environment, tmp_path):
    """Return an environment whose program notes each of its starts, and that note."""
    log, program = tmp_path / "log", tmp_path / "vasp_watched"
    program.write_text(f"#!/bin/sh\necho started >> '{log}'\nexec vasp_std\n")
    program.chmod(0o755)
    told = {"QUACC_VASP_CMD": str(program)}
    return {**environment, **told}, log


UNCONVERGED = {"nsw": 3, "system": "STANDIN_UNCONVERGED=1", "use_custodian": False}
LET_PASS = {"CHECK_CONVERGENCE": "False"}


def test_what_has_ended_and_was_refused_is_read_again(service, watched):
    """Its program is not started, and the result is that of the calculation that was refused."""
    environment, log = watched
    job_id = submit(service, "vasp.core.relax_job", nickel_oxide(), environment, **UNCONVERGED)
    job = finish(service, job_id)
    failed(service, job, "did not converge")
    assert log.read_text() == "started\n"
    # As before, and refused as before.
    same = service.reread(job_id, Retry())
    failed(service, finish(service, same.job_id), "did not converge")
    new = service.reread(job_id, Retry(), LET_PASS)
    assert new.parents == [{"job_id": job_id, "role": "reread"}]
    result = completed(service, finish(service, new.job_id))
    assert result["results"]["energy"] < 0
    assert log.read_text() == "started\n"
    # A reading is not run again: the job itself is.
    (told,) = service.retry([same.job_id], Retry())
    assert f"has read job {job_id} again" in str(told)
    with pytest.raises(InvalidJob, match="is completed: its result is there"):
        service.reread(new.job_id, Retry())


def test_what_has_not_ended_is_not_read_again(service, environment):
    asked = {"system": "STANDIN_CRASH=3", "use_custodian": False}
    job_id = submit(service, "vasp.core.static_job", nickel_oxide(), environment, **asked)
    failed(service, finish(service, job_id), "EDDDAV")
    with pytest.raises(InvalidJob, match=r"did not finish.*OUTCAR.*retry --continue"):
        service.reread(job_id, Retry())
    # Not even a program.
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1)
    asked = {"opt_params": {"max_steps": 1}}
    job_id = submit(service, "emt.core.relax_job", atoms, environment, **asked)
    job = finish(service, job_id)
    assert job.state is JobState.FAILED
    assert "did not converge" in job.error
    with pytest.raises(InvalidJob, match=r"no calculation of a program that can be read.*VASP"):
        service.reread(job_id, Retry())


def test_nothing_is_computed_that_was_not_there(service, watched):
    """A flow whose first calculation was refused would go on with another one."""
    environment, log = watched
    asked = {"relax1_kwargs": UNCONVERGED}
    job_id = submit(service, "vasp.core.double_relax_flow", nickel_oxide(), environment, **asked)
    failed(service, finish(service, job_id), "did not converge")
    new = finish(service, service.reread(job_id, Retry(), LET_PASS).job_id)
    assert new.state is JobState.FAILED
    assert "no earlier calculation had this input" in new.error, new.error
    assert log.read_text() == "started\n"
