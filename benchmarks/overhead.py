"""What the framework costs over its engine: the same jobs through bare Parsl and through us.

Run it in an environment that has both packages: ``python benchmarks/overhead.py``. It uses a
temporary home, two workers that have imported quacc before any clock starts, and prints seconds,
ratios and the limits. It exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.client import Client
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
BARE = "bare Parsl"
#: Recipe and way -> seconds, one for each round.
Times = dict[tuple[str, str], list[float]]
#: Runs a recipe so many times, and returns when all are done.
Way = Callable[[str, int], None]


def main() -> int:
    """Measure, print, and tell whether the limits hold."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        _set_environment(home)
        if options.jobs_in_store:
            from filled_store import fill

            fill(options.jobs_in_store)
        with contextlib.ExitStack() as stack:
            ways = _ways(stack, options.engine)
            times = _measure(ways, options.repeat)
    return _report(options, times)


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


def _ways(stack: contextlib.ExitStack, engine: str) -> dict[str, Way]:
    """Start what runs the jobs: bare Parsl, and this framework on the engine."""
    from crystalmath.service import JobService

    ways: dict[str, Way] = {}
    if engine == "parsl":
        ways[BARE] = _bare_parsl(stack)
    service = stack.enter_context(JobService())
    ways["through us, submit_many"] = lambda recipe, n: _many(service, recipe, n, engine)
    ways["through us, submit"] = lambda recipe, n: _each(service, recipe, n, engine)
    ways["through the server"] = _through_server(stack, engine)
    return ways


def _through_server(stack: contextlib.ExitStack, engine: str) -> Way:
    """Start a server, which runs an engine of its own."""
    from crystalmath.client import Submission, connect

    client = stack.enter_context(connect())
    stack.callback(client.call, "system.stop", {"cancel": True})

    def run(recipe: str, count: int) -> None:
        atoms = _atoms()
        requests = [Submission(recipe=recipe, atoms=atoms, engine=engine) for _ in range(count)]
        futures = client.submit_many(requests)
        _wait(client, futures)

    return run


def _bare_parsl(stack: contextlib.ExitStack) -> Way:
    import parsl

    from crystalmath_engine_parsl.executor import local_executor

    directory = Path(os.environ["CRYSTALMATH_HOME"]) / "bare"
    executor = local_executor(WORKERS, tempfile.gettempdir())
    configured = parsl.Config(
        executors=[executor],
        run_dir=str(directory / "runs"),
        initialize_logging=False,
        usage_tracking=0,
        strategy_period=0.5,
    )
    kernel = parsl.DataFlowKernel(configured)
    stack.callback(kernel.cleanup)
    app = parsl.python_app(_call, data_flow_kernel=kernel)

    def run(recipe: str, count: int) -> None:
        atoms = _atoms()
        for future in [app(recipe, atoms) for _ in range(count)]:
            future.result()

    return run


def _measure(ways: dict[str, Way], repeat: int) -> Times:
    """Take turns, so that a busy moment of the machine meets all ways alike."""
    for way in ways.values():
        _warm(way)
    times: Times = {}
    for _ in range(repeat):
        for recipe, count, _limit in CASES:
            for name, way in ways.items():
                start = time.perf_counter()
                way(recipe, count)
                times.setdefault((recipe, name), []).append(time.perf_counter() - start)
    return times


def _submissions(recipe: str, count: int, engine: str) -> list[Any]:
    from crystalmath.models import Submission

    return [Submission(recipe=recipe, atoms=_atoms(), engine=engine) for _ in range(count)]


def _many(service: JobService, recipe: str, count: int, engine: str) -> None:
    _wait(service, service.submit_many(_submissions(recipe, count, engine)))


def _each(service: JobService, recipe: str, count: int, engine: str) -> None:
    _wait(service, [service.submit(item) for item in _submissions(recipe, count, engine)])


def _wait(service: JobService | Client, jobs: list[Any]) -> None:
    for job in jobs:
        if isinstance(job, Exception):
            raise job
    last = {}
    for job in service.wait([job.job_id for job in jobs], timeout=TIMEOUT_S):
        last[job.job_id] = job
    bad = [job for job in last.values() if job.state.value != "completed"]
    if bad or len(last) != len(jobs):
        raise RuntimeError(f"{len(last)} of {len(jobs)} jobs seen; not completed: {bad[:1]}")


def _warm(way: Way) -> None:
    """Run rounds until two in a row are quick: every worker has imported quacc."""
    before = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        way(CASES[1][0], 4 * WORKERS)
        took = time.perf_counter() - start
        if before < WARM_S and took < WARM_S:
            return
        before = took


def _report(options: argparse.Namespace, times: Times) -> int:
    print(
        f"{options.engine}, {WORKERS} workers, warm, median of {options.repeat} rounds, "
        f"{options.jobs_in_store} finished jobs in the store"
    )
    broken = 0
    for recipe, count, limit in CASES:
        print(f"\n{count} x {recipe}")
        bare = times.get((recipe, BARE))
        for name in [name for case, name in times if case == recipe]:
            took = times[recipe, name]
            line = f"  {name:24} {statistics.median(took):7.2f} s"
            if bare and name != BARE:
                ratio = statistics.median(x / y for x, y in zip(took, bare, strict=True))
                broken += ratio > limit
                line += f"  ratio {ratio:5.2f}  limit {limit:g}" + "  BROKEN" * (ratio > limit)
            print(line)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
