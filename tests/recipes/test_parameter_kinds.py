"""Parameters of a kind that the recipe cannot take, and how often that is told."""

from pathlib import Path

import numpy as np
import pytest
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from crystalmath.cli.shared import output
from crystalmath.errors import InvalidJob
from crystalmath.recipes.arguments import check_arguments
from crystalmath.recipes.encoding import Sentinel
from crystalmath.recipes.lookup import look_up

VASP = "vasp.core.static_job"
STATIC = "espresso.core.static_job"
RELAX = "emt.core.relax_job"
FLOW = "emt.slabs.bulk_to_slabs_flow"


def check(recipe, **parameters):
    return check_arguments(look_up(f"quacc.recipes.{recipe}"), parameters)


@pytest.mark.parametrize(
    ("recipe", "parameters", "said"),
    [
        (STATIC, {"copy_files": Path("/x")}, "'copy_files' must be a list of tables, .*PosixPath"),
        (STATIC, {"copy_files": [Path("/x")]}, "'copy_files' must be a list of tables"),
        (STATIC, {"copy_files": {"source": "/x"}}, "'copy_files' must be a list of tables"),
        (STATIC, {"copy_files": [{"source": "/x"}]}, "'copy_files' must be .*filenames"),
        (STATIC, {"copy_files": [{"source": 5, "filenames": "x"}]}, "'copy_files' must be a list"),
        (STATIC, {"kspacing": "x"}, "'kspacing' must be a number, in 1/Å, not 'x'"),
        (VASP, {"encut": "600eV"}, "'encut' must be a number, in eV, not '600eV'"),
        (VASP, {"nsw": "ten"}, "'nsw' must be a whole number, not 'ten'"),
        (VASP, {"ISMEAR": [0]}, "'ISMEAR' must be a whole number"),
        (VASP, {"lwave": "no"}, "'lwave' must be true or false, not 'no'"),
        (VASP, {"lcharg": 1}, "'lcharg' must be true or false, not 1"),
        (VASP, {"kpts": [3.5, 3, 3]}, "'kpts' must be a list of three whole numbers"),
        (VASP, {"kpts": [9, 9, 0]}, r"'kpts' must be .* at least 1: .*, not \[9, 9, 0\]"),
        (STATIC, {"kpts": (2, -2, 2)}, "'kpts' must be .* at least 1"),
        (STATIC, {"kpts": 4}, "'kpts' must be a list of three whole numbers, .* not 4"),
        (STATIC, {"kpts": [4, 4]}, r"'kpts' must be a list of three .* not \[4, 4\]"),
        (STATIC, {"kpts": [4.5, 4, 4]}, r"'kpts' must be .* whole numbers, .* not \[4.5, 4, 4\]"),
        (VASP, {"NSW": 9, "nsw": 5}, "'NSW' and 'nsw' are one tag of INCAR; .* once, as 'NSW'"),
        (
            STATIC,
            {"input_data": {"system": {"ecutwfc": 30}, "SYSTEM": {"nspin": 2}}},
            "'system' and 'SYSTEM' are one name in input_data; give it once, as 'system'",
        ),
        (STATIC, {"input_data": {"system": {"nspin": 1, "NSPIN": 2}}}, "'nspin' and 'NSPIN' are"),
        (VASP, {"kspacing": "x"}, "'kspacing' must be a number, in 1/Å"),
        (VASP, {"EDIFFG": "-0.01"}, "'EDIFFG' must be a number, in eV .or, below zero, eV/Å"),
        (STATIC, {"input_data": {"ecutwfc": "60Ry"}}, "'ecutwfc' must be a number, in Ry"),
        (STATIC, {"input_data": {"system": {"degauss": "x"}}}, "'degauss' must be a number, in Ry"),
        (STATIC, {"preset": 5}, "'preset' must be the name of a preset, .* not 5"),
        (VASP, {"kpts": "abc"}, r"'kpts' must be a list of three .* not 'abc'"),
        (VASP, {"setups": 5}, "'setups' must be the name .* or a table, .* not 5"),
        (VASP, {"preset": 5, "kspacing": "x"}, "'preset' must be .*'kspacing' must be a number"),
        (VASP, {"ispin": 3}, "'ispin' must be 1, without spin, or 2, spin-polarized, not 3"),
        (VASP, {"ISPIN": "0"}, "'ISPIN' must be 1, without spin, or 2"),
        ("emt.md.md_job", {"dynamics": 5}, r"'dynamics' must be an ensemble .*, not 5"),
        (STATIC, {"input_data": [1]}, r"'input_data' must be a table, .* not \[1\]"),
        (STATIC, {"pseudopotentials": ["x"]}, "'pseudopotentials' must be a table"),
        (STATIC, {"additional_fields": [1]}, "'additional_fields' must be a table"),
        (RELAX, {"opt_params": [1]}, "'opt_params' must be a table"),
        (RELAX, {"opt_params": {"optimizer": 5}}, r"'opt_params\.optimizer' must be an optimizer"),
        (RELAX, {"opt_params": {"fmax": "tight"}}, r"'opt_params\.fmax' must be a number"),
        (RELAX, {"opt_params": {"run_kwargs": 3}}, r"'opt_params\.run_kwargs' must be a table"),
        ("emt.md.md_job", {"steps": "many"}, "'steps' must be a number, not 'many'"),
        ("emt.md.md_job", {"temperature_K": [300]}, "'temperature_K' must be a number"),
        (RELAX, {"opt_params": {"max_steps": "x"}}, r"'opt_params\.max_steps' must be a number"),
        ("emt.core.static_job", {"asap_cutoff": {"x": 1}}, "'asap_cutoff' must be true or false"),
        ("emt.core.static_job", {"asap_cutoff": "no"}, "'asap_cutoff' must be true or false"),
        ("lj.core.static_job", {"smooth": "no"}, "'smooth' must be true or false, not 'no'"),
        ("lj.core.static_job", {"sigma": "abc", "rc": "x"}, "'sigma' must be a number.*'rc' must"),
        (STATIC, {"crystal_coordinates": "no"}, "'crystal_coordinates' must be true or false"),
        (FLOW, {"job_params": [1]}, "'job_params' must be a table"),
        (FLOW, {"job_params": {"relax_job": 5}}, r"'job_params\.relax_job' must be a table"),
        (FLOW, {"make_slabs_kwargs": "x"}, "'make_slabs_kwargs' must be a table"),
        (RELAX, {"opt_params": 5, "additional_fields": "x"}, "opt_params.*; .*additional_fields"),
    ],
)
def test_the_parameter_is_named_with_what_it_should_be(recipe, parameters, said):
    with pytest.raises(InvalidJob, match=said):
        check(recipe, **parameters)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        (STATIC, {"copy_files": [{"source": "/x", "filenames": ["y"]}]}),
        (STATIC, {"copy_files": [{"source": Path("/x"), "filenames": Path("y")}], "kpts": "gamma"}),
        (STATIC, {"preset": Path("x.yaml"), "kpts": {"path": "GX"}, "kspacing": 0.1}),
        (STATIC, {"kpts": (4, 4, 1)}),
        (STATIC, {"kpts": np.array([[0.0, 0.0, 0.0, 1.0]])}),
        (VASP, {"kpts": [3, 3, 3], "setups": {"Al": ""}, "preset": "BulkSet"}),
        (VASP, {"LCHARG": ".TRUE.", "lwave": "F", "nsw": "10", "encut": 520, "ediffg": -0.01}),
        (VASP, {"ismear": Sentinel("Remove"), "lreal": "Auto", "magmom": [1.0], "nbands": 8.0}),
        (VASP, {"ispin": "2", "ISMEAR": 0}),
        (VASP, {"kpts": [[0, 0, 0, 1]], "NSW": 3, "ISPIN": 1, "ediff": None, "EDIFF": 1e-6}),
        (VASP, {"kpts": 20, "setups": "minimal", "preset": None, "kspacing": None}),
        ("emt.md.md_job", {"dynamics": VelocityVerlet}),
        ("emt.md.md_job", {"dynamics": "nvt_langevin"}),
        (STATIC, {"copy_files": None, "additional_fields": {}, "input_data": None}),
        (RELAX, {"opt_params": {"optimizer": FIRE, "fmax": 0, "max_steps": np.int64(3)}}),
        (RELAX, {"opt_params": {"optimizer": "FIRE", "fmax": None}}),
        (RELAX, {"opt_params": {"fmax": Sentinel("Remove"), "optimizer": Sentinel("Remove")}}),
        (RELAX, {"opt_params": []}),
        # ASE counts up to them.
        (RELAX, {"opt_params": {"max_steps": 10.5}}),
        ("emt.md.md_job", {"steps": 1.5, "dynamics": "nve", "temperature_K": np.array(300.0)}),
        (FLOW, {"job_params": {"all": {}}, "make_slabs_kwargs": {}}),
    ],
)
def test_what_a_recipe_can_take_passes(recipe, parameters):
    assert check(recipe, **parameters) == []


