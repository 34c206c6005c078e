"""CrystalMath, with its engine `local` or the one of ``RACE_ENGINE``."""

import os
import sys
import time
from pathlib import Path

import work
from contestant import run, wait


def prepare(folder: str) -> str:
    """Keep the home in the folder, with two workers, and return the engine."""
    engine = os.environ.get("RACE_ENGINE", "local")
    os.environ |= {"CRYSTALMATH_HOME": f"{folder}/home", "CRYSTALMATH_RECIPES": "work"}
    home = Path(folder, "home")
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "config.toml").write_text(f"[engines.{engine}]\nworkers = 2\n", encoding="ascii")
    return engine


def compute(task: str, count: int, folder: str) -> None:
    """Submit all jobs, and wait for their results; the same again finds the same jobs."""
    engine = prepare(folder)
    from crystalmath.client import connect

    with connect() as client:
        if task == "slabs":
            flow = "quacc.recipes.emt.slabs.bulk_to_slabs_flow"
            wait(
                client.submit(flow, work.crystal(number), engine=engine, key=f"slabs/{number}")
                for number in range(count)
            )
            return
        structures = [work.structure(number) for number in range(count)]
        client.map(f"work.{task}", structures, {"folder": folder}, engine=engine, key=task)


def cancel(folder: str, running: work.Running) -> None:
    """Cancel the job."""
    engine = prepare(folder)
    from crystalmath.client import connect

    with connect() as client:
        job = client.submit("work.hold", work.structure(0), {"folder": folder}, engine=engine)
        with running:
            job.cancel()


def record(count: int, folder: str) -> list[list[str]]:
    """Compute one job, and write the rows of the others, as `benchmarks/listing.py` does.

    It leaves retries pending, with no job behind them; a server would refuse each. Here they end.
    """
    prepare(folder)
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    import listing

    from crystalmath.client import connect
    from crystalmath.jobs.changes import Change
    from crystalmath.quacc.runner import JobState
    from crystalmath.quacc.store import JobStore

    with JobStore(f"sqlite:///{folder}/home/jobs.sqlite") as store:
        listing.fill(store, count - 1)
        retries = store.list(limit=count, state="pending")
        end = {"state": JobState.COMPLETED, "summary": {"energy_ev": -1.0, "natoms": 4}}
        store.apply([Change(job_id=job.job_id, at=time.time(), **end) for job in retries])
    with connect() as client:
        job = client.submit("work.noop", work.structure(0), {"folder": folder})
        job.result()
    command = str(Path(sys.executable).with_name("crystalmath"))
    return [[command, "list"], [command, "status", job.job_id]]


if __name__ == "__main__":
    run(compute, cancel, record)
