"""A relaxation that was stopped goes on where it was: quacc and EMT as they are."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from ase.io.trajectory import Trajectory

from conftest import eventually
from crystalmath import config, processes
from crystalmath.errors import ConfigError, InvalidJob
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState, Submission
from crystalmath.models.retry import Retry
from crystalmath.reading.job_answers import attempts
from crystalmath.recipes.structures import parse_structure
from ends import completed, finish, opened, submit

pytestmark = pytest.mark.processes

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
    """Return the structure from which a job would go on, and the file that it is read from."""
    (row,) = service.retry([job.job_id], Retry(continued=True), dry_run=True)
    if isinstance(row, Exception):
        raise row
    body = json.loads(row.specification.partition("\n")[2])
    return parse_structure({"format": "ase-json", "data": body["atoms"]["data"]}), row.parents[0]


@pytest.fixture(scope="module")
def stopped(service):
    """Return a relaxation that failed after three steps."""
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
    with pytest.raises(InvalidJob, match=r"torn, or with other atoms: 1.work/.*/opt.traj; without"):
        rehearsed(service, job)
    shutil.rmtree(directory)
    with pytest.raises(InvalidJob, match="run directory of job .* is gone: .*; without --cont"):
        rehearsed(service, job)


def test_what_cannot_be_continued(service):
    flow = submit(service, "emt.slabs.bulk_to_slabs_flow", bulk("Cu"), {})
    assert service.cancel(flow)
    with pytest.raises(InvalidJob, match=r"_slabs_flow also computes other geometries, such"):
        rehearsed(service, finish(service, flow))
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    static = finish(service, submit(service, "emt.core.static_job", slab, {}))
    completed(service, static)
    with pytest.raises(InvalidJob, match="there is no whole geometry in"):
        rehearsed(service, static)


# --- of itself, once an attempt was lost ---------------------------------------------------------


def asked(recipe=RELAX, atoms=None, **options):
    return Submission(
        recipe=f"quacc.recipes.{recipe}", atoms=atoms or rattled(), environment={}, **options
    )


def many():
    """Return so many atoms that their relaxation takes some seconds."""
    atoms = bulk("Al", a=4.05, cubic=True).repeat((3, 3, 3))
    atoms.rattle(0.1, seed=3)
    atoms.set_tags(range(len(atoms)))
    return atoms


def frames_in(directory):
    """Count the geometries that the first attempt has written."""
    for file in Path(directory.work(1)).glob("*/opt.traj"):
        with contextlib.suppress(Exception), Trajectory(file) as frames:
            return len(frames)
    return 0


@pytest.mark.by_turns
def test_a_lost_attempt_goes_on_from_its_last_geometry(service):
    """Its worker is killed; the next attempt ends where an uninterrupted one ends."""
    atoms = many()
    options = {"opt_params": {"fmax": FORCE, "max_steps": 500}}
    whole = completed(service, finish(service, submit(service, RELAX, atoms, {}, **options)))
    job = service.submit(asked(atoms=atoms, parameters=options, continue_lost=True))
    directory = RunDirectory(service.config.jobs_directory / job.job_id)
    reached = eventually(lambda: (count := frames_in(directory)) > 5 and count)
    os.kill(directory.claimant(1).pid, signal.SIGKILL)
    job = finish(service, job.job_id)
    done = completed(service, job)
    assert job.attempt == 2
    first, second = attempts(directory, 2)
    assert (first["outcome"], first["begun_from"], second["outcome"]) == ("lost", None, "completed")
    assert re.fullmatch(r"1\.work/.*/opt\.traj", second["begun_from"])
    assert job.reason == f"attempt 2 began from the geometry in {second['begun_from']}"
    assert "begins from the geometry in 1.work/" in Path(directory.log(2)).read_text()
    # Not anew: what was computed is not computed once more.
    assert len(done["trajectory"]) <= len(whole["trajectory"]) - reached + 5
    begun = done["trajectory"][0]
    assert np.abs(begun.positions - atoms.positions).max() > 1e-3
    assert begun.get_tags().tolist() == atoms.get_tags().tolist()
    ends = [each["results"]["energy"] / len(atoms) for each in (done, whole)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)
    assert (
        np.linalg.norm(done["results"]["forces"], axis=1)[done["atoms"].get_tags() < 4].max() < 0.02
    )
    # What it was given is on record as it was.
    body = json.loads(service.specification(job.job_id).partition("\n")[2])
    given = parse_structure({"format": "ase-json", "data": body["atoms"]["data"]})
    assert np.array_equal(given.positions, atoms.positions)


@pytest.mark.by_turns
def test_an_attempt_that_has_left_nothing_is_begun_anew(service):
    """So is one that was not asked to go on, whatever it has left."""
    for options, left in (({"continue_lost": True}, False), ({}, True)):
        atoms = many()
        told = {"opt_params": {"fmax": 0.05, "max_steps": 500}}
        job = service.submit(asked(atoms=atoms, parameters=told, **options))
        directory = RunDirectory(service.config.jobs_directory / job.job_id)
        eventually(lambda directory=directory: frames_in(directory) > 1)
        supervisor = directory.claimant(1).pid
        os.kill(supervisor, signal.SIGSTOP)
        (runner,) = processes.children(supervisor, supervisor)
        os.kill(runner, signal.SIGSTOP)
        if not left:
            shutil.rmtree(directory.work(1))
        os.kill(supervisor, signal.SIGKILL)
        job = finish(service, job.job_id)
        done = completed(service, job)
        assert (job.attempt, job.reason, directory.begun_from(2)) == (2, None, None)
        assert np.abs(done["trajectory"][0].positions - atoms.positions).max() < 1e-9


SETTINGS = """
[jobs]
continue_lost = {home}
[clusters.other]
engine = "parsl"
scheduler = "slurm"
continue_lost = {cluster}
[clusters.here]
engine = "local"
continue_lost = {cluster}
"""


def test_where_the_home_or_the_cluster_says_so(tmp_path):
    """The submission goes before the cluster, and that before the home; relaxations alone."""
    (tmp_path / "config.toml").write_text(SETTINGS.format(home="true", cluster="false"))
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    jobs = []
    with opened(tmp_path, "local") as service:
        for expected, submission in (
            (True, asked()),
            (False, asked(continue_lost=False)),
            (None, asked("emt.core.static_job")),
            (True, asked("emt.core.static_job", continue_lost=True)),
            (None, asked("emt.slabs.bulk_to_slabs_flow", slab)),
        ):
            job = service.submit(submission)
            service.cancel(job.job_id)
            jobs.append(job.job_id)
            assert service.job(job.job_id).continue_lost is expected, submission
        (again,) = service.retry(
            [finish(service, job.job_id).job_id], Retry(continue_lost=False), dry_run=True
        )
        assert again.continue_lost is False
        # Elsewhere what was asked for still holds, and what this home has said does not.
        ended = [finish(service, job_id).job_id for job_id in jobs]
        elsewhere = service.retry(ended, Retry(cluster="here"), dry_run=True)
        assert [row.continue_lost for row in elsewhere] == [None, False, None, True, None]
        refused = asked("emt.slabs.bulk_to_slabs_flow", slab, continue_lost=True)
        with pytest.raises(
            InvalidJob, match=r"_slabs_flow cannot continue .*displaced.*--continue-l"
        ):
            service.submit(refused)
        assert "cannot continue" in service.check(refused).findings[0].message


def test_a_cluster_says_so(tmp_path):
    pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")

    def said(home, cluster, **changes):
        (tmp_path / "config.toml").write_text(SETTINGS.format(home=home, cluster=cluster))
        with opened(tmp_path, "local") as service:
            job = service.submit(asked())
            service.cancel(job.job_id)
            finish(service, job.job_id)
            change = Retry(cluster="other", **changes)
            (again,) = service.retry([job.job_id], change, dry_run=True)
            assert not isinstance(again, Exception), again
            return again.continue_lost

    assert said("false", "true") is True
    assert said("false", "false") is None
    assert said("false", "true", continue_lost=False) is False
    (tmp_path / "config.toml").write_text(SETTINGS.format(home="true", cluster='"no"'))
    with pytest.raises(ConfigError, match="continue_lost must be true or false, not 'no'"):
        config.load({"CRYSTALMATH_HOME": str(tmp_path)})
