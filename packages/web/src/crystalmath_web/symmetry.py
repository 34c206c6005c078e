"""The space group of a structure that the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath_web.guard import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Atoms this far from a symmetric place still count as there, in Å.
TOLERANCE_ANG = 0.01
#: The most atoms; spglib takes a second for that many without symmetry, and its time grows.
MOST_ATOMS = 1000


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
        ``None`` if there are more than `MOST_ATOMS` atoms, or atoms at the same place.

    Raises
    ------
    RefusalError
        The structure is not written in this way.
    """
    import numpy as np

    try:
        numbers = np.asarray(params.get("numbers"), dtype=np.int64)
        positions = np.asarray(params.get("positions"), dtype=float).reshape(-1, 3)
        cell = np.asarray(params.get("cell"), dtype=float).reshape(3, 3)
        shares = np.linalg.solve(cell.T, positions.T).T
        if numbers.shape != (len(shares),) or not np.isfinite(shares).all():
            raise ValueError("a place for each number")
    except (TypeError, ValueError, OverflowError) as error:  # LinAlgError is a ValueError
        raise RefusalError(
            400, "a structure has 'numbers', and 'positions' and 'cell' in Å"
        ) from error
    if not 0 < len(numbers) <= MOST_ATOMS:
        return {"symbol": None, "number": None}
    symbol, number = _found(cell, shares, numbers)
    return {"symbol": symbol, "number": number}


def _found(cell: Any, shares: Any, numbers: Any) -> tuple[str | None, int | None]:
    import spglib

    try:
        found = spglib.get_symmetry_dataset((cell, shares, numbers), symprec=TOLERANCE_ANG)
    except Exception:  # noqa: BLE001 - its errors differ by version, and mean the same
        return None, None
    return (None, None) if found is None else (found.international, found.number)
