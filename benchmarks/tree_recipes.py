"""Recipes that start processes which are hard to end, for measuring how jobs are cancelled.

All processes of a job hold a lock on a file that is passed to it. So if the lock is free, no
process of the job is alive, even one that hides from the process table.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["TREES", "grow"]

#: The processes of each kind of tree beside the recipe; ``{fd}`` is the locked file.
TREES = {
    "a recipe alone": "",
    "a child": "import time; time.sleep(600)",
    "ignores SIGTERM": (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    ),
    "hides in a session of its own, without environment": (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "os.execve(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)'], {})"
    ),
    "forks and exits again and again": (
        "import os, time\n"
        "end = time.monotonic() + 600\n"
        "while time.monotonic() < end:\n"
        "    if os.fork(): os._exit(0)\n"
        "    time.sleep(0.002)"
    ),
    "has lost its main thread": (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    ),
}


def grow(atoms: Atoms, tree: str, lock: str, begun: str, seconds: float) -> dict[str, Any]:
    """Start a tree, make the file `begun`, and wait."""
    file = os.open(lock, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_SH)
    fcntl.fcntl(file, fcntl.F_SETFD, 0)  # the processes of the tree inherit it
    if code := TREES[tree]:
        subprocess.Popen([sys.executable, "-S", "-c", code], close_fds=False)
        time.sleep(0.1)  # until it has started its processes
    Path(begun).touch()
    time.sleep(seconds)
    os.close(file)  # a warm process may go on; all others must not
    return {"results": {"energy": 0.0}}
