"""The log of ASE's optimizers: one line a step."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crystalmath.progress.reader import ProgressReader, Reading

if TYPE_CHECKING:
    from crystalmath.progress.reader import Lines

__all__ = ["AseLog"]

# BFGS:    3 15:09:38       -0.005682        0.0123
# BFGSLineSearch:    1[  2] 15:09:38       -0.005682        0.0123
_STEP = re.compile(r"\w+:\s+(\d+)(?:\[\s*\d+\])?\s+[\d:]+\s+(-?\d+\.\d+)\*?\s+(\d+\.\d+)\s*$")


class AseLog(ProgressReader):
    """An optimizer of ASE, where quacc's recipes have it write: ``opt.log``."""

    program = "ASE"
    file = "opt.log"

    def read(self, lines: Lines) -> Reading:
        """Read the last whole line of a step."""
        for line in reversed(lines(self.file)):
            if found := _STEP.match(line):
                step, energy, force = found.groups()
                return Reading(
                    ionic_step=int(step), energy_ev=float(energy), max_force_ev_ang=float(force)
                )
        return Reading()
