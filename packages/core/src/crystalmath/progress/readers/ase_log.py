"""The log of ASE's optimizers: one line a step."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crystalmath.progress.reader import ProgressReader, Reading, StepCollector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.progress.reader import Lines

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
            if (reading := _step(line)) is not None:
                return reading
        return Reading()

    def collector(self) -> StepCollector:
        """Collect the lines of all steps."""
        return _AseSteps()


class _AseSteps(StepCollector):
    def __init__(self) -> None:
        self._steps: list[Reading] = []

    def take(self, file: str, lines: Sequence[str]) -> None:
        del file  # there is one
        self._steps += filter(None, map(_step, lines))

    def steps(self) -> Sequence[Reading]:
        return self._steps


def _step(line: str) -> Reading | None:
    if not (found := _STEP.match(line)):
        return None
    step, energy, force = found.groups()
    return Reading(ionic_step=int(step), energy_ev=float(energy), max_force_ev_ang=float(force))
