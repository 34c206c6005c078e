"""Formation energies and energies above the hull in tables, against a computation by hand."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
from ase.build import bulk
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.client import Submission, in_process
from crystalmath.client.phase_energies import energies_of
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Job, JobState

pytestmark = pytest.mark.server

pytest.importorskip("pymatgen")

OF = {"of": "hull"}
COLUMNS = ["name", "formation_energy", "e_above_hull"]
LONG = 300


#: The share of gold in each job of the table, and the lattice constant in Å.
CELLS = {
    "Cu": (0, 3.59),
    "Cu, strained": (0, 3.8),
    "Cu3Au": (1 / 4, 3.71),
    "CuAu": (1 / 2, 3.84),
    "CuAu, strained": (1 / 2, 4.1),
    "CuAu3": (3 / 4, 3.96),
    "Au": (1, 4.06),
}


def alloy(share, a):
    atoms = bulk("Cu", a=a, cubic=True)
    atoms.symbols[: int(share * len(atoms))] = "Au"
    return atoms


def asked(atoms, recipe="emt.core.static_job", name=None, **labels):
    return Submission(recipe=recipe, atoms=atoms, name=name, labels=labels)


@pytest.fixture(scope="module")
def alloys(tmp_path_factory):
    """Yield a client, and the energies in eV/atom of Cu-Au alloys by the names of their jobs."""
    home = tmp_path_factory.mktemp("hull")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(home))
        with in_process() as client:
            futures = client.submit_many(
                [
                    *(asked(alloy(*cell), name=name, **OF) for name, cell in CELLS.items()),
                    asked(alloy(0, 3.59), metal="yes"),
                    asked(alloy(1, 4.2), metal="yes"),
                    asked(bulk("Ni"), of="nickel"),
                    asked(alloy(1 / 4, 3.71), of="alloy"),
                    asked(alloy(1, 4.06), "emt.core.relax_job", of="relaxed"),
                    asked(bulk("Ar", cubic=True), "lj.core.static_job", of="argon"),
                ]
            )
            results = [future.result(LONG)["results"]["energy"] / 4 for future in futures]
            yield client, dict(zip(CELLS, results, strict=False)), home


def written(client, path, **options):
    assert client.export(path, columns=COLUMNS, **options)[1] == 0
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def formed(energies, of_gold):
    """Return formation energies for an energy of gold, in eV/atom."""
    return {
        name: energy - (1 - CELLS[name][0]) * energies["Cu"] - CELLS[name][0] * of_gold
        for name, energy in energies.items()
    }


def test_values_are_those_of_a_computation_by_hand(alloys, tmp_path):
    client, energies, _ = alloys
    by_hand = formed(energies, energies["Au"])
    # EMT has one alloy on the hull; the others decompose into it and gold.
    assert by_hand["Cu3Au"] == pytest.approx(-0.0102, abs=1e-4)
    hull = ([0, 1 / 4, 1], [0, by_hand["Cu3Au"], 0])
    table = written(client, tmp_path / "hull.csv", labels=OF)
    assert table.keys() == energies.keys()
    for name, row in table.items():
        above = by_hand[name] - np.interp(CELLS[name][0], *hull)
        assert float(row["formation_energy"]) == pytest.approx(by_hand[name], abs=1e-9), name
        assert float(row["e_above_hull"]) == pytest.approx(above, abs=1e-9), name
    stable = {name for name, row in table.items() if row["e_above_hull"] == "0.0"}
    assert stable == {"Cu", "Cu3Au", "Au"}


@pytest.mark.skipif(find_spec("pandas") is None, reason="there is no pandas")
def test_a_frame_has_the_same_values_whatever_its_order_and_limit(alloys, tmp_path):
    client, *_ = alloys
    whole = written(client, tmp_path / "hull.csv", labels=OF)
    table = client.table(columns=COLUMNS, labels=OF, sort="energy_per_atom_ev", limit=3)
    assert list(table["name"]) == ["Cu3Au", "Cu", "CuAu"]
    for row in table.to_dict("records"):
        assert {name: str(value) for name, value in row.items()} == whole[row["name"]]
    # They are not there unless they are named.
    assert not set(COLUMNS[1:]) & {*client.table(labels=OF).columns}
    assert list(client.table(columns=COLUMNS, labels={"of": "nothing"}).columns) == COLUMNS


def test_references_are_the_pure_elements_with_a_label(alloys, cli, tmp_path, monkeypatch):
    client, energies, home = alloys
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    strained = client.list(labels={"metal": "yes"}, elements="Au", limit=1)
    of_gold = next(iter(strained)).summary["energy_ev"] / 4
    by_hand = formed(energies, of_gold)
    path = tmp_path / "hull.jsonl"
    columns = ("--columns", ",".join(COLUMNS))
    said = cli("export", path, "--label", "of=hull", *columns, "--references", "metal=yes")
    assert (said.code, said.err) == (0, f"{len(CELLS)} jobs written to {path}\n")
    rows = {row["name"]: row for row in map(json.loads, path.read_text().splitlines())}
    for name, row in rows.items():
        assert row["formation_energy"] == pytest.approx(by_hand[name], abs=1e-9), name
    # Gold of these jobs lies below the reference, and is on the hull.
    assert rows["Au"]["formation_energy"] < -0.001
    assert rows["Au"]["e_above_hull"] == 0
    path.unlink()
    wrong = cli("export", path, *columns, "--references", "metal")
    assert (wrong.code, "--references: cannot read 'metal' as a label" in wrong.err) == (2, True)


def test_what_has_no_reference_is_refused(alloys, tmp_path):
    client, *_ = alloys
    path = tmp_path / "hull.csv"
    with pytest.raises(InvalidJob, match=r"for Au, Cu: no completed job among these jobs is of"):
        client.export(path, columns=COLUMNS, labels={"of": "alloy"})
    with pytest.raises(InvalidJob, match=r"for Ni: no completed job labelled metal=yes is of"):
        client.export(path, columns=COLUMNS, labels={"of": "nickel"}, references={"metal": "yes"})
    with pytest.raises(InvalidJob, match=r"are for the columns formation_energy and e_above_hull"):
        client.export(path, labels=OF, references={"metal": "yes"})
    assert not path.exists()


def test_energies_of_two_programs_are_refused_and_of_two_recipes_warned_of(alloys, tmp_path):
    client, *_ = alloys
    argon = {"columns": COLUMNS, "references": {"of": "argon"}}
    with pytest.raises(InvalidJob, match=r"of several: emt \(1 job, [0-9a-f]{8}\), lj \(1 job, "):
        client.export(tmp_path / "two.csv", labels={"of": "nickel"}, **argon)
    with pytest.warns(UserWarning, match=r"differ in recipe; they compare only if"):
        table = written(
            client, tmp_path / "gold.csv", labels={"of": "relaxed"}, references={"metal": "yes"}
        )
    assert [float(row["formation_energy"]) < 0 for row in table.values()] == [True]


def test_noble_gases_are_elements_as_others(alloys, tmp_path):
    client, *_ = alloys
    ((_, row),) = written(client, tmp_path / "argon.csv", labels={"of": "argon"}).items()
    assert (row["formation_energy"], row["e_above_hull"]) == ("0.0", "0.0")


def test_a_list_names_the_commands_that_have_these_columns(cli):
    said = cli("list", "--columns", "formula,e_above_hull")
    assert said.code != 0
    assert "e_above_hull is a column of tables alone" in " ".join(said.err.split())


def test_pymatgen_is_named_if_it_is_missing(alloys, tmp_path, monkeypatch):
    client, *_ = alloys
    monkeypatch.setattr("crystalmath.client.phase_energies.find_spec", lambda _: None)
    with pytest.raises(CrystalMathError, match=r"need pymatgen, .*'crystalmath\[quacc\]'"):
        client.export(tmp_path / "hull.csv", columns=COLUMNS, labels=OF)


# --- whatever the energies -------------------------------------------------------------------

SYMBOLS = ("Al", "Cu", "Ni", "Zr")
ENERGIES = st.floats(-20, 20)


def completed(number, counts, per_atom):
    natoms = sum(counts.values())
    formula = "".join(f"{symbol}{count}" for symbol, count in counts.items())
    return Job(
        job_id=f"{number:08}",
        recipe="quacc.recipes.emt.core.static_job",
        engine="local",
        created_at=0.0,
        state=JobState.COMPLETED,
        summary={"formula": formula, "natoms": natoms, "energy_ev": per_atom * natoms},
    )


@st.composite
def systems(draw):
    counts = st.dictionaries(st.sampled_from(SYMBOLS), st.integers(1, 6), min_size=1)
    alloys = draw(st.lists(st.tuples(counts, ENERGIES), max_size=12))
    pure = [({symbol: draw(st.integers(1, 4))}, draw(ENERGIES)) for symbol in SYMBOLS]
    return [completed(n, *each) for n, each in enumerate([*pure, *alloys])]


@given(systems(), st.randoms(use_true_random=False))
def test_no_job_is_below_the_hull_and_their_order_changes_nothing(jobs, random):
    found = energies_of(jobs)
    assert found.keys() == {job.job_id for job in jobs}
    for job in jobs:
        values = found[job.job_id]
        assert values["e_above_hull"] >= 0
        # The hull lies at or below the elements themselves.
        assert values["e_above_hull"] >= values["formation_energy"] - 1e-7
    for symbol in SYMBOLS:
        pure = [job for job in jobs if job.summary["formula"].rstrip("0123456789") == symbol]
        reference = min(pure, key=lambda job: job.summary["energy_ev"] / job.summary["natoms"])
        assert found[reference.job_id] == {"formation_energy": 0, "e_above_hull": 0}
    shuffled = [*jobs]
    random.shuffle(shuffled)
    for job_id, values in energies_of(shuffled).items():
        assert values == pytest.approx(found[job_id], abs=1e-9)


def test_jobs_without_an_energy_of_a_whole_cell_are_left_empty():
    copper = completed(1, {"Cu": 1}, -3.5)
    ghost = completed(2, {"Cu": 1, "X": 1}, -3.5)
    flow = evolve(copper, job_id="flow", summary={"energy_ev": None, "formula": None})
    part = evolve(copper, job_id="part", summary={"energy_ev": -1.0, "formula": "Au"})
    failed = evolve(copper, job_id="failed", state=JobState.FAILED)
    assert energies_of([ghost, flow, part, failed, copper]).keys() == {copper.job_id}
    assert energies_of([ghost, flow, part, failed]) == {}
