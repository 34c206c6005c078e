"""Start one of Parsl's scripts so that it ends with the process that owns it.

Started as ``python tether.py OWNER START TEMPORARY SCRIPT [ARGUMENT ...]``. OWNER and START are the
pid and the start time of the owner. TEMPORARY is a folder for the sockets of Parsl's worker pool,
which is killed before it can remove them.

Without this, Parsl's interchange and managers run on for minutes when the owner is killed, and the
interchange hands out work meanwhile. It also stays in the terminal's process group, where Ctrl-C
ends it before its owner can close it.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import multiprocessing.util
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from crystalmath import processes
from crystalmath.engines.guard import end_with_owner
from crystalmath_engine_parsl import ownership


def tethered(temporary: str, *script: str) -> list[str]:
    """Return the command that starts a script so that it ends with this process.

    `temporary` is a folder for its sockets; its path must be short.
    """
    me = processes.own_identity()
    return [sys.executable, __file__, str(me.pid), str(me.start_time), temporary, *script]


def main() -> None:
    """Run the script below a guard, which ends it with the owner."""
    owner, start = int(sys.argv[1]), int(sys.argv[2])
    temporary, argv = sys.argv[3], sys.argv[4:]
    if os.getpgrp() == os.getpgid(owner):
        os.setpgid(0, 0)
    # Parsl reads the working directory, and the owner's may have been removed.
    os.chdir("/")
    end_with_owner(owner, start, at_end=functools.partial(_tidy_up, owner, start, temporary))
    # Processes of multiprocessing inherit this folder. Jobs inherit neither it nor TMPDIR.
    tempfile.tempdir = temporary
    multiprocessing.util.get_temp_dir()
    tempfile.tempdir = None
    if token := os.environ.get(ownership.MARK):
        # They inherit the prefix of semaphores, too: these stay behind if all processes are killed
        # at once. Python has no public way to set it.
        process = multiprocessing.process.current_process()
        vars(process)["_config"]["semprefix"] = ownership.semaphores(token)
    sys.argv[:] = argv
    # Processes of multiprocessing inherit the path, too.
    absent = str(Path(__file__).with_name("absent"))
    sys.path[:1] = [str(Path(argv[0]).parent), absent]
    runpy.run_path(argv[0], run_name="__main__")


def _tidy_up(owner: int, start: int, temporary: str) -> None:
    if processes.is_alive(owner, start):
        return  # it goes on with another pool
    # The other processes of the pool may have lost their guard.
    if token := os.environ.get(ownership.MARK):
        ownership.end_unguarded(token, os.getsid(0))
    if ownership.is_temporary(temporary):  # never remove another folder
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    main()
