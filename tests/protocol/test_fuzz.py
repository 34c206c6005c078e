"""Thousands of messages, valid and broken, against a real server.

Whatever comes, the server answers it or closes that connection, then serves others; it keeps its
memory, and loses nothing that it has accepted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import eventually
from crystalmath.server.handlers import METHODS
from crystalmath.wire import messages
from server.home_server import CELL, HomeServer

pytestmark = pytest.mark.server

#: So many series of 5 to 25 messages; the session `drawn` tries more.
SERIES = int(os.environ.get("FUZZ_SERIES", "700"))
#: How much the server may grow, in MB: what it keeps, and for a moment.
GROWTH = 100
PEAK = 400

ENDED = {"completed", "failed", "cancelled"}
#: What a server sends by itself.
TOLD = {"jobs.changed", "jobs.progressed"}


class Message(NamedTuple):
    """What goes over the wire, and what must come back."""

    sent: bytes
    #: How many answers there must be: 1 or 0.
    answers: int
    #: The id of the answer.
    request_id: object = None
    #: Whether the answer may accept a job.
    submits: bool = False


# --- messages ----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
HOSTILE = st.sampled_from(
    [
        "../../etc/passwd", "..", "/", "", "\0", "a" * 5000, "%", "_", "'; drop table jobs; --",
        "__import__('os')", "quacc.recipes.../x", "os.system", str(uuid.UUID(int=0)),
        {"@module": "os", "@class": "system"}, {"@callable": "os.system"}, {"__class__": "x"},
    ]
)  # fmt: skip
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT | HOSTILE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
IDS = st.integers() | TEXT | st.floats(allow_nan=False, allow_infinity=False) | HOSTILE.filter(
    lambda value: isinstance(value, str)
)  # fmt: skip
#: Everything but the one that ends the server, as it should.
NAMES = sorted(set(METHODS) - {"system.stop"})
PARAMETERS = sorted({name for method in METHODS.values() for name in method.params["properties"]})
#: None of these waits long.
TIMEOUTS = st.sampled_from([0, 0.01, -1, 601, 1e308, "0", [], True])

#: In their place come ids of jobs that are there: what is drawn must not depend on the server.
SOME_JOBS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(10)]


def parameters():
    """Draw an object of parameters: known names, wrong values."""
    known = st.dictionaries(st.sampled_from(PARAMETERS) | TEXT, VALUE, max_size=4)
    ids = st.sampled_from(SOME_JOBS)
    jobs = st.fixed_dictionaries({}, optional={"job_id": ids, "job_ids": st.lists(ids, max_size=3)})
    return st.builds(
        lambda one, two, timeout: {**one, **two, "timeout_s": timeout}, known, jobs, TIMEOUTS
    ) | st.builds(lambda one: {**one, "timeout_s": 0}, jobs)


def fitting(name, params):
    """Leave out what a method does not know, so that a part of all calls gets past that check."""
    return {key: params[key] for key in METHODS[name].params["properties"] if key in params}


#: What most often becomes a job, and otherwise nearly does.
SUBMISSION = st.fixed_dictionaries(
    {
        "recipe": st.sampled_from(["lab_recipes.value"] * 6 + ["lab_recipes.nothing", "os.system"]),
        "structure": st.sampled_from([CELL] * 6) | VALUE,
        "engine": st.just("local"),
    },
    optional={
        "params": st.fixed_dictionaries({}, optional={"number": VALUE, "x": VALUE}),
        "key": st.sampled_from(["one", "two", "../three", ""]),
        "name": TEXT | HOSTILE,
        "labels": st.dictionaries(TEXT, TEXT, max_size=2),
        "walltime_s": st.integers(-1, 10**9),
    },
)


def asking(request_id, name, params, *, submits=False):
    document = {"jsonrpc": "2.0", "id": request_id, "method": name, "params": params}
    return Message(messages.frame(messages.dumps(document)), 1, request_id, submits)


@st.composite
def requests(draw):
    name = draw(st.sampled_from(NAMES))
    params = draw(parameters())
    return asking(draw(IDS), name, fitting(name, params) if draw(st.integers(0, 3)) else params)


@st.composite
def submissions(draw):
    """Draw submissions under ids of their own, so that what was accepted is known."""
    if draw(st.integers(0, 3)):
        return asking(f"submit {draw(st.uuids())}", "jobs.submit", draw(SUBMISSION), submits=True)
    if draw(st.booleans()):
        return asking(draw(IDS), "jobs.check", draw(SUBMISSION))
    return asking(draw(IDS), "jobs.submit_many", {"jobs": draw(st.lists(SUBMISSION, max_size=3))})


@st.composite
def strange_requests(draw):
    """Draw requests of unknown methods, and with parameters that are no object."""
    document = {"jsonrpc": "2.0", "id": draw(IDS)}
    document["method"] = draw(TEXT.filter(lambda name: name not in METHODS) | HOSTILE)
    document["params"] = draw(VALUE)
    known = isinstance(document["method"], str)
    if not known or draw(st.booleans()):
        return Message(messages.frame(messages.dumps(document)), 1, document["id"])
    document["method"] = draw(st.sampled_from(NAMES))
    document["params"] = draw(st.lists(VALUE, min_size=1, max_size=3) | TEXT | NUMBER)
    return Message(messages.frame(messages.dumps(document)), 1, document["id"])


@st.composite
def notifications(draw):
    """Draw messages without an id; most of them ask for nothing that could be answered."""
    name = draw(
        st.sampled_from(["$/cancelRequest", "$/progress", "jobs.status", "no.such", "exit"])
    )
    params = {"id": draw(IDS | VALUE)} if name == "$/cancelRequest" else draw(parameters())
    document = {"jsonrpc": "2.0", "method": name, "params": params}
    return Message(messages.frame(messages.dumps(document)), 0)


@st.composite
def wrong_envelopes(draw):
    """Draw JSON that is no request."""
    document = draw(
        st.fixed_dictionaries(
            {"jsonrpc": st.sampled_from(["1.0", 2.0, None])}, optional={"method": VALUE}
        )
        | st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": IDS, "result": VALUE})
        | st.lists(VALUE, max_size=3)
        | st.fixed_dictionaries(
            {"jsonrpc": st.just("2.0"), "method": st.just("jobs.list"),
             "id": st.booleans() | st.lists(IDS, max_size=1) | st.just({})}
        )
        | TEXT | NUMBER | st.none()
    )  # fmt: skip
    request_id = document.get("id") if isinstance(document, dict) else None
    if isinstance(request_id, (bool, list, dict)):
        request_id = None
    return Message(messages.frame(messages.dumps(document)), 1, request_id)


@st.composite
def broken_json(draw):
    whole = draw(requests()).sent.partition(b"\r\n\r\n")[2]
    cut = draw(st.integers(0, len(whole) - 1))
    depth = draw(st.integers(65, 100_000))
    body = draw(
        st.sampled_from(
            [
                whole[:cut],
                whole + b"}",
                whole[:cut] + b"\xff" + whole[cut:],
                whole.replace(b'"jsonrpc"', b'"\xed\xa0\x80"'),
                whole[:-1] + b',"id":1}',
                whole[:-1] + b',"x":NaN}',
                whole[:-1] + b',"x":1e400}',
                whole[:-1] + b',"x":"\\ud800"}',
                whole[:-1] + b',"x":' + b"9" * 5000 + b"}",
                whole[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}",
                b'{"a":' * depth,
                whole.decode().encode("utf-16"),
                b"\0" * 100,
            ]
        )
        | st.binary(max_size=200)
    )
    return Message(messages.frame(body), 1)


@st.composite
def broken_frames(draw):
    """Draw what no message can follow."""
    whole = draw(requests()).sent
    cut = draw(st.integers(1, len(whole) - 1))
    sent = draw(
        st.sampled_from(
            [
                whole[:cut],
                b"Content-Length: 2147483648\r\n\r\n" + whole,
                b"Content-Length: 60000000\r\n\r\n" + whole,
                b"Content-Length: -1\r\n\r\n" + whole,
                b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + whole,
                b"content-length : 5\r\n\r\n" + whole,
                b"Content-Type: x; charset=utf-7\r\n\r\n" + whole,
                whole.replace(b"\r\n", b"\n"),
                whole.partition(b"\r\n\r\n")[2] + b"\n",
                b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"\r\n\r\n",
                b"x" * 70_000,
                b"X: y\r\n" * 3000,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            ]
        )
        | st.binary(min_size=1, max_size=300)
    )
    return Message(sent, 0)


GOOD = (
    requests()
    | submissions()
    | strange_requests()
    | notifications()
    | wrong_envelopes()
    | broken_json()
)


# --- the server --------------------------------------------------------------------------------


class Fuzzed(HomeServer):
    """A server, and what it has promised."""

    def __init__(self, home):
        super().__init__(home)
        self.messages = 0
        self.accepted = []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Fuzzed(tmp_path_factory.mktemp("fuzzed")) as server:
        (server.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
        server.start()
        server.accepted.append(server.submit("value"))
        server.finish(server.accepted[0])
        yield server


def memory(server, name):
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1000


def connect(server):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(120)
    connection.connect(os.fspath(server.place.address()))
    return connection


def receive(file):
    """Return the next message, or None at the end."""
    header = b""
    while not header.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return None
        header += line
    return json.loads(file.read(messages.read_length(header, most=None)))


def talk(server, messages, last):
    """Send messages over one connection, and hold against them what comes back."""
    server.messages += len(messages) + (last is not None)
    wanted = [key(message.request_id) for message in messages if message.answers]
    submits = {message.request_id for message in messages if message.submits}
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(named(server, b"".join(message.sent for message in messages)))
        while wanted:
            answer = receive(file)
            assert answer is not None, f"closed before {wanted} were answered"
            if answer.get("method") in TOLD:
                continue
            assert answer["jsonrpc"] == "2.0"
            assert ("result" in answer) != ("error" in answer)
            wanted.remove(key(answer["id"]))
            told = answer.get("error", {})
            assert told.get("code") != -32603, told  # a fault of ours
            if answer["id"] in submits and answer["result"]["job_id"]:
                server.accepted.append(answer["result"]["job_id"])
        if last is not None:
            vanish(connection, file, last)


def vanish(connection, file, last):
    """Send something that need not be whole; it is answered or not, and then it is over."""
    try:
        connection.sendall(last.sent)
        connection.shutdown(socket.SHUT_WR)
        while (answer := receive(file)) is not None:
            assert answer.get("method") in TOLD or "id" in answer
    except (BrokenPipeError, ConnectionResetError):
        pass  # closed while we wrote


def named(server, sent):
    for number, stand_in in enumerate(SOME_JOBS):
        job_id = server.accepted[-1 - number % len(server.accepted)]
        sent = sent.replace(stand_in.encode(), job_id.encode())
    return sent


def key(request_id):
    """Return what an id is compared by; no two types of it are the same."""
    return json.dumps(request_id)


# --- the tests ---------------------------------------------------------------------------------


@settings(
    max_examples=SERIES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(st.lists(GOOD, min_size=5, max_size=25), st.none() | broken_frames() | requests())
def test_every_message_is_answered_or_its_connection_closed(server, messages, last):
    talk(server, messages, last)
    assert server.process.poll() is None
    # Others are served.
    assert server.call("system.ping") == {"ok": True}


def test_so_many_messages_were_tried(server):
    assert server.messages >= 5000
    assert len(server.accepted) >= 50


def test_clients_that_vanish_leave_nothing_behind(server):
    before = server.call("system.status")["connections"]
    submission = {"recipe": "lab_recipes.value", "structure": CELL, "engine": "local"}
    for number in range(100):
        params = {**submission, "key": f"vanished {number}", "labels": {"vanished": "yes"}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "jobs.submit", "params": params}
        waiting = {"jsonrpc": "2.0", "id": 2, "method": "jobs.events", "params": {"timeout_s": 600}}
        waiting["params"]["after"] = 2**50
        half = b"Content-Length: 1000000\r\n\r\n{"
        with connect(server) as connection:
            for document in (request, waiting):
                connection.sendall(messages.frame(messages.dumps(document)))
            connection.sendall(half[: number % len(half)])
    eventually(lambda: server.call("system.status")["connections"] <= before)
    # Whether it was accepted, its client does not know; asked again, there is one job.
    for number in range(100):
        params = {"key": f"vanished {number}", "labels": {"vanished": "yes"}}
        server.accepted.append(server.submit("value", **params))
    summary = server.call("jobs.summary", labels={"vanished": "yes"})
    assert sum(summary["states"].values()) == 100


def test_huge_messages_cost_no_more_than_a_few_of_them(server):
    before = memory(server, "VmRSS")
    bodies = [b"[" + b"[]," * 20_000_000 + b"0]", b'{"a":' * 12_000_000, b'"' + b"x" * 60_000_000]
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connect(server)) for _ in range(12)]

        def send(connection, body):
            connection.settimeout(600)  # they are taken in turn
            with contextlib.suppress(OSError):
                connection.sendall(messages.frame(body))
                return receive(connection.makefile("rb"))["error"]["code"]
            return None

        with ThreadPoolExecutor(len(many)) as pool:
            answers = list(pool.map(send, many, itertools.cycle(bodies)))
            assert answers == [-32700] * len(many)
    assert memory(server, "VmHWM") - before < PEAK
    # The last one is answered before it is forgotten.
    eventually(lambda: memory(server, "VmRSS") - before < GROWTH)


def test_nothing_that_was_accepted_is_lost(server):
    job_ids = sorted(set(server.accepted))
    eventually(lambda: server.call("jobs.wait", job_ids=job_ids, timeout_s=30)["done"], 600)
    told = server.call("jobs.status_many", job_ids=job_ids)
    assert {job["job_id"]: job["status"] in ENDED for job in told["jobs"]} == dict.fromkeys(
        job_ids, True
    )


def test_the_server_found_no_fault_of_its_own(server):
    assert memory(server, "VmRSS") < 400
    assert "Traceback" not in server.log()
    assert " ERROR " not in server.log()
