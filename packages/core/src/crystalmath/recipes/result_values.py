"""What of a stored result goes into one line of a table: its scalars and its geometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

#: The columns of a geometry: Å, Å³, atomic numbers.
GEOMETRY = ("volume_ang3", "cell_ang", "pbc", "numbers", "positions_ang")
#: What went in, what the table has elsewhere, and what describes programs.
_LEFT_OUT = {
    *("atoms", "input_atoms", "input_structure", "structure", "molecule", "input", "orig_inputs"),
    *("parameters", "structure_metadata", "molecule_metadata", "builder_meta", "cell"),
}
_MAX_DEPTH = 6
_LONGEST = 200


def result_values(document: object) -> dict[str, Any]:
    """Return the scalars of a result by the recipe's own names, ``results.gibbs_energy``.

    Parameters
    ----------
    document : object
        A stored result as JSON, not decoded any further. Of a flow, its last result.
    """
    last = last_step(document)
    return dict(_scalars(last, "", 0)) if isinstance(last, Mapping) else {}


def _scalars(node: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if name.startswith(("@", "parameters_")) or name in _LEFT_OUT:
            continue
        if not isinstance(value, Mapping):
            if _is_scalar(value):
                yield f"{prefix}{name}", value
        elif "@module" not in value and depth < _MAX_DEPTH:
            yield from _scalars(value, f"{prefix}{name}.", depth + 1)


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST)


def brief(document: object) -> dict[str, Any] | None:
    """Return the part of a result that goes into a table; :func:`result_values` reads the same."""
    last = last_step(document)
    if not isinstance(last, Mapping):
        return None
    kept = _pruned(last, 0)
    if "atoms" in last:
        kept["atoms"] = last["atoms"]
    results = last.get("results")
    if isinstance(results, Mapping):
        whole = {name: results[name] for name in ("forces", "vib_freqs") if name in results}
        kept["results"] = {**kept.get("results", {}), **whole}
    return kept


def _pruned(node: Mapping[str, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in node.items():
        if not isinstance(value, Mapping):
            if _is_scalar(value):
                kept[name] = value
        elif "@module" not in value and name not in _LEFT_OUT and depth < _MAX_DEPTH:
            kept[name] = _pruned(value, depth + 1)
    return kept


def last_step(document: object) -> object:
    """Return the result that a summary speaks of: the last one of a flow's collection."""
    from crystalmath.recipes.summary import steps

    found = list(steps(document))
    return found[-1] if found else document


def final_atoms(document: object) -> Atoms | None:
    """Return the geometry of a stored result, with its energy (eV) and forces (eV/Å), if any."""
    from crystalmath.recipes.asejson_reading import decode_atoms

    last = last_step(document)
    if not isinstance(last, Mapping) or not isinstance(stored := last.get("atoms"), Mapping):
        return None
    atoms = decode_atoms(stored.get("atoms_json", stored), finite=False)
    if not len(atoms):
        return None
    found = _calculated(last.get("results"), len(atoms))
    if found:
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


def _calculated(results: object, natoms: int) -> dict[str, Any]:
    """Return energy and forces of the results of a calculation."""
    if not isinstance(results, Mapping) or "vib_freqs" in results:
        return {}
    found: dict[str, Any] = {}
    energy, forces = results.get("energy"), results.get("forces")
    if isinstance(energy, (int, float)) and _is_scalar(energy):
        found["energy"] = float(energy)
    if isinstance(forces, Mapping):  # monty's form of an array, not decoded
        forces = forces.get("data")
    if isinstance(forces, list) and len(forces) == natoms:
        import numpy as np

        found["forces"] = np.asarray(forces, dtype=float)
    return found


def geometry_values(atoms: Atoms) -> dict[str, Any]:
    """Return a geometry as columns of a table."""
    return {
        "volume_ang3": float(atoms.cell.volume) if atoms.cell.rank == 3 else None,  # noqa: PLR2004
        "cell_ang": atoms.cell.tolist(),
        "pbc": [bool(one) for one in atoms.pbc],
        "numbers": atoms.numbers.tolist(),
        "positions_ang": atoms.positions.tolist(),
    }
