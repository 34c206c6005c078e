"""Formation energies of a study's jobs, and their energies above the convex hull."""

import pytest
from ase.build import bulk


@pytest.fixture(scope="module")
def jobs(page):
    """Return jobs of two metals and an alloy by their names, and one without energy."""
    alloy = bulk("Au", cubic=True)
    alloy.symbols[:2] = "Cu"
    structures = {"Au": bulk("Au"), "Cu": bulk("Cu"), "AuCu": alloy}
    found = {
        name: page.client.submit("lab_recipes.relax", atoms, labels={"set": name}, engine="local")
        for name, atoms in structures.items()
    }
    found["none"] = page.client.submit(
        "lab_recipes.value", bulk("Al"), {"number": 1}, engine="local"
    )
    assert [job.exception(600) for job in found.values()] == [None] * len(found)
    return found


def asked(page, jobs, **params):
    return page.call("page.phases", {"job_ids": [job.job_id for job in jobs], **params})


def test_energies_are_per_atom_and_above_the_hull(page, jobs):
    status, told = asked(page, jobs.values())
    assert (status, told["warnings"]) == (200, [])
    per_atom = {
        name: page.client.job(job.job_id).summary["energy_ev"] / (4 if name == "AuCu" else 1)
        for name, job in jobs.items()
        if name != "none"
    }
    formed = per_atom["AuCu"] - (per_atom["Au"] + per_atom["Cu"]) / 2
    expected = {"Au": (0, 0), "Cu": (0, 0), "AuCu": (formed, max(0, formed))}
    assert told["energies"].keys() == {jobs[name].job_id for name in expected}
    for name, values in expected.items():
        own = told["energies"][jobs[name].job_id]
        assert (own["formation_energy"], own["e_above_hull"]) == pytest.approx(values, abs=1e-6)


def test_labels_name_the_references(page, jobs):
    alone = [jobs["AuCu"]]
    status, told = asked(page, alone)
    assert (status, told["status"]) == (200, "error")
    assert "no reference" in told["error"]
    status, told = asked(page, alone, references={"set": "Au"})
    assert "no reference for Cu" in told["error"]
    assert "set=Au" in told["error"]


def test_an_unknown_job_is_named(page, jobs):
    unknown = "0" * 8 + "-0000-4000-8000-" + "0" * 12
    status, told = page.call("page.phases", {"job_ids": [jobs["Au"].job_id, unknown]})
    assert (status, told["status"]) == (200, "error")
    assert unknown in told["error"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"job_ids": "all"},
        {"job_ids": [1]},
        {"job_ids": [], "references": ["set=Au"]},
        {"job_ids": [], "references": {"set": 1}},
    ],
)
def test_what_are_no_ids_or_labels_is_refused(page, params):
    status, told = page.call("page.phases", params)
    assert status == 400
    assert "job_ids" in told["error"] or "labels" in told["error"]
