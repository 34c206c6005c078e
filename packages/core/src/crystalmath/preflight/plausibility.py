"""Find what would run and is hardly meant.

Atoms in each other, a box treated as a solid, k-points by the hundred thousand: these are warnings.
Numpy and ASE's tables are enough, and the cost grows with the number of atoms.
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
from crystalmath.recipes.source import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

#: A layer without an atom's centre that is so thick, in Å, is vacuum: the widest in crystals of
#: elements, between the planes of caesium, have 4.3, and layered crystals less than 8.
_VACUUM_ANG = 8.0
#: Atoms with so much room each, in Å³ (caesium has 116), and no other within so many Å, are neither
#: a solid nor a molecule.
_ROOM_ANG3, _ALONE_ANG = 200.0, 6.0
#: k-points times atoms. The AFLOW standard takes 10,000 for a static calculation (Calderon et al.,
#: Comput. Mater. Sci. 108, 233 (2015), section 3.1); ten times as many are hardly ever meant.
_KPOINTS = 100_000
#: A spacing of k-points, in 1/Å with 2 pi: twice VASP's default of 0.5
#: (https://www.vasp.at/wiki/index.php/KSPACING). pymatgen's MPScanRelaxSet takes 0.22 for metals,
#: and never more than 0.44.
_COARSE = 1.0
#: Flows that cut slabs, defects or strained cells out of a solid.
_OF_SOLIDS = ("bulk_to_slabs_flow", "bulk_to_defects_flow", "elastic_tensor_flow")
#: Thresholds, cutoffs and numbers of steps, which mean nothing below zero, and their units.
_NEVER_NEGATIVE = {
    **dict.fromkeys(("ediff", "encut", "enaug"), "eV"),
    **dict.fromkeys(("ecutwfc", "ecutrho", "conv_thr", "etot_conv_thr"), "Ry"),
    **dict.fromkeys(("electron_maxstep", "max_steps", "nelm", "nstep", "nsw", "steps"), ""),
    "fmax": "eV/Å",
    "forc_conv_thr": "Ry/bohr",
    "kspacing": "1/Å",
    **dict.fromkeys(("rc", "ro"), "Å"),
    "temperature_k": "K",
    "timestep_fs": "fs",
}
#: Values below the first or above the second are those of another unit, or slips.
_OTHER_UNIT = {
    "encut": (60.0, math.inf, "no POTCAR needs so little; ENCUT is in eV, and 1 Ry is 13.6 eV"),
    "ecutwfc": (0.0, 400.0, "no pseudopotential needs so much; ecutwfc is in Ry, 13.6 eV"),
    "timestep_fs": (0.0, 50.0, "atoms collide within such a step; it is in fs, mostly 0.5 to 5"),
    **dict.fromkeys(("max_steps", "steps"), (0.0, 1e12, "no calculation comes so far")),
    "fmax": (0.0, 5.0, "nearly every structure is relaxed by that; fmax is in eV/Å"),
}
#: Constraints that ASE writes into the input of a program which moves the atoms itself.
_WRITTEN = {
    "espresso": ("FixAtoms", "FixCartesian"),
    "vasp": ("FixAtoms", "FixScaled", "FixedPlane", "FixedLine"),
}
#: Tables by element. Setups may have a `base`, and the index of an atom.
_BY_ELEMENT = ("elemental_magmoms", "ldau_luj", "pseudopotentials", "setups")
_SYMBOLS = frozenset((*chemical_symbols, "base"))
_AXES = "abc"
_FULL = 0.999


def findings(recipe: str, atoms: Atoms | None, parameters: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what is no mistake for the programs and most likely one of the person.

    Warnings: ``structure_close``, ``structure_scattered``, ``structure_occupancy``,
    ``structure_vacuum``, ``constraint_dropped``, ``kpoints_many``, ``kpoints_few``,
    ``kpoints_vacuum``,
    ``parameter_negative``, ``parameter_fraction``, ``parameter_zero``, ``parameter_unit`` and
    ``parameter_element``. An error: ``emt_element``.
    """
    if atoms is not None:
        yield from _occupancies(atoms)
        yield from _distances(atoms)
    if not is_quaccs(recipe):
        return  # a user's own may mean another thing by the same words
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
    """Find sites that a CIF fills partly: ASE puts one element there, the last of several equal."""
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
        # Of the entries of one site ASE keeps the first; where it has several elements by now,
        # somebody has ordered it.
        if shares and max(shares.values()) < _FULL and len(there) == 1:
            ordered = sorted(shares, key=lambda symbol: (-shares[symbol], symbol))
            words = " ".join(f"{symbol} {shares[symbol]:g}" for symbol in ordered)
            partial.append(f"{words} as {there.pop()}")
    if partial:
        yield _warning(
            "structure_occupancy",
            "the structure has partly occupied sites, and the calculation takes each as fully "
            f"occupied by one element: {brief(dict.fromkeys(partial), 5)}",
            "build an ordered structure, such as a supercell, from it",
        )


