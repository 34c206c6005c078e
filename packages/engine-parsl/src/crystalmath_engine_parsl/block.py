"""Run Parsl's worker pool on a node of a pilot job, and stay until no job runs there.

Started as ``python block.py SCRIPT [ARGUMENT ...]``. A batch system ends all that is left when the
pilot job's script has ended: jobs whose server has died, or was stopped, would go with their pool.
The pool's sockets are in a folder that is removed here: a pool that is ended removes nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

from crystalmath.worker import become_subreaper
from crystalmath_engine_parsl.ownership import temporary_folder
from crystalmath_engine_parsl.tether import tethered


def main() -> None:
    """Run the pool; then wait for supervisors, which end after their jobs."""
    become_subreaper()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = temporary_folder()
    try:
        # Not `run`, which would kill it at once when this process is asked to end.
        pool = subprocess.Popen(tethered(folder, *sys.argv[1:]))  # noqa: S603 - given by the engine
        code = pool.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    sys.exit(code)


if __name__ == "__main__":
    main()
