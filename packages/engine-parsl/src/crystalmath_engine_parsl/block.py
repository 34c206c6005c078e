"""Run Parsl's worker pool on a node of a pilot job, and stay until no job runs there.

Started as ``python block.py COMMAND [ARGUMENT ...]``. A batch system ends all that is left when the
pilot job's script has ended: jobs whose server has died, or was stopped, would go with their pool.
"""

from __future__ import annotations

import os
import subprocess
import sys

from crystalmath.worker import become_subreaper

__all__ = ["main"]


def main() -> None:
    """Run the pool; then wait for supervisors, which end after their jobs."""
    become_subreaper()
    code = subprocess.run(sys.argv[1:], check=False).returncode  # noqa: S603 - given by the engine
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    sys.exit(code)


if __name__ == "__main__":
    main()