OWN = """
def relax(
    atoms,
    fmax: float = 0.01,
    steps: "Optional[int]" = None,
    options: dict[str, float] | None = None,
    elements: list[str] = (),
    cutoff: float = "auto",
    label: str = "",
    either: float | str = 1.0,
    mask: np.ndarray = None,
    loose=None,
):
    return {}
"""


@pytest.fixture
def check_own(tmp_path, monkeypatch):
    """Check parameters of a user's own recipe, which says in its annotations what it takes."""
    (tmp_path / "own_kinds.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = look_up("own_kinds.relax", allow=["own_kinds"])
    return lambda **parameters: check_arguments(recipe, parameters)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"fmax": "tight"}, "'fmax' must be a number, not 'tight'"),
        ({"fmax": {"value": 1}}, "'fmax' must be a number"),
        ({"steps": Path("/x")}, "'steps' must be a number"),
        ({"options": "kpts=4"}, "'options' must be a table, .* not 'kpts=4'"),
        ({"options": 4}, "'options' must be a table"),
        ({"elements": "Al"}, "'elements' must be a list, not 'Al'"),
        ({"fmax": "tight", "elements": "Al"}, "'fmax' must be .*; .*'elements' must be"),
    ],
)
def test_a_users_own_annotations_are_taken_at_their_word(check_own, parameters, said):
    with pytest.raises(InvalidJob, match=said):
        check_own(**parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"fmax": "0.05", "steps": np.int64(5), "options": {}, "elements": ["Al"]},
        {"fmax": [0.1, 0.2], "options": [("a", 1.0)], "elements": np.array(["Al"])},
        {"fmax": None, "steps": None, "options": None, "elements": None},
        {"cutoff": "none"},  # its default is a text, too
        {"label": 5, "either": "low", "mask": "all", "loose": "anything"},
    ],
)
def test_what_a_users_own_recipe_may_take_passes(check_own, parameters):
    assert check_own(**parameters) == []


