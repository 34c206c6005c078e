"""The host's own readers of progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.hookspecs import hookimpl

if TYPE_CHECKING:
    from crystalmath.plugins.progress_reader import ProgressReader


@hookimpl
def crystalmath_progress_readers() -> list[ProgressReader]:
    """Provide those of VASP, Quantum ESPRESSO, and ASE's optimizers and dynamics."""
    from crystalmath.progress.readers import AseLog, AseMdLog, Oszicar, PwOutput

    return [Oszicar(), PwOutput(), AseLog(), AseMdLog()]
