"""Threads for what may block, apart by kind, so that one slow kind never holds up another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: How many threads a kind has. More that compute would only hinder each other and the event loop.
_THREADS = {"decoding": 1, "computing": 2, "files": 4, "packing": 1}
_USUAL = 8

#: How long a slice of work lasts before others have their turn, in seconds.
_SLICE_S = 0.02


class Share:
    """The share of one connection in the threads: half of those of each kind."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Semaphore] = {}

    def turn(self, kind: str) -> asyncio.Semaphore:
        """Return the semaphore that limits its calls of a kind."""
        if kind not in self._turns:
            self._turns[kind] = asyncio.Semaphore(max(1, _THREADS.get(kind, _USUAL) // 2))
        return self._turns[kind]


#: The share of the present connection. Calls in a process without a server use all threads.
share: contextvars.ContextVar[Share | None] = contextvars.ContextVar("share", default=None)

#: Set once nobody waits any more for the call of the present thread.
_given_up: contextvars.ContextVar[threading.Event] = contextvars.ContextVar("given_up")


async def in_pool(kind: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a thread of its kind; long work belongs in :func:`in_slices`."""
    given_up = threading.Event()
    context = contextvars.copy_context()
    context.run(_given_up.set, given_up)
    call = functools.partial(context.run, function, *args, **kwargs)
    own = share.get()
    async with contextlib.nullcontext() if own is None else own.turn(kind):
        try:
            return await asyncio.wrap_future(_pool(kind).submit(call))
        except asyncio.CancelledError:
            given_up.set()
            raise


def afterwards(kind: str, function: Callable[[], object]) -> None:
    """Call a function in a thread of its kind without waiting for it."""
    _pool(kind).submit(function)


async def in_slices(kind: str, work: Generator[None, None, _T], rest_s: float = 0.0) -> _T:
    """Run long work in threads, slice by slice; others may come between at each of its yields.

    Work that nobody waits for rests after each slice, for `rest_s` seconds.
    """
    while True:
        ended, result = await in_pool(kind, _slice, work)
        if ended:
            return cast("_T", result)
        if rest_s:
            await asyncio.sleep(rest_s)


def _slice(work: Generator[None, None, _T]) -> tuple[bool, _T | None]:
    end = time.monotonic() + _SLICE_S
    while time.monotonic() < end:
        try:
            next(work)
        except StopIteration as stop:
            return True, stop.value
    return False, None


def is_wanted() -> bool:
    """Return whether somebody still waits for the call of the present thread.

    A thread cannot be stopped. So work with effects asks before it has them: a cancelled request
    must have none.
    """
    given_up = _given_up.get(None)
    return given_up is None or not given_up.is_set()


@functools.cache
def _pool(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS.get(kind, _USUAL), thread_name_prefix=f"crystalmath-{kind}")


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_pool.cache_clear)
