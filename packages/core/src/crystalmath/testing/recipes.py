"""Recipes that behave, and misbehave, in every way that the kit asks about.

They reach a worker by name; this module imports nothing that a worker may not have.
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

__all__ = ["count_and_wait", "echo", "fail", "grandchild", "kill_by", "wait_for"]


def echo(atoms: Atoms, **parameters: Any) -> dict[str, Any]:
    """Give back what came in."""
    return {"symbols": list(atoms.symbols), **parameters}


def wait_for(atoms: Atoms, path: str, seconds: float = 300.0) -> dict[str, Any]:
    """Run until a file is there."""
    del atoms
    deadline = time.monotonic() + seconds
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return {"pid": os.getpid()}


def count_and_wait(atoms: Atoms, count: str, path: str) -> dict[str, Any]:
    """Leave a mark for each time that this ran, then run until a file is there."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    return wait_for(atoms, path)


def fail(atoms: Atoms, message: str) -> None:
    """Raise."""
    del atoms
    raise RuntimeError(message)


def kill_by(atoms: Atoms, number: int = signal.SIGKILL) -> None:
    """Die of a signal."""
    del atoms
    os.kill(os.getpid(), number)


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
