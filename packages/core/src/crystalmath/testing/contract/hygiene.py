"""TODO."""

from __future__ import annotations

from crystalmath.testing.contract.base import Base

__all__ = ["Hygiene"]


class Hygiene(Base):
    """TODO."""
