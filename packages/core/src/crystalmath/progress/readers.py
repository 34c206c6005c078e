"""The readers of VASP, Quantum ESPRESSO, and the optimizers and dynamics of ASE."""

from __future__ import annotations

import re
from array import array
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.plugins.progress_reader import ProgressReader, Reading, StepCollector, largest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from crystalmath.plugins.progress_reader import LastLines, Lines

# BFGS:    3 15:09:38       -0.005682        0.0123
# BFGSLineSearch:    1[  2] 15:09:38       -0.005682        0.0123
_OPTIMIZER_STEP = re.compile(
    r"\w+:\s+(\d+)(?:\[\s*\d+\])?\s+[\d:]+\s+(-?\d+\.\d+)\*?\s+(\d+\.\d+)\s*$"
)


class AseLog(ProgressReader):
    """An optimizer of ASE, which quacc's recipes have write ``opt.log``."""

    program = "ASE"
    file = "opt.log"

    def read(self, lines: Lines) -> Reading:
        """Read the last whole line of a step."""
        for line in reversed(lines(self.file)):
            if (reading := _optimizer_step(line, 0)) is not None:
                return reading
        return Reading()

    def collector(self) -> StepCollector:
        """Collect the lines of all steps."""
        return _LogSteps(_optimizer_step)


class _LogSteps(StepCollector):
    """Collects the steps of a log of one line a step."""

    def __init__(self, read: Callable[[str, int], Reading | None]) -> None:
        self._read = read
        self._steps: list[Reading] = []

    def take(self, file: str, lines: Sequence[str]) -> None:
        del file  # there is one
        for line in lines:
            if (step := self._read(line, len(self._steps))) is not None:
                self._steps.append(step)

    def steps(self) -> Sequence[Reading]:
        return self._steps


def _optimizer_step(line: str, _: int) -> Reading | None:
    if not (match := _OPTIMIZER_STEP.match(line)):
        return None
    step, energy, force = match.groups()
    return Reading(ionic_step=int(step), energy_ev=float(energy), max_force_ev_ang=float(force))


# Time[ps]      Etot[eV]     Epot[eV]     Ekin[eV]    T[K], and the stress where that is asked for.
# 0.0205           0.0106       0.0021       0.0085    16.5
_DYNAMICS_STEP = re.compile(
    r"(\d+\.\d{4})\s+-?\d+\.\d+\s+(-?\d+\.\d+)\s+-?\d+\.\d+\s+-?\d+\.\d(?:\s|$)"
)
#: The time between two lines is averaged over so many, as only four digits are written.
_AVERAGED_LINES = 1000


class AseMdLog(ProgressReader):
    """Dynamics of ASE, which quacc's recipes have write ``md.log``.

    The energy is the potential one, as in a relaxation's step. Steps count the lines, from 0; they
    are ASE's steps only if each has a line, as the log does not state its interval.
    """

    program = "ASE"
    file = "md.log"

    def read(self, lines: Lines) -> Reading:
        """Read the last whole line of a step; its number follows from its time."""
        matches = list(
            islice(
                filter(None, map(_DYNAMICS_STEP.match, reversed(lines(self.file)))),
                _AVERAGED_LINES,
            )
        )
        if not matches:
            return Reading()
        last, first = float(matches[0][1]), float(matches[-1][1])
        apart = (last - first) / max(1, len(matches) - 1)
        step = round(last / apart) if apart else 0
        return Reading(ionic_step=step, energy_ev=float(matches[0][2]))

    def collector(self) -> StepCollector:
        """Collect the lines of all steps."""
        return _LogSteps(_dynamics_step)


def _dynamics_step(line: str, number: int) -> Reading | None:
    if not (match := _DYNAMICS_STEP.match(line)):
        return None
    return Reading(ionic_step=number, energy_ev=float(match[2]))


_NUMBER = r"[-+]?\d*\.\d+E[-+]\d+"
#: ``   3 F= -.14890E+02 E0= -.14889E+02  d E =-.1E-02``; of dynamics ``T=  300. E= ...`` before F
_VASP_IONIC = re.compile(rf"\s*(\d+)\s+(?:T=.*?)?F=\s*{_NUMBER}\s+E0=\s*({_NUMBER})(?=\s)")
#: ``DAV:   4    -0.148895E+02   -0.1E-02 ...``, also RMM, CGA, SDA and the like
_VASP_ELECTRONIC = re.compile(rf"[A-Z]{{3}}\s*:\s*(\d+)\s+({_NUMBER})\s")
#: The table in OUTCAR has the forces on all ions, also on those that selective dynamics fixes.
_VASP_FORCES = "TOTAL-FORCE (eV/Angst)"


