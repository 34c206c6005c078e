"""Jobs that ran away: atoms overlap or the energy is absurd, and continuing gains nothing."""

import threading

import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory

from crystalmath import server
from crystalmath.cli import cancel
from crystalmath.cli.shared import long_running
from crystalmath.client import JobFailed, connect, in_process
from crystalmath.jobs.runaway import find_runaway
from server.home_server import HomeServer

pytestmark = pytest.mark.server

LONG = 300
FEW = {"opt_params": {"fmax": 1e-6, "max_steps": 1}}


@pytest.mark.filterwarnings("ignore::crystalmath.client.SubmissionWarning")
def test_a_runaway_is_not_continued_unless_forced(home):
    squeezed, sound = bulk("Cu", a=1.0, cubic=True), bulk("Cu", cubic=True)
    for seed, atoms in enumerate((squeezed, sound)):
        atoms.rattle(0.02, seed=seed)
    with in_process() as client:
        jobs = [client.submit("emt.core.relax_job", atoms, FEW) for atoms in (squeezed, sound)]
        for job in jobs:
            with pytest.raises(JobFailed):
                job.result(LONG)
        refused, again = client.retry(
            jobs, {"opt_params": {"max_steps": 300, "fmax": 0.05}}, continued=True
        )
        assert "ran away, and is not continued: atoms overlap" in str(refused)
        assert "the atoms Cu" in str(refused)
        assert "(--force)" in str(refused)
        assert again.result(LONG)
        (forced,) = client.retry(jobs[:1], continued=True, force=True, dry_run=True)
        assert forced is None


def write_energies(path, atoms, energies):
    """Write a trajectory of the same atoms with these energies in eV."""
    with Trajectory(path, "w") as frames:
        for energy in energies:
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.positions * 0)
            frames.write(atoms)


@pytest.mark.filterwarnings("ignore::crystalmath.client.SubmissionWarning")
def test_failures_are_grouped_by_the_cause_of_a_runaway(home):
    with in_process() as client:
        squeezed = [bulk("Cu", a=a, cubic=True) for a in (1.0, 1.1)]
        for seed, atoms in enumerate([*squeezed, sound := bulk("Cu", cubic=True)]):
            atoms.rattle(0.02, seed=seed)
        jobs = [client.submit("emt.core.relax_job", one, FEW) for one in [*squeezed, sound]]
        for job in jobs:
            with pytest.raises(JobFailed):
                job.result(LONG)
        runaways, others = client.ask(server.JOBS_SUMMARY)["errors"]
    assert runaways["count"] == 2
    assert runaways["error"].startswith("atoms overlap")
    assert others["count"] == 1
    assert "overlap" not in others["error"]


def test_an_absurd_energy_is_not_continued_unless_forced(home):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02)
    with in_process() as client:
        job = client.submit("emt.core.relax_job", atoms, FEW)
        with pytest.raises(JobFailed) as failure:
            job.result(LONG)
        assert "absurd" not in str(failure.value)
        (frames,) = client.job(job.job_id).work_dir.rglob("opt.traj*")
        frames.unlink()
        write_energies(frames.with_name("opt.traj"), atoms, [-14.0, -575490.0])
        (refused,) = client.retry([job], continued=True)
        assert "the energy is absurd" in str(refused)
        assert "-575490.0 eV (-143872.5 eV per atom)" in str(refused)
        (forced,) = client.retry([job], continued=True, force=True, dry_run=True)
        assert forced is None


@pytest.mark.parametrize(
    ("energies", "absurd"),
    [
        ([-14.0, -15.0], False),
        ([-14.0, -14.0 - 4 * 1001], True),  # of a model: less than with all electrons
        ([-14.0, -14.0 + 4 * 1001], True),
        ([-44_620.0 * 4, -44_621.0 * 4], False),  # Cu with all of its electrons (NIST)
        ([-900_000.0], True),
        ([float("nan")], False),
    ],
)
def test_what_energy_is_absurd(tmp_path, energies, absurd):
    atoms = bulk("Cu", cubic=True)
    write_energies(tmp_path / "opt.traj", atoms, energies)
    found = find_runaway(atoms, str(tmp_path))
    assert (found is not None) == absurd


def test_a_squeezed_start_that_relaxed_is_no_runaway(tmp_path):
    atoms, squeezed = bulk("Cu", cubic=True), bulk("Cu", a=1.0, cubic=True)
    write_energies(tmp_path / "opt.traj", squeezed, [90_000.0])
    with Trajectory(tmp_path / "opt.traj", "a") as frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-14.0)
        frames.write(atoms)
    assert find_runaway(atoms, str(tmp_path)) is None


def test_wait_names_once_what_runs_ten_times_as_long_as_others(
    home, lab, cli, tmp_path, monkeypatch
):
    monkeypatch.setattr(long_running, "_LEAST_S", 0.0)
    monkeypatch.setattr(cancel, "_LOOK_S", 0.2)

    def wait_for(file, *, after_s):
        with connect(start=False) as client:
            path = {"path": str(tmp_path / file)}
            job = client.submit("lab_recipes.wait_for", bulk("Al"), path)
        timer = threading.Timer(after_s, (tmp_path / file).touch)
        timer.start()
        answer = cli("wait", job.job_id)
        timer.join()
        assert answer.code == 0
        return job.job_id[:8], [line for line in answer.err.splitlines() if "running for" in line]

    with HomeServer(home) as served:
        served.start()
        for _ in range(2):
            wait_for("at once", after_s=0)
        _, too_few = wait_for("later", after_s=3)
        short, (line,) = wait_for("much later", after_s=6)
    assert too_few == []
    assert line.startswith(f"{short}: running for ")
    assert "over 10 times the median of lab_recipes.wait_for (" in line
    assert f"s, 3 completed jobs); 'crystalmath cancel {short}' ends it, --walltime" in line
