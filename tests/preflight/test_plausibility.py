"""What runs and is hardly meant is told before submission, and what is meant is not."""

import io
import tracemalloc
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.emt import EMT
from ase.collections import g2
from ase.constraints import (
    FixAtoms,
    FixBondLength,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixScaled,
)
from ase.data import chemical_symbols, covalent_radii
from ase.io import read
from ase.io.espresso import kspacing_to_grid, write_espresso_in
from ase.io.vasp import write_vasp
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalmath.preflight.plausibility import findings

pytestmark = pytest.mark.vasp

EMT_JOB = "quacc.recipes.emt.core.relax_job"
VASP = "quacc.recipes.vasp.core.relax_job"
CU = bulk("Cu", cubic=True)


def told(atoms, recipe=EMT_JOB, **parameters):
    return [(each.code, each.severity) for each in findings(recipe, atoms, parameters)]


def message(code, atoms, recipe=EMT_JOB, **parameters):
    (found,) = findings(recipe, atoms, parameters)
    assert (found.code, found.severity) == (code, "warning")
    return found.message


# ---- distances ----


def boxed(name):
    atoms = molecule(name)
    atoms.center(vacuum=6)
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [
        *(bulk(name) for name in ("Cu", "Al", "Si", "C", "Fe", "Cs", "Ar", "Ne", "W", "Zn")),
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("Cu") * (5, 5, 5),
        fcc111("Pt", (2, 2, 3), vacuum=10, periodic=True),
        graphene(vacuum=15),
        Atoms("V2", positions=[(0, 0, 0), (0, 0, 1.77)]),
        Atoms("Cr2", positions=[(0, 0, 0), (0, 0, 1.68)]),
        Atoms("O", cell=[15, 15, 15], pbc=True),
    ],
    ids=str,
)
def test_real_structures_pass(atoms):
    assert told(atoms, VASP) == []


def test_the_molecules_of_a_test_set_pass():
    assert [name for name in g2.names if told(boxed(name), VASP)] == []


def test_atoms_in_each_other_are_told_with_who_and_how_far():
    close = CU.copy()
    close.positions[1] = close.positions[0] + [0.3, 0, 0]
    assert "Cu 0 and Cu 1 are 0.30 Å apart; a bond of theirs has about 2.64 Å" in message(
        "structure_close", close
    )
    doubled = CU + CU[[2]]
    assert "Cu 2 and Cu 4 are 0.00 Å apart" in message("structure_close", doubled)


def test_a_wrong_scale_is_told():
    small, large = CU.copy(), CU.copy()
    small.set_cell(small.cell * 0.1, scale_atoms=True)
    assert "0.26 Å apart" in message("structure_close", small)
    one = bulk("Cu")
    one.set_cell(one.cell * 0.1, scale_atoms=True)
    assert "Cu 0 and its own image in the next cell are 0.26 Å" in message("structure_close", one)
    large.set_cell(large.cell * 10, scale_atoms=True)
    assert "none of the 4 atoms has another one within 6 Å" in message("structure_scattered", large)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.floats(0.5, 20.0),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_the_pairs_are_those_of_ases_neighbour_list(seed, count, length, pbc):
    random = np.random.default_rng(seed)
    cell = (np.eye(3) + random.uniform(-0.4, 0.4, (3, 3))) * length
    numbers = random.choice([1, 6, 29, 55], count)
    atoms = Atoms(numbers, positions=random.uniform(-20, 20, (count, 3)), cell=cell, pbc=pbc)
    radii = covalent_radii[numbers] / 2
    first, second, apart = neighbor_list("ijd", atoms, radii)
    near = apart < radii[first] + radii[second]
    codes = [code for code, _ in told(atoms, "mine.recipe")]
    assert ("structure_close" in codes) == near.any()


@pytest.mark.parametrize("scale", [1, 1e-9])
def test_of_a_hundred_thousand_atoms_few_pairs_are_kept(scale):
    large = CU * (29, 29, 29)
    large.rattle(0.05)
    large.positions *= scale  # all in one place: the worst case
    tracemalloc.start()
    try:
        assert bool(told(large)) == (scale < 1)
        assert tracemalloc.get_traced_memory()[1] < 2000 * len(large)
    finally:
        tracemalloc.stop()


