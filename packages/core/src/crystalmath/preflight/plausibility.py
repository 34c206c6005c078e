"""Warn of jobs that would run but are implausible.

Examples are overlapping atoms, a box treated as a solid, and 100,000 k-points. Numpy and ASE's
tables are enough, and the cost grows with the number of atoms.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from crystalmath.errors import InvalidJob, one_line
from crystalmath.models import Finding
from crystalmath.plugins.checked_job import brief
from crystalmath.recipes.close_atoms import close_atoms, heights, pairs
from crystalmath.recipes.lookup import family_of, is_quaccs, look_up
from crystalmath.recipes.parameter_kinds import UNITS
from crystalmath.recipes.source import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

#: A layer without an atom's centre is vacuum if it is thicker, in Å. The widest in crystals of
#: elements have 4.3 (between the planes of caesium), and layered crystals less than 8.
_VACUUM_ANG = 8.0
#: Atoms are neither a solid nor a molecule if each has more room, in Å³ (caesium has 116), and no
#: other atom within so many Å.
_ROOM_ANG3, _ALONE_ANG = 200.0, 6.0
#: k-points times atoms. The AFLOW standard has 10,000 for a static calculation (Calderon et al.,
#: Comput. Mater. Sci. 108, 233 (2015), section 3.1); ten times as many are implausible.
_KPOINTS = 100_000
#: A coarse spacing of k-points, in 1/Å with 2 pi: twice VASP's default of 0.5
#: (https://www.vasp.at/wiki/index.php/KSPACING). pymatgen's MPScanRelaxSet has 0.22 for metals,
#: and never more than 0.44.
_COARSE = 1.0
#: Flows that cut slabs, defects or strained cells out of a solid.
_OF_SOLIDS = ("bulk_to_slabs_flow", "bulk_to_defects_flow", "elastic_tensor_flow")
#: Numbers of steps, which are whole; and with them thresholds and cutoffs: none can be negative.
_COUNTS = ("electron_maxstep", "max_steps", "nelm", "nstep", "nsw", "steps")
_NEVER_NEGATIVE = frozenset(
    (
        *_COUNTS,
        *("conv_thr", "ecutrho", "ecutwfc", "ediff", "enaug", "encut", "etot_conv_thr", "fmax"),
        *("forc_conv_thr", "kspacing", "rc", "ro", "temperature_k", "timestep_fs"),
    )
)
#: Values outside these limits are slips, or in another unit.
_OTHER_UNIT = {
    "encut": (60.0, math.inf, "every POTCAR needs more; ENCUT is in eV, and 1 Ry is 13.6 eV"),
    "ecutwfc": (0.0, 400.0, "no pseudopotential needs so much; ecutwfc is in Ry (13.6 eV)"),
    "timestep_fs": (0.0, 50.0, "atoms collide within such a step; it is in fs, mostly 0.5 to 5"),
    **dict.fromkeys(("max_steps", "steps"), (0.0, 1e12, "no calculation gets that far")),
    "fmax": (0.0, 5.0, "nearly every structure is below that already; fmax is in eV/Å"),
}
#: Constraints that ASE writes into the input of a program that moves the atoms itself.
_WRITTEN = {
    "espresso": ("FixAtoms", "FixCartesian"),
    "vasp": ("FixAtoms", "FixScaled", "FixedPlane", "FixedLine"),
}
#: Tables by element. Setups may have a `base`, and the index of an atom.
_BY_ELEMENT = ("elemental_magmoms", "ldau_luj", "pseudopotentials", "setups")
_SYMBOLS = frozenset((*chemical_symbols, "base"))
_AXES = "abc"
_FULL = 0.999
#: A cell of a smaller volume, in Å³, is flat.
_FLAT_ANG3 = 1e-9


def findings(recipe: str, atoms: Atoms | None, parameters: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings about jobs that programs accept, and that a person hardly means.

    Warnings: ``structure_close``, ``structure_scattered``, ``structure_occupancy``,
    ``structure_vacuum``, ``constraint_dropped``, ``kpoints_many``, ``kpoints_few``,
    ``kpoints_vacuum``, ``parameter_negative``, ``parameter_fraction``, ``parameter_zero``,
    ``parameter_unit`` and ``parameter_element``. An error: ``emt_element``.
    """
    if atoms is not None:
        yield from _occupancies(atoms)
        yield from _distances(atoms)
    if not is_quaccs(recipe):
        return  # the same names may mean something else in a user's own recipe
    yield from _numbers(parameters, "")
    if atoms is not None:
        yield from _without_emt(recipe, atoms)
        yield from _constraints(recipe, atoms)
        gaps = _vacuum(atoms)
        yield from _as_solid(recipe, parameters, gaps)
        yield from _kpoints(recipe, atoms, parameters, gaps)


