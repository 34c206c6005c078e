"""Run many short relaxations without a hand, and kill the server at intervals.

Run it where core and the engine are installed: ``python benchmarks/long_run.py --jobs 100000``. The
jobs relax Cu2 by quacc's recipe for EMT, each from another geometry. A client submits them with
keys, a thousand in a request, and follows their futures. The server gets SIGKILL every so many
seconds, and the client's next request starts another one. For each tenth of the jobs the benchmark
prints the rate, the time of `jobs.status`, and the memory of the server, of all other processes of
the home and of the client. At the end it prints entries and bytes in the home, kills, failures, and
how many jobs were lost, doubled or begun again. It exits 1 if a job failed, was lost or doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from usage import cpu_s, files, memory_mb, pids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from crystalmath.client import Client, JobFuture

RECIPE = "emt.core.relax_job"
WORKERS = 2
#: The jobs of one request, and the requests whose jobs may wait while more are submitted.
TOGETHER, AHEAD = 1000, 10
#: The pauses between polls, and between counts of ended jobs, in seconds.
POLL_S, COUNT_S = 0.1, 5.0
#: How long futures may end after their jobs, in seconds.
FOLLOW_S = 60.0
LABELS = {"project": "long"}


def main() -> int:
    """Run the jobs, print, and return whether one of them failed, was lost or was doubled."""
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with contextlib.ExitStack() as stack:
        home = options.home or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="crystalmath-bench-", ignore_cleanup_errors=True)
        )
        home = str(Path(home).absolute())
        Path(home).mkdir(parents=True, exist_ok=True)
        os.environ |= {"CRYSTALMATH_HOME": home, "OMP_NUM_THREADS": "1"}
        text = f"[engines.{options.engine}]\nworkers = {WORKERS}\n"
        Path(home, "config.toml").write_text(text, encoding="ascii")
        from crystalmath.client import connect

        client = stack.enter_context(connect())
        stack.callback(client.call, "system.stop", {"cancel": True})
        run = _Run(client, home, options)
        run.until_ended()
        return run.report()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="how many relaxations")
    parser.add_argument("--engine", default="parsl", help="parsl or local")
    parser.add_argument(
        "--kill-every",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds between kills; 0: none",
    )
    parser.add_argument("--home", help="the home to use and keep; default: a temporary one")
    return parser.parse_args()


def _dimers(numbers: range) -> Iterator[Atoms]:
    """Yield Cu2 at 2.1 to 2.3 Å, rattled; four to six steps relax each of them."""
    from ase import Atoms

    for number in numbers:
        dimer = Atoms("Cu2", [[0.0, 0.0, 0.0], [0.0, 0.0, 2.1 + 0.2 * (number % 1000) / 1000]])
        dimer.rattle(0.02, seed=number)
        yield dimer


class _Run:
    """The jobs of a run, its kills, and what was measured so far."""

    def __init__(self, client: Client, home: str, options: argparse.Namespace) -> None:
        self.client, self.home, self.options = client, home, options
        self.futures: list[JobFuture] = []
        self.done = self.kills = 0
        self.down: list[float] = []
        self.polls: list[float] = []
        self.began = self.counted = self.killed = self.tenth_began = time.monotonic()
        self.tenth_done = 0
        self.used = cpu_s(home)

    def until_ended(self) -> None:
        """Submit, poll, count and kill until all jobs have ended."""
        print(f"{self.options.jobs} relaxations of Cu2 by {self.options.engine}, {WORKERS} workers")
        while self.done < self.options.jobs:
            room = self.done + AHEAD * TOGETHER - len(self.futures)
            if room > 0 and len(self.futures) < self.options.jobs:
                self._submit()
            self._poll()
            now = time.monotonic()
            if 0 < self.options.kill_every < now - self.killed:
                self._kill()
            if now - self.counted > COUNT_S:
                self._count(now)
            time.sleep(POLL_S)

    def _submit(self) -> None:
        from crystalmath.client import Submission

        first = len(self.futures)
        numbers = range(first, min(first + TOGETHER, self.options.jobs))
        for future in self.client.submit_many(
            [
                Submission(
                    recipe=RECIPE,
                    atoms=atoms,
                    engine=self.options.engine,
                    key=f"long/{number}",
                    labels=LABELS,
                )
                for number, atoms in zip(numbers, _dimers(numbers), strict=True)
            ]
        ):
            if isinstance(future, Exception):
                raise future
            self.futures.append(future)

    def _poll(self) -> None:
        job_id = random.choice(self.futures).job_id
        began = time.perf_counter()
        self.client.call("jobs.status", {"job_id": job_id})
        self.polls.append(time.perf_counter() - began)

    def _kill(self) -> None:
        """Kill the server, and note how long the next request takes, which starts another one."""
        os.kill(self._server(), signal.SIGKILL)
        began = time.monotonic()
        self.client.status()
        self.killed = time.monotonic()
        self.kills += 1
        self.down.append(self.killed - began)
        print(f"  kill {self.kills}: an answer after {self.down[-1]:.1f} s", flush=True)

    def _server(self) -> int:
        return int(self.client.call("system.version")["pid"])

    def _count(self, now: float) -> None:
        """Count the ended jobs, and print a line for each tenth of them."""
        totals = self.client.totals(labels=LABELS)
        self.counted = now
        self.done = sum(totals.get(state, 0) for state in ("completed", "failed", "cancelled"))
        if self.done < self.options.jobs and (self.done - self.tenth_done) * 10 < self.options.jobs:
            return
        server = self._server()
        others = [memory_mb(pid) for pid in pids(self.home) if pid != server]
        cuts = statistics.quantiles(self.polls, n=100)
        print(
            f"{self.done:7} in {now - self.began:6.0f} s",
            f"{(self.done - self.tenth_done) / (now - self.tenth_began):6.1f} a second",
            f"status p50 {1e3 * cuts[49]:.1f}, p99 {1e3 * cuts[98]:.1f} ms",
            f"server {memory_mb(server):.0f} MB",
            f"{len(others)} others {sum(others):.0f} MB, at most {max(others, default=0):.0f}",
            f"client {memory_mb(os.getpid()):.0f} MB",
            sep="; ",
            flush=True,
        )
        self.tenth_done, self.tenth_began, self.polls = self.done, now, []

    def report(self) -> int:
        """Compare jobs, futures and files; print the totals, and return 1 if a limit is broken."""
        took, used = time.monotonic() - self.began, cpu_s(self.home) - self.used
        wanted = {future.job_id for future in self.futures}
        attempts: dict[str, int] = {}
        states: dict[str, int] = {}
        for job in self.client.list(labels=LABELS):
            attempts[job.job_id] = job.attempt
            states[job.state.value] = states.get(job.state.value, 0) + 1
        lost = self.options.jobs - states.get("completed", 0) - states.get("failed", 0)
        # The client learns of the last ends a moment after the server has recorded them.
        end = time.monotonic() + FOLLOW_S
        while (waiting := sum(not future.done() for future in self.futures)) and (
            time.monotonic() < end
        ):
            time.sleep(1.0)
        doubled = len(attempts) - len(wanted) + self._computed_again()
        again = sum(attempt > 1 for attempt in attempts.values())
        entries, size = files(self.home)
        print(
            f"{self.options.jobs} jobs in {took:.0f} s, {self.options.jobs / took:.1f} a second, "
            f"CPU {1e3 * used / self.options.jobs:.1f} ms a job (without processes killed)"
        )
        down = max(self.down, default=0.0)
        print(f"states: {states}; {self.kills} kills, down for at most {down:.1f} s")
        print(f"lost {lost}, doubled {doubled}, begun again {again}, futures waiting {waiting}")
        print(
            f"home: {entries} entries, {size / 1e6:.0f} MB; {entries / self.options.jobs:.2f} "
            f"entries and {size / 1e3 / self.options.jobs:.2f} kB a job"
        )
        return int(bool(lost or doubled or waiting or states.get("failed")))

    def _computed_again(self) -> int:
        """Count the relaxations that ended beyond the first of their job."""
        # quacc compresses the trajectory once a relaxation has ended.
        runs = Path(self.home, "jobs").glob("*/*.work/quacc-*/opt.traj.gz")
        ended = Counter(path.parts[-4] for path in runs)
        return sum(ended.values()) - len(ended)


if __name__ == "__main__":
    sys.exit(main())
