"""Compare the same jobs as bare dispatches of Covalent and through us.

Run it in an environment that has both packages: ``python benchmarks/overhead_covalent.py``. It
uses a temporary home with a Covalent server of its own, two workers that have imported quacc
before any clock starts, and prints seconds, the ratio and its limit. It exits 1 if the limit is
broken.
"""

from __future__ import annotations

import argparse
import contextlib
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

WORKERS = 2
JOBS = 20
LIMIT = 1.1
RECIPE = "quacc.recipes.emt.core.relax_job"
TIMEOUT_S = 600.0
#: How often the bare dispatches are asked for, in seconds.
POLL_S = 0.1


def main() -> int:
    """Measure, print, and return whether the limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median ratio counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        _set_environment(home)
        with contextlib.ExitStack() as stack:
            bare, ours = _ways(stack)
            # Each worker imports quacc, once for each way.
            for way in (bare, ours):
                way(4 * WORKERS)
            rounds = [
                (_seconds(bare, options), _seconds(ours, options)) for _ in range(options.repeat)
            ]
    ratio = statistics.median(mine / theirs for theirs, mine in rounds)
    print(f"{options.jobs} x {RECIPE}, {WORKERS} workers, warm, {options.repeat} rounds")
    for name, took in zip(
        ("bare dispatches", "through us"), zip(*rounds, strict=True), strict=True
    ):
        print(f"  {name:18} {statistics.median(took):7.2f} s  ({min(took):.2f} to {max(took):.2f})")
    print(f"  ratio {ratio:.2f}  limit {LIMIT:g}" + "  BROKEN" * (ratio > LIMIT))
    return 1 if ratio > LIMIT else 0


def _set_environment(home: str) -> None:
    # Workers and warm runners inherit it; users have bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ |= {
        "CRYSTALMATH_HOME": home,
        "QUACC_WORKFLOW_ENGINE": "None",
        "OMP_NUM_THREADS": "1",
        # Both sides write quacc's files below the temporary home.
        "QUACC_RESULTS_DIR": f"{home}/quacc",
        # Covalent's client finds the server that is started here, and leaves the user's alone.
        "COVALENT_CONFIG_DIR": f"{home}/engines/covalent/server",
    }
    Path(home, "quacc").mkdir()
    Path(home, "config.toml").write_text(
        f"[engines.covalent]\nautostart = true\nworkers = {WORKERS}\n", encoding="utf-8"
    )


def _seconds(way: Callable[[int], None], options: argparse.Namespace) -> float:
    start = time.perf_counter()
    way(options.jobs)
    return time.perf_counter() - start


def _atoms() -> Atoms:
    from ase.build import bulk

    return bulk("Cu")


def _call(recipe: str, atoms: Atoms) -> object:
    """Run one recipe; this is the whole of the bare electron."""
    from importlib import import_module

    module, _, name = recipe.rpartition(".")
    return getattr(import_module(module), name)(atoms)


def _ways(stack: contextlib.ExitStack) -> tuple[Callable[[int], None], Callable[[int], None]]:
    from crystalmath.service import JobService
    from crystalmath_engine_covalent.private import PrivateServer

    server = PrivateServer(Path(os.environ["COVALENT_CONFIG_DIR"]), WORKERS)
    server.enter()
    stack.callback(server.leave)
    service = stack.enter_context(JobService())
    return _bare, lambda count: _through_us(service, count)


def _bare(count: int) -> None:
    import covalent
    import requests

    electron = covalent.electron(_call, executor="dask")
    lattice = covalent.lattice(electron, executor="dask", workflow_executor="dask")
    atoms = _atoms()
    dispatches = [covalent.dispatch(lattice)(RECIPE, atoms) for _ in range(count)]
    # One request for all of them: get_result would cost a tenth of a second each.
    url = f"http://localhost:{covalent.get_config('dispatcher.port')}/api/v2/dispatches"
    wanted: dict[str, Any] = {"dispatch_id": dispatches, "count": count}
    deadline = time.monotonic() + TIMEOUT_S
    statuses: list[str] = []
    while statuses != ["COMPLETED"] * count:
        if "FAILED" in statuses or time.monotonic() > deadline:
            raise RuntimeError(f"the bare dispatches read {statuses}")
        time.sleep(POLL_S)
        answer = requests.get(url, params=wanted, timeout=10).json()
        statuses = [each["status"] for each in answer["dispatches"]]


def _through_us(service: JobService, count: int) -> None:
    from crystalmath.models import Submission

    items = [Submission(recipe=RECIPE, atoms=_atoms(), engine="covalent") for _ in range(count)]
    jobs: list[Any] = service.submit_many(items)
    for job in jobs:
        if isinstance(job, Exception):
            raise job
    last = {}
    for job in service.wait([job.job_id for job in jobs], timeout=TIMEOUT_S):
        last[job.job_id] = job
    bad = [job for job in last.values() if job.state.value != "completed"]
    if bad or len(last) != len(jobs):
        raise RuntimeError(f"{len(last)} of {len(jobs)} jobs seen; not completed: {bad[:1]}")


if __name__ == "__main__":
    sys.exit(main())
