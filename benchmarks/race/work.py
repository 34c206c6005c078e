"""What every contestant of the race computes: functions of a structure, a number and a folder.

Each call writes its number into the folder's ledger, so that the race sees what ran, and how often.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Running", "chgnet", "crystal", "hold", "noop", "short", "static", "structure"]


def structure(number: int) -> Atoms:
    """Return 32 atoms of copper, displaced by random numbers of this seed."""
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=number)
    atoms.info["number"] = number
    return atoms


def crystal(number: int) -> Atoms:
    """Return one atom of copper, in a cell that differs a little for each number."""
    from ase.build import bulk

    return bulk("Cu", a=3.6 + 1e-4 * number)


class Running:
    """A job of `hold`: its lock is taken at the beginning, and the block's end starts the clock.

    The contestant cancels the job in the block. Then the time counts until the lock is free.
    """

    #: The race gives up after this time, in seconds.
    LIMIT_S = 30.0

    def __init__(self, folder: str) -> None:
        self._lock = f"{folder}/lock"
        self._ledger = Path(folder, "ledger")

    def __enter__(self) -> None:
        while not self._ledger.exists():
            time.sleep(0.01)
        self._begun = time.monotonic()

    def __exit__(self, *error: object) -> None:
        file = os.open(self._lock, os.O_RDWR)
        while (passed := time.monotonic() - self._begun) < self.LIMIT_S:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.005)
            else:
                print(f"{passed:.3f}", flush=True)
                os._exit(0)
        print("alive", flush=True)
        os._exit(0)


def noop(atoms: Atoms, folder: str, number: int | None = None) -> dict[str, Any]:
    """Return at once."""
    return _note(atoms, folder, number)


def short(atoms: Atoms, folder: str, number: int | None = None) -> dict[str, Any]:
    """Take 0.1 s."""
    time.sleep(0.1)
    return _note(atoms, folder, number)


def static(atoms: Atoms, folder: str, number: int | None = None) -> dict[str, Any]:
    """Compute energy and forces by quacc's recipe for EMT."""
    from quacc.recipes.emt.core import static_job

    result = getattr(static_job, "__wrapped__", static_job)(atoms)
    return {**_note(atoms, folder, number), "energy_ev": result["results"]["energy"]}


def chgnet(atoms: Atoms, folder: str, number: int | None = None) -> dict[str, Any]:
    """Compute energy and forces by CHGNet on one CPU."""
    from ase.atoms import Atoms as Copied

    atoms = Copied(atoms)
    atoms.calc = _potential()
    return {**_note(atoms, folder, number), "energy_ev": atoms.get_potential_energy()}


@functools.cache
def _potential() -> Any:
    """Load the model once a process."""
    import torch
    from chgnet.model.dynamics import CHGNetCalculator

    torch.set_num_threads(1)
    return CHGNetCalculator(use_device="cpu")


def hold(atoms: Atoms, folder: str, number: int | None = None) -> dict[str, Any]:
    """Hold a lock for ten minutes, together with a child; it is free once both are dead."""
    file = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[file]
    )
    done = _note(atoms, folder, number)
    child.wait()
    return done


def _note(atoms: Atoms, folder: str, number: int | None) -> dict[str, Any]:
    number = int(atoms.info["number"]) if number is None else number
    file = os.open(f"{folder}/ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, f"{number}\n".encode("ascii"))
    finally:
        os.close(file)
    return {"number": number}
