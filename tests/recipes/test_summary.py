"""Summaries of real results, and of things that are none."""

import contextlib
import gzip
import io
import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.errors import BadFile, InvalidJob
from crystalmath.recipes import codec, stored_result
from crystalmath.recipes.json_text import json_part
from crystalmath.recipes.summary import brief, final_atoms, result_values, summarize

NOTHING = {"energy_ev": None, "max_force_ev_ang": None, "formula": None, "work_dir": None}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """What quacc's own recipes return."""
    directory = tmp_path_factory.mktemp("quacc")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("QUACC_WORKFLOW_ENGINE", "None")
        import quacc
        from quacc.recipes.emt.core import relax_job, static_job
        from quacc.recipes.emt.slabs import bulk_to_slabs_flow

        with quacc.change_settings({"RESULTS_DIR": directory, "SCRATCH_DIR": directory}):
            slab = bulk("Al") * (2, 1, 1)
            slab.rattle(0.1, seed=1)
            return {
                "static": static_job(slab),
                "relax": relax_job(bulk("Cu")),
                "flow": bulk_to_slabs_flow(
                    bulk("Al"), make_slabs_kwargs={"max_index": 1, "min_slab_size": 4}
                ),
            }


def test_a_job_is_summarised(real):
    result = real["static"]
    forces = result["results"]["forces"]
    assert summarize(result) == {
        "energy_ev": pytest.approx(result["results"]["energy"], abs=1e-12),
        "max_force_ev_ang": pytest.approx(max(np.sqrt((forces**2).sum(axis=1))), rel=1e-12),
        "formula": "Al2",
        "work_dir": str(result["dir_name"]),
        "natoms": 2,
    }
    assert summarize(real["relax"])["energy_ev"] == pytest.approx(-0.005681511358581304, abs=1e-9)


def test_the_largest_force_is_one_that_may_move_something():
    atoms = bulk("Al", cubic=True)
    atoms.set_constraint([FixAtoms([0, 1]), FixCartesian([2], mask=(True, False, False))])
    forces = np.array([[9.0, 0, 0], [0, 9.0, 0], [9.0, 0.3, 0.4], [0, 0, 0.2]])
    result = {"atoms": atoms, "results": {"energy": 1.0, "forces": forces}}
    assert summarize(result)["max_force_ev_ang"] == pytest.approx(0.5)
    stored = codec.encode_result(result)
    assert summarize(json.loads(codec.unpacked(stored)))["max_force_ev_ang"] == pytest.approx(0.5)
    assert forces[0, 0] == 9.0


def test_a_result_of_torchsim_is_summarised_if_it_is_of_one_structure():
    atoms = bulk("Ar", cubic=True)
    output = {"energy": [-0.5], "forces": [[[0.0, 3.0, 4.0]] + [[0.0] * 3] * 3], "stress": None}
    result = {"atoms": [atoms], "dir_name": "/there", "output": output}
    assert summarize(result) == {
        "energy_ev": -0.5,
        "max_force_ev_ang": 5.0,
        "formula": "Ar4",
        "work_dir": "/there",
        "natoms": 4,
    }
    output["forces"] = None
    assert summarize(result)["max_force_ev_ang"] is None
    two = {"atoms": [atoms] * 2, "dir_name": "/there", "output": {"energy": [-0.5, -0.6]}}
    assert summarize(two)["energy_ev"] is None


def test_a_flow_is_summarised_by_its_last_result(real):
    flow = real["flow"]
    count = len(flow["relax"]) + len(flow["static"])
    assert count >= 2
    expected = summarize(flow["static"][-1]) | {"steps": count}
    assert summarize(flow) == expected
    assert summarize([real["static"], real["relax"]]) == summarize(real["relax"]) | {"steps": 2}
    assert summarize({"a": real["relax"], "b": {"c": real["static"]}})["steps"] == 2


@pytest.mark.parametrize("name", ["static", "relax", "flow"])
def test_a_stored_result_has_the_same_summary_decoded_or_not(real, name):
    data = codec.encode_result(real[name])
    assert summarize(codec.decode_result(data)) == summarize(real[name])
    assert summarize(json.loads(codec.unpacked(data))) == summarize(real[name])


