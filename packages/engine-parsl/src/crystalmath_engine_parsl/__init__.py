"""Run CrystalMath jobs on Parsl's HighThroughputExecutor."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath_engine_parsl.runner import ParslRunner

__all__ = ["ParslRunner"]


def __getattr__(name: str) -> Any:
    # The plugin is a module of this package and must load without Parsl.
    if name == "ParslRunner":
        from crystalmath_engine_parsl.runner import ParslRunner

        return ParslRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
