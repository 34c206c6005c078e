"""Connections: who may come in, how much may be in flight, and how they end."""

import asyncio
import contextlib
import json
import os
import socket
import threading
from types import SimpleNamespace

import pytest

from conftest import eventually_in_loop
from crystalmath.errors import UnknownJob
from crystalmath.server.handlers import METHODS as METHODS_OF_SERVER
from crystalmath.server.rpc import session
from crystalmath.server.rpc.session import IN_FLIGHT, peer_uid
from crystalmath.wire import messages
from peer import method, serving

pytestmark = pytest.mark.server

LARGE = 5_000_000


async def ping(controller, params):
    return {"ok": True}


async def size(controller, params):
    return {"size": len(params["text"])}


async def large(controller, params):
    return {"job_id": "a", "result": messages.Raw(b'"' + b"x" * LARGE + b'"')}


async def many(controller, params):
    return {"jobs": [{"job_id": str(number), "error": None} for number in range(100_000)]}


async def forever(controller, params):
    await asyncio.Event().wait()


METHODS = {function.__name__: method(function) for function in (ping, size, many, forever)}
METHODS["large"] = method(large, bulk=True)
METHODS["system.ping"] = METHODS["ping"]


@pytest.fixture
async def connect():
    async with serving(METHODS) as connect:
        yield connect


async def left(connections, count=0):
    """Wait until so many connections are there."""
    await eventually_in_loop(lambda: connections.count == count)


# --- frames ------------------------------------------------------------------------------------


async def test_a_message_may_come_in_any_pieces(connect):
    peer = await connect()
    for byte in messages.frame(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'):
        peer.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await peer.receive())["result"] == {"ok": True}


async def test_many_messages_may_come_in_one_piece(connect):
    peer = await connect()
    body = b'{"jsonrpc": "2.0", "id": %d, "method": "ping"}'
    peer.writer.write(b"".join(messages.frame(body % number) for number in range(500)))
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
        assert await idle.call("ping") == {"ok": True}
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


async def test_when_all_places_are_taken_the_server_itself_can_still_be_asked():
    async with serving(METHODS, most=2) as connect:
        peers = [await connect(), await connect()]
        for peer in peers:
            assert await peer.call("ping") == {"ok": True}
        late = await connect()
        assert await late.call("system.ping") == {"ok": True}
        assert (await late.call("ping"))["data"] == {"code": "busy"}
        assert await late.call("system.ping") == {"ok": True}
        peers[0].writer.close()
        late.writer.close()
        await left(connect.connections, 1)
        assert await (await connect()).call("ping") == {"ok": True}


async def test_more_connections_than_there_are_places_are_refused(monkeypatch):
    monkeypatch.setattr(session, "_SPARE", 1)
    async with serving(METHODS, most=1) as connect:
        for _ in range(2):
            assert await (await connect()).call("system.ping") == {"ok": True}
        refused = await connect()
        assert (await refused.receive())["error"]["data"] == {"code": "busy"}
        assert await refused.receive() is None


async def test_who_says_nothing_soon_makes_room_for_others():
    async with serving(METHODS, first_s=1.0) as connect:
        speaking = await connect()
        assert await speaking.call("ping") == {"ok": True}
        silent = [await connect() for _ in range(3)]
        silent[0].writer.write(b"Content-Length: 5")
        for peer in silent:
            assert await peer.receive() is None
        assert connect.connections.count == 1
        assert await speaking.call("ping") == {"ok": True}


async def test_who_only_asks_the_server_soon_makes_room(monkeypatch):
    monkeypatch.setattr(session, "_SPARE", 1)
    monkeypatch.setattr(session, "_SPARE_S", 1.0)
    async with serving(METHODS, most=1) as connect:
        kept, spare = await connect(), await connect()
        for peer in (kept, spare):
            assert await peer.call("system.ping") == {"ok": True}
        spare.request(1, "system.ping")
        while await spare.receive() is not None:  # until it is cut off, though it is not idle
            spare.request(1, "system.ping")
        late = await connect()
        for peer in (kept, late):
            assert await peer.call("system.ping") == {"ok": True}