def _warning(code: str, message: str, remedy: str, source: str | None = None) -> Finding:
    return Finding(severity="warning", code=code, message=message, source=source, remedy=remedy)


# ---- the structure ----


def _occupancies(atoms: Atoms) -> Iterator[Finding]:
    """Yield a warning about partly occupied sites of a CIF, on which ASE puts one element."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, Mapping):
        return
    kinds = atoms.arrays.get("spacegroup_kinds")
    partial = []
    for key, site in occupancy.items():
        try:
            shares = {str(symbol): float(share) for symbol, share in site.items()}
            there = set(atoms.symbols[[int(key)] if kinds is None else kinds == int(key)])
        except (AttributeError, IndexError, TypeError, ValueError):
            continue
        # ASE keeps the first entry of a site. If its atoms have several elements, the user has
        # ordered the structure.
        if shares and max(shares.values()) < _FULL and len(there) == 1:
            ordered = sorted(shares, key=lambda symbol: (-shares[symbol], symbol))
            words = " ".join(f"{symbol} {shares[symbol]:g}" for symbol in ordered)
            partial.append(f"{words} as {there.pop()}")
    if partial:
        yield _warning(
            "structure_occupancy",
            "the structure has partly occupied sites, and the calculation would fill each with one "
            f"element: {brief(dict.fromkeys(partial), 5)}",
            "build an ordered structure from it, such as a supercell",
        )


def _distances(atoms: Atoms) -> Iterator[Finding]:
    if (close := close_atoms(atoms)) is not None:
        yield _warning(
            "structure_close",
            close,
            "check positions and cell, in Å, for duplicate atoms and a wrong scale",
        )
    elif _is_scattered(atoms):
        yield _warning(
            "structure_scattered",
            f"none of the {len(atoms)} atoms has another one within {_ALONE_ANG:g} Å: they form "
            "neither a solid nor a molecule",
            "check the cell, in Å, and its scale",
        )


def _is_scattered(atoms: Atoms) -> bool:
    roomy = bool(atoms.pbc.all()) and atoms.cell.volume > _ROOM_ANG3 * len(atoms)
    return (
        len(atoms) > 1 and roomy and not len(pairs(atoms, np.full(len(atoms), _ALONE_ANG / 2))[0])
    )


def _vacuum(atoms: Atoms) -> dict[int, float]:
    """Return the periodic directions with a layer of vacuum, and its thickness in Å."""
    if atoms.cell.rank < len(_AXES) or abs(np.linalg.det(atoms.cell.array)) < _FLAT_ANG3:
        return {}
    layers = {}
    for axis, height in enumerate(heights(atoms.cell.array)):
        if atoms.pbc[axis] and height > _VACUUM_ANG:
            places = (atoms.positions @ np.linalg.inv(atoms.cell.array)[:, axis]) % 1.0
            levels = np.sort(places)
            gap = height * float(np.diff(levels, append=levels[0] + 1.0).max())
            if gap > _VACUUM_ANG:
                layers[axis] = gap
    return layers


def _without_emt(recipe: str, atoms: Atoms) -> Iterator[Finding]:
    """Yield an error about elements without parameters in ASE's EMT, which would fail at once."""
    known = keys_of("ase.calculators.emt", "parameters")
    if family_of(recipe) != "emt" or not known:
        return
    missing = [symbol for symbol in dict.fromkeys(atoms.symbols) if symbol not in known]
    if missing:
        yield Finding(
            severity="error",
            code="emt_element",
            message=f"EMT has no parameters for {brief(missing)}; it has them for "
            f"{', '.join(sorted(known))}",
            remedy="use a recipe of another method, such as mlip, tblite, vasp or espresso",
        )


