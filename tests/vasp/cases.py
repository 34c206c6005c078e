"""Random jobs: a recipe out of all that there are, a structure, parameters, a tree of POTCARs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from hypothesis import strategies as st

from vasp.trees import DATASETS, Tree, trees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vasp.truth import Recipe

_ELEMENTS = list(DATASETS)
_SEVERAL = ("_flow", "qmof_relax_job", "freq_job", "ase_relax_job")
_SLABS = ("bulk_to_slabs_flow", "slab_to_ads_flow")
#: Module of a flow of the Materials Project -> its jobs.
_JOBS = {
    "mp24": ["mp_prerelax_job", "mp_metagga_relax_job", "mp_metagga_static_job"],
    "mp_legacy": ["mp_gga_relax_job", "mp_gga_static_job"],
    "matpes": ["pbe_static_job", "r2scan_static_job"],
    "mof_off": ["pbe_static_job", "r2scan_static_job"],
}
PRESETS = [
    "DefaultSetGGA",
    "SlabSetPBE",
    "DefaultSetMetaGGA",
    "DefaultSetHybrid",
    "RosenSetPBE",
    "QMOFSet",
]


@dataclass(frozen=True)
class Structure:
    """Layers of atoms; ``shape`` is ``bulk``, ``slab`` (with a vacuum), ``free`` (a slab that does

    not repeat along z) or ``molecule``; ``cell`` is ``good``, ``none``, ``flat``, ``left-handed``.
    """

    symbols: tuple[str, ...]
    shape: str = "bulk"
    a: float = 4.0
    cell: str = "good"

    def atoms(self) -> Atoms:
        number = len(self.symbols)
        # Two to a layer, like rock salt: what is bulk can be cut into slabs.
        positions = [
            (self.a / 2 * (i % 2), self.a / 2 * (i % 2), self.a / 2 * i) for i in range(number)
        ]
        height = self.a / 2 * max(number, 2)
        cell = np.diag([self.a, self.a, height if self.shape == "bulk" else height + 15.0])
        # quacc's calculator for VASP wants all three.
        pbc = {"free": (True, True, False), "molecule": False}.get(self.shape, True)
        atoms = Atoms(self.symbols, positions, cell=cell, pbc=pbc)
        if self.cell == "none":
            atoms.cell[:] = 0
        elif self.cell == "flat":
            atoms.cell[2] = 0
        elif self.cell == "left-handed":
            atoms.cell[:2] = atoms.cell[[1, 0]]
        return atoms


@dataclass(frozen=True)
class Case:
    """A job, and what it finds at VASP_PP_PATH."""

    recipe: str
    structure: Structure
    parameters: Mapping[str, Any]
    tree: Tree
    #: Have it computed in full, so that a flow comes to its later calculations.
    full: bool = False
    #: What was there when the same was asked for a larger structure, shortly before.
    before: Tree | None = None

    @property
    def several(self) -> bool:
        """Whether the recipe makes more calculations than one."""
        return self.recipe.endswith(_SEVERAL)


def cases(recipes: list[Recipe], files: Mapping[str, str]) -> st.SearchStrategy[Case]:
    """Draw jobs of some recipes; ``files`` are files and folders that parameters may name."""
    # Slabs in all directions take a second to be made.
    recipes = [each for each in recipes for _ in range(1 if each.name.endswith(_SLABS) else 3)]

    @st.composite
    def draw_case(draw: Any) -> Case:
        recipe = draw(st.sampled_from(recipes))
        structure = draw(structures())
        parameters = draw(parameters_of(recipe, structure, files))
        elements = set(structure.symbols)
        if isinstance(parameters.get("adsorbate"), Atoms):
            elements |= set(parameters["adsorbate"].symbols)
        tree = draw(trees(elements))
        before = draw(st.just(tree) | trees(elements)) if draw(st.integers(0, 9)) == 9 else None
        several = recipe.name.endswith(_SEVERAL)
        # Of any larger cell there are dozens of slabs.
        if recipe.name.endswith(_SLABS):
            several = len(structure.symbols) == 1
        # Where the calculations of a flow differ, the later ones matter most.
        differ = {"relax2_kwargs", "job_params"} & parameters.keys()
        full = several and draw(st.integers(1, 3 if differ else 20)) == 3
        return Case(recipe.name, structure, parameters, tree, full, before)

    return draw_case()


def structures() -> st.SearchStrategy[Structure]:
    species = st.lists(st.sampled_from(_ELEMENTS), min_size=1, max_size=3, unique=True)
    symbols = species.flatmap(
        lambda names: st.tuples(st.just(names), st.lists(st.sampled_from(names), max_size=4)).map(
            lambda two: (*two[0], *two[1])
        )
    )
    # One in some dozens has something that VASP cannot do.
    odd = st.sampled_from([("X",), ("Cu", "X", "O"), ()]).map(tuple)
    usual = st.builds(Structure, symbols, st.sampled_from(["bulk", "slab"]))
    strange = st.builds(
        Structure,
        symbols | odd,
        st.sampled_from(["bulk", "free", "molecule"]),
        st.just(4.0),
        st.sampled_from(["good", "none", "flat", "left-handed"]),
    )
    return st.integers(0, 14).flatmap(lambda n: strange if n == 14 else usual)


# ---- parameters --------------------------------------------------------------------------------


def parameters_of(
    recipe: Recipe, structure: Structure, files: Mapping[str, str]
) -> st.SearchStrategy[dict[str, Any]]:
    """Draw what may be given to a recipe."""
    calculator = _calculator(structure, files)
    own: dict[str, st.SearchStrategy[Any]] = {
        "preset": _presets(files),
        "relax_cell": st.booleans(),
        "run_prerelax": st.booleans(),
        "run_static": st.booleans(),
        "relax1_kwargs": calculator,
        "relax2_kwargs": calculator,
        "job_params": st.dictionaries(
            st.sampled_from(["all", *_jobs(recipe)]), calculator, max_size=2
        ),
        "make_slabs_kwargs": st.fixed_dictionaries(
            {"max_index": st.just(1), "min_slab_size": st.just(5.0)},
            optional={"allowed_surface_symbols": st.just([*structure.symbols[:1]])},
        ),
        "nsteps": st.just(2),
        "ensemble": st.sampled_from(["nve", "nvt", "npt"]),
        "kpts_mode": st.sampled_from(["uniform", "line"]),
        "level": st.sampled_from(["PBE", "r2SCAN"]),
        "prev_dir": st.sampled_from([files["previous"], files["nothing"]]),
        "adsorbate": st.sampled_from([Atoms("H"), Atoms("CO", [(0, 0, 0), (0, 0, 1.1)])]),
        "thermo_method": st.sampled_from(["harmonic", "ideal_gas"]),
        "copy_files": st.just([{"source": files["previous"], "filenames": ["WAVECAR*"]}]),
    }
    required = {name: own[name] for name in recipe.required}
    named = {name: own[name] for name in recipe.parameters if name in own and name not in required}
    one = [st.tuples(st.just(name), strategy) for name, strategy in named.items()]
    # Few at a time: what dies of one parameter says nothing of the others.
    some = st.lists(st.one_of(one), unique_by=lambda each: each[0], max_size=2 if one else 0)
    return st.builds(
        lambda needed, some, free: free | dict(some) | needed,
        st.fixed_dictionaries(required),
        some,
        calculator if recipe.free else st.just({}),
    )


def _jobs(recipe: Recipe) -> list[str]:
    """Name the jobs that a flow's ``job_params`` may change."""
    if recipe.name.endswith(_SLABS):
        return ["relax_job", "static_job"]
    module = recipe.name.rpartition(".")[0].rpartition(".")[2]
    return _JOBS.get(module, [])


