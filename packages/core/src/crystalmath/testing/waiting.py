"""Waiting for something to happen, with a limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["eventually"]

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
    while not (value := condition()):
        if time.monotonic() > deadline:
            told = message if isinstance(message, str) else message()
            raise AssertionError(f"{told} (waited {timeout:g} s)")
        time.sleep(0.02)
    return value
