"""A relaxation that was stopped goes on where it was: quacc and EMT as they are."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms

from crystalmath.errors import InvalidJob
from crystalmath.models import JobState
from crystalmath.models.retry import Retry
from crystalmath.recipes.structures import parse_structure
from ends import completed, finish, opened, submit

RELAX = "emt.core.relax_job"
#: How far a relaxation goes, in eV/Å.
FORCE = 1e-3


def rattled():
    atoms = bulk("Al", a=4.05, cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_tags([4, 3, 2, 1])
    atoms.set_initial_magnetic_moments([2, -2, -2, 2])
    return atoms


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("home"), "local") as service:
        yield service


def relax(service, atoms=None, *, steps, recipe=RELAX, **parameters):
    options = {"fmax": FORCE, "max_steps": steps}
    atoms = rattled() if atoms is None else atoms
    asked = submit(service, recipe, atoms, {}, opt_params=options, **parameters)
    return finish(service, asked)


def did_not_converge(job):
    assert job.state is JobState.FAILED
    assert "Optimization did not converge" in job.error


def going_on(service, job, **changes):
    """Have a job continued; give the new one, or why there is none."""
    (answer,) = service.retry([job.job_id], Retry(continued=True, **changes))
    return answer


def rehearsed(service, job):
    """Give the structure from which a job would go on, and the file that it is read from."""
    (row,) = service.retry([job.job_id], Retry(continued=True), dry_run=True)
    if isinstance(row, Exception):
        raise row
    body = json.loads(row.specification.partition("\n")[2])
    return parse_structure({"format": "ase-json", "data": body["atoms"]["data"]}), row.parents[0]


@pytest.fixture(scope="module")
def stopped(service):
    """Give a relaxation that failed after three steps."""
    job = relax(service, steps=3)
    did_not_converge(job)
    return job


def test_it_ends_where_the_uninterrupted_one_ends(service, stopped):
    whole = completed(service, relax(service, steps=500))
    assert len(whole["trajectory"]) > 8
    job = going_on(service, stopped, parameters={"opt_params": {"max_steps": 500}})
    (taken, retried) = job.parents
    assert taken["file"].startswith("1.work/")
    assert Path(taken["file"]).name == "opt.traj.gz"
    assert (taken["role"], retried["role"]) == ("structure", "retry")
    assert taken["job_id"] == retried["job_id"] == stopped.job_id
    done = completed(service, finish(service, job.job_id))
    assert len(done["trajectory"]) < len(whole["trajectory"])
    ends = [each["results"] for each in (done, whole)]
    assert ends[0]["energy"] == pytest.approx(ends[1]["energy"], abs=1e-5)
    assert np.abs(np.subtract(*(each["forces"] for each in ends))).max() < 2 * FORCE
    assert [np.linalg.norm(each["forces"][1:], axis=1).max() < FORCE for each in ends] == [True] * 2
    assert np.abs(done["atoms"].positions - whole["atoms"].positions).max() < 5e-3


def test_all_but_the_geometry_is_as_the_job_was_given_it(service, stopped):
    atoms, _ = rehearsed(service, stopped)
    given = rattled()
    moved = np.abs(atoms.positions - given.positions).max(axis=1)
    assert moved[0] == 0
    assert moved[1:].min() > 1e-3
    assert atoms.get_initial_magnetic_moments().tolist() == [2, -2, -2, 2]
    assert atoms.get_tags().tolist() == [4, 3, 2, 1]
    assert [fix.get_indices().tolist() for fix in atoms.constraints] == [[0]]


def test_a_cell_that_was_relaxed_goes_along(service):
    job = relax(service, bulk("Al", a=4.3, cubic=True), steps=2, relax_cell=True)
    did_not_converge(job)
    atoms, _ = rehearsed(service, job)
    assert 4.0 < atoms.cell.lengths()[0] < 4.29


def test_a_trajectory_that_is_torn(service):
    job = relax(service, steps=4)
    directory = service.config.jobs_directory / job.job_id
    whole, taken = rehearsed(service, job)
    # quacc compresses it at the end: what was killed has left it as it was written.
    packed = directory / taken["file"]
    data = gzip.decompress(packed.read_bytes())
    packed.unlink()
    file = packed.with_suffix("")
    file.write_bytes(data)
    same, taken = rehearsed(service, job)
    assert (same, Path(taken["file"]).name) == (whole, "opt.traj")
    file.write_bytes(data[:-200])
    before, _ = rehearsed(service, job)
    assert 1e-6 < np.abs(before.positions - whole.positions).max() < 0.1
    file.write_bytes(data[:100])
    with pytest.raises(InvalidJob, match=r"torn, or of other atoms: 1.work/.*/opt.traj; without"):
        rehearsed(service, job)
    shutil.rmtree(directory)
    with pytest.raises(InvalidJob, match="there is no whole geometry in .*; without --continue"):
        rehearsed(service, job)


def test_what_cannot_be_continued(service):
    flow = submit(service, "emt.slabs.bulk_to_slabs_flow", bulk("Cu"), {})
    assert service.cancel(flow)
    with pytest.raises(InvalidJob, match=r"_slabs_flow computes also geometries that are not on"):
        rehearsed(service, finish(service, flow))
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    static = finish(service, submit(service, "emt.core.static_job", slab, {}))
    completed(service, static)
    with pytest.raises(InvalidJob, match="there is no whole geometry in"):
        rehearsed(service, static)