def _presets(files: Mapping[str, str]) -> st.SearchStrategy[Any]:
    usual = st.sampled_from([*PRESETS, files["preset"]])
    return st.integers(0, 9).flatmap(
        lambda n: (
            st.sampled_from([None, "NoSuchSet", files["nothing"] + "/none.yaml"])
            if n == 9
            else usual
        )
    )


def _calculator(
    structure: Structure, files: Mapping[str, str]
) -> st.SearchStrategy[dict[str, Any]]:
    """Draw parameters of the calculator, most of them such that decide over its POTCARs."""
    choices: list[tuple[str, st.SearchStrategy[Any]]] = [
        ("setups", _setups(structure, files)),
        ("pp_version", st.sampled_from(["64", "54", "52", "original", "", None, 54, "99", "64/"])),
        ("pp", st.sampled_from(["PBE", "LDA", "lda", "mine", "potpaw_pbe.64", "PW91", "../x", ""])),
        ("xc", st.sampled_from(["PBE", "lda", "pbesol", "r2scan", "hse06", "PW91", "rpbe", "b3"])),
        ("use_custodian", st.booleans()),
    ]
    others: list[tuple[str, st.SearchStrategy[Any]]] = [
        ("encut", st.sampled_from([520, 400.0, "520", None])),
        ("encutt", st.just(520)),
        ("kpts", st.sampled_from([[1, 1, 1], [2, 2, 1], (3, 3, 3), "[3,3,3]", [0, 0, 0], None])),
        ("kspacing", st.sampled_from([0.5, 5.0])),
        ("gamma", st.booleans()),
        ("charge", st.sampled_from([1, -0.5, 0])),
        ("ldau_luj", st.just({"Cr": {"L": 2, "U": 3.7, "J": 0.0}})),
        ("ispin", st.sampled_from([1, 2])),
        ("nelect", st.just(10)),
        ("luse_vdw", st.sampled_from([True])),
        ("magmom", st.just([1.0] * len(structure.symbols))),
        ("incar_copilot_mode", st.sampled_from(["off", "critical", "aggressive"])),
        ("auto_dipole", st.booleans()),
        ("ncore", st.just(4)),
        ("lreal", st.sampled_from(["auto", False])),
        ("PP_VERSION", st.just("54")),
        ("elemental_magmoms", st.just({"Fe": 5, "Cu": 1})),
        ("directory", st.just("elsewhere")),
    ]
    pairs = [st.tuples(st.just(name), strategy) for name, strategy in choices]
    rare = [st.tuples(st.just(name), strategy) for name, strategy in others]
    return st.lists(
        st.one_of(st.one_of(pairs), st.one_of(pairs), st.one_of(rare)),
        unique_by=lambda each: each[0],
        max_size=3,
    ).map(dict)


