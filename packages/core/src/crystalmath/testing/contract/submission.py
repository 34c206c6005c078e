"""TODO."""

from __future__ import annotations

from crystalmath.testing.contract.base import Base

__all__ = ["Submission"]


class Submission(Base):
    """TODO."""
