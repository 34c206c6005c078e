"""Threads for what may block, apart by kind, so that one slow kind never holds up another."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["asker", "in_pool", "in_slices", "is_wanted"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Call: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"

#: Threads of one kind, and how many of them one connection may keep busy.
_THREADS = 8
_EACH = 4

#: How long a connection goes on before others have their turn, in seconds.
_SLICE_S = 0.02

#: The connection for which something is done; `None` where there is no server.
asker: contextvars.ContextVar[object] = contextvars.ContextVar("asker", default=None)

#: Set once nobody waits any more for what the present thread is doing.
_given_up: contextvars.ContextVar[threading.Event] = contextvars.ContextVar("given_up")


async def in_pool(kind: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a thread of its kind, and wait for what it gives.

    Connections take turns; what may take long is for :func:`in_slices`.

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
        return await asyncio.wrap_future(_pool(kind).submit(asker.get(), call))
    except asyncio.CancelledError:
        given_up.set()
        raise


async def in_slices(kind: str, work: Generator[None, None, _T]) -> _T:
    """Carry out in threads what may take long, so that others have a turn at each of its yields.

    Parameters
    ----------
    kind : str
        As for :func:`in_pool`.
    work : generator
        Returns the result; yields where others may come between.
    """
    while True:
        ended, result = await in_pool(kind, _slice, work)
        if ended:
            return cast("_T", result)


def _slice(work: Generator[None, None, _T]) -> tuple[bool, _T | None]:
    end = time.monotonic() + _SLICE_S
    while time.monotonic() < end:
        try:
            next(work)
        except StopIteration as stop:
            return True, stop.value
    return False, None


def is_wanted() -> bool:
    """Tell whether somebody still waits for what the present thread is doing.

    A thread cannot be stopped: whoever cancelled a request, or has left, does not want it
    to have effects afterwards.
    """
    given_up = _given_up.get(None)
    return given_up is None or not given_up.is_set()


class _Pool:
    """Threads in which the calls of several askers take turns."""

    def __init__(self, kind: str) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"crystalmath-{kind}")
        self._lock = threading.Lock()
        # Who has called longest ago is first.
        self._waiting: dict[object, deque[_Call]] = {}
        self._busy: Counter[object] = Counter()

    def submit(self, asker: object, function: Callable[[], _T]) -> Future[_T]:
        future: Future[_T] = Future()
        with self._lock:
            self._waiting.setdefault(asker, deque()).append((future, function))
        self._threads.submit(self._work)
        return future

    def _work(self) -> None:
        # There is one of these for each call. It ends where only such wait whose turn it is not:
        # who is busy for them looks again afterwards.
        asker: object = self  # nobody
        while True:
            with self._lock:
                self._busy[asker] -= 1
                self._busy = +self._busy
                found = self._next()
                if found is None:
                    return
                asker, call = found
                self._busy[asker] += 1
            _run(*call)
            del call, found  # what it gave may be large

    def _next(self) -> tuple[object, _Call] | None:
        for asker, calls in self._waiting.items():
            if asker is None or self._busy[asker] < _EACH:
                call = calls.popleft()
                del self._waiting[asker]
                if calls:  # the others first
                    self._waiting[asker] = calls
                return asker, call
        return None


def _run(future: Future[_T], function: Callable[[], _T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
        future.set_exception(error)
    else:
        future.set_result(result)


@functools.cache
def _pool(kind: str) -> _Pool:
    return _Pool(kind)


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_pool.cache_clear)
