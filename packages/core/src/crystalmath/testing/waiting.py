"""Wait for a condition, with a limit, and measure time without pauses of the machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from crystalmath.processes import starved_s

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def within(condition: Callable[[], _T], timeout: float) -> _T:
    """Wait until a condition holds, at most `timeout` seconds; return its last value.

    It is tested every 20 ms.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Read first, so that the condition is tested once more if this process had no core.
        is_late = time.monotonic() > deadline
        if (value := condition()) or is_late:
            return value
        time.sleep(0.02)


def eventually(condition: Callable[[], _T], timeout: float, message: str | Callable[[], str]) -> _T:
    """Wait as :func:`within` does; raise an `AssertionError` with `message` if it is late."""
    if value := within(condition, timeout):
        return value
    text = message if isinstance(message, str) else message()
    raise AssertionError(f"{text} (waited {timeout:g} s)")


_LOOKS = 1000


def own_time() -> float:
    """Return a clock of this thread, in seconds, which stands while the thread waits for a core.

    It runs while the thread computes or sleeps. From Linux 6.12 on the kernel may count a whole
    sleep as waiting for a core (on 6.18, one sleep of 500 on a busy machine). So a late call may
    seem quick, but never the other way round.
    """
    waited_s = starved_s("thread-self")
    for _ in range(_LOOKS):
        now = time.perf_counter()
        before, waited_s = waited_s, starved_s("thread-self")
        if before == waited_s:
            break  # otherwise it waited for a core between the two readings
    return now - waited_s
