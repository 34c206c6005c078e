"""How long something takes by itself, on a machine that is busy with something else."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

__all__ = ["own_time"]

_TRIES = 1000


def own_time() -> float:
    """Give this thread's clock, in seconds: it stands while the thread could run and has no core.

    It goes while the thread computes, and while it waits for somebody else.
    """
    without_a_core_s = _without_a_core_s()
    for _ in range(_TRIES):
        now = time.perf_counter()
        before, without_a_core_s = without_a_core_s, _without_a_core_s()
        if before == without_a_core_s:
            break  # else it had none between the two
    return now - without_a_core_s


def _without_a_core_s() -> float:
    # Where the kernel does not count it, it is 0.
    with contextlib.suppress(OSError, ValueError, IndexError):
        counted = Path("/proc/thread-self/schedstat").read_text(encoding="ascii")
        return int(counted.split()[1]) / 1e9
    return 0.0
