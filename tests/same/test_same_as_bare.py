"""Recipes of quacc give through us what they give bare, in the same environment.

All jobs and flows of the programs that need no files of their own: EMT, Lennard-Jones and tblite.
One that cannot run bare (an extra is missing) must fail through us for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.md.langevin import Langevin
from ase.optimize import FIRE

from crystalmath.client import JobFailed, in_process
from crystalmath.recipes.lookup import catalogue, resolve

LONG = 600
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
#: What tells of one run, and not of what was computed.
OWN = {"dir_name", "nid", "uuid", "directory", "quacc_version", "machine", "_id", "_old_ids"}
#: A mode that others share the frequency with may come out as any mixture of them.
OWN |= {"eigenvectors", "group_velocities"}
#: Sums in which modes at Gamma count whose frequency is zero but for noise.
OWN |= {"thermal_properties"}
#: Threads of tblite add up in any order, so that two bare runs differ by so much (eV, Å, cm^-1).
NEAR = 1e-5


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(home))
        with in_process() as client:
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
    atoms, parameters = CASES[name][number]
    job = client.submit(name, atoms, parameters, engine="local")
    bare, error = _bare(name, atoms, parameters, monkeypatch, tmp_path)
    if error is not None:
        with pytest.raises(JobFailed) as failed:
            job.result(LONG)
        assert f"{type(error).__name__}: " in failed.value.traceback
        pytest.skip(f"it does not run bare, either: {type(error).__name__}: {error}")
    _same(job.result(LONG), bare, name)


def _bare(name, atoms, parameters, monkeypatch, tmp_path):
    from quacc import change_settings

    monkeypatch.chdir(tmp_path)
    recipe = resolve(f"quacc.recipes.{name}", ())
    try:
        with change_settings({"RESULTS_DIR": tmp_path}):
            return recipe(atoms.copy(), **parameters), None
    except Exception as error:  # noqa: BLE001 - whatever it is, ours must be the same
        return None, error


def _same(ours, bare, place):
    """Compare what came back with what a recipe returned, down to numbers."""
    for kind, compare in _KINDS.items():
        if isinstance(bare, kind):
            compare(ours, bare, place)
            return
    if isinstance(ours, Mapping) and ours.keys() >= {"type", "text"}:  # it has no form in JSON
        assert ours["type"] == f"{type(bare).__module__}.{type(bare).__qualname__}", place
        if isinstance(bare, Sequence):
            _same(ours["items"], list(bare), f"{place}.items")
        return
    assert type(ours) is type(bare), (place, ours, bare)
    if hasattr(bare, "as_dict"):
        _same(ours.as_dict(), bare.as_dict(), place)


def _tables(ours, bare, place):
    assert set(map(str, ours)) == set(map(str, bare)), place
    for key, value in bare.items():
        if key not in OWN:
            _same(ours[key], value, f"{place}.{key}")


def _structures(ours, bare, place):
    assert isinstance(ours, Atoms), place
    for one in ("numbers", "positions", "cell", "pbc"):
        _numbers(getattr(ours, one), getattr(bare, one), f"{place}.{one}")
    _same(ours.info, bare.info, f"{place}.info")


def _lists(ours, bare, place):
    assert len(ours) == len(bare), place
    for number, (one, other) in enumerate(zip(ours, bare, strict=True)):
        _same(one, other, f"{place}[{number}]")


def _numbers(ours, bare, place):
    ours, bare = np.asarray(ours), np.asarray(bare)
    assert ours.shape == bare.shape, place
    if bare.dtype.kind in "fc":
        assert np.allclose(ours, bare, rtol=NEAR, atol=NEAR, equal_nan=True), (place, ours, bare)
    else:
        assert (ours == bare).all(), (place, ours, bare)


_KINDS = {
    Mapping: _tables,
    Atoms: _structures,
    (list, tuple): _lists,
    (bool, int, float, complex, str, np.ndarray, np.generic, type(None)): _numbers,
}
