"""executorlib: its SingleNodeExecutor with two workers that stay."""

import work
from contestant import run, wait
from executorlib import SingleNodeExecutor


def compute(task: str, count: int, folder: str) -> None:
    """Submit all functions, and wait for them."""
    with SingleNodeExecutor(max_workers=2, block_allocation=True) as executor:
        function = getattr(work, task)
        wait([executor.submit(function, work.structure(number), folder) for number in range(count)])


def cancel(folder: str, running: work.Running) -> None:
    """Cancel the future."""
    with SingleNodeExecutor(max_workers=2, block_allocation=True) as executor:
        future = executor.submit(work.hold, work.structure(0), folder)
        with running:
            future.cancel()


if __name__ == "__main__":
    run(compute, cancel)
