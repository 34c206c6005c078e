"""Check what of ASE a job can have: a structure, its size and its constraints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from ase import Atoms

#: More atoms than any recipe can handle; a larger number is a mistake or an attack.
MAX_ATOMS = 1_000_000


def check_atoms(atoms: object) -> Atoms:
    """Return the structure back if a job can have it.

    Raises
    ------
    InvalidJob
        It has no atoms or too many, an unknown element, or numbers that are not finite.
    """
    import numpy as np
    from ase import Atoms
    from ase.data import chemical_symbols

    if not isinstance(atoms, Atoms):
        raise InvalidJob(f"the structure must be an ase.Atoms, not {atoms!r:.80}")
    check_count(len(atoms))
    if not len(atoms):
        raise InvalidJob("the structure has no atoms")
    if not ((atoms.numbers >= 0) & (atoms.numbers < len(chemical_symbols))).all():
        raise InvalidJob("the structure has an atomic number that belongs to no element")
    named = dict(atoms.arrays) | {"cell": atoms.cell.array, "celldisp": atoms.get_celldisp()}
    for name, values in named.items():
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            raise InvalidJob(f"the structure's {name} hold numbers that are not finite")
    return atoms


def check_count(count: int) -> None:
    """Refuse a number of atoms that no recipe can handle.

    Raises
    ------
    InvalidJob
        There are more than a million.
    """
    if count > MAX_ATOMS:
        raise InvalidJob(f"the structure has {count} atoms; {MAX_ATOMS} is the limit")


def prepare(atoms: Atoms) -> Atoms:
    """Copy a structure without its calculator, keeping the magnetic moments that it computed.

    quacc's VASP calculator takes the moments of a finished calculation as the initial ones of the
    next. Files read by ASE carry them in a ``SinglePointCalculator``, which no job can take along:
    where no initial moments are set, the computed ones become the initial ones. Arrays of texts,
    which extended XYZ files bring as Python objects (``bulk_wyckoff`` of quacc's slabs), become
    arrays of numpy's own; other arrays of objects, which have no JSON form, are left out with a
    warning.
    """
    copied = atoms.copy()
    for name, values in list(copied.arrays.items()):
        if values.dtype.kind != "O":
            continue
        del copied.arrays[name]
        if all(isinstance(value, str) for value in values.flat):
            copied.set_array(name, values, dtype=str)
        else:
            warnings.warn(
                f"the structure's array {name!r} is left out: it holds Python objects, which no "
                "job can take along",
                stacklevel=2,
            )
    computed = getattr(atoms.calc, "results", None) or {}
    magmoms = computed.get("magmoms") if isinstance(computed, Mapping) else None
    if magmoms is not None and not atoms.has("initial_magmoms"):
        copied.set_initial_magnetic_moments(magmoms)
    return copied


def constraint_class(name: object) -> type | None:
    """Return the class of a constraint of ASE's own by its name."""
    import ase.constraints
    from ase.constraints import FixConstraint

    known = ase.constraints.__all__
    found = (
        getattr(ase.constraints, name, None) if isinstance(name, str) and name in known else None
    )
    return found if isinstance(found, type) and issubclass(found, FixConstraint) else None
