"""`jobs.subscribe`: each change once, in order, also after a reconnect."""

import itertools
import threading
from types import SimpleNamespace

import pytest

from crystalmath.models import Job, JobState
from crystalmath.server.handlers import METHODS, events
from crystalmath.wire.schemas import components
from peer import serving

pytestmark = pytest.mark.server

STRUCTURE = {"symbols": "Al", "cell": [3, 3, 3], "pbc": True}


@pytest.fixture
async def connect(service):
    async with serving(METHODS, SimpleNamespace(service=service)) as connect:
        yield connect


async def submit(peer, **more):
    """Submit a job, and cancel it at once: what it would do does not matter here."""
    params = {"recipe": "lab_recipes.value", "structure": STRUCTURE, "engine": "local", **more}
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
    assert all(change.keys() == set(components()["Change"]["required"]) for change in seen)
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


async def test_a_place_beyond_the_log_is_refused(connect):
    peer = await connect()
    last = (await peer.call("jobs.subscribe"))["seq"]
    assert (await peer.call("jobs.subscribe", {"after": last}))["seq"] == last
    for beyond in (last + 10**6, 2**53):
        answer = await peer.call("jobs.subscribe", {"after": beyond})
        assert (answer["code"], answer["seq"]) == ("invalid_job", None)
        assert f"'after' is {beyond}, and the last event" in answer["error"]
        assert "subscribe without 'after'" in answer["error"]
    # The subscription from before goes on.
    await changes(peer, await submit(await connect()))


async def test_a_connection_whose_subscription_fails_is_closed(connect, monkeypatch):
    peer = await connect()
    await peer.call("jobs.subscribe")

    def broken(*_):
        raise OSError

    monkeypatch.setattr("crystalmath.server.handlers.events.few_events", broken)
    await submit(await connect())
    assert await peer.receive() is None


async def heard(peer, ids):
    """Collect the notifications of jobs until each has come to its end."""
    found = []
    while ids - {one["job_id"] for one in found if JobState(one["status"]).is_terminal()}:
        found.append((await peer.receive())["params"])
    return found


FILTERS = {
    "labels": {"labels": {"set": "a"}},
    "recipe": {"recipe": "lab_recipes.where"},
    "name": {"name": "ON"},
    "cluster": {"cluster": "local", "recipe": "lab_recipes.where"},
}


@pytest.mark.parametrize("which", FILTERS)
async def test_only_what_is_asked_for_is_told(connect, which):
    other = {"recipe": "lab_recipes.report", "name": "two", "labels": {"set": "b"}}
    mine = {"recipe": "lab_recipes.where", "name": "one", "labels": {"set": "a", "more": "c"}}
    watching, submitting = await connect(), await connect()
    begun = await watching.call("jobs.subscribe", FILTERS[which])
    assert begun["error"] is None, begun
    wanted = set()
    for _ in range(2):
        await submit(submitting, **other)
        wanted.add(await submit(submitting, **mine))
    seen = await heard(watching, wanted)
    assert {one["job_id"] for one in seen} == wanted
    # A long poll with the same filters, and who comes later, are told the same.
    asked = {**FILTERS[which], "after": begun["seq"]}
    told = await submitting.call("jobs.events", asked)
    assert [event["seq"] for event in told["events"]] == [one["seq"] for one in seen]
    again = await connect()
    await again.call("jobs.subscribe", asked)
    assert await heard(again, wanted) == seen


async def test_only_the_states_that_were_reached_are_told(connect):
    watching, submitting = await connect(), await connect()
    # Jobs of earlier tests may end meanwhile.
    mine = {"labels": {"for": "states"}}
    ends = {"state": ["cancelled", "completed"], **mine}
    begun = await watching.call("jobs.subscribe", ends)
    jobs = [await submit(submitting, **mine) for _ in range(3)]
    seen = await heard(watching, set(jobs))
    assert sorted(one["job_id"] for one in seen) == sorted(jobs)
    every = await submitting.call("jobs.events", {"after": begun["seq"], "job_ids": jobs})
    came = [one for one in every["events"] if one["to"] == "pending" != one["from"]]
    pending = {"after": begun["seq"], "job_ids": jobs, "state": "pending"}
    reached = (await submitting.call("jobs.events", pending))["events"]
    # What was only noted, as that a cancel was asked for, is no state that was reached.
    assert reached == came
    assert {event["job_id"] for event in reached} == set(jobs)


async def test_a_change_carries_the_job_where_that_is_asked_for(connect):
    watching, submitting = await connect(), await connect()
    begun = await watching.call("jobs.subscribe", {"job": True, "labels": {"with": "job"}})
    job_id = await submit(submitting, labels={"with": "job"}, name="Al")
    seen = await changes(watching, job_id)
    for change in seen:
        assert change["job"]["name"] == "Al"
        assert Job.read(change["job"]).labels == {"with": "job"}
    revisions = [change["job"]["revision"] for change in seen]
    assert revisions == sorted(revisions)
    last = await submitting.call("jobs.status", {"job_id": job_id})
    assert seen[-1]["job"] == last
    polled = await submitting.call("jobs.events", {"after": begun["seq"], "job": True})
    assert [event["job"] for event in polled["events"] if event["job_id"] == job_id][-1] == last
    plain = await submitting.call("jobs.events", {"after": begun["seq"]})
    assert not any("job" in event for event in plain["events"])


