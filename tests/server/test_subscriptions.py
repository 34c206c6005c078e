"""`jobs.subscribe`: each change once, in order, also after a reconnect."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from conftest import LAB
from crystalmath import config
from crystalmath.models import JobState
from crystalmath.server.methods import METHODS
from crystalmath.server.rpc.shapes import COMPONENTS
from crystalmath.service import JobService
from peer import serving

STRUCTURE = {"symbols": "Al", "cell": [3, 3, 3], "pbc": True}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    root = tmp_path_factory.mktemp("shared")
    (root / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAB)
        environ = {"CRYSTALMATH_HOME": str(root), "CRYSTALMATH_RECIPES": "lab_recipes"}
        with JobService(config.load(environ)) as service:
            yield service


@pytest.fixture
async def connect(service):
    async with serving(METHODS, SimpleNamespace(service=service)) as connect:
        yield connect


async def submit(peer):
    """Submit a job, and cancel it at once: what it would do does not matter here."""
    params = {"recipe": "lab_recipes.value", "structure": STRUCTURE, "engine": "local"}
    answer = await peer.call("jobs.submit", params)
    assert answer["error"] is None, answer
    await peer.call("jobs.cancel", {"job_id": answer["job_id"]})
    return answer["job_id"]


async def changes(peer, job_id):
    """Collect notifications until one tells that a job has come to its last state."""
    found = []
    while True:
        message = await peer.receive()
        assert message["method"] == "jobs.changed"
        assert "id" not in message
        found.append(message["params"])
        if found[-1]["job_id"] == job_id and JobState(found[-1]["status"]).is_terminal():
            return found


async def test_each_change_is_told_once_and_again_after_a_reconnect(connect):
    watching, submitting = await connect(), await connect()
    begun = await watching.call("jobs.subscribe")
    assert begun["error"] is None
    job_id = await submit(submitting)

    seen = await changes(watching, job_id)
    assert [seen[0]["from"], seen[0]["status"]] == [None, "pending"]
    for before, after in itertools.pairwise(seen):
        assert after["from"] == before["status"]
    assert {change["job_id"] for change in seen} == {job_id}
    assert all(change.keys() == COMPONENTS["Change"]["properties"].keys() for change in seen)
    numbers = [change["seq"] for change in seen]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > begun["seq"]

    watching.writer.close()
    again = await connect()
    assert (await again.call("jobs.subscribe", {"after": numbers[0]}))["seq"] == numbers[0]
    assert await changes(again, job_id) == seen[1:]


async def test_a_second_subscription_takes_the_place_of_the_first(connect):
    peer = await connect()
    await peer.call("jobs.subscribe")
    await peer.call("jobs.subscribe")
    job_id = await submit(await connect())
    seen = await changes(peer, job_id)
    assert len({change["seq"] for change in seen}) == len(seen)


async def test_nothing_comes_after_the_end_of_a_subscription(connect):
    peer, other = await connect(), await connect()
    assert await peer.call("jobs.unsubscribe") == {"error": None}
    await peer.call("jobs.subscribe")
    assert await peer.call("jobs.unsubscribe") == {"error": None}
    await other.call("jobs.subscribe")
    await changes(other, await submit(peer))
    assert await peer.call("system.ping") == {"ok": True}


@pytest.mark.parametrize("after", [-1, "0", 1.5, True, 2**60])
async def test_what_is_no_sequence_number_is_refused(connect, after):
    answer = await (await connect()).call("jobs.subscribe", {"after": after})
    assert answer["code"] == "invalid_job"
    assert "'after' must be a whole number" in answer["error"]
    assert answer["seq"] is None


async def test_a_connection_whose_subscription_fails_is_closed(connect, service, monkeypatch):
    peer = await connect()
    await peer.call("jobs.subscribe")

    def broken(*_):
        raise OSError

    monkeypatch.setattr(service, "events", broken)
    await submit(await connect())
    assert await peer.receive() is None
