"""What the stand-in for VASP computes: ASE's EMT, from POSCAR to the last ionic step."""

import os
import signal
import sys
import time

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT, parameters
from ase.io import read, write

#: What each atom is bound by, in eV, beside what EMT says: its energies are about zero, and
#: VASP's are not; custodian takes a positive one for an error.
BINDING = 4.0
#: A force below it ends a relaxation, in eV/Å, where EDIFFG is no force.
FORCE = 0.02


class Binding(Calculator):
    """EMT, and `BINDING` for each atom; that alone where EMT knows not all of the elements."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, atoms):
        super().__init__()
        self._emt = EMT() if set(atoms.symbols) <= set(parameters) else None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces, stress = 0.0, np.zeros((len(atoms), 3)), np.zeros(6)
        if self._emt:
            self._emt.calculate(atoms, ["energy"], all_changes)
            given = self._emt.results
            energy, forces, stress = given["energy"], given["forces"], given["stress"]
        energy -= BINDING * len(atoms)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": stress}


def run(asked):
    """Compute, and write what VASP would write; give the exit code."""
    from standin_files import begin, finish

    begin(asked)
    open("OSZICAR", "w").close()
    sys.stdout.flush()
    time.sleep(float(asked.switch("SLEEP", 0)))
    if crash := asked.switch("CRASH"):
        return _crash(crash)
    atoms = read("POSCAR", format="vasp")
    # As VASP does it: POTCAR says what the ions are.
    elements = zip(asked.blocks, asked.datasets, strict=True)
    atoms.symbols = [each["element"] for (_, count), each in elements for _ in range(count)]
    atoms.calc = Binding(atoms)
    steps, relaxed = _steps(atoms, asked)
    write("CONTCAR", atoms, format="vasp", direct=True)
    finish(asked, steps, relaxed, converged=not asked.switch("UNCONVERGED"))
    return 0


def _crash(how):
    print(" Error EDDDAV: Call to ZHEGV failed. Returncode =  12  2   8")
    print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr)
    sys.stdout.flush()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(how)


def _steps(atoms, asked):
    """Move the ions; give each step, and whether the last one is what was looked for."""
    from standin_files import write_oszicar

    steps = []

    def note():
        step = atoms.copy()
        step.calc = None
        names = ("energy", "forces", "stress")
        step.info["results"] = {name: atoms.calc.get_property(name, atoms) for name in names}
        steps.append(step)
        if pause := float(asked.switch("STEP_SLEEP", 0)):
            write_oszicar(steps, 5)
            time.sleep(pause)

    limit = asked.integer("NSW", 0)
    ibrion = asked.integer("IBRION", 0 if limit else -1)
    if limit < 1 or ibrion not in {0, 1, 2, 3}:
        note()
        return steps, False
    if ibrion == 0:
        from ase import units
        from ase.md.verlet import VelocityVerlet

        note()
        dynamics = VelocityVerlet(atoms, timestep=asked.number("POTIM", 1.0) * units.fs)
        for _ in range(limit - 1):
            dynamics.run(1)
            note()
            if _asked_to_stop():
                break
        return steps, False
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    ediffg = asked.number("EDIFFG", 0.0)
    moving = FrechetCellFilter(atoms) if asked.integer("ISIF", 2) >= 3 else atoms
    with BFGS(moving, logfile=None) as optimizer:
        optimizer.attach(note)
        force = -ediffg if ediffg < 0 else FORCE
        relaxed = False
        for converged in optimizer.irun(fmax=force, steps=limit - 1):
            relaxed = bool(converged)
            if _asked_to_stop():
                break
    return steps, relaxed


def _asked_to_stop():
    try:
        with open("STOPCAR", encoding="ascii") as file:
            return "TRUE" in file.read()
    except FileNotFoundError:
        return False