def _constraints(recipe: str, atoms: Atoms) -> Iterator[Finding]:
    """Yield a warning about constraints that do not reach the program that moves the atoms."""
    family, name = family_of(recipe), recipe.rpartition(".")[2]
    moves = "relax" in name or name == "md_job"
    if family not in _WRITTEN or not moves or name.startswith("ase_"):
        return
    kinds = dict.fromkeys(type(each).__name__ for each in atoms.constraints)
    dropped = [kind for kind in kinds if kind not in _WRITTEN[family]]
    if dropped:
        yield _warning(
            "constraint_dropped",
            f"ASE does not write the structure's constraints {brief(dropped)} into the input of "
            f"{recipe}: the atoms would move without them",
            f"use {', '.join(_WRITTEN[family])}, or {family}.core.ase_relax_job, with which ASE "
            "itself moves the atoms",
        )


# ---- the structure and the parameters ----


def _as_solid(
    recipe: str, parameters: Mapping[str, Any], gaps: Mapping[int, float]
) -> Iterator[Finding]:
    if not gaps:
        return
    layers = " and ".join(f"{gap:.0f} Å along {_AXES[axis]}" for axis, gap in gaps.items())
    vacuum = f"the structure has vacuum, {layers}"
    if recipe.rpartition(".")[2] in _OF_SOLIDS:
        message = f"{vacuum}, but {recipe} expects a solid"
        yield _warning("structure_vacuum", message, "start from the cell of the bulk solid")
    elif _relaxes_cell(recipe, parameters):
        yield _warning(
            "structure_vacuum",
            f"{vacuum}, and {recipe} would relax its cell: that changes the vacuum, and is "
            "meaningful only for a solid",
            "set relax_cell=false, or submit the cell of the solid",
            "the parameter relax_cell" if "relax_cell" in parameters else None,
        )


def _relaxes_cell(recipe: str, parameters: Mapping[str, Any]) -> bool:
    chosen = parameters.get("relax_cell")
    with contextlib.suppress(InvalidJob):  # another check reports it
        signature = look_up(recipe).signature
        if chosen is None and signature is not None and "relax_cell" in signature.parameters:
            return repr(signature.parameters["relax_cell"].default) == "True"
    return chosen is True


def _kpoints(
    recipe: str, atoms: Atoms, parameters: Mapping[str, Any], gaps: Mapping[int, float]
) -> Iterator[Finding]:
    for name in ("kpts", "kspacing", "pmg_kpts"):
        value = parameters.get(name)
        try:
            mesh = _mesh(recipe, name, value, atoms)
        except (ArithmeticError, TypeError, ValueError):
            continue  # the recipe's own check reports it
        if not mesh:
            continue
        number, words = math.prod(mesh), " x ".join(map(str, mesh))
        made = f"{name} = {one_line(value)} makes {words} = {number} k-points"
        idle = [axis for axis in gaps if isinstance(value, (list, tuple)) and mesh[axis] > 1]
        if number * len(atoms) > _KPOINTS:
            yield _warning(
                "kpoints_many",
                f"{made}, before symmetry, for a cell of {len(atoms)} "
                f"atom{'s' * (len(atoms) != 1)}",
                "use fewer, such as kpts=[9, 9, 9]; densities of 3 to 6 per 1/Å are usual",
                f"the parameter {name}",
            )
        elif name == "kspacing" and (finer := _finer(recipe, value, mesh, atoms, gaps)):
            yield _warning(
                "kpoints_few",
                f"{made}; a usual spacing makes {finer}",
                "set a smaller kspacing, in 1/Å: 0.2 to 0.5 for VASP, 0.03 to 0.08 for pw.x, whose "
                "spacing has no factor of 2π",
                f"the parameter {name}",
            )
        elif idle:
            yield _warning(
                "kpoints_vacuum",
                f"{made}, several along {' and '.join(_AXES[axis] for axis in idle)}, where the "
                "structure has vacuum",
                "set one k-point in a direction of vacuum",
                f"the parameter {name}",
            )


