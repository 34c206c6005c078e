"""Run CrystalMath jobs through PSI/J: one job, one allocation of a batch system."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath_engine_psij.runner import PsijRunner

__all__ = ["PsijRunner"]


def __getattr__(name: str) -> Any:
    # Listing the engines must not import the runner.
    if name == "PsijRunner":
        from crystalmath_engine_psij.runner import PsijRunner

        return PsijRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