async def test_a_header_that_is_sent_line_by_line_for_ever_is_cut_off(monkeypatch):
    monkeypatch.setattr(session, "_RECEIVE_S", 1.0)
    async with serving(METHODS) as connect:
        peer = await connect()
        assert await peer.call("ping") == {"ok": True}
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                while connect.connections.count:
                    peer.writer.write(b"a:b\r\n")
                    await peer.writer.drain()
                    await asyncio.sleep(0.1)
            await left(connect.connections)


async def test_a_large_message_that_does_not_go_on_makes_room_for_the_next(monkeypatch):
    monkeypatch.setattr(session, "_RECEIVE_S", 1.0)
    async with serving(METHODS) as connect:
        stalled = await connect()
        stalled.writer.write(messages.header(messages.MAX_MESSAGE) + b"x" * 2_000_000)
        honest = await connect()
        for size in (100, 1_000_000):  # these need no room
            assert await honest.call("size", {"text": "x" * size}) == {"size": size}
        assert connect.connections.count == 2
        assert await honest.call("size", {"text": "x" * 3_000_000}) == {"size": 3_000_000}
        await left(connect.connections, 1)


async def test_large_messages_that_fill_the_room_all_come_through_in_the_end():
    async with serving(METHODS, room=1_000_000) as connect:
        peers = [await connect() for _ in range(8)]
        # Each begins, and none fits beside the others.
        answers = [peer.call("size", {"text": "x" * 3_000_000}) for peer in peers]
        assert await asyncio.gather(*answers) == [{"size": 3_000_000}] * 8


