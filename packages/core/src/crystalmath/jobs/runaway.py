"""Calculations that ran away: their atoms overlap, or their energy is absurd."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.jobs.last_geometry import first_and_last

if TYPE_CHECKING:
    from ase import Atoms

#: The Thomas-Fermi energy of an atom is 0.7687 Z^(7/3) hartree (Lieb, Rev. Mod. Phys. 53, 603
#: (1981)), 20.9 Z^(7/3) eV. It exceeds the energy of an atom with all its electrons, which is the
#: most that any program can report; twice as much leaves room for the binding of hydrogen.
_MOST_EV = 2 * 20.9
#: Two geometries without overlapping atoms differ by less, in eV per atom. Binding is below 9
#: (tungsten), and the repulsion of heavy atoms at half a bond is some hundreds.
_CHANGE_EV = 1000.0


@frozen
class Runaway:
    """The reason why a calculation ran away: a `cause` that others share, and `details`."""

    cause: str
    details: str


def find_runaway(atoms: Atoms, work: str) -> Runaway | None:
    """Judge the last geometry of a job, and the energies of the newest calculation below `work`."""
    from crystalmath.recipes.close_atoms import close_atoms

    if (close := close_atoms(atoms)) is not None:
        return Runaway("atoms overlap: they are nearer than half the sum of their radii", close)
    frames = None
    # Readers fail in their own ways, and a file that cannot be read proves nothing.
    with contextlib.suppress(Exception):
        frames = first_and_last(work)
    return frames and _absurd_energy(*frames)


def _absurd_energy(first: Atoms, last: Atoms) -> Runaway | None:
    from crystalmath.recipes.close_atoms import close_atoms

    began, energy = _energy(first), _energy(last)
    if energy is None:
        return None
    cause, per_atom = "the energy is absurd", energy / len(last)
    if abs(energy) > (most := _MOST_EV * sum(float(z) ** (7 / 3) for z in last.numbers)):
        return Runaway(
            cause,
            f"the last step has {energy:.1f} eV ({per_atom:.1f} eV per atom), and these atoms have "
            f"less than {most:.0f} eV with all their electrons",
        )
    change = 0.0 if began is None else per_atom - began / len(first)
    if abs(change) > _CHANGE_EV and close_atoms(first) is None:
        return Runaway(
            cause,
            f"from the first to the last step it changed by {change:.1f} eV per atom, to "
            f"{energy:.1f} eV; no two sound geometries differ by {_CHANGE_EV:g} eV per atom",
        )
    return None


def _energy(atoms: Atoms) -> float | None:
    """Return the energy of a frame in eV, if it has one."""
    value = getattr(atoms.calc, "results", {}).get("energy")
    return None if value is None else float(value)
