"""JSON-RPC 2.0, seen from the other end of a connection."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from crystalmath.errors import InvalidJob
from crystalmath.wire import messages
from peer import method, serving

pytestmark = pytest.mark.server


async def echo(controller, params):
    return {"controller": controller, "params": params}


async def ask_session(session, params):
    return {"of_session": session.server.name}


async def fail(controller, params):
    raise RuntimeError(f"it was {params['secret']}")


async def refuse(controller, params):
    raise InvalidJob("this cannot be")


async def unsendable(controller, params):
    return {"value": float("nan")}


async def splice(controller, params):
    return {"job_id": "a", "result": messages.Raw(b'{"energy": 1.0E-1}')}


@pytest.fixture
async def peer():
    released = asyncio.Event()

    async def wait(controller, params):
        await released.wait()
        return {"released": True}

    async def release(controller, params):
        released.set()
        return {}

    methods = {
        function.__name__: method(function)
        for function in (echo, fail, refuse, unsendable, splice, wait, release)
    }
    methods["ask_session"] = method(ask_session, of_session=True)
    server = SimpleNamespace(service="the service", name="the server")
    async with serving(methods, server) as connect:
        yield await connect()


async def test_a_request_is_answered_with_its_id(peer):
    for request_id in (1, "one", 0, -1, 1.5, ""):
        peer.request(request_id, "echo", {"a": [1]})
        assert await peer.receive() == {
            "jsonrpc": "2.0",
            "id": request_id,
            "result": {"controller": "the service", "params": {"a": [1]}},
        }


async def test_a_handler_gets_the_session_where_it_says_so(peer):
    assert await peer.call("ask_session") == {"of_session": "the server"}


@pytest.mark.parametrize("params", [None, [], {}])
async def test_no_parameters_may_be_said_in_several_ways(peer, params):
    peer.send({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": params})
    assert (await peer.receive())["result"]["params"] == {}


@pytest.mark.parametrize(
    ("message", "code", "request_id", "told"),
    [
        (b"{", -32700, None, "no JSON"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}', -32700, None, "no UTF-8"),
        (b"[" * 1000 + b"]" * 1000, -32700, None, "nested deeper"),
        (b'"hello"', -32600, None, "must be an object"),
        (b"[]", -32600, None, "batches are not supported"),
        ([{"jsonrpc": "2.0", "id": 1, "method": "echo"}], -32600, None, "jobs.submit_many"),
        ({"id": 1, "method": "echo"}, -32600, 1, "'jsonrpc' must be \"2.0\""),
        ({"jsonrpc": 2.0, "id": 1, "method": "echo"}, -32600, 1, "'jsonrpc' must be"),
        ({"jsonrpc": "2.0", "id": 1}, -32600, 1, "'method' must be a string"),
        ({"jsonrpc": "2.0", "id": 1, "method": 7}, -32600, 1, "'method' must be a string"),
        ({"jsonrpc": "2.0", "id": {}, "method": "echo"}, -32600, None, "'id' must be"),
        ({"jsonrpc": "2.0", "id": True, "method": "echo"}, -32600, None, "'id' must be"),
        ({"jsonrpc": "2.0", "id": [1], "method": "echo"}, -32600, None, "'id' must be"),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, -32600, 1, "'method' must be"),
        ({"jsonrpc": "2.0", "id": 1, "method": "ecko"}, -32601, 1, "did you mean 'echo'"),
        ({"jsonrpc": "2.0", "id": 1, "method": "../../x"}, -32601, 1, "rpc.discover lists"),
        ({"jsonrpc": "2.0", "id": 1, "method": "$/unknown"}, -32601, 1, "no method"),
        ({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": [1]}, -32602, 1, "their names"),
        ({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": "x"}, -32602, 1, "an object"),
        ({"jsonrpc": "2.0", "method": "echo", "params": 5}, -32600, None, "an object"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_request_is_refused_and_the_next_one_answered(
    peer, message, code, request_id, told
):
    peer.send(message)
    answer = await peer.receive()
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == request_id
    assert answer["error"]["code"] == code
    assert told in answer["error"]["message"]
    assert "result" not in answer
    assert (await peer.call("echo"))["params"] == {}


async def test_a_notification_is_carried_out_and_not_answered(peer):
    peer.request(1, "wait")
    for name in ("unknown", "fail", "refuse", "unsendable", "$/unknown", "release"):
        peer.notify(name, {"secret": "x"})
    assert (await peer.receive())["id"] == 1
    assert (await peer.call("echo"))["params"] == {}


async def test_requests_of_one_connection_run_beside_each_other(peer):
    peer.request(1, "wait")
    peer.request(2, "echo")
    peer.request(3, "release")
    assert [(await peer.receive())["id"] for _ in range(3)] == [2, 3, 1]


async def test_a_request_can_be_cancelled_and_the_others_go_on(peer):
    peer.request(1, "wait")
    peer.request("1", "wait")
    peer.notify("$/cancelRequest", {"id": 1})
    answer = await peer.receive()
    assert (answer["id"], answer["error"]["code"]) == (1, -32800)
    for params in ({"id": 1}, {"id": "unknown"}, {"id": {}}, {}):
        peer.notify("$/cancelRequest", params)
    peer.request(2, "release")
    assert {(await peer.receive())["id"] for _ in range(2)} == {"1", 2}


async def test_a_fault_of_ours_tells_its_kind_and_never_a_value(peer, caplog):
    with caplog.at_level(logging.DEBUG):
        error = await peer.call("fail", {"secret": "hunter2"})
    assert error["code"] == -32603
    assert "fail failed with RuntimeError" in error["message"]
    assert "RuntimeError" in caplog.text
    assert "in fail" in caplog.text
    assert "hunter2" not in str(error) + caplog.text


async def test_an_error_of_ours_carries_its_code(peer):
    error = await peer.call("refuse")
    assert error == {"code": -32000, "message": "this cannot be", "data": {"code": "invalid_job"}}


async def test_an_answer_that_is_no_json_is_a_fault_of_ours(peer):
    error = await peer.call("unsendable")
    assert error["code"] == -32603
    assert "cannot be sent" in error["message"]


async def test_text_that_is_encoded_already_goes_through(peer):
    peer.request(1, "splice")
    header = await peer.reader.readuntil(b"\r\n\r\n")
    body = await peer.reader.readexactly(messages.read_length(header))
    assert b'"result":{"energy": 1.0E-1}' in body
