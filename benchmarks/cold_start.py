"""How long a shell user waits: cold starts of the command line, beside Python itself.

``python benchmarks/cold_start.py`` prints medians in seconds; it exits 1 if ``crystalmath status``
takes longer than its limit. Bytecode is cached, as after an installation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 0.35
STRUCTURE = Path(__file__).resolve().parents[1] / "examples" / "Al.poscar"


def main() -> int:
    """Measure, print, and tell whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=15, help="runs of each command")
    parser.add_argument("--jobs-in-store", type=int, default=0, help="finished jobs to begin with")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        os.environ["CRYSTALMATH_HOME"] = home
        job = _one_job()
        if options.jobs_in_store:
            from filled_store import fill

            fill(options.jobs_in_store)
        ours = [sys.executable, "-m", "crystalmath"]
        bare = _median([sys.executable, "-c", "pass"], options.n)
        help_ = _median([*ours, "--help"], options.n)
        status = _median([*ours, "status", job], options.n)
    print(f"bare Python          {bare:.3f} s")
    print(f"crystalmath --help   {help_:.3f} s")
    print(f"crystalmath status   {status:.3f} s  limit {LIMIT_S} s")
    return 1 if status > LIMIT_S else 0


def _one_job() -> str:
    command = ["run", "emt.core.static_job", str(STRUCTURE), "--engine", "local", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "crystalmath", *command], check=True, capture_output=True, text=True
    )
    return str(json.loads(done.stdout)["job_id"])


def _median(command: list[str], runs: int) -> float:
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one fills the caches


if __name__ == "__main__":
    sys.exit(main())
