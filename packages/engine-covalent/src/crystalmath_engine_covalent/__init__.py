"""Run CrystalMath jobs on a Covalent server."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath_engine_covalent.runner import CovalentRunner

__all__ = ["CovalentRunner"]


def __getattr__(name: str) -> Any:
    # Listing the engines must not load what runs jobs.
    if name == "CovalentRunner":
        from crystalmath_engine_covalent.runner import CovalentRunner

        return CovalentRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
