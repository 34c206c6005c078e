"""Run Parsl's worker pool on a node of a pilot job, and stay until no job runs there.

Started as ``python block.py SCRIPT [ARGUMENT ...]``. A batch system kills all processes of a pilot
job once its script has ended. Without this program, jobs whose server has stopped would end with
their pool. A pool that is killed does not remove the folder of its sockets, so it is removed here.
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
        # `subprocess.run` would kill the pool as soon as this process gets a signal to end.
        pool = subprocess.Popen(tethered(folder, *sys.argv[1:]))  # noqa: S603 - the engine's command
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