@pytest.mark.parametrize("name", ["static", "relax", "flow"])
def test_a_table_has_the_same_of_a_result_in_brief(real, name):
    document = json.loads(codec.unpacked(codec.encode_result(real[name])))
    kept = json.loads(json.dumps(brief(document)))
    assert result_values(kept) == result_values(document) != {}
    one, other = final_atoms(kept), final_atoms(document)
    assert one == other
    assert one.get_potential_energy() == other.get_potential_energy()
    assert np.array_equal(one.get_forces(), other.get_forces())
    assert np.array_equal(one.get_stress(), other.get_stress())


@pytest.mark.parametrize(
    ("stress", "expected"),
    [
        (np.arange(6.0), np.arange(6.0)),
        ([[1, 6, 5], [6, 2, 4], [5, 4, 3]], [1, 2, 3, 4, 5, 6]),
        ([1.0, 2.0, 3.0], None),
        ("none", None),
    ],
)
def test_a_final_structure_has_the_stress_of_its_result_in_ase_s_order(stress, expected):
    result = {"atoms": bulk("Al"), "results": {"energy": 1.0, "stress": stress}}
    atoms = final_atoms(json.loads(codec.unpacked(codec.encode_result(result))))
    assert atoms.get_potential_energy() == 1.0
    assert (atoms.calc.results.get("stress") is None) == (expected is None)
    if expected is not None:
        assert atoms.get_stress() == pytest.approx(expected)


def test_a_table_has_what_a_flow_has_found_beside_the_results_of_its_steps(real):
    found = {"bulk_modulus": {"vrh": 134.5}, "order": 2, "structure": {"x": 1}}
    document = {
        "deformed_results": {"relax": [real["relax"]]},
        "elasticity_doc": {"@module": "emmet.core.elasticity", "@class": "ElasticityDoc", **found},
        "set": {"@module": "numpy", "@class": "array", "dtype": "float64", "data": []},
        "kind": "cubic",
        "atoms": {"n": 1},
    }
    own = {"elasticity_doc.bulk_modulus.vrh": 134.5, "elasticity_doc.order": 2, "kind": "cubic"}
    for read in (document, brief(document)):
        assert result_values(read, of_last=False) == own
        assert result_values(read) == result_values(real["relax"]) | own
    # A recipe that makes its own result of what it computed has no steps there.
    assert result_values(real["static"], of_last=False) == result_values(real["static"])


NAMES = st.sampled_from(["a", "b", "a.b", "0", "\u00e9", ""])
DOCUMENTS = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(),
        st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=30,
)


@given(document=DOCUMENTS, fields=st.lists(st.lists(NAMES | st.sampled_from("1234")), max_size=20))
def test_an_index_finds_what_a_scan_of_the_text_finds(document, fields):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_result, "BLOCK", 32)
        patch.setattr(stored_result, "_LARGE", 8)
        patch.setattr(stored_result, "_MEMBER", 4)
        stored = stored_result.store(document)
        header = {"size": len(stored.data), **stored.sizes}
        file = io.BytesIO(stored.data)
        text = json.dumps(document, separators=(",", ":")).encode()
        size = stored_result.block_size(header)
        assert b"".join(stored_result.result_chunks(io.BytesIO(stored.data), size)) == text
        assert gzip.decompress(stored.data[:size]) == text
        if not header["index"]:
            return
        index = stored_result.ResultIndex(file, header)
        for field in [".".join(names) for names in fields]:
            try:
                expected = json_part(text, field)
            except InvalidJob as error:
                with pytest.raises(InvalidJob, match=f"^{re.escape(str(error))}$"):
                    found(index, field)
            else:
                assert found(index, field) == expected


def found(index, field):
    place = index.locate(field)
    return json_part(index.text(place), place.left, place.way)


@given(found=DOCUMENTS, more=st.fixed_dictionaries({"blocks": DOCUMENTS, "tree": DOCUMENTS}))
def test_an_index_that_says_nothing_is_told(found, more):
    data = gzip.compress(b'{"a": 1}')
    index = gzip.compress(json.dumps({"brief": found, **more}).encode())
    file = io.BytesIO(data + index)
    file.name = "1.outcome"
    header = {"size": len(data + index), "index": len(index), "text": 8}
    with contextlib.suppress(BadFile, InvalidJob):
        read = stored_result.ResultIndex(file, header)
        assert len(read.text(read.locate("a"))) <= 8


