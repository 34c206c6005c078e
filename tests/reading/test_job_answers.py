"""`jobs.counts` and `jobs.facets`: how many jobs ended when, and have which values of filters."""

import asyncio
import time

import pytest

from crystalmath import config
from crystalmath.client import in_process
from crystalmath.client.home_reader import HomeReader
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from crystalmath.server import JOBS_FACETS
from crystalmath.server.handlers import METHODS
from crystalmath.service import JobService
from rundirs import new_job

pytestmark = pytest.mark.server

#: A whole hour, and when jobs ended after it (s), how, and whose they were.
HOUR = 1_599_998_400
ENDS = [
    (10, "completed", "a"),
    (3599.9, "failed", "a"),
    (3600, "completed", "b"),
    (7300, "cancelled", "b"),
    (7400, "completed", "a"),
]


def job(number, project):
    labels = {"project": project} | ({"number": str(number)} if number else {})
    terms = {"name": f"job {number}", "labels": labels, "created_at": HOUR - 100.0}
    terms["formula"] = [None, "NaCl", "Na4Cl4", "Cu2O", "Cu"][number]
    recipe = "quacc.recipes.emt.core.static_job"
    return new_job(f"00000000-0000-4000-8000-{number:012}", recipe=recipe, **terms)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a home whose jobs ended long ago."""
    home = tmp_path_factory.mktemp("counted")
    with JobStore(f"sqlite:///{home / 'jobs.sqlite'}") as store:
        jobs = store.insert([job(n, project) for n, (*_, project) in enumerate(ENDS)])
        changes = []
        for one, (after, state, _) in zip(jobs, ENDS, strict=True):
            if state != "cancelled":
                begun = Change(job_id=one.job_id, state=JobState.RUNNING, at=HOUR + 1.0)
                noted = Change(
                    job_id=one.job_id, state=JobState.RUNNING, at=HOUR + 2.0, reason="noted"
                )
                changes += [begun, noted]
            changes.append(Change(job_id=one.job_id, state=JobState(state), at=HOUR + after))
        store.apply(changes)
    return home


@pytest.fixture(scope="module")
def service(home):
    with JobService(config.load({"CRYSTALMATH_HOME": str(home)})) as service:
        yield service


def ask(service, method="jobs.counts", /, **params):
    return asyncio.run(METHODS[method](service, params))


def told(answer):
    """Return the buckets by the hours after `HOUR`, without what there was none of."""
    assert answer["error"] is None, answer
    return {
        (bucket["at"] - HOUR) / answer["bucket_s"]: found
        for bucket in answer["buckets"]
        if (found := {state: count for state, count in bucket["states"].items() if count})
    }


def test_ends_are_counted_by_bucket_and_state(service):
    answer = ask(service, start=HOUR, end=HOUR + 7400)
    assert told(answer) == {
        0: {"completed": 1, "failed": 1},
        1: {"completed": 1},
        2: {"completed": 1, "cancelled": 1},
    }
    assert answer["states"] == {"completed": 3, "failed": 1, "cancelled": 1}
    assert [bucket["at"] for bucket in answer["buckets"]] == [HOUR, HOUR + 3600, HOUR + 7200]
    # Whole buckets, whenever it is asked.
    assert ask(service, start=HOUR + 1, end=HOUR + 7300) == answer
    day = ask(service, bucket_s=86400, start=HOUR, end=HOUR)
    assert day["states"] == answer["states"]


@pytest.mark.parametrize(
    ("asked", "states"),
    [
        ({"labels": {"project": "a"}}, {"completed": 2, "failed": 1, "cancelled": 0}),
        ({"labels": {"project": "c"}}, {"completed": 0, "failed": 0, "cancelled": 0}),
        ({"recipe": "emt.core"}, {"completed": 3, "failed": 1, "cancelled": 1}),
        ({"exclude": {"state": "failed"}}, {"completed": 3, "failed": 0, "cancelled": 1}),
        ({"prefix": "0000", "since": HOUR}, {"completed": 0, "failed": 0, "cancelled": 0}),
        ({"name": "B 1"}, {"completed": 0, "failed": 1, "cancelled": 0}),
        ({"engine": "parsl"}, {"completed": 0, "failed": 0, "cancelled": 0}),
        ({"state": "failed"}, {"failed": 1}),
        # What was noted of a running job is no other beginning.
        ({"state": ["pending", "running"]}, {"pending": 0, "running": 4}),
    ],
)
def test_filters_choose_the_jobs(service, asked, states):
    assert ask(service, start=HOUR, end=HOUR + 7400, **asked)["states"] == states


def test_without_a_time_the_last_buckets_are_told(service):
    answer = ask(service, bucket_s=60)
    assert len(answer["buckets"]) == 24
    assert answer["buckets"][-1]["at"] <= time.time()
    assert told(answer) == {}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"bucket_s": 0}, "'bucket_s'"),
        ({"start": HOUR, "end": HOUR - 3600}, "'start'"),
        ({"bucket_s": 1, "start": 0, "end": HOUR}, "larger 'bucket_s'"),
        ({"state": "gone"}, "'state'"),
    ],
)
def test_what_cannot_be_counted_is_refused(service, asked, named):
    answer = ask(service, **asked)
    assert (answer["code"], answer["buckets"]) == ("invalid_job", [])
    assert named in answer["error"]


def test_the_command_and_the_client_tell_the_same(home, cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    days = round((time.time() - HOUR) / 86400) + 1
    with in_process() as client:
        start = time.time() - days * 86400
        counted = client.ask("jobs.counts", bucket_s=86400, start=start, labels={"project": "a"})
    assert counted["states"] == {"completed": 2, "failed": 1, "cancelled": 0}
    asked = ("counts", "--bucket", "1d", "--last", f"{days}d", "--label", "project=a")
    document = cli(*asked, "--json").json
    assert document.keys() == counted.keys()
    assert document["states"] == counted["states"]
    lines = cli(*asked).out.splitlines()
    assert lines[0].split() == ["FROM", "COMPLETED", "FAILED", "CANCELLED"]
    assert lines[-1].split() == ["all", "2", "1", "0"]
    answer = cli("counts", "--bucket", "1w")
    assert (answer.code, "--bucket" in answer.err, "1w" in answer.err) == (2, True, True)


# --- facets --------------------------------------------------------------------------------------


def values(answer):
    """Return what was counted by the filter, or by the label."""
    assert answer["error"] is None, answer
    return {
        each["label"] or each["filter"]: {one["value"]: one["count"] for one in each["values"]}
        for each in answer["facets"]
    }


def test_jobs_are_counted_by_each_value_of_the_filters(service, home, monkeypatch):
    answer = ask(service, "jobs.facets")
    assert values(answer) == {
        "state": {"completed": 3, "failed": 1, "cancelled": 1},
        "recipe": {"quacc.recipes.emt.core.static_job": 5},
        "engine": {"local": 5},
        "cluster": {"local": 5},
        "elements": {"Cl": 2, "Na": 2, "Cu": 2, "O": 1},
        "number": {"1": 1, "2": 1, "3": 1, "4": 1},
        "project": {"a": 3, "b": 2},
    }
    # A process that finds no server tells the same.
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    with HomeReader() as reader:
        assert reader.ask(JOBS_FACETS) == answer
    chosen = values(ask(service, "jobs.facets", elements=["Cu"], exclude={"state": "cancelled"}))
    assert chosen["elements"] == {"Cu": 1}
    assert (chosen["project"], chosen["state"]) == ({"a": 1}, {"completed": 1})
    nothing = values(ask(service, "jobs.facets", labels={"project": "'; DROP TABLE jobs"}))
    assert {name: found for name, found in nothing.items() if found} == {}
    for facet in answer["facets"]:  # each value is one that its filter takes
        for value, count in values({**answer, "facets": [facet]}).popitem()[1].items():
            given = {facet["label"]: value} if facet["label"] else value
            given = [given] if facet["filter"] == "elements" else given
            found = ask(service, "jobs.list", **{facet["filter"]: given})["jobs"]
            assert len(found) == count


def test_only_the_first_values_and_labels_are_told_and_how_many_there_are(service):
    answer = ask(service, "jobs.facets", limit=1)
    assert [(each["filter"], each["label"], each["more"]) for each in answer["facets"]] == [
        ("state", None, 2),
        ("recipe", None, 0),
        ("engine", None, 0),
        ("cluster", None, 0),
        ("elements", None, 3),
        ("labels", "number", 3),
    ]
    assert values(answer)["state"] == {"completed": 3}
    assert answer["more"] == 1
    for wrong in ({"limit": 0}, {"limit": 10**9}, {"limit": "5"}, {"labels": {"a": 1}}):
        refused = ask(service, "jobs.facets", **wrong)
        assert (refused["code"], refused["facets"]) == ("invalid_job", [])
