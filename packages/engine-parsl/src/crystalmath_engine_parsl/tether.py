"""Start one of Parsl's scripts so that it ends with the process that owns it.

Started as ``python tether.py OWNER START TEMPORARY SCRIPT [ARGUMENT ...]``; OWNER and START are the
pid and the start time of the owner, TEMPORARY a folder of the owner's for the sockets of Parsl's
worker pool, which is killed too soon to remove them.

Parsl alone leaves its interchange and managers running for minutes when the owner is killed, and
the interchange hands out work meanwhile; and it leaves the interchange in the terminal's process
group, where Ctrl-C ends it before its owner can close it.
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from crystalmath import processes
from crystalmath_engine_parsl import ownership

__all__ = ["main"]

#: How often the owner is looked for, in seconds.
LOOK_S = 0.5


def main() -> None:
    """Run the script, and end all of the owner's pool when the owner is gone."""
    owner, start = int(sys.argv[1]), int(sys.argv[2])
    temporary, argv = sys.argv[3], sys.argv[4:]
    if os.getpgrp() == os.getpgid(owner):
        os.setpgid(0, 0)
    threading.Thread(target=_follow, args=(owner, start, temporary), daemon=True).start()
    # Processes that are started by multiprocessing inherit it; jobs do not, nor TMPDIR.
    tempfile.tempdir = temporary
    multiprocessing.util.get_temp_dir()
    tempfile.tempdir = None
    sys.argv[:] = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")


def _follow(owner: int, start: int, temporary: str) -> None:
    while processes.is_alive(owner, start):
        time.sleep(LOOK_S)
    shutil.rmtree(temporary, ignore_errors=True)
    # Jobs live on: their supervisors are in sessions of their own. The other processes of the pool
    # may have lost their tether.
    if token := os.environ.get(ownership.MARK):
        _kill(ownership.pool_processes(token, os.getsid(0)))
    os.killpg(0, signal.SIGKILL)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
