"""Threads for what may block: connections take turns in them."""

import asyncio
import collections
import itertools
import threading
import time

import pytest

from conftest import eventually_in_loop
from crystalmath.server.pools import _USUAL, Share, in_pool, in_slices, is_wanted, share

pytestmark = pytest.mark.server

_THREADS, _EACH = _USUAL, _USUAL // 2
SHARES = collections.defaultdict(Share, {None: None})
KINDS = map("test {}".format, itertools.count())


@pytest.fixture
def kind():
    return next(KINDS)


def known_as(who):
    """Be somebody from now on, in this task."""
    share.set(SHARES[who])


async def ask(who, kind, function, *args):
    """Call a function for somebody."""
    known_as(who)
    return await in_pool(kind, function, *args)


async def test_one_connection_leaves_threads_to_the_others(kind):
    go, begun = threading.Event(), []

    def wait():
        begun.append(None)
        go.wait(60)

    greedy = [asyncio.create_task(ask("greedy", kind, wait)) for _ in range(64)]
    await eventually_in_loop(lambda: len(begun) == _EACH)
    assert await ask("other", kind, str, 7) == "7"
    assert len(begun) == _EACH
    go.set()
    await asyncio.gather(*greedy)
    assert len(begun) == 64


async def test_connections_take_turns(kind):
    go, more, begun = threading.Event(), threading.Event(), []
    filling = [
        asyncio.create_task(ask(who, kind, go.wait, 60)) for who in "xy" for _ in range(_EACH)
    ]
    assert len(filling) == _THREADS
    await asyncio.sleep(0.05)

    def note(who):
        begun.append(who)
        more.wait(60)

    waiting = [asyncio.create_task(ask("a", kind, note, "a")) for _ in range(30)]
    await asyncio.sleep(0)
    waiting += [asyncio.create_task(ask(who, kind, note, who)) for who in "bc"]
    await asyncio.sleep(0.05)
    assert begun == []
    go.set()
    # Both came long after all of a's.
    await eventually_in_loop(lambda: sorted(begun) == [*"a" * _EACH, "b", "c"])
    more.set()
    await asyncio.gather(*filling, *waiting)


async def test_a_service_of_this_process_has_all_threads(kind):
    barrier = threading.Barrier(_THREADS)
    await asyncio.gather(*(ask(None, kind, barrier.wait, 60) for _ in range(_THREADS)))


async def test_what_was_given_up_before_its_turn_is_not_done(kind):
    go, done = threading.Event(), []
    filling = [
        asyncio.create_task(ask(who, kind, go.wait, 60)) for who in "xy" for _ in range(_EACH)
    ]
    await asyncio.sleep(0.05)
    gone = asyncio.create_task(ask("a", kind, done.append, 1))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.wait([gone])
    go.set()
    await asyncio.gather(*filling)
    assert await ask("a", kind, str, 7) == "7"
    assert done == []


async def test_who_gives_up_is_known_to_the_thread(kind):
    begun, told = threading.Event(), []

    def work():
        begun.set()
        end = time.monotonic() + 60
        while is_wanted() and time.monotonic() < end:
            time.sleep(0.001)
        told.append(is_wanted())

    task = asyncio.create_task(ask("a", kind, work))
    await eventually_in_loop(begun.is_set)
    task.cancel()
    await eventually_in_loop(lambda: told == [False])


async def test_an_error_of_a_call_is_raised_and_the_threads_go_on(kind):
    def fail():
        raise KeyError("x")

    for _ in range(2 * _THREADS):
        with pytest.raises(KeyError):
            await ask("a", kind, fail)
    assert await ask("a", kind, str, 7) == "7"


async def test_what_takes_long_lets_others_come_between(kind):
    go = threading.Event()

    def long():
        while not go.is_set():
            time.sleep(0.005)
            yield
        return "result"

    async def slices(who):
        known_as(who)
        return await in_slices(kind, long())

    many = [asyncio.create_task(slices(who)) for who in range(4 * _THREADS)]
    await asyncio.sleep(0.02)
    assert await ask("short", kind, str, 7) == "7"
    go.set()
    assert await asyncio.gather(*many) == ["result"] * len(many)


async def test_an_error_of_a_slice_is_raised(kind):
    def work():
        yield
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_slices(kind, work())
