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
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Call: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"

#: Threads of a kind, and how many of them one connection may keep busy. Where they compute, more
#: threads would only hinder each other and the event loop.
_THREADS: Mapping[str, tuple[int, int]] = {"computing": (2, 1), "files": (4, 2)}
_USUAL = (8, 4)

#: How long a connection goes on before others have their turn, in seconds.
_SLICE_S = 0.02


class Asker:
    """Somebody who takes turns with others: a connection."""


#: Who asks where there is no server; he has all threads.
NOBODY = Asker()

#: For whom something is done.
asker: contextvars.ContextVar[Asker] = contextvars.ContextVar("asker", default=NOBODY)

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
        ``computing``, or ``files`` for what may hang with a file system.
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
    """Return whether somebody still waits for what the present thread is doing.

    A thread cannot be stopped: whoever cancelled a request, or has left, does not want it
    to have effects afterwards.
    """
    given_up = _given_up.get(None)
    return given_up is None or not given_up.is_set()


class _Pool:
    """Threads for the calls of several askers; whoever has used them least has the next turn."""

    def __init__(self, name: str, threads: int, each: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"crystalmath-{name}")
        self._each = each
        self._lock = threading.Lock()
        self._waiting: dict[Asker, deque[_Call]] = {}
        self._busy: Counter[Asker] = Counter()
        #: For how many seconds somebody has used them; who comes begins where the others are.
        self._used: WeakKeyDictionary[Asker, float] = WeakKeyDictionary()
        self._now = 0.0

    def submit(self, asker: Asker, function: Callable[[], _T]) -> Future[_T]:
        future: Future[_T] = Future()
        with self._lock:
            if asker not in self._waiting:
                self._waiting[asker] = deque()
                self._used[asker] = max(self._now, self._used.get(asker, 0.0))
            self._waiting[asker].append((future, function))
        self._threads.submit(self._work)
        return future

    def _work(self) -> None:
        # There is one of these for each call. It ends where only such wait who have their share:
        # who is busy for them looks again afterwards.
        while (found := self._next()) is not None:
            asker, call = found
            began = time.monotonic()
            _run(*call)
            del call, found  # what it gave may be large
            with self._lock:
                self._used[asker] += time.monotonic() - began
                self._busy[asker] -= 1
                if not self._busy[asker]:
                    del self._busy[asker]

    def _next(self) -> tuple[Asker, _Call] | None:
        with self._lock:
            may = [one for one in self._waiting if self._may(one)]
            if not may:
                return None
            asker = min(may, key=self._used.__getitem__)
            self._now = max(self._now, self._used[asker])
            call = self._waiting[asker].popleft()
            if not self._waiting[asker]:
                del self._waiting[asker]
            self._busy[asker] += 1
            return asker, call

    def _may(self, asker: Asker) -> bool:
        return asker is NOBODY or self._busy[asker] < self._each


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
    return _Pool(kind, *_THREADS.get(kind, _USUAL))


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_pool.cache_clear)
