"""Compare the same jobs through bare Parsl and through us.

Run it in an environment that has both packages: ``python benchmarks/overhead.py``. It uses a
temporary home, a server in a process of its own, and two workers that have imported quacc before
any clock starts. It prints seconds, ratios and limits:

- for jobs and their results by the client: all in one call, in a request each, and in a request
  each by several clients at once;
- for the CPU time, directory entries and disk space of a small job;
- for submissions over the socket: one after the other, and a thousand in one request.

The worst of several rounds counts. It exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usage import files, pids

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.client import Client, Submission

BENCHMARKS = Path(__file__).resolve().parent
WORKERS = 2
TIMEOUT_S = 600.0
#: If a round of eight jobs takes longer, a worker still had to import quacc, in seconds.
WARM_S = 0.5
NOOP, EMT = "noop_recipes.noop", "quacc.recipes.emt.core.static_job"
CLIENTS = 8
MANY = "client, submit_many"
SINGLY = "the same, parcel=1"
EACH = "client, one request each"
PIPELINED = f"the same by {CLIENTS} clients"
#: Recipe, number of jobs, and the largest allowed ratio to bare Parsl for each way.
CASES = [
    (NOOP, 1000, {MANY: 1.0, SINGLY: 2.2, EACH: 2.5, PIPELINED: 1.5}),
    (EMT, 200, {MANY: 1.05, SINGLY: 1.2, EACH: 1.05, PIPELINED: 1.05}),
]
LARGE_CASES = [(NOOP, 10_000, {MANY: 0.6}), (EMT, 2000, {MANY: 1.0})]
#: Limits of a no-op: CPU time of all our processes, directory entries, disk space.
CPU_MS, ENTRIES, DISK_KB = 2.0, 0.2, 2.0
#: The number of submissions one after the other, and the limits of one, and of a job with its
#: result. Then the number in one request, and its limit.
ALONE, ALONE_MS, RESULT_MS = 100, 2.0, 30.0
TOGETHER, TOGETHER_S = 1000, 0.3
BARE = "bare Parsl"
#: Recipe, number of jobs and way -> seconds, one for each round.
Times = dict[tuple[str, int, str], list[float]]
#: Runs a recipe so many times, and returns when all are done.
Way = Callable[[str, int], None]


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        _set_environment(home)
        if options.jobs_in_store:
            from filled_store import fill

            fill(options.jobs_in_store)
        with contextlib.ExitStack() as stack:
            client = _client(stack)
            ways = _ways(stack, client, options.engine)
            times = _measure(ways, options)
            costs = _costs(ways[MANY], Path(home))
            alone, together = _socket(client, options)
            result = _to_result(client, options.engine)
    broken = _report(options, times)
    for what, value, unit, limit in costs:
        broken += _tell(f"{what} of a no-op", value, unit, limit)
    broken += _tell("a submission over the socket", 1000 * alone, "ms", ALONE_MS)
    broken += _tell("a no-op from its submission to its result", 1000 * result, "ms", RESULT_MS)
    broken += _tell(f"{TOGETHER} submissions in one request", together, "s", TOGETHER_S)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="parsl", help="parsl (with the bare run) or local")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; the worst counts")
    parser.add_argument("--large", action="store_true", help="10,000 and 2,000 jobs, too")
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


def _client(stack: contextlib.ExitStack) -> Client:
    """Start a server, which runs an engine of its own."""
    from crystalmath.client import connect

    client = stack.enter_context(connect())
    stack.callback(client.call, "system.stop", {"cancel": True})
    return client


def _ways(stack: contextlib.ExitStack, client: Client, engine: str) -> dict[str, Way]:
    """Start bare Parsl, and this framework on the engine."""
    from crystalmath.client import connect

    ways: dict[str, Way] = {}
    if engine == "parsl":
        ways[BARE] = _bare_parsl(stack)
    ways[MANY] = lambda recipe, n: _many(client, _submissions(recipe, n, engine))
    ways[SINGLY] = lambda recipe, n: _many(client, _submissions(recipe, n, engine, parcel=1))
    ways[EACH] = lambda recipe, n: _each(client, _submissions(recipe, n, engine))
    others = [stack.enter_context(connect()) for _ in range(CLIENTS)]

    def pipelined(recipe: str, count: int) -> None:
        part = _submissions(recipe, count // CLIENTS, engine)
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(lambda client: _each(client, part), others))

    ways[PIPELINED] = pipelined
    return ways


def _bare_parsl(stack: contextlib.ExitStack) -> Way:
    import parsl

    from crystalmath_engine_parsl.executor import local_executor
    from crystalmath_engine_parsl.ownership import temporary_folder

    directory = Path(os.environ["CRYSTALMATH_HOME"]) / "bare"
    temporary = temporary_folder()
    stack.callback(shutil.rmtree, temporary, ignore_errors=True)
    executor = local_executor(WORKERS, temporary)
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


def _measure(ways: dict[str, Way], options: argparse.Namespace) -> Times:
    """Run the ways in turn, so that a busy moment of the machine delays all of them."""
    for way in ways.values():
        _warm(way)
    times: Times = {}
    for _ in range(options.repeat):
        for recipe, count, limits in _cases(options):
            for name in [name for name in ways if name == BARE or name in limits]:
                start = time.perf_counter()
                ways[name](recipe, count)
                took = time.perf_counter() - start
                times.setdefault((recipe, count, name), []).append(took)
    return times


def _cases(options: argparse.Namespace) -> list[tuple[str, int, dict[str, float]]]:
    return CASES + (LARGE_CASES if options.large else [])


def _costs(way: Way, home: Path) -> list[tuple[str, float, str, float]]:
    """Return the costs of one no-op among many, each with its unit and limit."""
    recipe, count, _ = CASES[0]
    before = files(home)
    # A look through the files of all jobs takes seconds, which are no cost of a job.
    used = _cpu(home)
    way(recipe, count)
    cpu = _cpu(home) - used
    entries, disk = (after - was for was, after in zip(before, files(home), strict=True))
    return [
        ("CPU", 1000 * cpu / count, "ms", CPU_MS),
        ("directory entries", entries / count, "", ENTRIES),
        ("disk", disk / 1000 / count, "kB", DISK_KB),
    ]


def _cpu(home: Path) -> float:
    """Return the CPU time of this and the home's processes, without dead children, in seconds."""
    ticks = 0
    for pid in (os.getpid(), *pids(home)):
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _submissions(
    recipe: str, count: int, engine: str, *, parcel: int | None = None
) -> list[Submission]:
    from crystalmath.client import Submission

    same = {"recipe": recipe, "atoms": _atoms(), "engine": engine, "parcel": parcel}
    return [Submission(**same) for _ in range(count)]