def test_what_an_annotation_names_is_listed():
    with pytest.raises(InvalidJob, match="'library', one of fairchem, matcalc, rootstock: --param"):
        check("mlip.core.static_job")
    (found,) = check("mlip.core.static_job", library="matclac")
    assert (found.severity, found.code) == ("error", "parameter_choice")
    assert "none of the choices" in found.message
    assert found.remedy == "did you mean 'matcalc'?"
    (found,) = check("tblite.core.static_job", method="GFN3-xTB")
    assert (found.severity, found.remedy) == ("warning", "did you mean 'GFN2-xTB'?")
    for given in ({"library": "MatCalc"}, {"library": "rootstock", "checkpoint": "x"}):
        assert check("mlip.core.static_job", **given) == []


def test_two_hundred_equal_refusals_are_one_line(capsys):
    """Each of them told with a warning, too, which is one line of its own."""
    warnings = [{"message": f"warned of {what}", "remedy": None} for what in ("this", "that")]
    answers = [
        {
            "job_id": None,
            "status": "error",
            "error": "no good",
            "warnings": warnings,
            "name": f"Al-{number}",
        }
        for number in range(200)
    ]
    output.tell_alike(answers)
    assert capsys.readouterr().err.splitlines() == [
        "error: Al-0, Al-1, Al-2 and 197 more: no good",
        "warning: Al-0, Al-1, Al-2 and 197 more: warned of this",
        "warning: Al-0, Al-1, Al-2 and 197 more: warned of that",
    ]
