"""Compare relaxations by batches with torch-sim's own loop over the same batches.

Run it where torch-sim is installed: ``python benchmarks/batches.py``. It relaxes Lennard-Jones
clusters of 8 to 64 atoms: by a loop in one process, which calls torch-sim for one batch after
another; as jobs of one worker, in batches; some of them as jobs that go alone; and as jobs with
ten bad structures among them, each of which makes its call fail. It prints seconds by the clock
and of CPU in all processes, their ratios and the limits, and how much work was repeated. It exits
1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usage import cpu_s

from crystalmath.batch import batched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

BENCHMARKS = Path(__file__).resolve().parent
#: The structures of a call, here and in the loop.
MOST = 256
#: The largest ratio of the jobs' time to the loop's, by the clock.
LIMIT = 1.25
#: How much faster jobs in batches are than jobs alone, at least.
FASTER = 5.0
#: The number of bad structures, and the largest share of the work that they cause to be repeated.
BAD, REPEATED = 10, 0.02
#: The largest difference of an energy from the loop's, in eV.
EXACT = 1e-9
TIMEOUT_S = 36_000.0


def relax(atoms: Atoms) -> dict[str, Any]:
    """Relax one structure; it is the recipe."""
    return relax_many([atoms])[0]


@batched(relax, most=MOST)
def relax_many(structures: list[Atoms]) -> list[dict[str, Any]]:
    """Relax structures together; the loop calls it, too."""
    began = time.perf_counter()
    try:
        results = _relaxed(structures)
    except Exception:
        _note(len(structures), began, failed=True)
        raise
    _note(len(structures), began, failed=False)
    return results


def _relaxed(structures: list[Atoms]) -> list[dict[str, Any]]:
    import torch_sim

    state = torch_sim.optimize(
        system=structures,
        model=_model(),
        optimizer=torch_sim.Optimizer.fire,
        convergence_fn=torch_sim.generate_force_convergence_fn(
            force_tol=0.005, include_cell_forces=False
        ),
        max_steps=300,
    )
    forces = state.forces.split([len(atoms) for atoms in structures])
    return [
        {"atoms": atoms, "results": {"energy": energy, "forces": force.numpy()}}
        for atoms, energy, force in zip(
            state.to_atoms(), state.energy.tolist(), forces, strict=True
        )
    ]


def _note(count: int, began: float, *, failed: bool) -> None:
    if notes := os.environ.get("NOTES"):
        with Path(notes).open("a", encoding="ascii") as file:
            file.write(json.dumps([count, time.perf_counter() - began, failed]) + "\n")


@functools.cache
def _model() -> Any:
    import torch
    from torch_sim.models.lennard_jones import LennardJonesModel
    from torch_sim.neighbors import torch_nl_n2

    torch.set_num_threads(1)
    return LennardJonesModel(
        sigma=3.405,
        epsilon=0.0104,
        cutoff=8.0,
        dtype=torch.float64,
        device=torch.device("cpu"),
        neighbor_list_fn=torch_nl_n2,
    )


def _clusters(count: int) -> list[Atoms]:
    from ase.build import bulk

    repeats = [(2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 2, 2)]
    clusters = [
        bulk("Ar", "fcc", a=5.26, cubic=True).repeat(repeats[number % len(repeats)])
        for number in range(count)
    ]
    for seed, cluster in enumerate(clusters):
        cluster.rattle(0.2, seed=seed)
        cluster.pbc = False
        cluster.center(vacuum=4.0)
    return clusters


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    options = _options()
    if importlib.util.find_spec("torch_sim") is None:
        print("skipped: torch-sim is not installed (pip install torch-sim-atomistic)")
        return 0
    if options.loop:
        clusters = _clusters(options.jobs)
        began = time.perf_counter()
        energies = []
        for start in range(0, len(clusters), MOST):
            results = relax_many(clusters[start : start + MOST])
            energies += [result["results"]["energy"] for result in results]
        print(json.dumps([time.perf_counter() - began, time.process_time(), energies]))
        return 0
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    path = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "CRYSTALMATH_RECIPES": "batches",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "OMP_NUM_THREADS": "1",
    }
    print(f"{options.jobs} relaxations of 8 to 64 atoms, one worker of {options.engine}")
    clusters = _clusters(options.jobs)
    loop_s, loop_cpu, energies = _loop(options.jobs)
    print(f"loop: {loop_s:.1f} s, CPU {loop_cpu:.1f} s", flush=True)
    broken = []

    jobs = _jobs(clusters, options.engine)
    wrong = sum(
        energy is None or abs(energy - bare) > EXACT
        for energy, bare in zip(jobs.energies, energies, strict=True)
    )
    ratio = jobs.wall / loop_s
    broken.append(ratio > LIMIT or wrong > 0)
    text = f"ratio {ratio:.2f} (CPU {jobs.cpu / loop_cpu:.2f}), {wrong} wrong"
    print(f"batches: {jobs.wall:.1f} s, CPU {jobs.cpu:.1f} s; {text}" + _mark(broken), flush=True)

    alone = _jobs(clusters[: options.alone], options.engine, parcel=1)
    faster = (alone.wall / options.alone) / (jobs.wall / options.jobs)
    broken.append(faster < FASTER)
    text = f"{alone.wall / options.alone * 1e3:.0f} ms each, {faster:.1f} times the time in batches"
    print(f"alone: {options.alone} in {alone.wall:.1f} s; {text}" + _mark(broken), flush=True)

    for number in range(BAD):
        bad_one = clusters[number * options.jobs // BAD + number]
        bad_one.set_cell([0.0, 0.0, 0.0])
        bad_one.pbc = True
    bad = _jobs(clusters, options.engine)
    failed = sum(energy is None for energy in bad.energies)
    repeated = sum(seconds for _, seconds, is_failed in bad.notes if is_failed)
    share = repeated / sum(seconds for _, seconds, _ in bad.notes)
    broken.append(failed != BAD or share > REPEATED)
    text = f"{failed} of {options.jobs} failed, {share:.2%} of the work repeated"
    print(f"{BAD} bad: {bad.wall:.1f} s; {text}" + _mark(broken), flush=True)
    print(f"limits {LIMIT:g}, {FASTER:g} and {REPEATED:.0%}")
    return 1 if any(broken) else 0


def _mark(broken: list[bool]) -> str:
    return "  BROKEN" * broken[-1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="local", help="local or parsl")
    parser.add_argument("--jobs", type=int, default=10_000, help="how many structures")
    parser.add_argument("--alone", type=int, default=100, help="how many of them alone")
    parser.add_argument("--loop", action="store_true", help="the plain loop alone")
    return parser.parse_args()


def _loop(count: int) -> tuple[float, float, list[float]]:
    """Return the time of a loop in seconds of the clock and of CPU, and its energies in eV."""
    command = [sys.executable, __file__, "--loop", f"--jobs={count}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, energies = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu, energies


class _Measured:
    """The time of jobs in seconds, their energies in eV, and the notes of their calls."""

    def __init__(
        self, wall: float, cpu: float, energies: Sequence[float | None], notes: list[Any]
    ) -> None:
        self.wall, self.cpu, self.energies, self.notes = wall, cpu, energies, notes


def _jobs(clusters: Sequence[Atoms], engine: str, parcel: int | None = None) -> _Measured:
    """Relax clusters as jobs of a worker that has imported torch-sim."""
    from crystalmath.client import Submission, connect

    with (
        tempfile.TemporaryDirectory(
            prefix="crystalmath-bench-", ignore_cleanup_errors=True
        ) as home,
        contextlib.ExitStack() as stack,
    ):
        notes = Path(home, "notes")
        os.environ |= {"CRYSTALMATH_HOME": home, "NOTES": str(notes)}
        Path(home, "config.toml").write_text(f"[engines.{engine}]\nworkers = 1\n")
        client = stack.enter_context(connect())
        stack.callback(client.call, "system.stop", {"cancel": True})
        client.submit("batches.relax", _clusters(1)[0], engine=engine).result(TIMEOUT_S)
        notes.unlink()
        submissions = [
            Submission(recipe="batches.relax", atoms=atoms, engine=engine, parcel=parcel)
            for atoms in clusters
        ]
        used, start = cpu_s(home), time.perf_counter()
        energies: dict[str, float | None] = {}
        for future in client.submit_many(submissions):
            if isinstance(future, Exception):
                raise future
            energies[future.job_id] = None
        for job in client.wait(list(energies), TIMEOUT_S):
            energies[job.job_id] = (job.summary or {}).get("energy_ev")
        wall, cpu = time.perf_counter() - start, cpu_s(home) - used
        lines = notes.read_text(encoding="ascii").splitlines()
        return _Measured(wall, cpu, [*energies.values()], list(map(json.loads, lines)))


if __name__ == "__main__":
    sys.exit(main())