def _distances(atoms: Atoms) -> Iterator[Finding]:
    if (close := close_atoms(atoms)) is not None:
        yield _warning(
            "structure_close",
            close,
            "check the positions and the cell, which are in Å, for doubled atoms and a wrong scale",
        )
    elif _is_scattered(atoms):
        yield _warning(
            "structure_scattered",
            f"none of the {len(atoms)} atoms has another within {_ALONE_ANG:g} Å: they make "
            "neither a solid nor a molecule",
            "check the cell, which is in Å, and its scale",
        )


def _is_scattered(atoms: Atoms) -> bool:
    roomy = bool(atoms.pbc.all()) and atoms.cell.volume > _ROOM_ANG3 * len(atoms)
    return (
        len(atoms) > 1 and roomy and not len(pairs(atoms, np.full(len(atoms), _ALONE_ANG / 2))[0])
    )


def _vacuum(atoms: Atoms) -> dict[int, float]:
    """Find periodic directions in which a layer of vacuum repeats, and how thick it is, in Å."""
    if atoms.cell.rank < len(_AXES) or abs(np.linalg.det(atoms.cell.array)) < 1e-9:  # noqa: PLR2004
        return {}
    found = {}
    for axis, height in enumerate(heights(atoms.cell.array)):
        if atoms.pbc[axis] and height > _VACUUM_ANG:
            places = (atoms.positions @ np.linalg.inv(atoms.cell.array)[:, axis]) % 1.0
            levels = np.sort(places)
            gap = height * float(np.diff(levels, append=levels[0] + 1.0).max())
            if gap > _VACUUM_ANG:
                found[axis] = gap
    return found


def _without_emt(recipe: str, atoms: Atoms) -> Iterator[Finding]:
    """Find elements that ASE's EMT has no parameters for: its calculation would die at once."""
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
            remedy="take recipes of another method, such as mlip, tblite, vasp or espresso",
        )


def _constraints(recipe: str, atoms: Atoms) -> Iterator[Finding]:
    """Find constraints of atoms that a program would move without them."""
    family, name = family_of(recipe), recipe.rpartition(".")[2]
    moves = "relax" in name or name == "md_job"
    if family not in _WRITTEN or not moves or name.startswith("ase_"):
        return
    kinds = dict.fromkeys(type(each).__name__ for each in atoms.constraints)
    dropped = [kind for kind in kinds if kind not in _WRITTEN[family]]
    if dropped:
        yield _warning(
            "constraint_dropped",
            f"the structure has constraints {brief(dropped)}, which ASE does not write into the "
            f"input of {recipe}: the atoms move as if there were none",
            f"take {', '.join(_WRITTEN[family])}, or {family}.core.ase_relax_job, where ASE moves "
            "the atoms",
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
        message = f"{vacuum}, and {recipe} takes a solid"
        yield _warning("structure_vacuum", message, "start from the cell of the bulk solid")
    elif _relaxes_cell(recipe, parameters):
        yield _warning(
            "structure_vacuum",
            f"{vacuum}, and its cell is relaxed, too: that changes the vacuum, and means something "
            "for a solid alone",
            "give relax_cell=false, or the cell of the solid",
            "the parameter relax_cell" if "relax_cell" in parameters else None,
        )


def _relaxes_cell(recipe: str, parameters: Mapping[str, Any]) -> bool:
    given = parameters.get("relax_cell")
    with contextlib.suppress(InvalidJob):  # which is told elsewhere
        signature = look_up(recipe).signature
        if given is None and signature is not None and "relax_cell" in signature.parameters:
            return repr(signature.parameters["relax_cell"].default) == "True"
    return given is True


def _kpoints(
    recipe: str, atoms: Atoms, parameters: Mapping[str, Any], gaps: Mapping[int, float]
) -> Iterator[Finding]:
    for name in ("kpts", "kspacing", "pmg_kpts"):
        value = parameters.get(name)
        try:
            mesh = _mesh(recipe, name, value, atoms)
        except (ArithmeticError, TypeError, ValueError):
            continue  # the recipe's own check has words for that
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
                "take fewer, such as kpts=[9, 9, 9]; densities of 3 to 6 per 1/Å are usual",
                f"the parameter {name}",
            )
        elif name == "kspacing" and (finer := _finer(recipe, value, mesh, atoms, gaps)):
            yield _warning(
                "kpoints_few",
                f"{made}, where a usual spacing makes {finer}",
                "kspacing is in 1/Å, and a smaller one makes more k-points: 0.2 to 0.5 of VASP, "
                "0.03 to 0.08 of pw.x, whose spacing has no factor of 2π",
                f"the parameter {name}",
            )
        elif idle:
            yield _warning(
                "kpoints_vacuum",
                f"{made}, more than one along {' and '.join(_AXES[axis] for axis in idle)}, where "
                "the structure has vacuum",
                "one k-point is enough in a direction of vacuum",
                f"the parameter {name}",
            )


