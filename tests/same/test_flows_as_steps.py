"""Flows of quacc, each step a job of its own, return what they return bare."""

import pytest
from ase.build import bulk

from crystalmath.recipes.lookup import resolve
from flow_owner import FlowOwner
from same.comparing import assert_same

#: Flows, and in how many passes they end.
CASES = [
    ("emt.defects.bulk_to_defects_flow", bulk("Cu"), {}, 3),
    ("emt.elastic.elastic_tensor_flow", bulk("Ni"), {}, 4),
    ("emt.elastic.elastic_tensor_flow", bulk("Ni"), {"run_static": True}, 4),
    ("emt.elastic.elastic_tensor_flow", bulk("Ni"), {"pre_relax": False}, 4),
    ("emt.phonons.phonon_flow", bulk("Cu"), {"min_lengths": 5.0}, 3),
    ("emt.slabs.bulk_to_slabs_flow", bulk("Cu"), {"make_slabs_kwargs": {"max_index": 1}}, 2),
    ("tblite.phonons.phonon_flow", bulk("Si"), {"min_lengths": 3.0}, 3),
]


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
@pytest.mark.parametrize(("name", "atoms", "parameters", "passes"), CASES)
def test_same(monkeypatch, tmp_path, name, atoms, parameters, passes):
    from quacc import change_settings

    monkeypatch.chdir(tmp_path)
    try:
        with change_settings({"RESULTS_DIR": tmp_path}):
            bare = resolve(f"quacc.recipes.{name}")(atoms.copy(), **parameters)
    except Exception as error:  # noqa: BLE001 - it lacks what is not installed here
        pytest.skip(f"it does not run bare, either: {type(error).__name__}: {error}")
    owner = FlowOwner(tmp_path, f"quacc.recipes.{name}", atoms, **parameters)
    header, result = owner.run(passes=passes)
    assert header["state"] == "completed", header["error"]
    assert_same(result, bare, name)
    assert len(owner.ran) == len(owner.steps)
    assert header["summary"]["flow_steps"]["completed"] >= len(owner.steps)
    assert header["summary"]["energy_ev"] is None