def test_real_results_survive_the_codec(real):
    back = codec.decode_result(codec.encode_result(real["relax"]))
    assert back.keys() == real["relax"].keys()
    assert back["atoms"] == real["relax"]["atoms"]
    assert back["atoms"].info == real["relax"]["atoms"].info
    assert np.array_equal(back["results"]["forces"], real["relax"]["results"]["forces"])


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("node17:/scratch/run", "/scratch/run"),
        (Path("/a/b"), "/a/b"),
        ("/a:b/c", "/a:b/c"),
        ("", None),
        (7, None),
        (".", None),
    ],
)
def test_the_work_directory(directory, expected):
    assert summarize({"dir_name": directory})["work_dir"] == expected


def test_the_energy_of_a_thermochemistry_is_no_result():
    thermo = {"vib_freqs": [1600.0], "energy": 0.0, "gibbs_energy": 0.3}
    assert summarize({"results": thermo, "atoms": Atoms("H2O"), "dir_name": "."}) == {
        **NOTHING,
        "formula": "H2O",
        "natoms": 3,
    }


def test_the_formula():
    assert summarize({"atoms": Atoms("H2O")})["formula"] == "H2O"
    assert summarize({"atoms": bulk("NaCl", "rocksalt", a=5.6) * 2})["formula"] == "Cl8Na8"
    assert summarize({"formula_pretty": "NaCl", "atoms": Atoms("Na2Cl2")})["formula"] == "Cl2Na2"
    assert summarize({"formula_pretty": "NaCl"})["formula"] == "NaCl"
    assert summarize({"structure_metadata": {"formula_pretty": "Fe2O3"}})["formula"] == "Fe2O3"
    assert summarize({"atoms": Atoms()})["formula"] is None


@pytest.mark.parametrize(
    ("results", "energy", "force"),
    [
        ({"energy": math.nan, "forces": [[math.inf, 0, 0]]}, None, None),
        ({"energy": np.float32(1.5), "forces": [[3, 4, 0], [0, 0, 1]]}, 1.5, 5.0),
        ({"energy": np.array([2.0]), "forces": []}, 2.0, None),
        ({"energy": True, "forces": [1, 2, 3]}, None, None),
        ({"energy": "-1", "forces": "no"}, None, None),
        ({"energy": 10**400, "forces": None}, None, None),
        ({}, None, None),
    ],
)
def test_numbers_are_numbers_or_null(results, energy, force):
    summary = summarize({"results": results})
    assert summary["energy_ev"] == energy
    assert summary["max_force_ev_ang"] == force


PW_OUT = """\
     EXX-fraction              =        0.25
!    total energy              =     -14.58888182 Ry
     EXX: now go back to refine exchange calculation
!    total energy              =     -14.62575652 Ry
{converged}     EXX self-consistency reached
"""


@pytest.mark.parametrize(
    ("output", "energy"),
    [
        (PW_OUT.format(converged="!!   total energy   =     -14.62575744 Ry\n"), -198.99355),
        (PW_OUT.format(converged=""), -198.99354),
        (PW_OUT.replace("EXX", "other").format(converged=""), -198.5),
        ("EXX", -198.5),
        ("EXX\n!    total energy              =     ******** Ry\n", -198.5),
        (None, -198.5),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_hybrid_functional_of_pw_has_the_last_energy_of_its_output(
    tmp_path, output, energy, packed
):
    if output is not None and packed:
        (tmp_path / "pw.out.gz").write_bytes(gzip.compress(output.encode()))
    elif output is not None:
        (tmp_path / "pw.out").write_text(output)
    result = {
        "dir_name": str(tmp_path),
        "parameters": {"input_data": {}},
        "results": {"energy": -198.5},
    }
    assert summarize(result)["energy_ev"] == pytest.approx(energy, abs=5e-6)
    assert summarize({**result, "parameters": {"xc": "HSE06"}})["energy_ev"] == -198.5


@pytest.mark.parametrize("result", [None, 7, "x", [], {}, [None, [1]], object(), {"results": 1}])
def test_what_is_no_result_is_all_null(result):
    assert summarize(result) == NOTHING


@given(
    st.recursive(
        st.one_of(st.none(), st.floats(), st.text(max_size=3), st.binary(max_size=3)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    [
                        "results",
                        "energy",
                        "forces",
                        "atoms",
                        "dir_name",
                        "atoms_json",
                        "structure_metadata",
                        "formula_pretty",
                        "data",
                    ]
                ),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=10,
    )
)
def test_it_never_raises_and_is_always_json(result):
    summary = summarize(result)
    assert NOTHING.keys() <= summary.keys()
    json.dumps(summary, allow_nan=False)
