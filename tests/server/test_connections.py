"""Connections: who may come in, how much may be in flight, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time

import pytest

from crystalmath.server.rpc import wire
from crystalmath.server.rpc.budget import Budget
from crystalmath.server.rpc.connections import peer_uid
from crystalmath.server.rpc.session import IN_FLIGHT
from peer import method, serving

LARGE = 5_000_000


async def ping(controller, params):
    return {"ok": True}


async def size(controller, params):
    return {"size": len(params["text"])}


async def large(controller, params):
    return {"job_id": "a", "result": wire.Raw(b'"' + b"x" * LARGE + b'"')}


async def many(controller, params):
    return {"jobs": [{"job_id": str(number), "error": None} for number in range(100_000)]}


async def forever(controller, params):
    await asyncio.Event().wait()


METHODS = {function.__name__: method(function) for function in (ping, size, many, forever)}
METHODS["large"] = method(large, large=True)


@pytest.fixture
async def connect():
    async with serving(METHODS) as connect:
        yield connect


async def left(connections, count=0):
    """Wait until so many connections are there."""
    async with asyncio.timeout(10):
        while connections.count != count:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)


# --- frames ------------------------------------------------------------------------------------


async def test_a_message_may_come_in_any_pieces(connect):
    peer = await connect()
    for byte in wire.frame(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'):
        peer.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await peer.receive())["result"] == {"ok": True}


async def test_many_messages_may_come_in_one_piece(connect):
    peer = await connect()
    body = b'{"jsonrpc": "2.0", "id": %d, "method": "ping"}'
    peer.writer.write(b"".join(wire.frame(body % number) for number in range(500)))
    answers = [await peer.receive() for _ in range(500)]
    assert {answer["id"] for answer in answers} == set(range(500))


async def test_a_large_message_is_taken(connect):
    peer = await connect()
    assert await peer.call("size", {"text": "x" * 3_000_000}) == {"size": 3_000_000}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"Content-Length: 2000000000\r\n\r\n", "at most 67108864 are taken"),
        (b"Content-Length: ten\r\n\r\n0123456789", "must be a number of bytes"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n', "begins with 'Content-Length"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no header line"),
        (b"\r\n", "no 'Content-Length'"),
        (b"x" * 100_000, "does not begin with a header"),
        (b"X-Long: 1\r\n" * 1000, "longer than 8192 bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_broken_frame_is_answered_and_the_connection_closed(connect, sent, told):
    other = await connect()
    peer = await connect()
    peer.writer.write(sent)
    answer = await peer.receive()
    assert answer["id"] is None
    assert answer["error"]["code"] == -32600
    assert told in answer["error"]["message"]
    assert await peer.receive() is None
    assert await other.call("ping") == {"ok": True}
    await left(connect.connections, 1)


# --- leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"Content-Le", b"Content-Length: 10\r\n\r\n{"])
async def test_a_client_may_vanish_anywhere(connect, sent):
    peer = await connect()
    peer.request(1, "forever")
    peer.request(2, "large")  # and nobody reads it
    peer.writer.write(sent)
    await left(connect.connections, 1)
    peer.writer.transport.abort()
    await left(connect.connections)


async def test_who_closes_only_the_own_direction_still_gets_the_answers(connect):
    peer = await connect()
    for number in range(3):
        peer.request(number, "large")
    peer.writer.write_eof()
    answers = [await peer.receive() for _ in range(3)]
    assert {answer["id"] for answer in answers} == {0, 1, 2}
    assert await peer.receive() is None


async def test_work_of_a_client_that_left_is_ended(connect):
    peer = await connect()
    peer.request(1, "forever")
    assert await peer.call("ping") == {"ok": True}
    peer.writer.close()
    await left(connect.connections)


async def test_an_idle_connection_is_closed_and_one_that_waits_is_not():
    async with serving(METHODS, idle_s=0.1) as connect:
        waiting = await connect()
        waiting.request(1, "forever")
        idle = await connect()
        assert await idle.receive() is None
        waiting.notify("$/cancelRequest", {"id": 1})
        assert (await waiting.receive())["error"]["code"] == -32800
        assert await waiting.receive() is None


async def test_a_server_that_stops_says_so_to_those_who_wait(connect):
    peer = await connect()
    peer.request(1, "forever")
    assert await peer.call("ping") == {"ok": True}
    await connect.connections.close()
    answer = await peer.receive()
    assert (answer["id"], answer["error"]["data"]) == (1, {"code": "stopping"})
    assert await peer.receive() is None
    assert connect.connections.count == 0


# --- limits ------------------------------------------------------------------------------------


async def test_more_connections_than_allowed_are_refused():
    async with serving(METHODS, most=2) as connect:
        peers = [await connect(), await connect()]
        for peer in peers:
            assert await peer.call("ping") == {"ok": True}
        refused = await connect()
        assert (await refused.receive())["error"]["data"] == {"code": "busy"}
        assert await refused.receive() is None
        peers[0].writer.close()
        await left(connect.connections, 1)
        assert await (await connect()).call("ping") == {"ok": True}


async def test_requests_in_flight_are_limited_and_a_cancel_still_comes_through(connect):
    peer = await connect()
    for number in range(IN_FLIGHT):
        peer.request(number, "forever")
    peer.notify("$/cancelRequest", {"id": 5})
    assert (await peer.receive())["id"] == 5
    peer.request("fits", "forever")
    peer.request("waits", "ping")
    peer.notify("$/cancelRequest", {"id": 6})  # read only when there is room again
    assert await (await connect()).call("ping") == {"ok": True}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await peer.reader.readexactly(1)
    peer.writer.close()
    await left(connect.connections, 1)


async def test_a_large_message_that_waits_for_room_keeps_no_share(connect):
    peers = [await connect(), await connect()]
    for peer in peers:
        for number in range(IN_FLIGHT):
            peer.request(number, "forever")
        # Both together are more than there may be.
        peer.request("waits", "size", {"text": "x" * (wire.MAX_MESSAGE // 2)})
    other = await connect()
    assert await other.call("size", {"text": "x" * 3_000_000}) == {"size": 3_000_000}
    for peer in peers:
        peer.writer.transport.abort()


async def test_bytes_in_flight_are_shared_in_order():
    budget = Budget(10)
    await budget.take(8)
    order = []

    async def take(share):
        await budget.take(share)
        order.append(share)

    tasks = [asyncio.create_task(take(share)) for share in (5, 1)]
    await asyncio.sleep(0)
    assert order == []  # the small one does not overtake
    budget.give_back(8)
    await asyncio.gather(*tasks)
    assert order == [5, 1]


async def test_another_users_process_is_refused(monkeypatch):
    async with serving(METHODS) as connect:
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        peer = await connect()
        assert "its own user only" in (await peer.receive())["error"]["message"]
        assert await peer.receive() is None


def test_the_kernel_says_whose_process_it_is():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.getuid()


# --- large answers -----------------------------------------------------------------------------


async def test_a_large_answer_comes_whole_and_others_do_not_wait(connect):
    reading = await connect()
    polling = await connect()
    reading.request(1, "large")
    # It does not fit the socket: the answer stands in line as long as nobody reads.
    waits = []
    for _ in range(50):
        began = time.perf_counter()
        assert await polling.call("ping") == {"ok": True}
        waits.append(time.perf_counter() - began)
    assert sorted(waits)[25] < 0.05
    assert (await reading.receive())["result"]["result"] == "x" * LARGE


async def test_few_large_answers_are_in_memory_however_many_are_asked_for():
    made = []
    there = []

    class Counted(wire.Raw):
        def __init__(self, text):
            super().__init__(text)
            made.append(None)
            there.append(None)

        def __del__(self):
            there.pop()

    async def counted(controller, params):
        return {"job_id": "a", "result": Counted(b'"' + b"x" * LARGE + b'"')}

    async with serving({**METHODS, "counted": method(counted, large=True)}) as connect:
        peers = [await connect() for _ in range(6)]
        for peer in peers:
            for number in range(4):
                peer.request(number, "counted")
            peer.request("ping", "ping")
        # Nobody reads, so the first ones stand in line; other requests do not wait for them.
        async with asyncio.timeout(10):
            while len(made) < 6:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)
        other = await connect()
        for _ in range(20):
            assert await other.call("ping") == {"ok": True}
        # Two were made to be looked at, and are made again in their turn.
        assert (len(made), len(there)) == (6, 4)

        async def read(peer):
            return {(await peer.receive())["id"] for _ in range(5)}

        for answered in await asyncio.gather(*map(read, peers)):
            assert answered == {*range(4), "ping"}
    assert there == []


async def test_small_answers_do_not_wait_for_those_who_do_not_read():
    async def either(controller, params):
        return await large(controller, params) if params else {"job_id": "a", "result": None}

    async with serving({**METHODS, "either": method(either, large=True)}) as connect:
        peers = [await connect() for _ in range(9)]
        for peer in peers:
            peer.request(1, "either", {"large": True})
        small = await connect()
        for _ in range(20):
            assert await small.call("either") == {"job_id": "a", "result": None}
        for peer in peers:
            assert len((await peer.receive())["result"]["result"]) == LARGE


async def test_an_answer_of_many_parts_comes_whole(connect):
    peer = await connect()
    peer.request(1, "many")
    header = await peer.reader.readuntil(b"\r\n\r\n")
    body = await peer.reader.readexactly(wire.read_length(header))
    assert len(json.loads(body)["result"]["jobs"]) == 100_000
