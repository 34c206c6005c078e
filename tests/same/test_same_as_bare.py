"""Recipes of quacc give through us what they give bare, in the same environment.

All jobs and flows of the programs that need no files of their own: EMT, Lennard-Jones and tblite.
One that cannot run bare (an extra is missing) must fail through us for the same reason.
"""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.md.langevin import Langevin
from ase.optimize import FIRE

from crystalmath.recipes.lookup import catalogue, look_up
from same.both_ways import LONG, assert_runs_as_bare, opened

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
    atoms, parameters = CASES[name][number]
    given = assert_runs_as_bare(client, name, atoms, parameters, tmp_path)
    if isinstance(given, Exception):
        pytest.skip(f"it does not run bare, either: {type(given).__name__}: {given}")


#: Those of them that take files from the folder of another calculation.
WITH_FILES = [
    name for name in CASES if "copy_files" in look_up(f"quacc.recipes.{name}").signature.parameters
]


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
@pytest.mark.parametrize("name", WITH_FILES)
def test_same_with_the_files_of_another_job(client, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    atoms, parameters = CASES[name][0]
    source = client.submit("emt.core.relax_job", CU, engine="local").result(LONG)["dir_name"]
    copied = {"copy_files": [{"source": source, "filenames": ["*"]}]}
    given = assert_runs_as_bare(client, name, atoms, {**parameters, **copied}, tmp_path)
    assert not isinstance(given, Exception), given
