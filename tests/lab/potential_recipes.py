"""Recipes of a machine-learned potential that is loaded once, as quacc's `pick_calculator` does."""

import functools
import os


@functools.cache
def chgnet(loads):
    """Load CHGNet, whose weights are in its wheel; note in a file which process has."""
    from chgnet.model.dynamics import CHGNetCalculator

    with open(loads, "a") as file:
        file.write(f"{os.getpid()}\n")
    return CHGNetCalculator(use_device="cpu")


def chgnet_static(atoms, loads):
    """Compute the energy, in eV."""
    atoms.calc = chgnet(loads)
    return {"energy": float(atoms.get_potential_energy()), "pid": os.getpid()}
