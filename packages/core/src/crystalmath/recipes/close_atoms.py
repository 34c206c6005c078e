"""Find atoms that are too close to each other, in a cell or across its borders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import covalent_radii

if TYPE_CHECKING:
    from ase import Atoms

#: No bond is shorter than this fraction of the sum of two covalent radii (Cordero et al., Dalton
#: Trans. 2008, 2832: `ase.data.covalent_radii`). The shortest bonds known are longer: V2 with
#: 1.77 Å has 0.58, Cr2 with 1.68 Å 0.60, N2 0.77, H2 1.19.
_CLOSEST = 0.5
#: The vectors of a cell with a smaller volume, in Å³, are parallel.
_FLAT = 1e-9
#: Up to this number of atoms all pairs are compared.
_FEW = 64
#: The most atoms of one cube that are compared: some of a larger number are too close.
_CROWD = 16
#: The most atoms that are compared, at half a second for 100,000. A wrong scale shows in them, too.
_MOST_ATOMS = 200_000


def close_atoms(atoms: Atoms) -> str | None:
    """Return words about the two nearest atoms; ``None`` if they are half a bond apart or more."""
    radii = covalent_radii[atoms.numbers] * _CLOSEST
    first, second, distances = pairs(atoms, radii)
    if not len(distances):
        return None
    nearest = int(np.argmin(distances))
    one, other = int(first[nearest]), int(second[nearest])
    symbols = atoms.symbols[[one, other]]
    bond = float(radii[one] + radii[other]) / _CLOSEST
    whose = (
        f"{symbols[0]} {one} and {symbols[1]} {other}"
        if one != other
        else f"{symbols[0]} {one} and its own image in the next cell"
    )
    return (
        f"the atoms {whose} are {distances[nearest]:.2f} Å apart; a bond of theirs has about "
        f"{bond:.2f} Å"
    )


def pairs(atoms: Atoms, radii: Any) -> tuple[Any, Any, Any]:
    """Return the pairs of atoms and images whose spheres overlap: indices and distances, in Å.

    Atoms are sorted into cubes as wide as the largest spheres: ASE's own neighbour list takes 30 s
    for 100,000 atoms. The search stops when there are more pairs than atoms.
    """
    reach = max(2 * float(radii.max()), 0.1)
    if len(atoms) <= _FEW and (few := _pairs_of_few(atoms, radii, reach)) is not None:
        return few
    positions, indices = _with_images(atoms, reach)
    cubes = np.floor((positions - positions.min(axis=0)) / reach)
    # Atoms beyond the last cube belong to it: this adds candidates, and loses no pair.
    cubes = np.minimum(cubes, (1 << 20) - 3).astype(np.int64) + 1
    keys = (cubes[:, 0] << 42) + (cubes[:, 1] << 21) + cubes[:, 2]
    order = np.argsort(keys, kind="stable")
    keys, positions, indices = keys[order], positions[order], indices[order]
    steps = [(x << 42) + (y << 21) + z for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    none = np.empty(0, int)
    overlaps = [(none, none, np.empty(0))]
    count = 0
    for step in steps[len(steps) // 2 :]:
        begin, end = (np.searchsorted(keys, keys + step, side) for side in ("left", "right"))
        if not step:
            begin = np.arange(len(keys)) + 1
        one = np.flatnonzero(begin < end)
        for place in range(_CROWD):
            if not len(one) or count > len(radii):
                break
            one = one[begin[one] + place < end[one]]
            other = begin[one] + place
            apart = np.linalg.norm(positions[one] - positions[other], axis=1)
            first, second = indices[one], indices[other]
            near = apart < radii[first] + radii[second]
            overlaps.append((first[near], second[near], apart[near]))
            count += len(overlaps[-1][0])
    first, second, distances = (np.concatenate(part) for part in zip(*overlaps, strict=True))
    return first, second, distances


def _pairs_of_few(atoms: Atoms, radii: Any, reach: float) -> tuple[Any, Any, Any] | None:
    """Compare all pairs, each with its nearest images; ``None`` if others are within reach."""
    periodic, cell = _periodic(atoms)
    first, second = np.triu_indices(len(atoms))
    apart = atoms.positions[first] - atoms.positions[second]
    images = np.zeros((1, 3))
    if periodic.any():
        # The distance, in cells, from the nearest image to others that may be within reach.
        away = np.floor(reach / heights(cell) + 0.5) * periodic
        if away.max() > 1:
            return None
        apart -= np.round(apart @ np.linalg.inv(cell)) * periodic @ cell
        images = (list(np.ndindex(*(2 * away + 1).astype(int))) - away) @ cell
    distances = np.linalg.norm(apart + images[:, None], axis=2)
    image, pair = np.nonzero(distances < radii[first] + radii[second])
    others = (first[pair] != second[pair]) | images[image].any(axis=1)
    image, pair = image[others], pair[others]
    return first[pair], second[pair], distances[image, pair]


def _periodic(atoms: Atoms) -> tuple[Any, Any]:
    """Return the directions of repetition, as three truth values, and three cell vectors."""
    cell = atoms.cell.complete().array
    # ASE completes parallel vectors and a missing one with NaN.
    spans = abs(np.linalg.det(cell)) >= _FLAT
    return atoms.pbc & atoms.cell.array.any(axis=1) & spans, cell


def _with_images(atoms: Atoms, reach: float) -> tuple[Any, Any]:
    """Return positions and indices of the atoms in the cell, and of the images near it."""
    atoms = atoms[:_MOST_ATOMS] if len(atoms) > _MOST_ATOMS else atoms
    periodic, cell = _periodic(atoms)
    indices = np.arange(len(atoms))
    if not periodic.any():
        return atoms.positions, indices
    places = atoms.positions @ np.linalg.inv(cell)
    for axis, height in enumerate(heights(cell)):
        if not periodic[axis]:
            continue
        places[:, axis] %= 1.0
        margin = reach / height
        images = [(places, indices)]
        for shift in range(1, min(math.ceil(margin), 5) + 1):
            for sign in (-shift, shift):
                moved = places[:, axis] + sign
                near = (moved > -margin) & (moved < 1.0 + margin)
                image = places[near]
                image[:, axis] = moved[near]
                images.append((image, indices[near]))
        places, indices = (np.concatenate(part) for part in zip(*images, strict=True))
    return places @ cell, indices


def heights(cell: Any) -> Any:
    """Return the distances, in Å, between the opposite faces of a cell."""
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