def oszicar(steps):
    """Write what VASP does of so many ionic steps."""
    lines = (
        f"   {n} F= -.372{n}E+01 E0= -.372{n}E+01  d E =-.1E-02\n" for n in range(1, steps + 1)
    )
    return "".join(lines)


async def test_the_progress_of_named_jobs_is_told_until_they_end(connect, service, go):
    watching, submitting = await connect(), await connect()
    params = {"files": {"OSZICAR": oszicar(1)}, "path": str(go)}
    asked = {"recipe": "lab_recipes.write_and_wait", "structure": STRUCTURE, "params": params}
    job_id = (await submitting.call("jobs.submit", {**asked, "engine": "local"}))["job_id"]
    unknown = await watching.call("jobs.subscribe", {"progress": [job_id, "0" * 8]})
    assert (unknown["code"], unknown["seq"]) == ("unknown_job", None)
    begun = await watching.call("jobs.subscribe", {"progress": [job_id]})
    assert begun["error"] is None

    async def until(holds):
        while True:
            message = await watching.receive()
            if message["method"] == "jobs.progressed":
                told.append(message["params"])
                if holds(told[-1]):
                    return

    def reached(steps):
        return lambda one: (one["progress"] or {}).get("ionic_step") == steps

    told = []
    await until(reached(1))
    (service.work_directory(job_id) / "OSZICAR").write_text(oszicar(2))
    await until(reached(2))
    go.touch()
    await until(lambda one: one["status"] == "completed")
    assert all(before != after for before, after in itertools.pairwise(told))
    assert {one["job_id"] for one in told} == {job_id}
    assert told[-1] == (await submitting.call("jobs.progress", {"job_ids": [job_id]}))["jobs"][0]


async def test_changes_are_told_while_the_files_of_progress_hang(connect, monkeypatch):
    watching, submitting = await connect(), await connect()
    hangs = threading.Event()

    def hanging(*_):
        hangs.wait()
        yield
        return []

    monkeypatch.setattr(events, "progress", hanging)
    job_id = await submit(submitting)
    try:
        begun = await watching.call("jobs.subscribe", {"progress": [job_id]})
        assert begun["error"] is None
        await changes(watching, await submit(submitting))
    finally:
        hangs.set()


async def test_subscribers_ask_no_database(connect, service, monkeypatch):
    watching = [await connect() for _ in range(8)]
    for number, peer in enumerate(watching):
        await peer.call("jobs.subscribe", {"job": True, "labels": {"n": str(number % 2)}})
    submitting = await connect()
    first = [await submit(submitting, labels={"n": str(number)}) for number in range(2)]
    for number, peer in enumerate(watching):
        await changes(peer, first[number % 2])
    asked = []
    monkeypatch.setattr(service, "events", lambda *given: asked.append(given) or ([], 0))
    second = [await submit(submitting, labels={"n": str(number)}) for number in range(2)]
    for number, peer in enumerate(watching):
        await changes(peer, second[number % 2])
    assert asked == []


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"state": "lost"}, "'state'"), ({"labels": {"a": 1}}, "'labels.a'"), ({"job": 1}, "'job'")],
)
async def test_a_filter_that_cannot_be_is_refused(connect, asked, named):
    peer = await connect()
    answer = await peer.call("jobs.subscribe", asked)
    assert answer["code"] == "invalid_job"
    assert named in answer["error"]
    assert (await peer.call("jobs.events", asked))["code"] == "invalid_job"


@pytest.mark.parametrize(
    "asked",
    [
        {"engine": "local"},
        {"engine": "parsl"},
        {"cluster": "local", "name": "al"},
        {"name": "L 1%"},
        {"recipe": "lab_recipes"},
        {"recipe": "lab_recipes.val"},
        {"recipe": "lab_recipes.value", "labels": {"alike": "1"}},
        {"labels": {"alike": "1", "also": "2"}},
        {"labels": {"alike": "2"}},
        {"error": "CANCEL"},
        {"prefix": "0"},
    ],
)
async def test_filters_mean_what_they_mean_in_a_list(connect, asked):
    peer = await connect()
    if not (await peer.call("jobs.list", {"name": "Al 1%"}))["jobs"]:
        await submit(peer, name="Al 1%", labels={"alike": "1", "also": "2"})
        await submit(peer, name="Al 12", labels={"alike": "1"})
    unfinished = {"state": ["pending", "running"]}
    while (await peer.call("jobs.list", unfinished))["jobs"]:  # what was noted of them may differ
        ids = [job["job_id"] for job in (await peer.call("jobs.list", unfinished))["jobs"]]
        await peer.call("jobs.wait", {"job_ids": ids, "timeout_s": 10})
    listed = (await peer.call("jobs.list", {**asked, "limit": 1000}))["jobs"]
    told = (await peer.call("jobs.events", {**asked, "limit": 10_000}))["events"]
    assert {event["job_id"] for event in told} == {job["job_id"] for job in listed}
