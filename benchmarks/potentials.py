"""Compare CHGNet through the framework with CHGNet in a plain loop.

Run it where CHGNet is installed: ``python benchmarks/potentials.py``. Each round computes cells of
four atoms of copper twice: in a process that imports CHGNet, loads it and loops over the cells; and
as jobs of one worker, whose server runs already and has not loaded CHGNet. It prints seconds by the
clock and of CPU in all processes, their ratios and the limit, and how often CHGNet was loaded. The
worst round counts. It exits 1 if a ratio or the number of loads is above its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usage import cpu_s

if TYPE_CHECKING:
    from ase import Atoms

BENCHMARKS = Path(__file__).resolve().parent
#: The largest ratio of the jobs' time to the loop's, by the clock and by CPU.
LIMIT = 1.15
TIMEOUT_S = 600.0


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    options = _options()
    if importlib.util.find_spec("chgnet") is None:
        print("skipped: CHGNet is not installed (pip install chgnet)")
        return 0
    if options.loop:
        for atoms in _cells(options.jobs):
            static(atoms)
        return 0
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    path = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "CRYSTALMATH_RECIPES": "noop_recipes,potentials",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "OMP_NUM_THREADS": "1",
    }
    _loop(1)  # files that both read are in memory from now on
    print(f"{options.jobs} statics of Cu4 by CHGNet, one worker of {options.engine}")
    broken = 0
    for _ in range(options.repeat):
        loop, jobs, loads = _loop(options.jobs), *_jobs(options.jobs, options.engine)
        line = []
        for unit, bare, ours in zip(("wall", "CPU"), loop, jobs, strict=True):
            ratio = ours / bare
            broken += ratio > LIMIT
            text = f"{unit}: loop {bare:6.2f} s, jobs {ours:6.2f} s, ratio {ratio:4.2f}"
            line.append(text + "  BROKEN" * (ratio > LIMIT))
        broken += loads != 1
        print(*line, f"loads: {loads}" + "  BROKEN" * (loads != 1), sep="; ", flush=True)
    print(f"limit {LIMIT:g}, one load")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="local", help="local or parsl")
    parser.add_argument("--jobs", type=int, default=60, help="how many cells")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the worst counts")
    parser.add_argument("--loop", action="store_true", help="the plain loop alone")
    return parser.parse_args()


@functools.cache
def _calculator() -> Any:
    from chgnet.model.dynamics import CHGNetCalculator

    if loads := os.environ.get("LOADS"):
        with Path(loads).open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    return CHGNetCalculator(use_device="cpu")


def static(atoms: Atoms) -> dict[str, float]:
    """Compute the energy, in eV; it is the recipe, and the function that the loop calls."""
    atoms.calc = _calculator()
    return {"energy": float(atoms.get_potential_energy())}


def _cells(count: int) -> list[Atoms]:
    from ase.build import bulk

    cells = [bulk("Cu", cubic=True) for _ in range(count)]
    for seed, cell in enumerate(cells):
        cell.rattle(0.02, seed=seed)
    return cells


def _loop(count: int) -> tuple[float, float]:
    """Return the time of a loop in a process of its own, in seconds of the clock and of CPU."""
    command = [sys.executable, __file__, "--loop", f"--jobs={count}"]
    start = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "LOADS"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        # Its own usage: a server of the round before may be reaped meanwhile, too.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - start
    if code:
        raise subprocess.CalledProcessError(code, command)
    return took, used.ru_utime + used.ru_stime


def _jobs(count: int, engine: str) -> tuple[tuple[float, float], int]:
    """Return the time of jobs, as `_loop` does, and how often CHGNet was loaded for them."""
    from crystalmath.client import Submission, connect

    with (
        tempfile.TemporaryDirectory(
            prefix="crystalmath-bench-", ignore_cleanup_errors=True
        ) as home,
        contextlib.ExitStack() as stack,
    ):
        loads = Path(home, "loads")
        os.environ |= {"CRYSTALMATH_HOME": home, "LOADS": str(loads)}
        Path(home, "config.toml").write_text(f"[engines.{engine}]\nworkers = 1\n")
        client = stack.enter_context(connect())
        stack.callback(client.call, "system.stop", {"cancel": True})
        cells = _cells(count)
        client.submit("noop_recipes.noop", cells[0], engine=engine).result(TIMEOUT_S)
        submissions = [
            Submission(recipe="potentials.static", atoms=cell, engine=engine) for cell in cells
        ]
        used, start = cpu_s(home), time.perf_counter()
        for future in client.submit_many(submissions):
            if isinstance(future, Exception):
                raise future
            future.result(TIMEOUT_S)
        took = time.perf_counter() - start, cpu_s(home) - used
        return took, len(loads.read_text(encoding="ascii").split())


if __name__ == "__main__":
    sys.exit(main())
