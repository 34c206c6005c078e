"""Threads for what may block, apart by kind, so that one slow kind never holds up another."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_pool", "is_wanted"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Threads of one kind.
_THREADS = 8

#: Set once nobody waits any more for what the present thread is doing.
_given_up: contextvars.ContextVar[threading.Event] = contextvars.ContextVar("given_up")


async def in_pool(kind: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a thread of its kind, and wait for what it gives.

    Parameters
    ----------
    kind : str
        ``asking``, ``submitting`` and so on; each has a few threads of its own.
    function : callable
        What may block.
    *args, **kwargs
        Its arguments.
    """
    given_up = threading.Event()
    context = contextvars.copy_context()
    context.run(_given_up.set, given_up)
    call = functools.partial(context.run, function, *args, **kwargs)
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool(kind), call)
    except asyncio.CancelledError:
        given_up.set()
        raise


def is_wanted() -> bool:
    """Tell whether somebody still waits for what the present thread is doing.

    A thread cannot be stopped: whoever cancelled a request, or has left, does not want it
    to have effects afterwards.
    """
    given_up = _given_up.get(None)
    return given_up is None or not given_up.is_set()


@functools.cache
def _pool(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=f"crystalmath-{kind}")


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_pool.cache_clear)
