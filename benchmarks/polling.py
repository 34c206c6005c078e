"""Measure the slowest poll of a job's status while 100 jobs are under way.

``python benchmarks/polling.py [ENGINE ...]``; a temporary home; the limit is 50 ms.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from ase.build import bulk

from crystalmath.quacc import get_runner
from crystalmath.quacc.engines import close_all

#: The slowest status that is allowed, in seconds.
LIMIT_S = 0.05


def main() -> int:
    """Measure, print, and return whether the limit is broken."""
    broken = False
    for engine in sys.argv[1:] or ["local", "parsl"]:
        with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
            os.environ["CRYSTALMATH_HOME"] = home
            slowest = _slowest_poll(engine)
            close_all()
        print(f"{engine}: slowest status {1000 * slowest:.2f} ms, limit {1000 * LIMIT_S:g} ms")
        broken |= slowest > LIMIT_S
    return int(broken)


def _slowest_poll(engine: str) -> float:
    runner = get_runner(engine)
    recipe = "quacc.recipes.emt.core.static_job"
    ids = [runner.submit(recipe, bulk("Cu")) for _ in range(100)]
    slowest = 0.0
    while not all(runner.get_status(job_id).is_terminal() for job_id in ids):
        began = time.perf_counter()
        runner.get_status(ids[50])
        slowest = max(slowest, time.perf_counter() - began)
        time.sleep(0.005)
    return slowest


if __name__ == "__main__":
    sys.exit(main())
