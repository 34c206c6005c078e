"""Start one of Parsl's scripts so that it ends with the process that owns it.

Started as ``python tether.py OWNER START SCRIPT [ARGUMENT ...]``; OWNER and START are the pid and
the start time of the owner. Parsl alone leaves its interchange and managers running for minutes
when the owner is killed, and the interchange hands out work meanwhile; and it leaves the
interchange in the terminal's process group, where Ctrl-C ends it before its owner can close it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

from crystalmath import processes

__all__ = ["main"]

#: How often the owner is looked for, in seconds.
LOOK_S = 0.5


def main() -> None:
    """Run the script, and end the whole process group when the owner is gone."""
    owner, start = int(sys.argv[1]), int(sys.argv[2])
    argv = sys.argv[3:]
    if os.getpgrp() == os.getpgid(owner):
        os.setpgid(0, 0)
    threading.Thread(target=_follow, args=(owner, start), daemon=True).start()
    sys.argv[:] = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")


def _follow(owner: int, start: int) -> None:
    while processes.is_alive(owner, start):
        time.sleep(LOOK_S)
    # Jobs live on: their supervisors are in sessions of their own.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