# ---- partial occupancies ----

CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{}
"""


def cif(*sites):
    lines = "\n".join(f"{symbol}{i} {symbol} {site}" for i, (symbol, site) in enumerate(sites))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(io.StringIO(CIF.format(lines)), format="cif")


@pytest.mark.parametrize("recipe", [EMT_JOB, VASP, "mine.recipe"])
@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ((("Al", "0 0 0 0.3"), ("Cu", "0 0 0 0.7"), ("O", ".5 .5 .5 0.25")), "Cu 0.7 Al 0.3 as Cu"),
        ((("Au", "0 0 0 0.5"), ("Cu", "0 0 0 0.5")), "Au 0.5 Cu 0.5 as Cu"),
        ((("Cu", "0 0 0 0.5"), ("Au", "0 0 0 0.5")), "Au 0.5 Cu 0.5 as Au"),
    ],
)
def test_partial_occupancies_are_told_with_what_the_calculation_has(recipe, sites, said):
    atoms = cif(*sites)
    assert message("structure_occupancy", atoms, recipe).partition("element: ")[2].startswith(said)
    assert said[-2:] in atoms.get_chemical_symbols()


def test_full_and_ordered_sites_are_not_told():
    full = cif(("Al", "0 0 0 1.0"), ("O", ".5 .5 .5 1"))
    assert told(full) == []
    ordered = cif(("Au", "0 0 0 0.5"), ("Cu", "0 0 0 0.5")) * (2, 1, 1)
    ordered.symbols[0] = "Au"
    assert told(ordered) == []


@pytest.mark.parametrize(
    "other", [None, 1, "x", [], {}, {"0": 1}, {"0": {}}, {"0": {"Al": "x"}}, {"7": {"Al": 0.5}}]
)
def test_other_meanings_of_occupancy(other):
    atoms = bulk("Al")
    atoms.info["occupancy"] = other
    assert told(atoms) == []


# ---- EMT ----


def test_emt_is_refused_exactly_where_it_would_die():
    for symbol in chemical_symbols:
        atoms = Atoms(["Cu", symbol], positions=[(0, 0, 0), (0, 0, 6)], cell=[9, 9, 9])
        atoms.calc = EMT()
        try:
            atoms.get_potential_energy()
        except (NotImplementedError, KeyError):
            assert told(atoms) == [("emt_element", "error")], symbol
        else:
            assert told(atoms) == [], symbol


def test_emt_says_which_elements_it_has():
    (found,) = findings("quacc.recipes.emt.slabs.bulk_to_slabs_flow", bulk("Si"), {})
    assert "no parameters for Si; it has them for Ag, Al, Au, C, Cu, H" in found.message


# ---- cells and k-points ----


def test_a_box_is_no_solid():
    atoms = molecule("CO2")
    atoms.center(vacuum=10)
    atoms.pbc = True
    assert told(atoms, VASP) == []
    assert "would relax its cell" in message("structure_vacuum", atoms, VASP, relax_cell=True)
    slab = fcc111("Cu", (1, 1, 4), vacuum=8, periodic=True)
    assert "vacuum, 16 Å along c," in message("structure_vacuum", slab, VASP, relax_cell=True)
    flow = "quacc.recipes.emt.elastic.elastic_tensor_flow"
    assert "expects a solid" in message("structure_vacuum", slab, flow)
    assert told(CU, flow) == told(CU, VASP, relax_cell=True) == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"kpts": {"density": 50}}, "88 x 88 x 88 = 681472 k-points"),
        ({"kpts": [60, 60, 60]}, "60 x 60 x 60 = 216000 k-points"),
        ({"kspacing": 0.02}, "88 x 88 x 88"),
        ({"pmg_kpts": {"kppa": 200_000}}, "36 x 36 x 36 = 46656 k-points"),
    ],
)
def test_too_many_k_points(parameters, said):
    assert said in message("kpoints_many", CU, VASP, **parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"kpts": [24, 24, 24]},
        {"kpts": {"density": 5, "gamma": True, "even": False}},
        {"kpts": {"path": "GXL", "npoints": 400}},
        {"kpts": {"densty": 50}},
        {"kpts": "x"},
        {"kpts": 40},
        {"kpts": [[0, 0, 0, 1], [0.5, 0.5, 0.5, 1]]},
        {"kspacing": 0.15},
        {"kspacing": "x"},
        {"kspacing": 0},
        {"pmg_kpts": {"kppvol": 100}},
        {"pmg_kpts": {"line_density": 40}},
        {"kpts": None},
    ],
)
def test_what_passes_of_k_points(parameters):
    assert told(CU, VASP, **parameters) == []


def test_a_spacing_of_k_points_means_what_the_program_makes_of_it():
    silicon, recipe = bulk("Si"), "quacc.recipes.espresso.core.non_scf_job"
    mesh = kspacing_to_grid(silicon, 0.008)
    made = f"{mesh[0]} x {mesh[1]} x {mesh[2]} = "
    assert made in message("kpoints_many", silicon, recipe, kspacing=0.008)
    assert told(silicon, recipe, kspacing=0.01) == []
    assert told(silicon, recipe, kspacing=0) == []


@pytest.mark.parametrize(("spacing", "made"), [(22, "1 x 1 x 1 = 1"), (1.5, "2 x 2 x 2 = 8")])
def test_a_spacing_that_makes_few_k_points_is_told(spacing, made):
    said = f"kspacing = {spacing} makes {made} k-points; a usual spacing makes 4 x 4 x 4"
    assert message("kpoints_few", CU, VASP, kspacing=spacing) == said
    pw = "quacc.recipes.espresso.core.static_job"
    assert "a usual spacing makes" in message("kpoints_few", CU, pw, kspacing=0.22)
    assert told(CU, VASP, kspacing=0.9) == told(CU, pw, kspacing=0.15) == []
    # A molecule needs one k-point, and a slab one along its vacuum.
    assert told(boxed("H2O"), VASP, kspacing=1.5) == []
    box = Atoms("O", cell=[12, 12, 12], pbc=True)
    assert told(box, VASP, kspacing=1.5) == []


def test_k_points_along_vacuum():
    slab = fcc111("Cu", (1, 1, 4), vacuum=8, periodic=True)
    assert "several along c," in message("kpoints_vacuum", slab, VASP, kpts=[5, 5, 2])
    assert told(slab, VASP, kpts=[5, 5, 1]) == []


# ---- constraints ----

PW = "quacc.recipes.espresso.core.relax_job"


def held(*constraints):
    slab = fcc111("Cu", (1, 1, 4), vacuum=8, periodic=True)
    slab.set_constraint(constraints)
    return slab


@pytest.mark.filterwarnings("ignore:Ignored unknown constraint")
@pytest.mark.parametrize(
    ("recipe", "constraint"),
    [
        (PW, FixScaled([0], (True, True, False))),
        (PW, FixedPlane([0], (0, 0, 1))),
        (VASP, FixCartesian([0])),
        (VASP, FixBondLength(0, 1)),
    ],
)
def test_a_constraint_that_the_program_does_not_get_is_told(recipe, constraint):
    atoms = held(FixAtoms([1]), constraint)
    said = message("constraint_dropped", atoms, recipe)
    assert type(constraint).__name__ in said
    assert "FixAtoms" not in said
    # So it is: ASE writes the same without it.
    written = []
    for each in (atoms, held(FixAtoms([1]))):
        file = io.StringIO()
        if recipe == PW:
            write_espresso_in(file, each, pseudopotentials={"Cu": "Cu.upf"})
        else:
            write_vasp(file, each)
        written.append(file.getvalue())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("recipe", "constraint"),
    [
        (PW, FixCartesian([0], (True, True, False))),
        (VASP, FixScaled([0], (True, True, False))),
        (VASP, FixedLine([0], (0, 0, 1))),
        # ASE moves the atoms, or nobody does.
        ("quacc.recipes.espresso.core.ase_relax_job", FixedPlane([0], (0, 0, 1))),
        ("quacc.recipes.vasp.core.static_job", FixCartesian([0])),
        (EMT_JOB, FixBondLength(0, 1)),
    ],
)
def test_a_constraint_that_is_kept_passes(recipe, constraint):
    assert told(held(constraint), recipe) == []


# ---- numbers ----


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"opt_params": {"fmax": -1}}, "opt_params.fmax = -1 eV/Å is negative"),
        ({"temperature_K": -300}, "temperature_K = -300 K is negative"),
        ({"encut": -400}, "encut = -400 eV is negative"),
        ({"job_params": {"relax_job": {"opt_params": {"max_steps": -3}}}}, "max_steps = -3 is"),
        ({"opt_params": {"max_steps": 10.5}}, "max_steps = 10.5 is a number of steps, but not"),
        ({"input_data": {"system": {"ecutwfc": 600}}}, "ecutwfc is in Ry"),
        ({"ENCUT": 40}, "ENCUT is in eV"),
        ({"opt_params": {"fmax": 50}}, "fmax is in eV/Å"),
        (
            {"opt_params": {"fmax": 0.0}},
            "fmax = 0 is never reached: a relaxation goes on until max_steps, 1000",
        ),
        ({"opt_params": {"max_steps": 10**23}}, "no calculation gets that far"),
        ({"timestep_fs": 1000}, "timestep_fs = 1000 fs looks like a value in another unit"),
        ({"rc": -1}, "rc = -1 Å is negative"),
    ],
)
def test_numbers_below_zero_not_whole_and_of_another_unit(parameters, said):
    (found,) = findings(VASP, CU, parameters)
    assert (found.severity, said in found.message) == ("warning", True)
    assert (found.source or "").startswith("the parameter ")


@pytest.mark.parametrize(
    "parameters",
    [
        {"ediffg": -0.01, "encut": 520, "nsw": 0, "ediff": 1e-6},
        {"opt_params": {"fmax": 0, "max_steps": 5}},
        {"input_data": {"system": {"ecutwfc": 90}}, "encut": "x", "nelm": None, "ispin": True},
    ],
)
def test_usual_numbers_pass(parameters):
    assert told(CU, VASP, **parameters) == told(None, VASP, **parameters) == []


@pytest.mark.parametrize(
    ("parameters", "said", "remedy"),
    [
        ({"ldau_luj": {"ni": {"L": 2, "U": 6, "J": 0}}}, "ldau_luj has 'ni'", "did you mean Ni?"),
        ({"setups": {"NI": "_pv"}}, "setups has 'NI'", "did you mean Ni?"),
        (
            {"job_params": {"all": {"elemental_magmoms": {"Iron": 5}}}},
            "job_params.all.elemental_magmoms has 'Iron'",
            "write the symbol of an element",
        ),
    ],
)
def test_a_table_by_element_with_what_is_none_is_told(parameters, said, remedy):
    (found,) = findings(VASP, CU, parameters)
    assert (found.severity, found.code) == ("warning", "parameter_element")
    assert f"{said}, which is no element: its value is not read" in found.message
    assert found.remedy == remedy


def test_a_table_by_element_of_elements_that_are_not_there_passes():
    tables = {
        "ldau_luj": {"Ni": {"L": 2, "U": 6, "J": 0}},
        "setups": {"base": "minimal", "Ca": "_sv", "2": "O_s"},
    }
    assert told(CU, VASP, **tables) == []


def test_a_users_own_recipe_may_mean_another_thing():
    assert told(CU, "mine.recipe", fmax=-1, kpts=[99, 99, 99]) == []


def test_a_warning_travels_and_strict_refuses(home, cli, tmp_path):
    from ase.io import write

    close = CU.copy()
    close.positions[1] = close.positions[0] + [0.3, 0, 0]
    write(tmp_path / "close.xyz", close)
    told = cli("check", "emt.core.static_job", tmp_path / "close.xyz")
    assert (told.code, "warning: the atoms Cu 0 and Cu 1" in told.out + told.err) == (0, True)
    strict = cli("check", "emt.core.static_job", tmp_path / "close.xyz", "--strict")
    assert (strict.code, "error: the atoms Cu 0 and Cu 1" in strict.out + strict.err) == (1, True)