#: Selective dynamics has a flag for each.
_AXES = 3


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
            if match := _VASP_IONIC.match(line):
                # Electronic steps after it belong to the next one.
                step = int(match[1]) + (electronic is not None)
                force = _last_vasp_force(lines("OUTCAR"), _fixed(reversed(lines("POSCAR"))))
                return Reading(
                    ionic_step=step,
                    electronic_step=electronic,
                    energy_ev=float(match[2]),
                    max_force_ev_ang=force,
                )
            if electronic is None and (match := _VASP_ELECTRONIC.match(line)):
                electronic, energy = int(match[1]), float(match[2])
        if electronic is None:
            return Reading()
        return Reading(ionic_step=1, electronic_step=electronic, energy_ev=energy)

    def collector(self) -> StepCollector:
        """Collect energies and tables of forces; the nth table belongs to the nth energy."""
        return _VaspSteps()


class _VaspSteps(StepCollector):
    def __init__(self) -> None:
        self._energies: list[tuple[int, float]] = []
        self._forces: list[float | None] = []
        self._table: list[str] | None = None
        self._fixed: list[bool] = []

    def take(self, file: str, lines: Sequence[str]) -> None:
        if file == Oszicar.file:
            steps = filter(None, map(_VASP_IONIC.match, lines))
            self._energies += ((int(step[1]), float(step[2])) for step in steps)
            return
        if file == "POSCAR":
            self._fixed = _fixed(reversed(lines)) + self._fixed
            return
        for line in lines:
            if self._table is None:
                if _VASP_FORCES in line:
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
    return [set(each) == {"F"} for each in flags if len(each) == _AXES and set(each) <= {"T", "F"}]


def _last_vasp_force(lines: LastLines, fixed: Sequence[bool]) -> float | None:
    """Return the largest force of the last whole table, a line of six numbers an ion, in eV/Å."""
    for section in lines.sections(_VASP_FORCES):
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


#: After ``!`` it is converged, after ``!!`` so is exact exchange.
_PW_ENERGY = re.compile(r"(!{0,2})\s+total energy\s+=\s+(-?\d+\.\d+) Ry")
_PW_ELECTRONIC = re.compile(r"\s+iteration #\s*(\d+)\s")
#: After each ionic step: of a relaxation (also ``bfgs converged in   3 scf cycles``), of dynamics.
_PW_IONIC = re.compile(
    r"\s+(?:number of scf cycles\s+=\s+(\d+)|bfgs converged in\s+(\d+) scf cycles"
    r"|Entering Dynamics:\s+iteration =\s+(\d+))"
)
_PW_FORCE = re.compile(r"\s+atom\s+\d+ type\s+\d+\s+force =(.*)")
#: The table has the forces on all atoms, also on those that the input fixes.
_PW_FORCES = "Forces acting on atoms"
_PW_POSITIONS = "ATOMIC_POSITIONS"


class PwOutput(ProgressReader):
    """``pw.x`` of Quantum ESPRESSO, whose input and output quacc calls ``pw.in`` and ``pw.out``."""

    program = "Quantum ESPRESSO"
    file = "pw.out"
    others = ("pw.in",)

    def read(self, lines: Lines) -> Reading:
        """Read backwards: the lines of a step stand before the line that ends it."""
        text = lines(self.file)
        ry, ry_per_bohr = _pw_units()
        done, electronic = _pw_steps(text)
        energy = _last_pw_energy(text)
        if electronic is None and not done:
            return Reading()
        return Reading(
            ionic_step=done + (electronic is not None),
            electronic_step=electronic,
            energy_ev=None if energy is None else energy * ry,
            max_force_ev_ang=_last_pw_force(text, lines("pw.in"), ry_per_bohr),
        )

    def collector(self) -> StepCollector:
        """Collect the last energy before each step's end, and the first table of forces.

        The input is read last; it tells which atoms move, and so which forces count.
        """
        return _PwSteps()