def _many(client: Client, submissions: list[Submission]) -> None:
    for future in client.submit_many(submissions):
        if isinstance(future, Exception):
            raise future
        future.result(TIMEOUT_S)


def _each(client: Client, submissions: list[Submission]) -> None:
    futures = [client.submit(one.recipe, one.atoms, engine=one.engine) for one in submissions]
    for future in futures:
        future.result(TIMEOUT_S)


def _socket(client: Client, options: argparse.Namespace) -> tuple[float, float]:
    """Return the median time of a submission, and that of many in one request, in seconds."""
    structure = {"symbols": "Cu", "cell": [3.0, 3.0, 3.0], "pbc": True}
    job = {"recipe": CASES[0][0], "structure": structure, "engine": options.engine}
    alone = []
    for _ in range(ALONE):
        answer, took = _timed(client, "jobs.submit", job)
        alone.append(took)
        list(client.wait([answer["job_id"]], TIMEOUT_S))  # so that no job runs beside it
    together = []
    for _ in range(options.repeat):
        answer, took = _timed(client, "jobs.submit_many", {"jobs": [job] * TOGETHER})
        together.append(took)
        list(client.wait([each["job_id"] for each in answer["jobs"]], TIMEOUT_S))
    return statistics.median(alone), statistics.median(together)


def _to_result(client: Client, engine: str) -> float:
    """Return the median time from a submission to its result, one after the other, in seconds."""
    times = []
    for submission in _submissions(CASES[0][0], ALONE, engine):
        start = time.perf_counter()
        client.submit(submission.recipe, submission.atoms, engine=engine).result(TIMEOUT_S)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _timed(client: Client, method: str, params: dict[str, Any]) -> tuple[dict[str, Any], float]:
    start = time.perf_counter()
    answer = client.call(method, params)
    return answer, time.perf_counter() - start


def _warm(way: Way) -> None:
    """Run rounds until two in a row are quick: every worker has imported quacc."""
    before = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        way(EMT, CLIENTS)
        took = time.perf_counter() - start
        if before < WARM_S and took < WARM_S:
            return
        before = took


def _report(options: argparse.Namespace, times: Times) -> int:
    """Print the measurements; return how many limits are broken."""
    print(
        f"{options.engine}, {WORKERS} workers, warm, worst of {options.repeat} rounds, "
        f"{options.jobs_in_store} finished jobs in the store"
    )
    broken = 0
    for recipe, count, limits in _cases(options):
        print(f"\n{count} x {recipe}")
        bare = times.get((recipe, count, BARE))
        for name in [name for *case, name in times if case == [recipe, count]]:
            took = times[recipe, count, name]
            line = f"  {name:24} {max(took):7.2f} s"
            if bare and name != BARE:
                limit = limits[name]
                ratio = max(x / y for x, y in zip(took, bare, strict=True))
                broken += ratio > limit
                line += f"  ratio {ratio:5.2f}  limit {limit:g}" + "  BROKEN" * (ratio > limit)
            print(line)
    return broken


def _tell(what: str, value: float, unit: str, limit: float) -> bool:
    broken = value > limit
    print(f"\n{what}: {value:.2f} {unit}  limit {limit:g}" + "  BROKEN" * broken)
    return broken


if __name__ == "__main__":
    sys.exit(main())
