"""Measure how long a cancel takes, and check that all processes have ended by then.

Run it in an environment that has core: ``python benchmarks/cancelling.py --engine local``. It
cancels jobs that wait, are being claimed, run or are about to finish; their processes ignore
signals or hide. It prints the median and the 95th percentile of the time from the request to the
state ``cancelled``. It exits 1 if a process of a cancelled job is alive then, or a job is stuck.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import os
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from crystalmath.client import Client

BENCHMARKS = Path(__file__).resolve().parent
#: The moments of a cancel.
MOMENTS = ("pending", "claiming", "running", "finishing")
#: The number of jobs that run, and are cancelled, side by side.
WORKERS = 2
#: After this time, in seconds, a job is stuck.
STUCK_S = 60.0
#: The run time of jobs that are cancelled while they finish, in seconds.
SHORT_S = 0.5


@frozen
class Cancel:
    """One cancel and its outcome.

    Parameters
    ----------
    moment, tree : str
        The moment of the cancel, and the kind of the job's processes.
    state : str
        The job's last state.
    seconds : float
        The time from the request to that state.
    alive : bool
        Whether a process of the job was alive then.
    """

    moment: str
    tree: str
    state: str
    seconds: float
    alive: bool


def main() -> int:
    """Cancel and print; return whether a job is stuck, or a process was alive."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as home:
        _set_environment(home, options)
        from crystalmath.client import connect

        with connect() as client:
            try:
                cancels = _all(client, options, Path(home))
            finally:
                client.call("system.stop", {"cancel": True})
    return _report(cancels)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grace", type=float, default=1.0, help="[cancel] grace_s, in seconds")
    return parser.parse_args()


def _set_environment(home: str, options: argparse.Namespace) -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.path.insert(0, str(BENCHMARKS))
    path = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "CRYSTALMATH_HOME": home,
        "CRYSTALMATH_RECIPES": "tree_recipes",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    Path(home, "config.toml").write_text(
        f"[engines.parsl]\nworkers = {WORKERS}\n[engines.local]\nworkers = {WORKERS}\n"
        f"[cancel]\ngrace_s = {options.grace}\n",
        encoding="utf-8",
    )


def _all(client: Client, options: argparse.Namespace, home: Path) -> list[Cancel]:
    from tree_recipes import TREES

    chance = random.Random(options.seed)
    kinds = [(moment, tree) for moment in MOMENTS for tree in TREES]
    order = [kinds[number % len(kinds)] for number in range(options.count)]
    chance.shuffle(order)
    delays = [chance.random() for _ in order]
    with ThreadPoolExecutor(2 * WORKERS) as threads:
        return list(
            threads.map(
                lambda number: _one(
                    client, options.engine, home / str(number), order[number], delays[number]
                ),
                range(options.count),
            )
        )


def _one(client: Client, engine: str, folder: Path, kind: tuple[str, str], delay: float) -> Cancel:
    from ase.build import bulk

    moment, tree = kind
    folder.mkdir()
    lock, begun = folder / "lock", folder / "begun"
    lock.touch()
    parameters = {
        "tree": tree,
        "lock": str(lock),
        "begun": str(begun),
        "seconds": SHORT_S if moment == "finishing" else 600.0,
    }
    job = client.submit("tree_recipes.grow", bulk("Cu"), parameters, engine=engine)
    if moment == "claiming":
        time.sleep(0.3 * delay)
    elif moment in {"running", "finishing"}:
        deadline = time.monotonic() + STUCK_S
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(SHORT_S * (0.5 + 0.6 * delay) if moment == "finishing" else 0)
    asked_at = time.monotonic()
    job.cancel()
    while not (state := job.info().state).is_terminal():
        if time.monotonic() > asked_at + STUCK_S:
            break
        time.sleep(0.005)
    seconds = time.monotonic() - asked_at
    return Cancel(moment, tree, state.value.lower(), seconds, alive=_is_held(lock))


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _report(cancels: list[Cancel]) -> int:
    rows = collections.defaultdict(list)
    for each in cancels:
        if each.state == "cancelled":
            for kind in (each.moment, each.tree, "all"):
                rows[kind].append(each.seconds)
    print(f"{'from the request until it is told, in s':52} {'number':>6} {'p50':>6} {'p95':>6}")
    for kind, seconds in rows.items():
        late = statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
        print(f"{kind:52} {len(seconds):6} {statistics.median(seconds):6.2f} {late:6.2f}")
    ends = collections.Counter(each.state for each in cancels)
    alive = [each for each in cancels if each.alive]
    print(f"{len(cancels)} cancels: {dict(ends)}; alive when it was told: {len(alive)}")
    for each in alive:
        print(f"  {each}")
    return 1 if alive or ends["pending"] or ends["running"] else 0


if __name__ == "__main__":
    sys.exit(main())
