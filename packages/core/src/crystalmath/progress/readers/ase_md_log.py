"""The log of ASE's molecular dynamics: one line a step."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from crystalmath.progress.reader import ProgressReader, Reading, StepCollector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.progress.reader import Lines

# Time[ps]      Etot[eV]     Epot[eV]     Ekin[eV]    T[K], and the stress where that is asked for.
# 0.0205           0.0106       0.0021       0.0085    16.5
_STEP = re.compile(r"(\d+\.\d{4})\s+-?\d+\.\d+\s+(-?\d+\.\d+)\s+-?\d+\.\d+\s+-?\d+\.\d(?:\s|$)")
#: The time between two lines, of which four digits are written, is that of so many on average.
_AVERAGED = 1000


class AseMdLog(ProgressReader):
    """Dynamics of ASE, where quacc's recipes have them write: ``md.log``.

    The energy is the potential one, as that of a relaxation's step. Steps count from 0, as ASE
    counts them.
    """

    program = "ASE"
    file = "md.log"

    def read(self, lines: Lines) -> Reading:
        """Read the last whole line of a step; its number follows from its time."""
        found = list(islice(filter(None, map(_STEP.match, reversed(lines(self.file)))), _AVERAGED))
        if not found:
            return Reading()
        last, first = float(found[0][1]), float(found[-1][1])
        apart = (last - first) / max(1, len(found) - 1)
        step = round(last / apart) if apart else 0
        return Reading(ionic_step=step, energy_ev=float(found[0][2]))

    def collector(self) -> StepCollector:
        """Collect the lines of all steps."""
        return _AseMdSteps()


class _AseMdSteps(StepCollector):
    def __init__(self) -> None:
        self._steps: list[Reading] = []

    def take(self, file: str, lines: Sequence[str]) -> None:
        del file  # there is one
        for found in filter(None, map(_STEP.match, lines)):
            self._steps.append(Reading(ionic_step=len(self._steps), energy_ev=float(found[2])))

    def steps(self) -> Sequence[Reading]:
        return self._steps
