"""Recipes of a user's own, which go about their calculations in all sorts of ways."""

import sys

from ase.calculators.espresso import Espresso, EspressoProfile
from ase.calculators.vasp import Vasp as PlainVasp
from quacc import change_settings, flow, job
from quacc.calculators.vasp import Vasp
from quacc.recipes.emt.core import relax_job as emt_relax_job
from quacc.recipes.vasp.core import ase_relax_job, relax_job, static_job
from quacc.runners.ase import Runner
from quacc.runners.generic import GenericRunner
from quacc.schemas.ase import Summarize

from crystalmath.flow import step


def at_once(atoms):
    atoms.calc = Vasp(atoms, preset="DefaultSetGGA")
    return atoms.get_potential_energy()


def plain(atoms, **parameters):
    atoms.calc = PlainVasp(command="vasp_std", **parameters)
    return atoms.get_potential_energy()


def plain_espresso(atoms, pseudo_dir, **parameters):
    atoms.calc = Espresso(profile=EspressoProfile("pw.x", pseudo_dir), **parameters)
    return atoms.get_potential_energy()


def neb(atoms):
    moved = atoms.copy()
    moved.positions += 0.1
    dyn = Runner([atoms, moved], Vasp(atoms, preset="DefaultSetGGA")).run_neb()
    return Summarize().neb(dyn, 2)


def emt_first(atoms):
    return static_job(emt_relax_job(atoms)["atoms"])


def final_atoms(atoms):
    relaxed = Runner(atoms, Vasp(atoms, preset="DefaultSetGGA")).run_calc()
    return relax_job(relaxed * (2, 1, 1)), relaxed.get_forces()


def where_the_energy_leads(atoms):
    if static_job(atoms)["results"]["energy"] > 0:
        return None
    return relax_job(atoms)


def careless(atoms):
    try:
        energy = static_job(atoms).get("energy", 0)
    except Exception:  # noqa: BLE001 - it must not catch what ends the asking
        energy = 1
    return energy


def reckless(atoms):
    try:
        return "converged" in ase_relax_job(atoms)
    except BaseException:  # noqa: BLE001 - it may: the asking has ended all the same
        return None


def converged(atoms):
    dyn = Runner(atoms, Vasp(atoms, preset="DefaultSetGGA")).run_opt()
    return dyn.converged()


def merged(atoms):
    first = static_job(atoms)
    second = {**first, "more": 1}
    return second["results"]


def many(atoms, number):
    return [static_job(atoms) for _ in range(number)]


def other_folders(atoms, folder):
    with change_settings({"RESULTS_DIR": folder, "VASP_PP_PATH": f"{folder}/pp"}):
        return static_job(atoms)


def command(atoms, file):
    static_job(atoms)
    GenericRunner(f"touch {file}").run_cmd()


def breaks(atoms):
    raise ValueError("it must not be")


def leaves(atoms):
    sys.exit(3)


def opens(atoms):
    with open("/nowhere/at/all") as file:
        return file.read()


def changes(atoms):
    atoms.positions += 1
    return static_job(atoms)


@flow
def relaxes_twice(atoms):
    return relax_job(relax_job(atoms)["atoms"])


@flow
def looks_at_atoms(atoms):
    relaxed = relax_job(atoms)["atoms"]
    return relax_job(relaxed) if len(relaxed) else None


@flow
def joins_text(atoms):
    """Raise with a reference, and need the result with its stand-in."""
    relaxed = relax_job(atoms)
    return ",".join([relaxed["dir_name"], relaxed["results"]["energy"]])


@flow
def keeps_a_step(atoms):
    step(len, atoms)
    return relax_job(atoms)


@flow
def misnames(atoms):
    return moved(relax_job(atoms)["atoms"], shfit=1)


@job
def moved(atoms, shift=0):
    atoms.positions += shift
    return atoms


@job
def touched(path, after=None):
    open(path, "w").close()
    return {"path": path, "after": after}


def noted(path):
    open(path, "w").close()
    return path


@flow
def touches(atoms, folder, number=2):
    """Call jobs that are not quacc's, and that would leave files behind."""
    first = touched(f"{folder}/first")
    kept = step(noted, f"{folder}/kept")
    relaxed = relax_job(relax_job(atoms)["atoms"])
    for place in range(number):
        touched(f"{folder}/{place}", after=[first["path"], kept, relaxed["dir_name"]])
    return relax_job(atoms) if first["path"] else None


@flow
def touches_many(number):
    return [touched(f"/nowhere/{place}") for place in range(number)]
