"""`docs/screening.md`, word by word, at a shell: 200 structures, and the repair of what failed."""

import csv

import ase.io
import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.vasp

COUNT = 200


@pytest.mark.by_turns
def test_screening(follow, home_server, tmp_path):
    said = follow("screening.md")
    assert f"{COUNT} structures\n" in said
    assert f"{COUNT} completed\n" in said
    with connect(start=False) as client:
        jobs = list(client.list(labels={"project": "screening"}, all_tries=True))
    failed = {job.job_id: job for job in jobs if job.state.value == "failed"}
    assert failed
    assert f"{len(failed)} failed" in said
    assert f"{COUNT} taken in\n" in said
    # Each of them was repaired by one that goes on from it.
    again = {job.parents[-1]["job_id"]: job for job in jobs if job.parents}
    assert again.keys() == failed.keys()
    for job_id, job in again.items():
        assert (job.name, job.labels) == (failed[job_id].name, failed[job_id].labels)
        assert "/opt.traj" in job.parents[0]["file"]
    with (tmp_path / "screening.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows) == COUNT
    assert all(float(row["max_force_ev_ang"]) < 0.0201 for row in rows)
    frames = ase.io.read(tmp_path / "relaxed.extxyz", index=":")
    energies = sorted(atoms.get_potential_energy() / len(atoms) for atoms in frames)
    told = sorted(float(row["energy_per_atom_ev"]) for row in rows)
    assert all(abs(one - other) < 1e-6 for one, other in zip(energies, told, strict=True))
    # The five alloys that were printed are the first of the hull, and none lies below it.
    with (tmp_path / "hull.csv").open(encoding="utf-8") as file:
        header, *lines = file.read().splitlines()
    hull = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    above = sorted(float(row["e_above_hull"]) for row in hull)
    assert len(hull) == COUNT / 5
    assert above[0] == 0 < above[-1]
    printed = [line for line in said.splitlines() if line in lines]
    assert [float(line.rpartition(",")[2]) for line in printed] == above[:5]
    assert min(float(row["formation_energy"]) for row in hull) < -0.01
