"""quacc alone: a loop in one process."""

import work
from contestant import run


def compute(task: str, count: int, folder: str) -> None:
    """Compute everything here."""
    if task == "slabs":
        from quacc.recipes.emt.slabs import bulk_to_slabs_flow

        for number in range(count):
            bulk_to_slabs_flow(work.crystal(number))
        return
    for number in range(count):
        getattr(work, task)(work.structure(number), folder)


if __name__ == "__main__":
    run(compute)
