"""Compare cold starts of the command line with the import of Typer alone.

``python benchmarks/cold_start.py`` prints the processor time of each command as a multiple of that
of ``python -c "import typer"``, the medians of each round, the worst of five rounds. It exits 1 if
a command has a larger one than its limit. Bytecode is cached, as after an installation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from crystalmath.client import connect

#: Limits, in multiples of that import: the help, then commands without a server and with one.
HELP, ALONE, ASKED = 1.3, 2.5, 1.5
ROUNDS = 5
#: The script that an installation makes.
OURS = [str(Path(sys.executable).with_name("crystalmath"))]
STRUCTURE = Path(__file__).resolve().parents[1] / "examples" / "Al.poscar"


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="runs of each command in a round")
    parser.add_argument("--jobs-in-store", type=int, default=0, help="finished jobs to begin with")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        os.environ["CRYSTALMATH_HOME"] = home
        job = _one_job()
        if options.jobs_in_store:
            from filled_store import fill

            fill(options.jobs_in_store)
        reading = {"list": ["list"], "status": ["status", job]}
        figures = _worst({"--help": ["--help"], **reading}, options.n)
        with connect(start=True):
            ratios = _worst(reading, options.n)
        subprocess.run([*OURS, "stop", "--cancel"], check=True, stderr=subprocess.DEVNULL)
    limits = {"--help": HELP, "list": ALONE, "status": ALONE}
    figures |= {f"{name} from a server": ratio for name, ratio in ratios.items()}
    broken = False
    for name, ratio in figures.items():
        limit = limits.get(name, ASKED)
        broken |= ratio > limit
        print(f"{name:24} {ratio:.2f} times  limit {limit}" + "  BROKEN" * (ratio > limit))
    return int(broken)


def _one_job() -> str:
    command = ["run", "emt.core.static_job", str(STRUCTURE), "--engine", "local", "--json"]
    done = subprocess.run([*OURS, *command], check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["job_id"])


def _worst(commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    """Compare commands with the import of Typer, in turn; return the worst of the rounds."""
    rounds = [_ratios(commands, runs) for _ in range(ROUNDS)]
    return {name: max(ratios[name] for ratios in rounds) for name in commands}


def _ratios(commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    all_ = {"typer": [sys.executable, "-c", "import typer"]}
    all_ |= {name: [*OURS, *arguments] for name, arguments in commands.items()}
    times: dict[str, list[float]] = {name: [] for name in all_}
    for _ in range(runs):
        for name, command in all_.items():
            times[name].append(_processor_s(command))
    bare = statistics.median(times.pop("typer"))
    return {name: statistics.median(each) / bare for name, each in times.items()}


def _processor_s(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
