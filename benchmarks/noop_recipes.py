"""A recipe that does nothing, for measuring what surrounds a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["noop"]


def noop(atoms: Atoms) -> dict[str, Any]:  # noqa: ARG001  (every recipe takes a structure)
    """Return at once."""
    return {"results": {"energy": 0.0}}
