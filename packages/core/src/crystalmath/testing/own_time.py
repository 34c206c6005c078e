"""How long something takes by itself, on a machine that is busy with something else."""

from __future__ import annotations

import time

from crystalmath.processes import starved_s

_TRIES = 1000


def own_time() -> float:
    """Give this thread's clock, in seconds: it stands while the thread could run and has no core.

    It goes while the thread computes, and while it waits for somebody else.
    """
    waited_s = starved_s("thread-self")
    for _ in range(_TRIES):
        now = time.perf_counter()
        before, waited_s = waited_s, starved_s("thread-self")
        if before == waited_s:
            break  # else it had none between the two
    return now - waited_s
