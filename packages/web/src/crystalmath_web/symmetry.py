"""The space group of a structure that the page shows."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from crystalmath_web.guard import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Atoms this far from a symmetric place still count as there, in Å.
TOLERANCE_ANG = 0.01
#: The most atoms; spglib takes a second for that many without symmetry, and its time grows.
MOST_ATOMS = 1000
#: Atoms are no farther away than so many cells, and a vector of a cell is no longer, in Å.
FARTHEST = 1e4
LONGEST_ANG = 1e4


def space_group(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the space group of a crystal.

    Parameters
    ----------
    params : mapping
        ``numbers``, the atomic numbers; ``positions`` and ``cell`` in Å, one number after another.

    Returns
    -------
    dict
        ``symbol``, in the short notation of the International Tables, and its ``number``. Both are
        ``None`` if there are more than `MOST_ATOMS` atoms, atoms at the same place, or such that
        lie beyond all bounds.

    Raises
    ------
    RefusalError
        The structure is not written in this way.
    """
    import numpy as np

    try:
        numbers = np.asarray(params.get("numbers"), dtype=np.int64)
        positions = np.asarray(params.get("positions"), dtype=float).reshape(len(numbers), 3)
        cell = np.asarray(params.get("cell"), dtype=float).reshape(3, 3)
        shares = np.linalg.solve(cell.T, positions.T).T  # LinAlgError is a ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusalError(
            400, "a crystal has 'numbers', and 'positions' and a 'cell' in Å"
        ) from error
    # Places that are no numbers, or far outside of any cell, end the process of spglib.
    is_near = bool((np.abs(shares) < FARTHEST).all() and (np.abs(cell) < LONGEST_ANG).all())
    if not (is_near and 0 < len(numbers) <= MOST_ATOMS):
        return {"symbol": None, "number": None}
    symbol, number = _found(cell, shares, numbers)
    return {"symbol": symbol, "number": number}


def _found(cell: Any, shares: Any, numbers: Any) -> tuple[str | None, int | None]:
    import spglib

    with warnings.catch_warnings():
        # By version it returns nothing and warns that it will raise an error, or raises one.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry_dataset((cell, shares, numbers), symprec=TOLERANCE_ANG)
        except spglib.SpglibError:
            found = None
    return (None, None) if found is None else (found.international, found.number)