async def test_a_connection_takes_its_requests_in_turn_where_they_are_large():
    made = []

    async def heavy(controller, params):
        made.append(params["number"])
        return {"text": "x" * LARGE}

    methods = {**METHODS, "heavy": method(heavy, bulk=True)}
    async with serving(methods) as connect:
        peer = await connect()
        for number in range(5):
            peer.request(number, "heavy", {"number": number})
        assert await (await connect()).call("ping") == {"ok": True}
        await asyncio.sleep(0.3)
        assert made == [0]  # nobody reads
        for number in range(5):
            assert (await peer.receive())["id"] == number


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
        peer.request("waits", "size", {"text": "x" * (messages.MAX_MESSAGE // 2)})
    other = await connect()
    assert await other.call("size", {"text": "x" * 3_000_000}) == {"size": 3_000_000}
    for peer in peers:
        peer.writer.transport.abort()


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


@pytest.mark.parametrize("then", ["subscribe", "unsubscribe"])
async def test_a_notification_comes_whole_though_its_subscription_is_replaced(then):
    called = asyncio.Event()

    async def tell(session):
        while True:
            await session.notify("told", {"text": "x" * LARGE})

    async def subscribe(session, params):
        session.in_background(tell(session))
        called.set()
        return {}

    async def unsubscribe(session, params):
        session.in_background(None)
        called.set()
        return {}

    methods = {f.__name__: method(f, of_session=True) for f in (subscribe, unsubscribe)}
    async with serving(methods) as connect:
        peer = await connect()
        assert await peer.call("subscribe") == {}
        header = await peer.reader.readuntil(b"\r\n\r\n")  # more than that nobody takes
        called.clear()
        peer.request(2, then)
        await called.wait()
        await asyncio.sleep(0.05)
        told = json.loads(await peer.reader.readexactly(messages.read_length(header)))
        assert told["params"] == {"text": "x" * LARGE}
        assert (await peer.receive())["id"] == 2


# --- large answers -----------------------------------------------------------------------------


async def test_a_large_answer_comes_whole_and_others_do_not_wait(connect):
    reading = await connect()
    polling = await connect()
    reading.request(1, "large")
    # It does not fit the socket: the answer stands in line as long as nobody reads.
    for _ in range(50):
        assert await polling.call("ping") == {"ok": True}
    assert (await reading.receive())["result"]["result"] == "x" * LARGE


async def test_few_answers_of_a_method_are_made_at_once():
    at_once, most = 0, 0

    async def heavy(controller, params):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return {"text": params["text"]}

    async with serving({"heavy": method(heavy, bulk=True)}) as connect:
        peers = [await connect() for _ in range(4)]
        for peer in peers:
            for number in range(2):
                peer.request(number, "heavy", {"text": "x" * 100_000})
        for peer in peers:
            assert {(await peer.receive())["id"] for _ in range(2)} == {0, 1}
    assert most == 2


@pytest.mark.parametrize(
    ("name", "slow", "params"),
    [
        ("jobs.inputs", "job", {"job_id": "a"}),
        ("jobs.script", "job", {"job_id": "a"}),
        ("jobs.retry", "retry", {"job_ids": ["a"]}),
        ("jobs.cancel_many", "cancel", {"job_ids": ["a"]}),
    ],
)
async def test_slow_work_keeps_no_other_request_of_its_connection_waiting(
    service, monkeypatch, name, slow, params
):
    began, go = threading.Event(), threading.Event()

    def wait(*_, **__):
        began.set()
        go.wait(60)
        raise UnknownJob("a")

    monkeypatch.setattr(service, slow, wait)
    async with serving(METHODS_OF_SERVER, SimpleNamespace(service=service)) as connect:
        peer = await connect()
        peer.request("slow", name, params)
        assert await asyncio.to_thread(began.wait, 60)
        try:
            assert (await peer.call("jobs.list"))["error"] is None
        finally:
            go.set()
        answer = await peer.receive()
        assert answer["id"] == "slow"


async def test_who_does_not_read_keeps_nobody_waiting():
    async with serving(METHODS) as connect:
        for _ in range(8):
            (await connect()).request(1, "large")  # and nobody reads it
        honest = await connect()
        for number in range(8):
            honest.request(number, "large")
        for number in range(8):
            assert (await honest.receive())["id"] == number


async def test_a_result_that_is_streamed_holds_up_nobody(tmp_path):
    file = tmp_path / "result"
    file.write_bytes(b'"' + b"x" * 20_000_000 + b'"')

    closed_by = []

    def chunks():
        try:
            with file.open("rb") as opened:
                while chunk := opened.read(100_000):
                    yield chunk
        finally:
            closed_by.append(threading.current_thread())

    async def streamed(controller, params):
        return {"job_id": "a", "result": messages.Stream(20_000_002, chunks())}

    methods = {**METHODS, "streamed": method(streamed, bulk=True)}
    async with serving(methods, room=1_000_000) as connect:
        for _ in range(20):
            (await connect()).request(1, "streamed")  # and nobody reads it
        honest = await connect()
        honest.request(1, "streamed")
        answer = await honest.receive()
        assert answer["result"] == {"job_id": "a", "result": "x" * 20_000_000}
        assert await honest.call("ping") == {"ok": True}
    assert closed_by
    assert threading.main_thread() not in closed_by


async def test_a_stream_that_is_not_what_was_announced_ends_the_connection():
    async def broken(controller, params):
        return {"result": messages.Stream(1_000_000, iter([b'"', b"x" * 1000]))}

    async with serving({"broken": method(broken)}) as connect:
        peer = await connect()
        peer.request(1, "broken")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await peer.receive()
        await left(connect.connections)


async def test_an_answer_of_many_parts_comes_whole(connect):
    peer = await connect()
    peer.request(1, "many")
    header = await peer.reader.readuntil(b"\r\n\r\n")
    body = await peer.reader.readexactly(messages.read_length(header))
    assert len(json.loads(body)["result"]["jobs"]) == 100_000
