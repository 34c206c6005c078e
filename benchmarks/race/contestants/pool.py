"""quacc alone: a process pool of Python's library, with two processes."""

from concurrent.futures import ProcessPoolExecutor

import work
from contestant import run, wait


def slabs(number: int) -> None:
    """Run one flow in a process, as there is nothing that spreads its steps."""
    from quacc.recipes.emt.slabs import bulk_to_slabs_flow

    bulk_to_slabs_flow(work.crystal(number))


def compute(task: str, count: int, folder: str) -> None:
    """Compute everything by two processes."""
    with ProcessPoolExecutor(2) as pool:
        if task == "slabs":
            wait(pool.submit(slabs, number) for number in range(count))
            return
        function = getattr(work, task)
        wait([pool.submit(function, work.structure(number), folder) for number in range(count)])


def cancel(folder: str, running: work.Running) -> None:
    """Cancel the future, which Python does not do once it runs."""
    with ProcessPoolExecutor(2) as pool:
        future = pool.submit(work.hold, work.structure(0), folder)
        with running:
            future.cancel()


if __name__ == "__main__":
    run(compute, cancel)
