"""VASP: steps and energies from OSZICAR, forces from OUTCAR, what may move from POSCAR."""

from __future__ import annotations

import re
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from crystalmath.progress.reader import ProgressReader, Reading, StepCollector, largest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crystalmath.progress.last_lines import LastLines
    from crystalmath.progress.reader import Lines

_NUMBER = r"[-+]?\d*\.\d+E[-+]\d+"
#: ``   3 F= -.14890E+02 E0= -.14889E+02  d E =-.1E-02``; of dynamics ``T=  300. E= ...`` before F
_IONIC = re.compile(rf"\s*(\d+)\s+(?:T=.*?)?F=\s*{_NUMBER}\s+E0=\s*({_NUMBER})(?=\s)")
#: ``DAV:   4    -0.148895E+02   -0.1E-02 ...``, also RMM, CGA, SDA and the like
_ELECTRONIC = re.compile(rf"[A-Z]{{3}}\s*:\s*(\d+)\s+({_NUMBER})\s")
#: OUTCAR tells the forces on all ions, also on those that selective dynamics keep in place.
_FORCES = "TOTAL-FORCE (eV/Angst)"


class Oszicar(ProgressReader):
    """VASP."""

    program = "VASP"
    file = "OSZICAR"
    others = ("POSCAR", "OUTCAR")

    def read(self, lines: Lines) -> Reading:
        """Read backwards: electronic steps, and the ionic step before them."""
        electronic: int | None = None
        energy: float | None = None
        for line in reversed(lines(self.file)):
            if found := _IONIC.match(line):
                # Electronic steps after it belong to the next one.
                step = int(found[1]) + (electronic is not None)
                force = _largest_force(lines("OUTCAR"), _fixed(reversed(lines("POSCAR"))))
                return Reading(
                    ionic_step=step,
                    electronic_step=electronic,
                    energy_ev=float(found[2]),
                    max_force_ev_ang=force,
                )
            if electronic is None and (found := _ELECTRONIC.match(line)):
                electronic, energy = int(found[1]), float(found[2])
        if electronic is None:
            return Reading()
        return Reading(ionic_step=1, electronic_step=electronic, energy_ev=energy)

    def collector(self) -> StepCollector:
        """Collect energies, and beside each the table of forces of the same number."""
        return _VaspSteps()


class _VaspSteps(StepCollector):
    def __init__(self) -> None:
        self._energies: list[tuple[int, float]] = []
        self._forces: list[float | None] = []
        self._table: list[str] | None = None
        self._fixed: list[bool] = []

    def take(self, file: str, lines: Sequence[str]) -> None:
        if file == Oszicar.file:
            found = filter(None, map(_IONIC.match, lines))
            self._energies += ((int(step[1]), float(step[2])) for step in found)
            return
        if file == "POSCAR":
            self._fixed = _fixed(reversed(lines)) + self._fixed
            return
        for line in lines:
            if self._table is None:
                if _FORCES in line:
                    self._table = []
                continue
            self._table.append(line)
            if len(self._table) > 1 and _is_rule(line):
                self._forces.append(_largest_of(self._table[1:-1], self._fixed))
                self._table = None

    def steps(self) -> Sequence[Reading]:
        return [
            Reading(ionic_step=step, energy_ev=energy, max_force_ev_ang=force)
            for (step, energy), force in zip_longest(
                self._energies, self._forces[: len(self._energies)]
            )
        ]


def _fixed(backwards: Iterable[str]) -> list[bool]:
    """Return which ions stay in place, the last one first, as the lines are."""
    flags = (line.split(maxsplit=6)[3:6] for line in backwards)
    return [set(each) == {"F"} for each in flags if len(each) == 3 and set(each) <= {"T", "F"}]  # noqa: PLR2004


def _largest_force(lines: LastLines, fixed: Sequence[bool]) -> float | None:
    """Return the largest force of the last whole table, a line of six numbers an ion, in eV/Å."""
    for section in lines.sections(_FORCES):
        rows: list[str] = []
        for line in islice(section, 1, None):
            if rows and _is_rule(line):
                return _largest_of(rows[1:], fixed)
            rows.append(line)  # below the heading, a rule stands first
    return None  # what there is of a table is cut


def _is_rule(line: str) -> bool:
    return line.lstrip().startswith("---")


def _largest_of(table: Sequence[str], fixed: Sequence[bool]) -> float | None:
    if len(fixed) == len(table):
        stays = reversed(fixed)
        table = [line for line in table if not next(stays)]
    try:
        return largest([[float(word) for word in line.split()[3:6]] for line in table])
    except ValueError:  # ****** where a number is too long
        return None
