"""Recipes that do nothing, for measuring what surrounds a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["noop", "numbers"]


def noop(atoms: Atoms) -> dict[str, Any]:
    """Return at once."""
    return {"results": {"energy": 0.0}}


def numbers(atoms: Atoms, count: int) -> dict[str, Any]:
    """Return so many random numbers; each takes about 20 bytes of JSON."""
    import random

    return {"results": {"energy": 0.0}, "numbers": [random.random() for _ in range(count)]}
