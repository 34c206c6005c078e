"""Threads for what may block, apart by kind, so that one slow kind never holds up another."""

from __future__ import annotations

import asyncio
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_pool"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Threads of one kind.
_THREADS = 8


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
    call = functools.partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_pool(kind), call)


@functools.cache
def _pool(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=f"crystalmath-{kind}")


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_pool.cache_clear)
