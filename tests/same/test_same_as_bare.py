"""Recipes of quacc give through us what they give bare, in the same environment.

All jobs and flows of the programs that need no files of their own: EMT, Lennard-Jones and tblite.
One that cannot run bare (an extra is missing) must fail through us for the same reason.
"""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.md.langevin import Langevin
from ase.optimize import FIRE

from crystalmath.recipes.lookup import catalogue
from same.both_ways import assert_runs_as_bare, opened

CU = bulk("Cu", cubic=True)
CU.rattle(0.05, seed=1)
NI = bulk("Ni")
WATER = molecule("H2O")
SILICON = bulk("Si")

#: Structures and parameters, at least one for each recipe.
CASES = {
    "emt.core.static_job": [(CU, {}), (CU, {"asap_cutoff": True})],
    "emt.core.relax_job": [
        (CU, {}),
        (CU, {"relax_cell": True, "opt_params": {"optimizer": FIRE, "fmax": 0.05}}),
    ],
    "emt.defects.bulk_to_defects_flow": [(bulk("Cu"), {})],
    "emt.elastic.elastic_tensor_flow": [(NI, {"run_static": False}), (NI, {"pre_relax": False})],
    "emt.md.md_job": [
        (CU, {"steps": 5}),
        (
            CU,
            {
                "dynamics": Langevin,
                "steps": 5,
                "temperature_K": 300,
                "md_params": {
                    "dynamics_kwargs": {"friction": 0.01, "rng": np.random.default_rng(3)},
                    "maxwell_boltzmann_kwargs": {
                        "temperature_K": 300,
                        "rng": np.random.default_rng(4),
                    },
                },
            },
        ),
    ],
    "emt.phonons.phonon_flow": [(bulk("Cu"), {"min_lengths": 5.0})],
    "emt.slabs.bulk_to_slabs_flow": [
        (bulk("Cu"), {"make_slabs_kwargs": {"max_index": 1}}),
        (bulk("Cu"), {"run_static": False, "make_slabs_kwargs": {"max_index": 1}}),
    ],
    "lj.core.static_job": [(WATER, {}), (WATER, {"epsilon": 2.0})],
    "lj.core.relax_job": [(WATER, {})],
    "lj.core.freq_job": [(molecule("N2"), {})],
    "tblite.core.static_job": [(WATER, {}), (WATER, {"method": "GFN1-xTB"})],
    "tblite.core.relax_job": [(WATER, {})],
    "tblite.core.freq_job": [(WATER, {})],
    "tblite.phonons.phonon_flow": [(SILICON, {"min_lengths": 3.0})],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("home")) as client:
        yield client


def test_each_recipe_has_a_case():
    families = {f"quacc.recipes.{name}." for name in ("emt", "lj", "tblite")}
    names = [one.name for one in catalogue() if one.name.startswith(tuple(families))]
    assert sorted(names) == sorted(f"quacc.recipes.{name}" for name in CASES)


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name, cases in CASES.items() for number in range(len(cases))],
)
def test_same(client, monkeypatch, tmp_path, name, number):
    monkeypatch.chdir(tmp_path)
    given = assert_runs_as_bare(client, name, *CASES[name][number], tmp_path)
    if isinstance(given, Exception):
        pytest.skip(f"it does not run bare, either: {type(given).__name__}: {given}")
