"""How long a shell user waits: cold starts of the command line, beside Python itself.

``python benchmarks/cold_start.py`` prints medians in seconds; it exits 1 if a command takes longer
than its limit. Bytecode is cached, as after an installation.
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

#: Without a server, and with one.
STATUS_S, ASKED_STATUS_S = 0.35, 0.2
SUBMIT_S, ASKED_SUBMIT_S = 3.0, 0.5
STRUCTURE = Path(__file__).resolve().parents[1] / "examples" / "Al.poscar"


def main() -> int:
    """Measure, print, and tell whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=15, help="runs of each command")
    parser.add_argument("--jobs-in-store", type=int, default=0, help="finished jobs to begin with")
    parser.add_argument("--engine", default="local", help="of the jobs that are submitted")
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
        figures = {"status": (_median([*ours, "status", job], options.n), STATUS_S)}
        submit = [*ours, "submit", "emt.core.relax_job", str(STRUCTURE), "--engine", options.engine]
        try:
            figures["submit, which starts a server"] = (_median(submit, 0), SUBMIT_S)
            figures["submit to a server"] = (_median(submit, options.n), ASKED_SUBMIT_S)
            asked = _median([*ours, "status", job], options.n)
            figures["status from a server"] = (asked, ASKED_STATUS_S)
        finally:
            subprocess.run([*ours, "stop", "--cancel"], check=True, stderr=subprocess.DEVNULL)
    print(f"{'bare Python':32} {bare:.3f} s")
    print(f"{'crystalmath --help':32} {help_:.3f} s")
    for name, (took, limit) in figures.items():
        print(f"{name:32} {took:.3f} s  limit {limit} s" + "  BROKEN" * (took > limit))
    return 1 if any(took > limit for took, limit in figures.values()) else 0


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
    return statistics.median(times[1:] or times)  # the first one fills the caches


if __name__ == "__main__":
    sys.exit(main())
