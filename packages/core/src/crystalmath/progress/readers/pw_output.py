"""Quantum ESPRESSO's ``pw.x``: steps, energies and forces from its output."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from crystalmath.progress.reader import ProgressReader, Reading, StepCollector, largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.progress.last_lines import LastLines
    from crystalmath.progress.reader import Lines

_ENERGY = re.compile(r"(!?)\s+total energy\s+=\s+(-?\d+\.\d+) Ry")
_ELECTRONIC = re.compile(r"\s+iteration #\s*(\d+)\s")
#: After each ionic step: of a relaxation (also ``bfgs converged in   3 scf cycles``), of dynamics.
_IONIC = re.compile(
    r"\s+(?:number of scf cycles\s+=\s+(\d+)|bfgs converged in\s+(\d+) scf cycles"
    r"|Entering Dynamics:\s+iteration =\s+(\d+))"
)
_FORCE = re.compile(r"\s+atom\s+\d+ type\s+\d+\s+force =(.*)")
_FORCES = "Forces acting on atoms"


class PwOutput(ProgressReader):
    """``pw.x`` of Quantum ESPRESSO, whose output quacc calls ``pw.out``."""

    program = "Quantum ESPRESSO"
    file = "pw.out"

    def read(self, lines: Lines) -> Reading:
        """Read backwards: what is written of a step stands before its end."""
        from ase.units import Bohr, Ry

        text = lines(self.file)
        done, electronic = _steps(text)
        energy = _last_energy(text)
        if electronic is None and not done:
            return Reading()
        return Reading(
            ionic_step=done + (electronic is not None),
            electronic_step=electronic,
            energy_ev=None if energy is None else energy * Ry,
            max_force_ev_ang=_largest_force(text, Ry / Bohr),
        )

    def collector(self) -> StepCollector:
        """Collect the last energy before each step's end, and the first table of forces."""
        return _PwSteps()


class _PwSteps(StepCollector):
    def __init__(self) -> None:
        from ase.units import Bohr, Ry

        self._ry, self._ry_per_bohr = Ry, Ry / Bohr
        self._steps: list[Reading] = []
        self._energy: float | None = None
        self._rows: list[list[float]] = []
        self._in_table = False

    def take(self, file: str, lines: Sequence[str]) -> None:
        del file  # there is one
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        if self._in_table:
            if found := _FORCE.match(line):
                self._rows.append([float(word) for word in found[1].split()])
            elif self._rows:
                self._in_table = False
        elif _FORCES in line:
            self._in_table, self._rows = True, []
        if (found := _ENERGY.match(line)) and found[1]:
            self._energy = float(found[2]) * self._ry
        elif (found := _IONIC.match(line)) and self._energy is not None:
            self._steps.append(self._step(int(found[found.lastindex or 0])))
            self._energy, self._rows = None, []

    def _step(self, number: int) -> Reading:
        force = largest(self._rows, self._ry_per_bohr)
        return Reading(ionic_step=number, energy_ev=self._energy, max_force_ev_ang=force)

    def steps(self) -> Sequence[Reading]:
        if self._energy is None:
            return self._steps
        # No line tells the end of a single calculation, nor of the last one of vc-relax.
        last = self._steps[-1].ionic_step if self._steps else 0
        return [*self._steps, self._step((last or 0) + 1)]


def _steps(lines: Sequence[str]) -> tuple[int, int | None]:
    """Return the last ionic step that has ended, 0 for none, and the electronic step after it."""
    electronic: int | None = None
    for line in reversed(lines):
        if found := _IONIC.match(line):
            return int(found[found.lastindex or 0]), electronic
        if electronic is None and (found := _ELECTRONIC.match(line)):
            electronic = int(found[1])
    return 0, electronic


def _last_energy(lines: Sequence[str]) -> float | None:
    """Return the last energy that is converged, in Ry; in the first step also one that is not."""
    first: float | None = None
    for line in reversed(lines):
        if "total energy" in line and (found := _ENERGY.match(line)):
            if found[1]:
                return float(found[2])
            if first is None:
                first = float(found[2])
    return first


def _largest_force(lines: LastLines, unit: float) -> float | None:
    """Return the largest force of the last whole table, in eV/Å.

    With high verbosity tables of contributions follow the total, each under a heading of its own.
    """
    for section in lines.sections(_FORCES):
        rows = []
        for line in islice(section, 1, None):
            if found := _FORCE.match(line):
                rows.append([float(word) for word in found[1].split()])
            elif rows:
                return largest(rows, unit)
    return None