class _PwSteps(StepCollector):
    def __init__(self) -> None:
        self._ry, self._ry_per_bohr = _pw_units()
        self._steps: list[Reading] = []
        self._tables: list[array[float]] = []
        self._energy: float | None = None
        self._forces = array("d")
        self._in_table = False
        self._input: list[str] = []

    def take(self, file: str, lines: Sequence[str]) -> None:
        if file != PwOutput.file:
            self._input += lines
            return
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        if self._in_table:
            if match := _PW_FORCE.match(line):
                self._forces.extend(map(float, match[1].split()))
            elif self._forces:
                self._in_table = False
        elif _PW_FORCES in line:
            self._in_table, self._forces = True, array("d")
        if (match := _PW_ENERGY.match(line)) and match[1]:
            self._energy = float(match[2]) * self._ry
        elif (match := _PW_IONIC.match(line)) and self._energy is not None:
            number = int(match[match.lastindex or 0])
            self._steps.append(Reading(ionic_step=number, energy_ev=self._energy))
            self._tables.append(self._forces)
            self._energy, self._forces = None, array("d")

    def steps(self) -> Sequence[Reading]:
        steps, tables = self._steps, self._tables
        if self._energy is not None:
            # No line marks the end of a single calculation, nor of vc-relax's last one.
            last = (steps[-1].ionic_step or 0) if steps else 0
            steps = [*steps, Reading(ionic_step=last + 1, energy_ev=self._energy)]
            tables = [*tables, self._forces]
        moves = _pw_moves(self._input)
        return [
            evolve(step, max_force_ev_ang=_largest_pw(forces, moves, self._ry_per_bohr))
            for step, forces in zip(steps, tables, strict=True)
        ]


def _pw_units() -> tuple[float, float]:
    """Return Ry in eV and Ry/bohr in eV/Å, by the constants with which ASE reads pw.x."""
    from ase.units import create_units

    units = create_units("2006")
    return units["Ry"], units["Ry"] / units["Bohr"]


def _pw_steps(lines: Sequence[str]) -> tuple[int, int | None]:
    """Return the last ionic step that has ended, 0 for none, and the electronic step after it."""
    electronic: int | None = None
    for line in reversed(lines):
        if match := _PW_IONIC.match(line):
            return int(match[match.lastindex or 0]), electronic
        if electronic is None and (match := _PW_ELECTRONIC.match(line)):
            electronic = int(match[1])
    return 0, electronic


def _last_pw_energy(lines: Sequence[str]) -> float | None:
    """Return the last converged energy, in Ry; before the first, the last unconverged one."""
    first: float | None = None
    for line in reversed(lines):
        if "total energy" in line and (match := _PW_ENERGY.match(line)):
            if match[1]:
                return float(match[2])
            if first is None:
                first = float(match[2])
    return first


def _last_pw_force(lines: LastLines, input_lines: LastLines, unit: float) -> float | None:
    """Return the largest force of the last whole table, in eV/Å, on atoms that the input moves.

    With high verbosity tables of contributions follow the total, each under a heading of its own.
    """
    for section in lines.sections(_PW_FORCES):
        forces: list[float] = []
        for line in islice(section, 1, None):
            if match := _PW_FORCE.match(line):
                forces += map(float, match[1].split())
            elif forces:
                positions = next(input_lines.sections(_PW_POSITIONS), iter(()))
                return _largest_pw(forces, _pw_moves(positions), unit)
    return None


def _pw_moves(lines: Iterable[str]) -> NDArray[np.float64]:
    """Return a row for each atom, with 0 for each axis that the input fixes, else 1."""
    import numpy as np

    moves: list[bool] = []
    within = False
    for line in lines:
        words = line.split()
        if within and len(words) in (4, 7):  # Si 0.0 0.0 0.0 0 0 1
            moves += (word != "0" for word in words[4:] or "111")
        elif within and words:
            break
        within = within or words[:1] == [_PW_POSITIONS]
    return np.array(moves, dtype=float).reshape(-1, 3)


def _largest_pw(forces: Sequence[float], moves: NDArray[np.float64], unit: float) -> float | None:
    import numpy as np

    rows = np.array(forces).reshape(-1, 3)  # by numpy: dynamics have millions
    if moves.shape == rows.shape:
        rows *= moves
    return float(np.linalg.norm(rows, axis=1).max()) * unit if len(rows) else None
