"""Waiting for something to happen, with a limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def eventually(condition: Callable[[], _T], timeout: float, message: str | Callable[[], str]) -> _T:
    """Wait until a condition holds, and give what it gave.

    Parameters
    ----------
    condition : callable
        Asked every 20 ms.
    timeout : float
        In seconds.
    message : str or callable
        What did not happen, for the failure; a callable is asked at the end.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Looked at before: however long this process has no core, it asks once more at the end.
        is_late = time.monotonic() > deadline
        if value := condition():
            return value
        if is_late:
            told = message if isinstance(message, str) else message()
            raise AssertionError(f"{told} (waited {timeout:g} s)")
        time.sleep(0.02)
