"""A job's geometry as the structure of another: command line, client and wire."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write

from conftest import NOBODY
from crystalmath.client import Reference, Submission
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.recipes.job_structure import read_job_text
from crystalmath.recipes.summary import find_structures

# Commands ask that server, too.
pytestmark = [pytest.mark.server, pytest.mark.usefixtures("home_server")]

SHIFT, REPORT = "lab_recipes.shift", "lab_recipes.report"
LONG = 300


@pytest.fixture(scope="module")
def client(light_client):
    """Ask a server that the tests of this module share."""
    return light_client


def nickel_oxide():
    atoms = bulk("NiO", "rocksalt", a=4.17, cubic=True)[[0, 2, 1, 3]]
    atoms.set_initial_magnetic_moments([2, -2, -2, 2])
    atoms.set_tags([0, 1, 2, 3])
    atoms.set_constraint(FixAtoms([1]))
    return atoms


@pytest.fixture(scope="module")
def shifted(client):
    """Return a finished job, and what it was given."""
    atoms = nickel_oxide()
    future = client.submit(SHIFT, atoms, name="NiO", labels={"set": "oxides"})
    future.result(LONG)
    return future, atoms


def seen(client, structure):
    """Tell what another job gets of it."""
    told = client.submit(REPORT, structure).result(LONG)
    return {name: told[name] for name in ("tags", "magmoms", "fixed")}


def geometry(client, structure):
    """Return the positions that another job was given (Å), and whose they were."""
    future = client.submit(REPORT, structure)
    asked = client.specification(future.job_id)
    shape, _, items = asked["structure"]["data"]["positions"]["__ndarray__"]
    return np.reshape(items, shape), asked["parents"]


def test_the_final_geometry_with_what_the_job_was_given_of_the_rest(client, shifted):
    job, atoms = shifted
    positions, parents = geometry(client, job)
    assert positions[0] == pytest.approx(atoms.positions[0] + [0.3, 0, 0])
    assert parents == [{"job_id": job.job_id, "role": "structure"}]
    given = {"tags": [0, 1, 2, 3], "magmoms": [2, -2, -2, 2], "fixed": [1]}
    assert seen(client, job) == given
    assert seen(client, f"job:{job.job_id}@0") == given


@pytest.mark.parametrize(("frame", "moved"), [(0, 0), (1, 0.1), (-1, 0.3), (3, 0.3), (-2, 0.2)])
def test_a_geometry_of_the_way(client, shifted, frame, moved):
    job, atoms = shifted
    positions, parents = geometry(client, f"job:{job.job_id[:8]}@{frame}")
    assert positions[0] == pytest.approx(atoms.positions[0] + [moved, 0, 0])
    assert parents == [{"job_id": job.job_id, "role": "structure", "frame": frame}]


def test_moments_that_were_computed_go_before_those_that_were_given(client):
    job = client.submit(SHIFT, nickel_oxide(), {"moments": [1.7, -1.7, -1.7, 1.7]})
    job.result(LONG)
    assert seen(client, job)["magmoms"] == [1.7, -1.7, -1.7, 1.7]
    assert seen(client, f"job:{job.job_id}@0")["magmoms"] == [2, -2, -2, 2]


def test_moments_that_a_calculation_has_lost_are_told(client):
    kept = client.submit(SHIFT, nickel_oxide(), {"moments": [1.7, -1.7, 0, 0]})
    lost = client.submit(SHIFT, nickel_oxide(), {"moments": [0, 0, 0, 0]})
    waits = client.submit(REPORT, lost)
    assert waits.result(LONG)["magmoms"] == [0, 0, 0, 0]
    told = f"the geometry of job {lost.job_id} has no magnetic moments, though the job began with"
    for future in (waits, client.submit(REPORT, lost)):
        (warning,) = future.info().warnings
        assert warning["code"] == "moments_lost"
        assert warning["message"].startswith(told)
    for structure in (kept, f"job:{lost.job_id}@0"):
        future = client.submit(REPORT, structure)
        future.result(LONG)
        assert not future.info().warnings


@pytest.mark.parametrize("shape", ["flow", "bare"])
def test_of_a_flow_the_last_step_counts(client, shape):
    job = client.submit(SHIFT, bulk("Al"), {"shape": shape})
    job.result(LONG)
    positions, _ = geometry(client, client.job(job.job_id))
    assert positions[0] == pytest.approx([0.3, 0, 0])


def test_every_way_of_asking_gives_the_same(client, shifted, cli):
    job, _ = shifted
    way = {"format": "job", "job_id": job.job_id}
    asked = client.call("jobs.submit", {"recipe": REPORT, "structure": way, "key": "once"})
    again = client.submit(REPORT, job, key="once")
    assert (asked["error"], again.job_id) == (None, asked["job_id"])
    assert client.call("jobs.check", {"recipe": REPORT, "structure": way})["ok"]
    command = cli("submit", REPORT, f"job:{job.job_id[:8]}", "--json")
    assert command.code == 0, command.err
    told = cli("status", command.json["job_id"], "--json").json
    assert (told["name"], told["parents"]) == (
        "NiO",
        [{"job_id": job.job_id, "role": "structure"}],
    )
    assert told["parents"] in [each["parents"] for each in cli("list", "--json").json["jobs"]]
    shown = " ".join(cli("status", told["job_id"]).out.split())
    assert f"came of {job.job_id} (its final geometry)" in shown
    assert cli("check", REPORT, f"job:{job.job_id}@0").code == 0
    ran = cli("run", REPORT, f"job:{job.job_id}@0", "--json")
    assert (ran.code, ran.json["name"]) == (0, "NiO-0"), ran.err


def test_a_sweep_over_the_geometry_of_a_job(client, shifted, cli):
    job, _ = shifted
    answer = cli("submit", REPORT, f"job:{job.job_id}", "--sweep", "x=[1,2]", "--json")
    assert [each["name"] for each in answer.json["jobs"]] == ["NiO x=1", "NiO x=2"]


def test_what_gives_no_geometry(client, shifted, cli):
    job, _ = shifted
    before = client.totals()
    bare = client.submit("lab_recipes.without_structure")
    slabs = client.submit(SHIFT, bulk("Al"), {"shape": "slabs"})
    none = client.submit(SHIFT, bulk("Al"), {"shape": "none"})
    numbers = client.submit(SHIFT, bulk("Al"), {"shape": "numbers"})
    refused = {
        f"job:{NOBODY}": f"no job has the id '{NOBODY}'",
        "job:zz": "no job has the id 'zz'",
        "job:": "names no job's geometry; write job:ID",
        f"job:{job.job_id}@x": "names no job's geometry",
        f"job:{job.job_id}@9": "its trajectory has 4 geometries; there is none numbered 9",
    }
    for structure, words in refused.items():
        with pytest.raises((InvalidJob, UnknownJob), match=words):
            client.submit(REPORT, structure)
    for one in (bare, slabs, none, numbers):
        one.result(LONG)
    for one, words in {
        bare: r"\(lab_recipes.without_structure\): its result holds no structure",
        slabs: "its result holds 3 calculations beside each other",
        none: r"its result holds no structure \('atoms'\)",
        f"job:{bare.job_id}@0": "has no input structure: lab_recipes.without_structure takes none",
        f"job:{slabs.job_id}@1": "its result holds 3 calculations",
    }.items():
        with pytest.raises(InvalidJob, match=words):
            client.submit(REPORT, one)
    written = cli("result", numbers.job_id, "--structure", "none.cif")
    assert (written.code, "Traceback" in written.err) == (1, False)
    assert "has no structure" in written.err
    written = cli("result", slabs.job_id, "--structure", "slab.cif")
    assert "has 3 structures beside each other, and none of them is its final one" in written.err
    answer = cli("submit", REPORT, f"job:{NOBODY}")
    assert (answer.code, answer.out) == (1, "")
    assert "no job has the id" in answer.err
    states = client.totals()
    assert sum(states.values()) == sum(before.values()) + 4


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"format": "job"}, "no job has the id None"),
        ({"format": "job", "job_id": 5}, "no job has the id 5"),
        ({"format": "job", "job_id": NOBODY, "frame": "1"}, "'frame' must be an integer, not '1'"),
        ({"format": "job", "job_id": NOBODY, "frame": True}, "'frame' must be an integer"),
        ({"format": "job", "id": NOBODY}, "an unknown key 'id'"),
        ({"format": "jobs", "job_id": NOBODY}, "'jobs' is neither 'ase-json' nor 'job'"),
    ],
)
def test_what_the_wire_does_not_take(client, structure, words):
    answer = client.call("jobs.submit", {"recipe": REPORT, "structure": structure})
    assert answer["job_id"] is None
    assert words in answer["error"]


def test_many_geometries_at_once(client, shifted):
    job, _ = shifted
    asked = [Submission(recipe=REPORT, atoms=each) for each in (job, f"job:{NOBODY}", job.info())]
    good, bad, other = client.submit_many(asked)
    assert isinstance(bad, UnknownJob)
    assert good.result(LONG)["symbols"] == other.result(LONG)["symbols"] == ["Ni", "Ni", "O", "O"]


def test_a_text_that_is_no_job():
    assert read_job_text("POSCAR") is None
    assert read_job_text("job:a@0\nb") is None


def test_structures_are_found_in_the_text_of_a_large_result():
    rows = b",".join([b"[1.0,2.0,3.0]"] * 200_000)
    atoms = b'{"@class":"MSONAtoms","atoms_json":"{\\"a\\":\\"}]\\"}"}'
    note = b'"note":"%s",' % (b'\\n\\"results\\":{ ' * 300_000)
    text = b'{"trajectory":[%s],%s"results":{"f":[%s]},"atoms":%s}' % (atoms, note, rows, atoms)
    found = find_structures(text)
    assert (found.final, found.trajectory) == (atoms, (atoms,))


def test_a_recipe_takes_all_structures_of_a_command_together(client, shifted, cli, tmp_path):
    job, _ = shifted
    file = tmp_path / "metals.extxyz"
    write(file, [bulk("Al"), bulk("Cu")])
    asked = ("submit", "lab_recipes.all_of", file, f"job:{job.job_id[:8]}", "--param", "factor=2")
    told = cli(*asked, "--together", "--key", "all", "--json")
    assert told.code == 0, told.err
    future = client.future(told.json["job_id"])
    result = future.result(LONG)
    assert [atoms.get_chemical_formula() for atoms in result["atoms"]] == ["Al", "Cu", "Ni2O2"]
    assert result["atoms"][0].cell.lengths() == pytest.approx(2 * bulk("Al").cell.lengths())
    assert result["atoms"][2].positions[0] == pytest.approx(2 * job.result()["atoms"].positions[0])
    assert (future.name, future.info().formula) == ("3 structures", None)
    assert [one["job_id"] for one in future.info().parents] == [job.job_id]
    assert cli(*asked, "--together", "--key", "all", "--json").json["job_id"] == future.job_id
    shown = cli("result", future.job_id, "--structure", tmp_path / "all.extxyz")
    assert (shown.code, len(read(tmp_path / "all.extxyz", ":"))) == (0, 3)
    assert "cells" in cli("show", future.job_id).out
    # One of them goes on.
    first = client.submit(SHIFT, Reference(future.job_id)["atoms"][1]).result(LONG)
    assert first["atoms"].get_chemical_formula() == "Cu"
    archive = tmp_path / "all.tar"
    assert cli("export", "--archive", archive, future.job_id).code == 0
    again = client.retry(future)[0].result(LONG)
    assert len(again["atoms"]) == 3


def test_structures_are_taken_together_by_recipes_that_say_so(client, cli, tmp_path):
    file = tmp_path / "metals.extxyz"
    write(file, [bulk("Al"), bulk("Cu")])
    for words, arguments in {
        "takes no list of structures": (REPORT, file, "--together"),
        "submit --together makes one job of all": ("lab_recipes.all_of", file),
        "name at least one structure": ("lab_recipes.all_of", "--together"),
        "leave out --label-info": ("lab_recipes.all_of", file, "--together", "--label-info"),
        "needs a list of structures, its first argument 'cells'": ("lab_recipes.all_of",),
    }.items():
        told = cli("submit", *arguments)
        assert told.code != 0
        assert words in told.err, told.err
    with pytest.raises(InvalidJob, match="it cannot be a parameter too"):
        client.submit("lab_recipes.all_of", [bulk("Al")], {"cells": []})
    for code, words, arguments in (
        (0, "this job would be accepted", ("lab_recipes.all_of", file, "--together")),
        (
            1,
            "error: the recipe lab_recipes.all_of takes a list",
            ("lab_recipes.all_of", f"{file}@0"),
        ),
        (2, "--inputs: it shows one job, and 4 structures", (REPORT, file, file, "--inputs")),
    ):
        told = cli("check", *arguments)
        assert (told.code, words in told.out + told.err) == (code, True), told.out + told.err
        assert "needs" not in told.out
    (finding,) = client.check(REPORT, [bulk("Al")])
    assert (finding.place, "takes no list" in finding.message) == ("structure", True)
    assert not client.check("lab_recipes.all_of", [bulk("Al"), bulk("Cu")])


def test_many_structures_are_checked_as_those_of_as_many_jobs(cli, tmp_path):
    for metal in ("Al", "Cu", "Fe"):
        (tmp_path / metal).mkdir()
        write(tmp_path / metal / "POSCAR", bulk(metal), format="vasp")
    (tmp_path / "Cu" / "POSCAR").write_text("no structure")
    pair = tmp_path / "pair.extxyz"
    write(pair, [bulk("W"), bulk("Ni")])
    told = cli("check", "emt.core.static_job", f"{tmp_path}/*/POSCAR", pair)
    assert told.code == 1
    *errors, verdict = told.out.splitlines()
    assert verdict == "2 of 5 jobs would be accepted"
    assert [error.split(": ")[1] for error in errors] == ["Cu/POSCAR", "Fe/POSCAR", "pair-0"]
    assert "ASE cannot read" in errors[0]
    assert "EMT has no parameters for W" in errors[2]
    # What is wrong with all of them is told once.
    told = cli("check", "emt.core.static_job", pair, "--cluster", "none")
    assert told.out.count("no cluster 'none'") == 1
    assert "error: pair-0, pair-1: " in told.out
    jobs = json.loads(cli("check", "emt.core.static_job", pair, "--json").out)["jobs"]
    assert [(job["name"], job["ok"]) for job in jobs] == [("pair-0", False), ("pair-1", True)]
    assert cli("check", "emt.core.static_job", f"{pair}@1", f"{pair}@1").code == 0
