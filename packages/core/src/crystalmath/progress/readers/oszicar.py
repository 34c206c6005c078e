"""VASP: steps and energies from OSZICAR, forces from OUTCAR."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crystalmath.progress.reader import ProgressReader, Reading, largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.progress.reader import Lines

__all__ = ["Oszicar"]

_NUMBER = r"[-+]?\d*\.\d+E[-+]\d+"
#: ``   3 F= -.14890E+02 E0= -.14889E+02  d E =-.1E-02``; of dynamics ``T=  300. E= ...`` before F
_IONIC = re.compile(rf"\s*(\d+)\s+(?:T=.*?)?F=\s*{_NUMBER}\s+E0=\s*({_NUMBER})(?=\s)")
#: ``DAV:   4    -0.148895E+02   -0.1E-02 ...``, also RMM, CGA, SDA and the like
_ELECTRONIC = re.compile(rf"[A-Z]{{3}}\s*:\s*(\d+)\s+({_NUMBER})\s")
_FORCES = "TOTAL-FORCE (eV/Angst)"


class Oszicar(ProgressReader):
    """VASP."""

    program = "VASP"
    file = "OSZICAR"
    others = ("OUTCAR",)

    def read(self, lines: Lines) -> Reading:
        """Read backwards: electronic steps, and the ionic step before them."""
        electronic: int | None = None
        energy: float | None = None
        for line in reversed(lines(self.file)):
            if found := _IONIC.match(line):
                # Electronic steps after it belong to the next one.
                step = int(found[1]) + (electronic is not None)
                force = _largest_force(lines("OUTCAR"))
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


def _largest_force(lines: Sequence[str]) -> float | None:
    """Give the largest force of the last whole table, a line of six numbers an ion, in eV/Å."""
    end = len(lines)
    for at in range(len(lines) - 1, -1, -1):
        if _FORCES not in lines[at]:
            continue
        rows: list[list[float]] = []
        for line in lines[at + 2 : end]:
            if line.lstrip().startswith("---"):
                return largest(rows)
            try:
                rows.append([float(word) for word in line.split()[3:6]])
            except ValueError:  # ****** where a number is too long
                return None
        end = at
    return None