def _finer(
    recipe: str, spacing: Any, mesh: list[int], atoms: Atoms, gaps: Mapping[int, float]
) -> str | None:
    """Return the mesh of a usual spacing, half of `_COARSE`, if `spacing` makes a coarser one."""
    coarse = _COARSE / (2 * math.pi if family_of(recipe) == "espresso" else 1)
    usual = _mesh(recipe, "kspacing", coarse / 2, atoms)
    solid = [axis for axis in range(len(_AXES)) if atoms.pbc[axis] and axis not in gaps]
    few = spacing > coarse and any(mesh[axis] < usual[axis] for axis in solid)
    return " x ".join(map(str, usual)) if few else None


def _mesh(recipe: str, name: str, value: Any, atoms: Atoms) -> list[int]:
    """Return the numbers of k-points along the vectors; none if a parameter makes no mesh."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [int(each) for each in value] if len(value) == len(_AXES) else []
    lengths = (2 * math.pi * np.linalg.norm(atoms.cell.reciprocal().array, axis=1)).tolist()
    if name == "kspacing" and family_of(recipe) == "espresso":
        # As in ase.io.espresso.kspacing_to_grid, lengths have no factor of 2 pi.
        fitting = (int(length / (2 * math.pi * value)) + 1 for length in lengths)
        return [count if each else 1 for count, each in zip(fitting, atoms.pbc, strict=True)]
    if name == "kspacing":
        return [max(1, math.ceil(length / value)) for length in lengths]
    if name == "kpts":
        from ase.calculators.calculator import kpts2sizeandoffsets

        path = not isinstance(value, Mapping) or "path" in value
        return [] if path else [int(each) for each in kpts2sizeandoffsets(atoms=atoms, **value)[0]]
    # As in pymatgen's Kpoints.automatic_density and automatic_density_by_vol.
    volume = (2 * math.pi) ** 3 / atoms.cell.volume
    points = max(value.get("kppa", 0) / len(atoms), value.get("kppvol", 0) * volume)
    scale = (points / math.prod(lengths)) ** (1 / 3)
    return [max(1, math.floor(length * scale)) for length in lengths]


# ---- the parameters ----


def _numbers(table: Mapping[str, Any], place: str) -> Iterator[Finding]:
    for name, value in table.items():
        full, key = f"{place}{name}", str(name).lower()
        if isinstance(value, Mapping):
            yield from _elements(full, value) if key in _BY_ELEMENT else _numbers(value, f"{full}.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        source = f"the parameter {full}"
        unit = f" {UNITS[key]}" if key in _NEVER_NEGATIVE and key in UNITS else ""
        low, high, why = _OTHER_UNIT.get(key, (-math.inf, math.inf, ""))
        if key in _NEVER_NEGATIVE and value < 0:
            message = f"{one_line(full)} = {value}{unit} is negative, which has no meaning here"
            yield _warning("parameter_negative", message, "set a positive number", source)
        elif key in _COUNTS and value % 1:
            message = f"{one_line(full)} = {value} is a number of steps, but not a whole number"
            yield _warning("parameter_fraction", message, "set a whole number", source)
        elif key == "fmax" and not value and "max_steps" not in table:
            ends = "a relaxation goes on until max_steps, 1000 by default"
            message = f"{one_line(full)} = 0 is never reached: {ends}"
            yield _warning("parameter_zero", message, "set max_steps beside it", source)
        elif value and not low <= value <= high:
            message = f"{one_line(full)} = {value}{unit} looks like a value in another unit: {why}"
            yield _warning("parameter_unit", message, "convert it, or leave it out", source)


def _elements(name: str, table: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield warnings about keys that are no elements, such as `ni`: their values are not read."""
    for key in map(str, table):
        if key in _SYMBOLS or key.isdecimal():
            continue
        meant = key.strip().capitalize()
        yield _warning(
            "parameter_element",
            f"{one_line(name)} has {one_line(key)!r}, which is no element: its value is not read",
            f"did you mean {meant}?" if meant in _SYMBOLS else "write the symbol of an element",
            f"the parameter {name}.{key}",
        )
