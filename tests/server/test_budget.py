"""What messages and answers hold in memory: each connection some, the rest is for all."""

from __future__ import annotations

import asyncio
import random

import pytest

from crystalmath.server.rpc import budget as module
from crystalmath.server.rpc.budget import Budget, present, room


@pytest.fixture
def budget():
    return Budget(common=100, own=10)


async def waits(work):
    """Begin something that must wait."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.01)
    assert not task.done()
    return task


async def test_what_is_a_connections_own_waits_for_nobody(budget):
    greedy, modest = budget.account(), budget.account()
    await greedy.share().grow(1000)
    for _ in range(10):
        await modest.share().grow(1)
    await waits(modest.share().grow(1))


async def test_the_rest_is_taken_in_order(budget):
    first, second, third = (budget.account().share() for _ in range(3))
    await first.grow(80)
    await second.grow(90)  # it may go ahead, and take more than there is
    waiting = await waits(third.grow(30))
    small = await waits(budget.account().share().grow(11))
    first.close()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not small.done()  # it does not overtake
    second.close()
    await asyncio.gather(waiting, small)


async def test_one_connection_has_one_large_request_at_a_time(budget):
    account = budget.account()
    large, other = account.share(), account.share()
    await large.grow(20)
    waiting = await waits(other.grow(20))
    await budget.account().share().grow(20)
    large.close()
    await waiting
    assert (other.own, other.common) == (0, 20)


async def test_who_gives_up_in_line_leaves_it(budget):
    holding = budget.account().share()
    await holding.grow(1000)
    first, second = budget.account().share(), budget.account().share()
    gone, waiting = await waits(first.grow(90)), await waits(second.grow(90))
    gone.cancel()
    await asyncio.wait([gone])
    first.close()
    holding.close()
    await waiting
    assert (first.size, second.size) == (0, 90)


async def test_what_is_there_is_counted_whatever_is_left(budget):
    share = budget.account().share()
    await share.grow(50)
    share.settle(300)
    await budget.account().share().grow(11)  # it goes ahead
    waiting = await waits(budget.account().share().grow(20))
    share.settle(5)
    await waiting
    assert (share.own, share.common) == (5, 0)


async def test_the_answer_of_a_request_takes_its_room_from_its_share(budget):
    share = budget.account().share()
    await room(10**9)  # no server, no budget
    present.set(share)
    await room(50)
    assert share.size == 50


async def test_takers_part_by_part_all_come_to_an_end_and_give_back_all(budget):
    drawn = random.Random(7)
    most = 0

    async def request(account):
        nonlocal most
        with account.share() as share:
            for _ in range(drawn.randrange(1, 12)):
                await share.grow(drawn.randrange(1, 40))
                await asyncio.sleep(0)
                most = max(most, budget.used)
            share.settle(drawn.randrange(200))
            await asyncio.sleep(0)

    accounts = [budget.account() for _ in range(10)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(request(drawn.choice(accounts)) for _ in range(500)))
    assert budget.used == 0
    assert [account.left for account in accounts] == [10] * 10
    # What there is, the one that goes ahead, and answers that were larger than they said.
    assert most < 100 + 12 * 40 + 10 * 200


async def test_a_client_that_takes_all_is_not_cut_off_for_the_sum_of_many_answers(budget):
    account = budget.account()
    for _ in range(3):
        with account.share() as share:
            await share.grow(50)
            await share.patiently(lambda: asyncio.sleep(0.01), 60)
            assert 0 < account.waited_s < 0.5
        assert account.waited_s == 0


async def test_a_slow_client_is_waited_for_until_others_need_what_it_holds(budget, monkeypatch):
    monkeypatch.setattr(module, "_CUT_OFF_S", 0.05)
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    share = budget.account().share()
    await share.grow(200)
    never = asyncio.Event().wait
    slow = await waits(share.patiently(never, 60))
    await asyncio.sleep(0.2)
    assert not slow.done()
    waiting = await waits(budget.account().share().grow(20))
    with pytest.raises(TimeoutError):
        await slow
    share.close()
    await waiting
    with pytest.raises(TimeoutError):
        await budget.account().share().patiently(never, 0.05)