def _finer(
    recipe: str, spacing: Any, mesh: list[int], atoms: Atoms, gaps: Mapping[int, float]
) -> str | None:
    """Return the mesh of half the spacing `_COARSE`, if a coarser one makes fewer k-points."""
    coarse = _COARSE / (2 * math.pi if family_of(recipe) == "espresso" else 1)
    usual = _mesh(recipe, "kspacing", coarse / 2, atoms)
    solid = [axis for axis in range(len(_AXES)) if atoms.pbc[axis] and axis not in gaps]
    few = spacing > coarse and any(mesh[axis] < usual[axis] for axis in solid)
    return " x ".join(map(str, usual)) if few else None


def _mesh(recipe: str, name: str, value: Any, atoms: Atoms) -> list[int]:
    """Count the k-points along each vector; none where a parameter makes no such mesh."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [int(each) for each in value] if len(value) == len(_AXES) else []
    lengths = (2 * math.pi * np.linalg.norm(atoms.cell.reciprocal().array, axis=1)).tolist()
    if name == "kspacing" and family_of(recipe) == "espresso":
        # As ase.io.espresso.kspacing_to_grid: a length there has no factor of 2 pi.
        fitting = (int(length / (2 * math.pi * value)) + 1 for length in lengths)
        return [count if each else 1 for count, each in zip(fitting, atoms.pbc, strict=True)]
    if name == "kspacing":
        return [max(1, math.ceil(length / value)) for length in lengths]
    if name == "kpts":
        from ase.calculators.calculator import kpts2sizeandoffsets

        path = not isinstance(value, Mapping) or "path" in value
        return [] if path else [int(each) for each in kpts2sizeandoffsets(atoms=atoms, **value)[0]]
    # Likewise pymatgen's Kpoints.automatic_density, and automatic_density_by_vol.
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
        unit = f" {_NEVER_NEGATIVE[key]}".rstrip() if key in _NEVER_NEGATIVE else ""
        low, high, why = _OTHER_UNIT.get(key, (-math.inf, math.inf, ""))
        if key in _NEVER_NEGATIVE and value < 0:
            message = f"{one_line(full)} = {value}{unit} is below zero, and means nothing there"
            yield _warning("parameter_negative", message, "give a positive number", source)
        elif _NEVER_NEGATIVE.get(key) == "" and value % 1:
            message = f"{one_line(full)} = {value} is a number of steps, and not whole"
            yield _warning("parameter_fraction", message, "give a whole number", source)
        elif key == "fmax" and not value and "max_steps" not in table:
            ends = "a relaxation goes on until max_steps, 1000 by default"
            message = f"{one_line(full)} = 0 is never reached: {ends}"
            yield _warning("parameter_zero", message, "set max_steps beside it", source)
        elif value and not low <= value <= high:
            message = f"{one_line(full)} = {value}{unit} is likely meant otherwise: {why}"
            yield _warning("parameter_unit", message, "convert it, or leave it out", source)


def _elements(name: str, table: Mapping[str, Any]) -> Iterator[Finding]:
    """Find keys that no atom has: what stands there is not read, as a U for `ni`."""
    for key in map(str, table):
        if key in _SYMBOLS or key.isdecimal():
            continue
        meant = key.strip().capitalize()
        yield _warning(
            "parameter_element",
            f"{one_line(name)} has {one_line(key)!r}, which is no element: nothing reads that",
            f"did you mean {meant}?" if meant in _SYMBOLS else "write the symbol of an element",
            f"the parameter {name}.{key}",
        )
