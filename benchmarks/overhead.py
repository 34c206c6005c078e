"""What the framework costs over its engine: the same jobs through bare Parsl and through us.

Run it in an environment that has both packages: ``python benchmarks/overhead.py``. It uses a
temporary home, two workers that have imported quacc before any clock starts, and prints seconds,
ratios and the limits. It exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

    from crystalmath.service import JobService

BENCHMARKS = Path(__file__).resolve().parent
WORKERS = 2
TIMEOUT_S = 600.0
#: A round of eight jobs that takes longer met a worker that still had to import quacc, in seconds.
WARM_S = 0.5
#: What is run: recipe, number of jobs, largest allowed ratio to bare Parsl.
CASES = [
    ("noop_recipes.noop", 1000, 4.0),
    ("quacc.recipes.emt.core.static_job", 200, 1.5),
]
Timed = dict[str, list[float]]


def main() -> int:
    """Measure, print, and tell whether the limits hold."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        _set_environment(home)
        bare = _bare_parsl(options.repeat) if options.engine == "parsl" else {}
        ours = _framework(options)
    return _report(options, bare, ours)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="parsl", help="parsl (with the bare run) or local")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--jobs-in-store", type=int, default=0, help="finished jobs to begin with")
    return parser.parse_args()


def _set_environment(home: str) -> None:
    # Workers and warm runners inherit it; users have bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    path = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "CRYSTALMATH_HOME": home,
        "CRYSTALMATH_RECIPES": "noop_recipes",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "QUACC_WORKFLOW_ENGINE": "None",
        "OMP_NUM_THREADS": "1",
        # Both sides write quacc's files below the temporary home.
        "QUACC_RESULTS_DIR": f"{home}/quacc",
    }
    Path(home, "quacc").mkdir()
    Path(home, "config.toml").write_text(
        f"[engines.parsl]\nworkers = {WORKERS}\n[engines.local]\nworkers = {WORKERS}\n",
        encoding="utf-8",
    )
    sys.path.insert(0, str(BENCHMARKS))


def _atoms() -> Atoms:
    from ase.build import bulk

    return bulk("Cu")


def _call(recipe: str, atoms: Atoms) -> object:
    """Run one recipe; this is the whole of the bare app."""
    from importlib import import_module

    module, _, name = recipe.rpartition(".")
    return getattr(import_module(module), name)(atoms)


def _bare_parsl(repeat: int) -> Timed:
    import parsl

    from crystalmath_engine_parsl.config import local_config

    times: Timed = {}
    home = Path(os.environ["CRYSTALMATH_HOME"])
    kernel = parsl.DataFlowKernel(local_config(home / "bare", WORKERS))
    try:
        app = parsl.python_app(_call, data_flow_kernel=kernel)
        _warm(
            lambda: [future.result() for future in [app(CASES[1][0], _atoms()) for _ in range(8)]]
        )
        for _ in range(repeat):
            for recipe, count, _limit in CASES:
                atoms = _atoms()
                start = time.perf_counter()
                for future in [app(recipe, atoms) for _ in range(count)]:
                    future.result()
                times.setdefault(recipe, []).append(time.perf_counter() - start)
    finally:
        kernel.cleanup()
    return times


def _framework(options: argparse.Namespace) -> dict[str, Timed]:
    from crystalmath.service import JobService

    times: dict[str, Timed] = {"submit_many": {}, "submit": {}}
    if options.jobs_in_store:
        from filled_store import fill

        fill(options.jobs_in_store)
    with JobService() as service:
        _warm(lambda: _many(service, CASES[1][0], 8, options.engine))
        for _ in range(options.repeat):
            for recipe, count, _limit in CASES:
                for way, run in (("submit_many", _many), ("submit", _each)):
                    start = time.perf_counter()
                    run(service, recipe, count, options.engine)
                    times[way].setdefault(recipe, []).append(time.perf_counter() - start)
    return times


def _submissions(recipe: str, count: int, engine: str) -> list[Any]:
    from crystalmath.service import Submission

    return [Submission(recipe=recipe, atoms=_atoms(), engine=engine) for _ in range(count)]


def _many(service: JobService, recipe: str, count: int, engine: str) -> None:
    _wait(service, service.submit_many(_submissions(recipe, count, engine)))


def _each(service: JobService, recipe: str, count: int, engine: str) -> None:
    _wait(service, [service.submit(item) for item in _submissions(recipe, count, engine)])


def _wait(service: JobService, jobs: list[Any]) -> None:
    for job in jobs:
        if isinstance(job, Exception):
            raise job
    last = {}
    for job in service.wait([job.job_id for job in jobs], timeout=TIMEOUT_S):
        last[job.job_id] = job
    bad = [job for job in last.values() if job.state.value != "completed"]
    if bad or len(last) != len(jobs):
        raise RuntimeError(f"{len(last)} of {len(jobs)} jobs seen; not completed: {bad[:1]}")


def _warm(round_of_jobs: Callable[[], object]) -> None:
    """Run rounds until two in a row take the same time: every worker has imported quacc."""
    before = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        round_of_jobs()
        took = time.perf_counter() - start
        if before < WARM_S and took < WARM_S:
            return
        before = took


def _report(options: argparse.Namespace, bare: Timed, ours: dict[str, Timed]) -> int:
    print(f"{options.engine}, {WORKERS} workers, warm, median of {options.repeat}", end="")
    print(f", {options.jobs_in_store} finished jobs in the store" * bool(options.jobs_in_store))
    broken = 0
    for recipe, count, limit in CASES:
        print(f"\n{count} x {recipe}")
        base = statistics.median(bare[recipe]) if bare else None
        if base is not None:
            print(f"  {'bare Parsl':24} {base:7.2f} s")
        for way, times in ours.items():
            took = statistics.median(times[recipe])
            line = f"  {'through us, ' + way:24} {took:7.2f} s"
            if base is not None:
                ratio = took / base
                broken += ratio > limit
                line += f"  ratio {ratio:5.2f}  limit {limit:g}" + "  BROKEN" * (ratio > limit)
            print(line)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
