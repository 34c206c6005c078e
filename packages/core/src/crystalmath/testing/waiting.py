"""Waiting for something to happen, with a limit; and how long something takes by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from crystalmath.processes import starved_s

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def within(condition: Callable[[], _T], timeout: float) -> _T:
    """Wait until a condition holds, at most `timeout` seconds; return the last of its values.

    It is tested every 20 ms.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Looked at before: however long this process has no core, it asks once more at the end.
        is_late = time.monotonic() > deadline
        if (value := condition()) or is_late:
            return value
        time.sleep(0.02)


def eventually(condition: Callable[[], _T], timeout: float, message: str | Callable[[], str]) -> _T:
    """Wait as :func:`within` does; the failure has the `message`: what did not happen."""
    if value := within(condition, timeout):
        return value
    text = message if isinstance(message, str) else message()
    raise AssertionError(f"{text} (waited {timeout:g} s)")


_LOOKS = 1000


def own_time() -> float:
    """Return this thread's clock, in seconds: it stands while the thread could run and has no core.

    It goes while the thread computes, and while it waits for somebody else. From Linux 6.12 on
    (measured on 6.18, one sleep of 500 on a busy machine) the kernel may count a whole sleep as
    waiting for a core: who is late in one sleep may pass for quick, never the other way round.
    """
    waited_s = starved_s("thread-self")
    for _ in range(_LOOKS):
        now = time.perf_counter()
        before, waited_s = waited_s, starved_s("thread-self")
        if before == waited_s:
            break  # else it had none between the two
    return now - waited_s