def _setups(structure: Structure, files: Mapping[str, str]) -> st.SearchStrategy[Any]:
    """Draw setups: by element (suffixes), by index (full names), a name or a file."""
    elements = [*dict.fromkeys(structure.symbols)] or ["Cu"]
    suffixes = {
        element: st.sampled_from([name.removeprefix(element) for name in names] + ["_sv", "", "-"])
        for element, names in DATASETS.items()
    }
    suffixes["X"] = st.just("")
    by_element = st.fixed_dictionaries({}, optional={each: suffixes[each] for each in elements})
    names = [name for element in elements for name in DATASETS.get(element, [])] or ["Cu"]
    index = st.integers(0, len(structure.symbols))
    by_index = st.dictionaries(index | index.map(str), st.sampled_from(names), max_size=2)
    base = st.sampled_from([{}, {"base": "recommended"}, {"base": "minimal"}])
    together = st.tuples(base, by_element, by_index).map(
        lambda three: three[0] | three[1] | three[2]
    )
    named = st.sampled_from(
        ["recommended", "minimal", "gw", "materialsproject", "setups_qmof.yaml", files["setups"]]
    )
    wrong = st.sampled_from(["nosuch", {"Cu": None}, {"Cu": 5}, {0: None}, [], files["broken"], {}])
    return st.integers(0, 11).flatmap(
        lambda n: wrong if n == 11 else (by_element, together, named)[n % 3]
    )
