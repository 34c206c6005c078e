"""Covalent: a server in the folder, and one dispatch of a lattice with an electron for each job."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import work
from contestant import run


def start(folder: str) -> Any:
    """Start a server that keeps all it writes in the folder, and return the package."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "COVALENT_CONFIG_DIR"):
        os.environ[name] = f"{folder}/{name}"
    command = str(Path(sys.executable).with_name("covalent"))
    subprocess.run([command, "start"], check=True, capture_output=True)
    import covalent

    return covalent


def dispatch(covalent: Any, task: str, count: int, folder: str) -> str:
    """Dispatch a lattice of so many electrons."""
    electron = covalent.electron(getattr(work, task))

    @covalent.lattice
    def lattice(structures: list[Any]) -> list[Any]:
        return [electron(atoms, folder) for atoms in structures]

    structures = [work.structure(number) for number in range(count)]
    return str(covalent.dispatch(lattice)(structures))


def compute(task: str, count: int, folder: str) -> None:
    """Dispatch all functions, and wait for them."""
    covalent = start(folder)
    done = covalent.get_result(dispatch(covalent, task, count, folder), wait=True)
    assert str(done.status) == "COMPLETED", done.error


def cancel(folder: str, running: work.Running) -> None:
    """Cancel the dispatch."""
    covalent = start(folder)
    dispatch_id = dispatch(covalent, "hold", 1, folder)
    with running:
        covalent.cancel(dispatch_id)


if __name__ == "__main__":
    run(compute, cancel)
