"""The kit's recipes, which behave and misbehave in every way that a test needs.

A worker imports them by name, so this module imports nothing that a worker may lack.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms


def echo(atoms: Atoms, /, **parameters: Any) -> dict[str, Any]:
    """Return the symbols and the parameters."""
    return {"symbols": list(atoms.symbols), **parameters}


def wait_for(atoms: Atoms, path: str, seconds: float = 300.0) -> dict[str, Any]:
    """Run until a file exists."""
    del atoms
    deadline = time.monotonic() + seconds
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return {"pid": os.getpid()}


def count_and_wait(atoms: Atoms, count: str, path: str) -> dict[str, Any]:
    """Leave a mark for each run, then run until a file exists."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    return wait_for(atoms, path)


def count_and_fail(atoms: Atoms, count: str) -> None:
    """Leave a mark for each run, then raise."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    fail(atoms, "after a mark")


def fail(atoms: Atoms, message: str) -> None:
    """Raise."""
    del atoms
    raise RuntimeError(message)


def kill_by(atoms: Atoms, number: int = signal.SIGKILL) -> None:
    """Die of a signal."""
    del atoms
    os.kill(os.getpid(), number)


def kill_once(atoms: Atoms, count: str) -> dict[str, Any]:
    """Leave a mark for each run; the first one ends by SIGKILL."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    runs = Path(count).stat().st_size
    if runs == 1:
        kill_by(atoms)
    return {"runs": runs}


def grandchild(atoms: Atoms, pids: str) -> None:
    """Start ``sleep`` in a child of a child that left the session and ignores SIGTERM."""
    del atoms
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True, env={})\n"
        "with open(sys.argv[1] + '.new', 'w') as file:\n"
        "    file.write(f'{os.getpid()} {child.pid}')\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", script, pids]
    subprocess.run(arguments, start_new_session=True, check=False)


def value(atoms: Atoms, value: Any = None) -> Any:
    """Return the parameter alone."""
    del atoms
    return value


def mark(atoms: Atoms, path: str, number: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    """Leave a line in a file for each run, then take some time."""
    del atoms
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return {"number": number}


def structure(atoms: Atoms, **parameters: Any) -> dict[str, Any]:
    """Return the structure, the parameters, and properties that the recipe saw."""
    seen = {
        "tags": atoms.get_tags().tolist(),
        "magmoms": atoms.get_initial_magnetic_moments().tolist(),
        "fixed": [index for fix in atoms.constraints for index in fix.get_indices().tolist()],
    }
    return {**parameters, "atoms": atoms, "seen": seen}


def large(atoms: Atoms, megabytes: int) -> dict[str, Any]:
    """Return a result of some megabytes as JSON: one half bytes, one half numbers."""
    del atoms
    import hashlib

    import numpy as np

    half = megabytes * 2**20 // 2
    # In JSON three bytes take four; a number from 1000 to 9999 takes five with its comma.
    data = (hashlib.sha512(b"large").digest() * (half * 3 // 4 // 64 + 1))[: half * 3 // 4]
    array = np.arange(half // 5, dtype=np.int64) % 9000 + 1000
    digest = hashlib.sha256(data).hexdigest()
    return {"data": data, "array": array, "digest": digest, "sum": int(array.sum())}


def surroundings(atoms: Atoms, path: str | None = None) -> dict[str, Any]:
    """Return the surroundings of the recipe; run until a file exists, if one is named."""
    from crystalmath.testing import snapshot

    if path is not None:
        wait_for(atoms, path)
    return {
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "umask": snapshot.umask(),
        "path": sys.path[:],
        "arguments": len(sys.argv),  # one of them is a pid
        "signals": snapshot.signals(),
        "streams": snapshot.streams(),
        "limits": snapshot.limits(),
        "cores": sorted(os.sched_getaffinity(0)),
        "encodings": snapshot.encodings(),
    }
