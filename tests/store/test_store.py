"""The job store, on SQLite; on PostgreSQL too where ``CRYSTALMATH_TEST_POSTGRESQL`` is set."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from operator import attrgetter
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import inspect, select, text

from commands import ran
from crystalmath.errors import AlreadyRetried, InvalidJob, KeyConflict, UnknownJob
from crystalmath.jobs import life
from crystalmath.jobs.changes import Change
from crystalmath.jobs.facts import Ended, Files, Moment, Outcome, Record
from crystalmath.models.columns import SORTED_BY
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.quacc.store import JobStore
from crystalmath.store import selection, tables
from crystalmath.store.plain_sql import HEAD, Snapshot
from crystalmath.store.records import group_errors
from crystalmath.store.tables import metadata
from rundirs import new_job

POSTGRESQL = os.environ.get("CRYSTALMATH_TEST_POSTGRESQL")
STEPS = {
    (None, "pending"),
    ("pending", "running"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("running", "completed"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "pending"),
}
HOSTILE = [
    "",
    "'; drop table jobs; --",
    "%",
    "_",
    "\0",
    "\ud800",
    "\U0010ffff",
    "a" * 9999,
    None,
    7,
]


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRESQL else [])])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").new_url()
    return f"sqlite:///{tmp_path}/home/jobs.sqlite"


@pytest.fixture
def store(url):
    with JobStore(url) as opened:
        yield opened


def new(job_id=None, **given):
    options = {"recipe": "quacc.recipes.emt.core.relax_job", "created_at": 1.0}
    return new_job(job_id, **options | given)


def submit(store, **given):
    return store.insert([new(**given)])[0].job_id


def change(job_id, state, at=2.0, **given):
    return Change(job_id=job_id, state=JobState(state), at=at, **given)


def history(store, job_id=None):
    return [
        (event.from_state and event.from_state.value, event.to_state.value)
        for event in store.events(job_id=job_id)
    ]


# --- what is recorded -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["retry", "reread"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_a_job_that_is_run_again_is_superseded_in_whatever_order_they_come(store, order, role):
    first, second, third = ids = [generate_job_id() for _ in range(3)]
    parents = [[], [{"job_id": first, "role": role}], [{"job_id": second, "role": role}]]
    assert store.totals(steps=False, superseded=False) == {}
    last = 0
    for at in order:
        (recorded,) = store.insert([new(ids[at], parents=parents[at], name=f"try {at}")])
        assert recorded == store.get(ids[at])
        store.apply([change(ids[at], "failed", error=f"error {at}")])
        left = [job for job in store.list() if job.superseded_by is None]
        assert store.list(superseded=False) == left
        # What was counted before is only brought up to date.
        assert store.totals(steps=False, superseded=False) == {JobState.FAILED: len(left)}
        assert {one.job_id for one in store.failures(5)} == {job.job_id for job in left}
        last, before = store.last_event(), last
        assert last > before
    assert [store.get(each).superseded_by for each in ids] == [second, third, None]
    told = [event.reason for event in store.events(job_id=first)]
    assert told.count(f"superseded by job {second}") == 1
    # Of several that run the same job again, the newest.
    fourth = submit(store, parents=[{"job_id": first, "role": role}])
    assert store.get(first).superseded_by == fourth
    assert {job.job_id for job in store.list(superseded=True)} == {first, second}
    assert all(job.state is JobState.FAILED for job in store.list(superseded=True))


def test_a_new_job_reads_back_as_it_was_given(store):
    given = new(
        name="Cu, ä",
        labels={"project": "x", "a.b": ""},
        key="k",
        walltime_s=7200.0,
        formula="Cu4",
        owner={"host": "h", "boot_id": "b", "pid": 7, "start_time": 1.5},
        warnings=[{"severity": "warning", "code": "c", "message": "m"}],
        specification='{"recipe": "ü"}',
        pseudopotentials=[{"symbol": "Cu", "path": "/ä/\ud800\0", "zval": 11.0}],
    )
    [job] = store.insert([given])
    assert job == store.get(given.job_id)
    assert (job.state, job.revision, job.attempt) == (JobState.PENDING, 0, 1)
    assert (job.name, job.labels, job.formula) == (given.name, given.labels, "Cu4")
    assert (job.owner, job.warnings) == (given.owner, given.warnings)
    assert job.started_at is job.finished_at is job.error is job.summary is None
    assert store.specification(given.job_id) == given.specification
    assert store.pseudopotentials(given.job_id) == given.pseudopotentials
    assert store.pseudopotentials(submit(store)) == []
    event = store.events()[0]
    assert (event.job_id, event.at, event.from_state) == (given.job_id, 1.0, None)


def test_what_has_ended_elsewhere_is_on_record_with_its_end_or_not_at_all(store):
    jobs = [new(removed="all", removed_at=9.0), new(), new()]
    ends = [
        change(jobs[0].job_id, "completed", 5.0, started_at=3.0, summary={"energy_ev": 1.0}),
        change(jobs[1].job_id, "failed", error="it broke", attempt=2),
        change(jobs[2].job_id, "cancelled", error="cancelled"),
    ]
    recorded = store.insert_ended(list(zip(jobs, ends, strict=True)))
    assert recorded == store.get_many([job.job_id for job in jobs])
    assert [job.state.value for job in recorded] == ["completed", "failed", "cancelled"]
    first, second, _ = recorded
    assert (first.started_at, first.finished_at, first.removed) == (3.0, 5.0, "all")
    assert (first.summary, second.error, second.attempt) == ({"energy_ev": 1.0}, "it broke", 2)
    assert [job.job_id for job in store.list(sort="energy_ev", limit=1)] == [first.job_id]
    assert store.unfinished() == []
    steps = [(None, "pending"), ("pending", "running"), ("running", "completed")]
    assert history(store, first.job_id) == steps
    events = store.last_event()
    fresh = new(), new(key="k")
    taken = submit(store, key="k")
    for other in (jobs[1], fresh[1]):
        with pytest.raises(InvalidJob):
            store.insert_ended([(job, change(job.job_id, "failed")) for job in (fresh[0], other)])
    assert [job.job_id for job in store.unfinished()] == [taken]
    assert store.last_event() == events + 1


def test_jobs_survive_reopening(url):
    with JobStore(url) as store:
        job_id = submit(store)
        store.apply([change(job_id, "completed", summary={"energy_ev": -1.5})])
    with JobStore(url, create=False) as store:
        assert store.get(job_id).summary == {"energy_ev": -1.5}


@pytest.mark.parametrize("field", ["job_id", "name", "key", "specification", "recipe"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_cannot_be_stored_is_refused_at_submission(store, field, text):
    with pytest.raises(InvalidJob, match=field):
        store.insert([new(), new(**{field: text})])
    with pytest.raises(InvalidJob, match="label"):
        store.insert([new(labels={"a": text})])
    assert store.list() == []


@pytest.mark.parametrize("given", [{"key": "é" * 501}, {"labels": {"a": "b" * 1001}}])
def test_what_is_too_long_for_an_index_is_refused(store, given):
    with pytest.raises(InvalidJob, match="1000 bytes"):
        store.insert([new(**given)])


def test_an_outcome_is_recorded_whatever_its_texts_contain(store):
    job_id = submit(store)
    [job] = store.apply([change(job_id, "failed", error="a\0\ud800", traceback="\udc80")])
    assert job == store.get(job_id)
    assert job.error == r"a\x00\ud800"
    other = submit(store)
    summary = {"work_dir": "/x\udcff", "as_text": ["a\0"], "natoms": 1}
    [job] = store.apply([change(other, "completed", summary=summary)])
    assert job == store.get(other)
    assert job.summary == {"work_dir": r"/x\udcff", "as_text": [r"a\x00"], "natoms": 1}


@pytest.mark.parametrize("events", [0, 1])
def test_events_that_come_can_be_given_larger_numbers(store, events):
    for _ in range(events):
        submit(store)
    store.number_events_from(10**12)
    job_id = submit(store)
    assert [(event.seq, event.job_id) for event in store.events(after=10**12)] == [
        (10**12 + 1, job_id)
    ]
    store.number_events_from(5)
    submit(store)
    assert store.last_event() == 10**12 + 2


def test_an_id_that_is_taken_is_refused(store):
    job_id = submit(store)
    for jobs in ([new(job_id)], [new("one"), new("one")]):
        with pytest.raises(InvalidJob, match="exists"):
            store.insert(jobs)
    assert [job.job_id for job in store.list()] == [job_id]


# --- keys -----------------------------------------------------------------------------------------


def test_a_known_key_gives_the_job_that_has_it_with_its_present_state(store):
    first = submit(store, key="k")
    store.apply([change(first, "running")])
    again, other = store.insert([new(key="k"), new()])
    assert (again.job_id, again.state) == (first, JobState.RUNNING)
    assert len(store.list()) == 2
    assert store.get(other.job_id) == other
    assert store.by_key(["k", "unknown", "\0", "\ud800"]) == {"k": again}


def test_a_key_with_another_specification_records_nothing_at_all(store):
    first = submit(store, key="k")
    with pytest.raises(KeyConflict, match=f"'k'.*{first}"):
        store.insert([new(), new(key="k", spec_hash="other")])
    assert [job.job_id for job in store.list()] == [first]
    assert len(store.events()) == 1


def test_keys_hold_within_one_call(store):
    first, second, third = store.insert([new(key="k"), new(key="k"), new(key="l")])
    assert first == second != third
    with pytest.raises(KeyConflict):
        store.insert([new(key="m"), new(key="m", spec_hash="other")])
    assert len(store.list()) == 2


def test_threads_that_race_for_a_key_get_one_job(url):
    with JobStore(url) as one, JobStore(url) as two, ThreadPoolExecutor(8) as pool:
        for key in "abc":
            stores = [one, two] * 8
            answers = list(pool.map(lambda store, k=key: submit(store, key=k), stores))
            assert len(set(answers)) == 1
        assert len(one.list()) == 3


#: Has four forks of one process, which has imported all, call `run` at once.
RACE = """
go, begin = os.pipe()
racers = []
for _ in range(4):
    racers.append(os.fork())
    if racers[-1] == 0:
        os.read(go, 1)
        os.write(1, run(*sys.argv[1:]).encode() + b" ")
        os._exit(0)
os.write(begin, b"....")
sys.exit(any([os.waitpid(pid, 0)[1] for pid in racers]))
"""


def race(code, *arguments):
    """Have four processes run code at once; return what each says."""
    done = ran(sys.executable, "-W", "error", "-c", code + RACE, *arguments)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


CREATES = """
import os, sys, uuid
from crystalmath.quacc.store import JobStore, NewJob
import alembic.command, filelock, sqlalchemy.dialects.sqlite

def run(url):
    job = NewJob(job_id=str(uuid.uuid4()), recipe="r", engine="e", key="k", spec_hash="h",
                 specification="s", created_at=0.0)
    with JobStore(url) as store:
        return store.insert([job])[0].job_id
"""


def test_processes_that_create_the_database_at_once_all_succeed(url):
    answers = race(CREATES, url)
    assert answers == answers[:1] * 4
    with JobStore(url, create=False) as store:
        assert len(store.list()) == len(store.events()) == 1


def retry_of(job_id, **given):
    given = {"only_retry": True, "parents": [{"job_id": job_id, "role": "retry"}], **given}
    return new(generate_job_id(), **given)


def test_who_is_late_to_retry_a_job_is_told_of_the_retry_there_is(url):
    with JobStore(url) as one, JobStore(url) as two, ThreadPoolExecutor(8) as pool:
        olds = [submit(one) for _ in range(3)]

        def retry_all(store):
            return store.insert_each([retry_of(old) for old in olds])

        for answers in zip(*pool.map(retry_all, [one, two] * 4), strict=True):
            [made] = [answer for answer in answers if not isinstance(answer, InvalidJob)]
            late = [answer for answer in answers if answer is not made]
            assert {type(answer) for answer in late} == {AlreadyRetried}
            told = f"it was run again already, as job {made.job_id} (pending)"
            assert {str(answer) for answer in late} == {told}
        assert len(one.list()) == 6
        # Whoever names a job means it; a key goes before; and one transaction is no other.
        [again] = one.insert_each([retry_of(olds[0], only_retry=False)])
        [keyed] = one.insert_each([retry_of(submit(one), key="k")])
        assert one.insert_each([retry_of(keyed.parents[0]["job_id"], key="k")]) == [keyed]
        fresh = submit(one)
        first, second = one.insert_each([retry_of(fresh), retry_of(fresh)])
        assert (first.parents[0]["job_id"], type(second)) == (fresh, AlreadyRetried)
        assert one.retries([olds[0]])[olds[0]][-1] == again.job_id


RETRIES = """
import os, sys
from crystalmath.quacc.runner import generate_job_id
from crystalmath.quacc.store import JobStore, NewJob
import sqlalchemy.dialects.sqlite

def run(url, old):
    [answer] = JobStore(url).insert_each([NewJob(
        job_id=generate_job_id(), recipe="r", engine="local", spec_hash="h", specification="{}",
        created_at=1.0, only_retry=True, parents=[{"job_id": old, "role": "retry"}],
    )])
    return type(answer).__name__
"""


def test_processes_that_retry_a_job_at_once_make_one(url):
    with JobStore(url) as store:
        old = submit(store)
        assert race(RETRIES, url, old) == ["AlreadyRetried"] * 3 + ["Job"]
        assert len(store.retries([old])[old]) == 1


# --- changes --------------------------------------------------------------------------------------


def test_an_outcome_that_is_found_passes_through_running(store):
    job_id = submit(store)
    [job] = store.apply([change(job_id, "completed", 9.0, started_at=4.0, reason="found")])
    assert job == store.get(job_id)
    assert (job.state, job.started_at, job.finished_at) == (JobState.COMPLETED, 4.0, 9.0)
    log = store.events(job_id=job_id)
    assert [(event.to_state.value, event.at, event.reason) for event in log[1:]] == [
        ("running", 4.0, None),
        ("completed", 9.0, "found"),
    ]
    assert job.revision == 2


@pytest.mark.parametrize("noticed", [None, 2.0, 9.25])  # also while it imported quacc
@pytest.mark.parametrize(
    ("told", "seen_at", "times"),
    [
        ((4.0, 9.0), 9.5, (4.0, 9.0)),
        ((4.0, 9.0), 30000.0, (4.0, 9.0)),  # by the next owner, a night later
        ((1004.0, 1009.0), 12.0, (7.0, 12.0)),  # the clock of its host is ahead
        ((9.0, 4.0), 12.0, (9.0, 9.0)),  # or was set back
    ],
)
def test_a_job_has_ended_when_its_outcome_says(store, told, seen_at, times, noticed):
    job_id = submit(store)
    if noticed:
        store.apply([change(job_id, "running", noticed)])
    record = Record(job_id=job_id, place="/jobs", state=store.get(job_id).state)
    outcome = Outcome(state="completed", started=told[0], finished=told[1])
    files = Files(attempt=1, outcome=outcome)
    looks = [
        life.step(record, files, now=Moment(seen_at, 1.0), owns=owns).changes
        for owns in (False, True)
    ]
    assert looks[0] == looks[1]
    [job] = store.apply(looks[0])
    assert (job.started_at, job.finished_at) == times


def test_an_attempt_that_was_lost_keeps_when_it_began(store):
    job_id = submit(store)
    store.apply([change(job_id, "running", 3.0, attempt=2)])
    record = Record(job_id=job_id, place="/jobs", state=JobState.RUNNING, attempt=2)
    # Whoever finds it lost publishes that, and knows no other time.
    outcome = Outcome(state="lost", error="it died", started=50.0, finished=50.0)
    files = Files(attempt=2, outcome=outcome, ended=Ended())
    [job] = store.apply(life.step(record, files, now=Moment(90.0, 1.0)).changes)
    assert (job.state, job.started_at, job.finished_at) == (JobState.FAILED, 3.0, 50.0)


def test_a_flow_has_begun_with_its_first_pass_and_ended_with_its_last(store):
    job_id = submit(store, stage="pass")
    store.apply([change(job_id, "running", 3.0)])
    [job] = store.apply([change(job_id, "completed", 90.0, started_at=50.0, finished_at=60.0)])
    assert (job.started_at, job.finished_at) == (3.0, 60.0)


def test_a_lost_attempt_goes_back_to_pending(store):
    job_id = submit(store)
    store.apply([change(job_id, "running", 3.0)])
    [job] = store.apply([change(job_id, "pending", 5.0, reason="lost", attempt=2)])
    assert (job.state, job.attempt, job.started_at) == (JobState.PENDING, 2, None)
    [job] = store.apply([change(job_id, "running", 6.0)])
    assert (job.attempt, job.started_at) == (2, 6.0)


def test_several_changes_of_one_job_apply_in_order(store):
    one, two = submit(store), submit(store)
    states = ["running", "pending", "running", "failed", "completed"]
    changed = store.apply([change(one, state) for state in states] + [change(two, "running")])
    assert [(job.job_id, job.state.value) for job in changed] == [(one, "failed"), (two, "running")]
    assert [to for _, to in history(store, one)] == ["pending", *states[:4]]


def test_what_is_no_step_is_passed_over(store):
    job_id = submit(store)
    assert store.apply([]) == []
    assert store.apply([change("no such job", "running"), change(job_id, "pending")]) == []
    store.apply([change(job_id, "cancelled")])
    job = store.get(job_id)
    assert store.apply([change(job_id, state.value, error="late") for state in JobState]) == []
    assert store.get(job_id) == job


def test_many_jobs_in_one_call(store):
    count = 1201
    jobs = store.insert([new(key=f"key {n}") for n in range(count)])
    assert len(store.apply([change(job.job_id, "completed") for job in jobs])) == count
    assert [job.job_id for job in store.get_many([job.job_id for job in jobs])] == [
        job.job_id for job in jobs
    ]
    assert len(store.events()) == 3 * count
    assert store.unfinished() == []


def test_threads_that_race_to_finish_a_job_agree(url):
    with JobStore(url) as one, JobStore(url) as two, ThreadPoolExecutor(8) as pool:
        job_id = submit(one)
        calls = [(s, state) for s in (one, two) for state in ("failed", "cancelled", "completed")]
        won = list(pool.map(lambda call: call[0].apply([change(job_id, call[1])]), calls))
        [job] = [job for jobs in won for job in jobs]
        assert job == one.get(job_id)


def test_a_cancel_is_noted_once(store):
    job_id = submit(store)
    with pytest.raises(UnknownJob):
        store.note_cancel([job_id, "unknown"], 2.0)
    [job] = store.note_cancel([job_id], 3.0)
    other = submit(store)
    told = {each.job_id: each for each in store.note_cancel([job_id, other], 4.0)}
    assert told == {job_id: job, other: store.get(other)}
    assert (store.get(job_id), told[other].cancel_requested_at) == (job, 4.0)
    assert (job.cancel_requested_at, job.state) == (3.0, JobState.PENDING)
    noted = store.events(job_id=job_id)[-1]
    assert (noted.from_state, noted.to_state, noted.reason) == (
        JobState.PENDING,
        JobState.PENDING,
        "cancel requested",
    )
    [job] = store.apply([change(job_id, "cancelled")])
    assert job.cancel_requested_at == 3.0


def test_a_cancel_of_a_finished_job_changes_nothing(store):
    job_id = submit(store)
    [job] = store.apply([change(job_id, "failed")])
    assert store.note_cancel([job_id], 3.0) == [job] == [store.get(job_id)]


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_are_unknown_jobs(store, name):
    submit(store)
    for ask in (
        store.get,
        store.specification,
        store.pseudopotentials,
        lambda name: store.note_cancel([name], 1.0),
    ):
        with pytest.raises(UnknownJob):
            ask(name)
    assert store.get_many([name]) == store.apply([change(name, "running")]) == []
    assert store.list(engine=name or "") == store.list(label={"a": name}) == []
    if name is not None:
        assert store.events(job_id=name) == []
        with pytest.raises(UnknownJob):
            store.list(before=name)
    assert len(store.list()) == 1


def test_a_prefix_finds_ids_and_knows_no_wildcards(store):
    ids = ["a%b", "a_c", "aXc", "b", "bé"]
    store.insert([new(name) for name in ids])
    found = {prefix: store.find(prefix) for prefix in ["a", "a_", "a%", "%", "b", "bé", "A", "c"]}
    assert found == {
        "a": ["a%b", "aXc", "a_c"],
        "a_": ["a_c"],
        "a%": ["a%b"],
        "%": [],
        "b": ["b", "bé"],
        "bé": ["bé"],
        "A": [],
        "c": [],
    }
    assert store.find("", limit=2) == ["a%b", "aXc"]


@pytest.mark.parametrize("prefix", HOSTILE[1:])
def test_a_hostile_prefix_finds_nothing(store, prefix):
    submit(store)
    assert store.find(prefix) == []


def test_list_filters_in_any_combination(store):
    store.insert(
        [
            new("1", engine="parsl", labels={"p": "x", "q": "y"}),
            new("2", engine="local", labels={"p": "x"}, recipe="mine"),
            new("3", engine="parsl", labels={"p": "z"}),
        ]
    )
    store.apply([change("3", "running"), change("2", "failed")])

    def ids(**given):
        return "".join(job.job_id for job in store.list(**given))

    assert ids() == "321"
    assert ids(newest_first=False) == "123"
    assert ids(engine="parsl") == "31"
    assert ids(recipe="mine") == "2"
    assert ids(label={"p": "x"}) == "21"
    assert ids(label={"p": "x", "q": "y"}) == "1"
    assert ids(label={"q": "x"}) == ""
    assert ids(state=JobState.FAILED) == "2"
    assert ids(state=[JobState.FAILED, JobState.RUNNING], engine="parsl") == "3"
    assert ids(state=[]) == ""
    assert ids(limit=2) == "32"
    assert ids(limit=2, before="2") == "1"
    assert ids(limit=0) == ""
    assert "".join(job.job_id for job in store.unfinished()) == "13"
    assert store.unfinished(engine="local") == []


FILTERED = [
    ({"name": "ENCUT=400"}, "1"),
    ({"name": "%"}, ""),
    ({"name": "\0"}, ""),
    ({"recipe": "emt"}, "21"),
    ({"recipe": "quacc.recipes.emt.core.relax_job"}, "2"),
    ({"recipe": "emt.core.relax"}, ""),
    ({"formula": "NaCl"}, "32"),
    ({"formula": "Cl4Na4"}, "3"),
    ({"formula": "Na4Cl4"}, "3"),
    ({"elements": ["na"]}, "32"),
    ({"elements": ["C"]}, "1"),
    ({"elements": ["Na", "C"]}, ""),
    ({"energy_min": -3.0}, "2"),
    ({"energy_max": -3.0}, "1"),
    ({"energy_min": -4.0, "energy_max": -2.0}, "21"),
    ({"since": 2.0}, "432"),
    ({"since": 2.0, "until": 4.0}, "32"),
    ({"cluster": "slurm"}, "4"),
    ({"exclude": {"state": ["completed"]}}, "43"),
    ({"exclude": {"label": {"p": "x", "q": "y"}}}, "43"),
    ({"exclude": {"elements": ["C", "Cl"]}}, "4"),
    ({"exclude": {"name": "encut", "recipe": "lab"}}, "2"),
    ({"exclude": {"error": "boom"}}, "421"),
    ({"error": "BOOM", "name": "three"}, "3"),
    ({"error": "boom", "exclude": {"name": "three"}}, ""),
]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four jobs: two that completed, one that failed, one that waits."""
    with JobStore(f"sqlite:///{tmp_path_factory.mktemp('four')}/jobs.sqlite") as store:
        emt = "quacc.recipes.emt.core"
        common = {"recipe": f"{emt}.relax_job", "name": "two"}
        store.insert(
            [
                new("1", recipe=f"{emt}.static_job", name="CO2 encut=400", formula="CO2",
                    labels={"p": "x"}, created_at=1.0),
                new("2", formula="Cl2Na2", labels={"q": "y"}, created_at=2.0, **common),
                new("3", recipe="lab.f", name="three", formula="Cl4Na4", created_at=3.0),
                new("4", recipe="lab.g", name=None, created_at=4.0, cluster="slurm"),
            ]
        )  # fmt: skip
        store.apply(
            [
                change("1", "completed", summary={"energy_ev": -4.0, "natoms": 3}),
                change("2", "completed", summary={"energy_ev": -2.0, "natoms": 1}),
                change("3", "failed", error="Boom"),
            ]
        )
        yield store


def test_totals_are_those_of_now(url):
    """Though they are counted once for all who ask: whoever changes something."""
    with JobStore(url) as store, JobStore(url) as other:
        store.insert([new("1", recipe="lab.f"), new("2", recipe="lab.g"), new("3")])
        for _ in range(2):
            assert store.totals(recipe="lab") == {JobState.PENDING: 2}
        store.totals(recipe="lab").clear()
        other.apply([change("1", "cancelled")])
        assert store.totals(recipe="lab") == {JobState.PENDING: 1, JobState.CANCELLED: 1}
        store.insert([new("4", recipe="lab.h")])
        assert store.totals(recipe="lab")[JobState.PENDING] == 2
        assert store.totals(recipe="lab", seen={"4": JobState.RUNNING})[JobState.RUNNING] == 1
        assert store.totals(recipe="lab.h") == {JobState.PENDING: 1}


def test_totals_follow_what_becomes_known_of_a_job_later(store):
    """A waiting job gets its formula with the structure, and a flow takes over older steps."""
    parent = {"job_id": "1", "role": "structure"}
    store.insert([new("1", formula="Cu"), new("2", parents=[{**parent, "awaited": "ok"}])])
    store.insert([new("f"), new("g"), step("f", "relax#0", "3"), step("g", "relax#0", "4")])
    asked = [{"formula": "Cu"}, {"elements": ["Cu"]}, {"parent": "g"}]
    for filters, count in zip(asked, (1, 1, 1), strict=True):
        assert store.totals(**filters) == {JobState.PENDING: count}
    store.put_in([(store.get("2"), new("2", formula="Cu2", parents=[parent]))], 3.0)
    store.take_over("g", ["3"])
    store.apply([change("2", "running")])
    for filters in asked:
        listed = Counter(job.state for job in store.list(**filters))
        assert store.totals(**filters) == listed
        assert listed.total() == 2


def test_facets_follow_ends_retries_and_new_values(store):
    asked = [{}, {"superseded": False}, {"superseded": True}, {"elements": ["Cu"]}]
    asked += [{"state": ["failed", "completed"], "label": {"p": "x"}}, {"energy_min": -5.0}]
    parents = [{"job_id": "1", "role": "structure", "awaited": "ok"}]
    summary = {"energy_ev": -4.0}

    def facets(**filters):
        """Count the values in the records."""
        jobs = store.list(**filters)
        values = [("state", None, job.state.value) for job in jobs]
        values += [
            (name, None, getattr(job, name)) for job in jobs for name in ("recipe", "engine")
        ]
        values += [("labels", *label) for job in jobs for label in job.labels.items()]
        values += [("elements", None, "Cu") for job in jobs if job.formula]
        return Counter(values)

    for action in (
        lambda: store.insert(
            [new("1", formula="Cu", labels={"p": "x"}), new("2", labels={"p": "y"})]
        ),
        lambda: store.insert([new("3", parents=parents, labels={"p": "x"})]),
        lambda: store.apply([change("1", "completed", summary=summary), change("2", "failed")]),
        lambda: store.put_in([(store.get("3"), new("3", formula="Cu"))], 3.0),
        lambda: store.apply([change("3", "failed")]),
        lambda: store.insert([new("4", parents=[{"job_id": "3", "role": "retry"}])]),
        lambda: store.apply([change("4", "completed", summary=summary)]),
        lambda: store.note_removed(["1"], "all", "removed", 5.0),
    ):
        action()
        for filters in asked:
            for _ in range(2):
                counted = store.facets(**filters)
                flat = {(*key, value): n for key, by in counted.items() for value, n in by.items()}
                flat = {key: n for key, n in flat.items() if key[0] != "cluster"}
                assert flat == facets(**filters), filters


def step(flow, name, job_id, **more):
    return new(job_id, parents=[{"job_id": flow, "role": "flow", "step": name}], **more)


def test_the_steps_of_flows(store):
    store.insert(
        [new("f"), step("f", "relax#0", "1", recipe="lab.f"), step("f", "static#0", "2"), new("g")]
    )
    assert store.totals(steps=False) == {JobState.PENDING: 2}
    again = [*step("f", "static#0", "3").parents, {"job_id": "2", "role": "retry"}]
    store.insert([new("3", parents=again), step("g", "relax#0", "4")])
    store.apply([change("1", "completed"), change("2", "failed")])

    def ids(**given):
        found = "".join(job.job_id for job in store.list(**given))
        assert sum(store.totals(**given).values()) == len(found)
        return found

    assert ids(steps=False) == "gf"
    assert ids() == ids(steps=True) == "43g21f"
    assert ids(parent="f") == "321"
    assert ids(parent=["f", "g"], state=["pending"]) == "43"
    assert ids(parent="f", recipe="lab", exclude={"state": ["failed"]}) == "1"
    assert ids(parent="1") == ""
    # Of one step the newest job counts: the retry of the failed one.
    of_f = {JobState.COMPLETED: 1, JobState.PENDING: 1}
    assert store.steps(["f", "g", "1", "\0"]) == {"f": of_f, "g": {JobState.PENDING: 1}}
    states = {"1": JobState.COMPLETED, "2": JobState.FAILED, "3": JobState.PENDING}
    assert store.step_states("f") == states
    with pytest.raises(UnknownJob):
        store.list(parent="9")


@pytest.mark.parametrize(("filters", "found"), FILTERED)
def test_lists_are_filtered(four, filters, found):
    assert "".join(job.job_id for job in four.list(**filters)) == found
    assert "".join(job.job_id for job in four.list(newest_first=False, **filters)) == found[::-1]
    totals = four.totals(**filters)
    assert sum(totals.values()) == len(found)
    assert four.summary(**filters)[0] == totals


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("energy_ev", "1243"),
        ("-energy_ev", "2143"),
        ("energy_per_atom_ev", "2143"),
        ("name", "1324"),
        ("-name", "2314"),
        ("created_at", "1234"),
        ("-created_at", "4321"),
        ("state", "2134"),
        ("formula", "1234"),
    ],
)
def test_lists_are_sorted_and_paged(four, sort, order):
    assert "".join(job.job_id for job in four.list(sort=sort)) == order
    before, pages = None, ""
    while page := four.list(sort=sort, limit=1, before=before):
        before = page[0].job_id
        pages += before
    assert pages == order


@pytest.mark.parametrize("column", SORTED_BY)
def test_lists_are_sorted_by_every_column_that_is_offered(four, column):
    for sort in (column, f"-{column}"):
        assert sorted(job.job_id for job in four.list(sort=sort)) == ["1", "2", "3", "4"]


def test_short_rows_follow_the_changes_of_jobs(store):
    job_id = submit(store)
    store.apply([change(job_id, "running", attempt=2, started_at=5.0)])
    both = tables.jobs.c, tables.listed.c
    same = sorted(set.intersection(*({column.name for column in one} for one in both)))
    with store._database.writing() as connection:
        rows, short = (connection.execute(select(*(one[name] for name in same))) for one in both)
        assert rows.all() == short.all()


def test_any_energy_and_number_of_atoms_can_be_sorted_by(store):
    """PostgreSQL refuses what underflows, overflows or is divided by nothing."""
    odd = [(5e-324, 7), (-5e-324, 2), (1e308, 0), (-1e308, 3), (0.0, 0), (-3.0, 4)]
    store.insert([new(str(number)) for number in range(len(odd))])
    for number, (energy, natoms) in enumerate(odd):
        summary = {"energy_ev": energy, "natoms": natoms}
        store.apply(
            [change(str(number), "running"), change(str(number), "completed", summary=summary)]
        )
    for sort in ("energy_per_atom_ev", "-energy_per_atom_ev"):
        order = [job.job_id for job in store.list(sort=sort)]
        assert sorted(order) == list("012345")
        assert order[-2:] == ["4", "2"]
        before, pages = None, []
        while page := store.list(sort=sort, limit=1, before=before):
            before = page[0].job_id
            pages.append(before)
        assert pages == order


def test_what_cannot_be_asked_of_a_list(four):
    for wrong, told in (
        ({"sort": "energy"}, "not sorted by 'energy'; did you mean 'energy_ev'"),
        ({"formula": "nacl"}, "'nacl' is no formula"),
        ({"formula": ""}, "'' is no formula"),
        ({"elements": ["Qq"]}, "'Qq' is no element"),
        ({"exclude": {"elements": ["Qq"]}}, "'Qq' is no element"),
    ):
        with pytest.raises(InvalidJob, match=told):
            four.list(**wrong)


def test_get_many_keeps_the_order_and_leaves_out_what_is_unknown(store):
    store.insert([new("1"), new("2")])
    assert [job.job_id for job in store.get_many(["2", "none", "1"])] == ["2", "1"]


def test_events_can_be_followed(store):
    job_id = submit(store)
    [first] = store.events()
    store.apply([change(job_id, "completed")])
    assert [e.to_state.value for e in store.events(after=first.seq)] == ["running", "completed"]
    [second] = store.events(after=first.seq, limit=1)
    assert second.seq > first.seq


# --- the database ---------------------------------------------------------------------------------


def test_readers_of_the_events_miss_none_however_many_write(url):
    """A lower seq must not appear behind a higher one."""

    def write(_):
        with JobStore(url) as store:
            for _ in range(15):
                job_id = submit(store)
                store.apply([change(job_id, "running"), change(job_id, "completed")])

    def read(_):
        seen, last = [], 0
        with JobStore(url) as store:
            while len(seen) < 3 * 15 * 3:
                found, last = store.follow(last, limit=5)
                seen += [event.seq for event in found]
                assert not found or found[-1].seq <= last
        return seen

    JobStore(url).close()
    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, None) for _ in range(3)]
        list(pool.map(write, range(3)))
        found = [reader.result() for reader in readers]
    with JobStore(url) as store:
        assert found == [[event.seq for event in store.events()]] * 3
        assert store.last_event() == found[0][-1]


def test_the_events_of_some_jobs(store):
    first, second = submit(store), submit(store)
    store.apply([change(second, "running")])
    [*_, last] = store.events()
    assert last.job_id == second
    assert store.follow(job_id=[first])[1] == last.seq
    assert [event.job_id for event in store.events(job_id={first, "nobody", "\0"})] == [first]
    many = [f"nobody {index}" for index in range(2000)]
    for ids in ([second], [*many, second]):
        told = [event.to_state.value for event in store.events(job_id=ids)]
        assert told == ["pending", "running"]
        [event], seen = store.follow(job_id=ids, limit=1)
        assert seen == event.seq < last.seq
    assert store.follow(job_id=[]) == ([], last.seq)
    assert store.follow(after=last.seq + 100) == ([], last.seq)
    assert store.follow(after=last.seq) == ([], last.seq)


def test_counts_by_state_and_by_error(store):
    ids = [submit(store, engine="e", labels={"n": str(index % 2)}) for index in range(9)]
    errors = ["a", "a", "b", "a", "%_", None]
    store.apply([change(i, "failed", error=e) for i, e in zip(ids, errors, strict=False)])
    store.apply([change(ids[6], "cancelled", error="cancelled"), change(ids[7], "running")])
    states, groups = store.summary()
    assert states == {
        JobState.PENDING: 1, JobState.RUNNING: 1, JobState.FAILED: 6, JobState.CANCELLED: 1
    }  # fmt: skip
    assert [(group.error, group.count) for group in groups] == [("a", 3), ("%_", 1), ("b", 1)]
    assert groups[0].job_ids == (ids[3], ids[1], ids[0])
    states, groups = store.summary(engine="e", label={"n": "1"}, state=[JobState.FAILED])
    assert states == {JobState.FAILED: 3}
    assert [(group.error, group.count) for group in groups] == [("a", 2)]
    assert store.summary(engine="f") == ({}, [])
    # Of one that runs, its files tell more than its row.
    seen = {"errors": {ids[7]: "a"}, "seen": {ids[7]: JobState.FAILED}}
    states, groups = store.summary(engine="e", **seen)
    assert (states[JobState.FAILED], groups[0].count, groups[0].job_ids[0]) == (7, 4, ids[7])
    assert store.summary(engine="f", **seen) == ({}, [])


def test_errors_are_grouped_without_paths_and_ids(store):
    said = "NotImplementedError: No EMT-potential for Fe (JobFailure: Calculation failed! Files {})"
    wheres = [
        f"stored at /tmp/my home/jobs/{generate_job_id()}/1.work/failed-quacc-{index}"
        for index in range(4)
    ]
    errors = [
        *(said.format(where) for where in wheres),
        "OSError: [Errno 28] No space left on device: '/scratch/a/1'",
        "OSError: [Errno 28] No space left on device: '/scratch/b/2'",
        "ValueError: in /scratch/a, 5 eV/Å\nand more",
        "ValueError: in /scratch/a, 5 eV/Å\nand other",
        "ValueError: one of its kind in /scratch/a",
        "ValueError: 3.5 eV/Å",
    ]
    ids = [submit(store) for _ in errors]
    store.apply([change(i, "failed", error=e) for i, e in zip(ids, errors, strict=True)])
    _, groups = store.summary()
    assert {group.error: group.count for group in groups} == {
        said.format("stored at ... home/jobs/..."): 4,
        "OSError: [Errno 28] No space left on device: '...'": 2,
        "ValueError: in ..., 5 eV/Å": 2,
        "ValueError: one of its kind in /scratch/a": 1,
        "ValueError: 3.5 eV/Å": 1,
    }
    assert groups[0].job_ids == tuple(reversed(ids[:4]))


def test_a_group_of_errors_selects_its_jobs_and_no_others(store):
    said = "Error: no luck"
    errors = [
        f"{said} in /scratch/a\nand more",
        f"{said} in /scratch/b",
        f"{said} in all of them",
        f"{said.upper()} in /scratch/a",
        "/scratch/a",
        "/scratch/b",
        f"  {said}, 100% '\"\n",
        *(f"{said} in {'/a ' * 200}{index}" for index in range(2)),
        None,
    ]
    ids = [submit(store) for _ in errors]
    store.apply([change(i, "failed", error=e) for i, e in zip(ids, errors, strict=True)])
    ended = submit(store, engine="e")
    store.apply([change(ended, "cancelled", error=errors[0])])
    _, groups = store.summary()
    assert sum(group.count for group in groups) == len(errors) - 1
    for group in groups:
        found = [job.job_id for job in store.list(failure=group.error)]
        assert (len(found), tuple(found)) == (group.count, group.job_ids)
        rest = {job.job_id for job in store.list(exclude={"failure": group.error})}
        assert rest == {*ids, ended} - {*found}
    assert store.list(failure="no luck") == []
    # The files of a job that runs may tell more than its row.
    running = submit(store)
    seen = {"errors": {running: errors[1]}, "seen": {running: JobState.FAILED}}
    assert [job.job_id for job in store.list(failure=errors[0], **seen)] == [running, *ids[1::-1]]


def test_many_different_errors_take_bounded_memory():
    errors = (f"ValueError: {number}" if number % 2 else "frequent" for number in range(40000))
    groups = group_errors((error, "id") for error in errors)
    assert (groups[0].error, groups[0].count, len(groups)) == ("frequent", 20000, 50)


def test_the_owners_of_what_is_not_finished(store):
    assert store.owners() == []
    here, there = {"host": "h", "pid": 1}, {"host": "h", "pid": 2}
    submit(store, owner=here)
    other = submit(store, owner=there)
    submit(store, owner=here)
    owners = store.owners()
    assert sorted(owners) == sorted(set(owners))
    assert [len(store.unfinished(owner=owner)) for owner in sorted(owners)] == [2, 1]
    store.apply([change(other, "cancelled")])
    [owner] = store.owners()
    assert {job.owner["pid"] for job in store.unfinished(owner=owner)} == {1}


def test_the_owners_of_unfinished_jobs_with_new_events(store):
    here, there = {"host": "h", "pid": 1}, {"host": "h", "pid": 2}
    first, second = submit(store, owner=here), submit(store, owner=there)
    before = store.last_event()
    assert store.owners(after=before) == []
    store.set_owner([first], there, "taken over", 3.0)
    assert list(map(json.loads, store.owners(after=before))) == [there]
    store.set_owner([second], {}, "let go", 4.0)
    assert sorted(store.owners(after=before)) == sorted(store.owners())
    before = store.last_event()
    store.apply([change(first, "cancelled")])
    assert store.owners(after=before) == []
    assert store.owners() == ["{}"]


def test_successors_are_found_by_an_index(tmp_path, monkeypatch):
    plans = []

    def rows(snapshot, query, parameters=None, **more):
        plans.extend(
            row["detail"] for row in read(snapshot, f"EXPLAIN QUERY PLAN {query}", parameters)
        )
        return read(snapshot, query, parameters, **more)

    read = Snapshot.rows
    with JobStore(f"sqlite:///{tmp_path}/jobs.sqlite") as store:
        ended = [submit(store), submit(store)]
        parents = [{"job_id": ended[0], "role": "value", "awaited": "ok"}]
        waiting = [submit(store, parents=parents)]
        monkeypatch.setattr(Snapshot, "rows", rows)
        assert store.successors(ended) == waiting
    assert any("ix_lineage_parent (parent=?" in plan for plan in plans), plans
    assert not [plan for plan in plans if plan.startswith("SCAN") or "state" in plan], plans


def test_the_successors_of_a_job_and_what_they_are_given(store):
    def waiting(job_id, role="value", **more):
        return {"job_id": job_id, "role": role, "awaited": "ok", **more}

    first = submit(store)
    retry = submit(store, parents=[{"job_id": first, "role": "retry"}])
    other = submit(store)
    parents = [waiting(first, place="x", path=[]), waiting(first, place="y"), waiting(other)]
    job_id = submit(store, parents=parents, formula=None)
    later = submit(store, parents=[waiting(first, "after")])
    ended = submit(store, parents=[waiting(first)])
    store.apply([Change(job_id=ended, state=JobState.CANCELLED, at=2.0)])
    assert store.successors([first]) == store.successors([retry]) == [job_id, later]
    assert store.successors([other]) == [job_id]
    assert store.successors([job_id, "no"]) == []
    behind = submit(store, parents=[waiting(job_id, "after")])
    waits = {behind: True, job_id: True}
    assert store.ancestors([behind, "no"], limit=9) == waits | {first: False, other: False}
    assert store.ancestors([behind], limit=2) == waits
    seen = store.get(job_id)
    assert seen.waits
    given = [{k: v for k, v in one.items() if k != "awaited"} for one in parents]
    row = new(job_id, parents=given, formula="Al4", specification="{}\n{1}")
    (told,) = store.put_in([(seen, row)], 3.0)
    assert told == store.get(job_id)
    assert (told.waits, told.parents, told.formula, told.reason) == (False, given, "Al4", None)
    assert store.specification(job_id) == "{}\n{1}"
    assert [job.job_id for job in store.list(formula="Al")] == [job_id]
    # What has changed since it was seen stays as it is, as one whose cancel was noted.
    seen = store.get(later)
    store.note_cancel([later], 4.0)
    assert store.put_in([(seen, row)], 5.0) == []
    assert store.get(later).waits


def test_the_schema_is_what_alembic_makes_of_it(url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    import crystalmath.store.migrations

    scripts = ScriptDirectory(str(Path(crystalmath.store.migrations.__file__).parent))
    assert scripts.get_heads() == [HEAD]
    # SQLite's own table shows under SQLAlchemy 1.4.
    options = {"include_name": lambda name, *_: name != "sqlite_sequence"}
    JobStore(url).close()
    with JobStore(url) as store, store._database.writing() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        for table in metadata.sorted_tables:
            found = {index["name"] for index in inspect(connection).get_indexes(table.name)}
            assert found == {index.name for index in table.indexes}


def test_a_home_of_the_first_schema_gets_the_newer_indexes(url):
    newer = {"listed": "ix_listed_created_at", "events": "ix_events_at"}
    with JobStore(url) as store:
        job_id = submit(store)
        with store._database.writing() as connection:
            for name in newer.values():
                connection.execute(text(f"DROP INDEX {name}"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with JobStore(url) as store:
        assert [job.job_id for job in store.list(sort="created_at")] == [job_id]
        with store._database.writing() as connection:
            for table, name in newer.items():
                indexes = inspect(connection).get_indexes(table)
                assert name in {index["name"] for index in indexes}


def test_opening_a_present_schema_does_not_import_alembic(url):
    JobStore(url).close()
    code = (
        "import sys; from crystalmath.quacc.store import JobStore; JobStore(sys.argv[1]).close();"
        "sys.exit(bool({'alembic', 'filelock', 'ase', 'numpy', 'quacc'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, url], check=True)


def test_closing_twice_does_no_harm(store):
    store.close()
    store.close()


# --- lives ----------------------------------------------------------------------------------------


COUNTED = [
    {},
    {"name": "a"},
    {"label": {"p": "x"}},
    {"exclude": {"label": {"p": "x"}}},
    {"prefix": "0", "since": 0.5},
    {"state": [JobState.PENDING, JobState.FAILED], "name": "a"},
    {"exclude": {"state": [JobState.RUNNING], "name": "a"}},
    {"energy_min": -2.0},
    {"error": "boom"},
    {"elements": ["Cu"], "label": {"p": "x"}},
    {"formula": "CuO", "superseded": False},
    {"exclude": {"elements": ["O"], "error": "boom"}},
]


class Lives(RuleBasedStateMachine):
    """Whatever is asked, in whatever order: terminal states stay, events chain, totals agree."""

    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{self.directory.name}/jobs.sqlite"
        self.store = JobStore(self.url)
        self.last = {}

    def teardown(self):
        self.store.close()
        self.directory.cleanup()

    @rule(
        keys=st.lists(st.sampled_from([None, "k", "l"]), min_size=1, max_size=3),
        name=st.sampled_from([None, "a", "b"]),
        labels=st.sampled_from([{}, {"p": "x"}, {"p": "y", "q": "x"}]),
        formula=st.sampled_from([None, "Cu", "CuO"]),
    )
    def submit(self, keys, name, labels, formula):
        jobs = [new(key=key, name=name, labels=labels, formula=formula) for key in keys]
        for job in self.store.insert(jobs):
            self.last.setdefault(job.job_id, job)

    @rule(
        drawn=st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from(JobState), st.floats(0, 1e9)),
            max_size=5,
        )
    )
    def apply(self, drawn):
        ids = [*list(self.last)[-3:], "unknown"]
        changed = self.store.apply(
            [
                change(
                    ids[i % len(ids)],
                    state,
                    at,
                    summary={"energy_ev": -float(i)} if state == "completed" else None,
                    error="Boom" if state == "failed" else None,
                )
                for i, state, at in drawn
            ]
        )
        assert all(job == self.store.get(job.job_id) for job in changed)

    @rule(which=st.integers(0, 9))
    def cancel(self, which):
        if self.last:
            self.store.note_cancel([list(self.last)[which % len(self.last)]], 5.0)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = JobStore(self.url)

    @invariant()
    def holds(self):
        present = {job.job_id: job for job in self.store.list()}
        assert present.keys() == self.last.keys()
        for job_id, before in self.last.items():
            job = present[job_id]
            assert job == before or (job.revision > before.revision and not ended(before))
            self.chained(job)
        self.last = {job_id: present[job_id] for job_id in self.last}

    @rule(filters=st.sampled_from(COUNTED))
    def count(self, filters):
        """What was counted once, and kept up since, is what there is."""
        states = Counter(job.state for job in self.store.list(**filters))
        assert self.store.totals(**filters) == states
        with JobStore(self.url) as other:
            assert self.store.facets(**filters) == other.facets(**filters)

    def chained(self, job):
        log = history(self.store, job.job_id)
        assert [to for _, to in log[:-1]] == [start for start, _ in log[1:]]
        assert log[-1][1] == job.state.value
        assert len(log) == job.revision + 1
        assert all(step in STEPS for step in log if step[0] != step[1])


def ended(job):
    return job.state.is_terminal()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


NAMES = ["a", "ab", "aB", "a%", "a_", "a\\", "é", "éé", "\ud7ff", "\uffff", "\U0010fffe", "'", " "]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    with JobStore(f"sqlite:///{tmp_path_factory.mktemp('named')}/jobs.sqlite") as store:
        store.insert([new(name) for name in NAMES])
        yield store


@given(prefix=st.text(max_size=2) | st.sampled_from(NAMES))
@settings(deadline=None)
def test_find_is_startswith(named, prefix):
    assert named.find(prefix) == sorted(name for name in NAMES if name.startswith(prefix))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Jobs with all pairs of two labels' values, or without a label, in three states."""
    first, second = ([{}, {name: "x"}, {name: "y"}] for name in "pq")
    made = [
        new(
            labels={**one, **other},
            name=f"job {at}",
            formula="CuO" if at % 2 else "Cu2",
            created_at=float(30 - at if at % 5 == 0 else at),
            key=str(at) if at % 3 == 0 else None,
        )
        for at, (one, other) in enumerate(product(first * 2, second))
    ]
    with JobStore(f"sqlite:///{tmp_path_factory.mktemp('labelled')}/jobs.sqlite") as store:
        store.insert(made)
        store.apply([change(job.job_id, "failed", error="Boom") for job in made[::3]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selection, "_COUNTED", 2000)
            yield store


PAIRS = st.dictionaries(st.sampled_from("pq"), st.sampled_from("xyz"))


@given(
    label=PAIRS,
    without=PAIRS,
    filters=st.fixed_dictionaries(
        {},
        optional={
            "state": st.sampled_from(["pending", "failed"]),
            "elements": st.just(["O"]),
            "error": st.just("boom"),
            "key": st.sampled_from("036"),
            "since": st.floats(0, 30),
            "until": st.floats(0, 30),
        },
    ),
    limit=st.integers(1, 7),
    sort=st.sampled_from([None, "created_at", "-created_at", "state", "-name"]),
    many=st.sampled_from([1, 4, 2000]),
)
@settings(deadline=None)
def test_pages_have_the_jobs_that_all_filters_select(
    labelled, label, without, filters, limit, sort, many
):
    selection._COUNTED = many  # few jobs are many here: they are read in another way

    def is_selected(job):
        return (
            label.items() <= job.labels.items()
            and not without.items() & job.labels.items()
            and job.state.value == filters.get("state", job.state.value)
            and filters.get("elements", ["Cu"])[0] in job.formula
            and not ("error" in filters and job.error is None)
            and filters.get("key", job.key) == job.key
            and filters.get("since", 0) <= job.created_at < filters.get("until", 99)
        )

    every = [job for job in labelled.list() if is_selected(job)]
    if sort:
        every.sort(key=attrgetter(sort.strip("-")), reverse=sort.startswith("-"))
    filters = {**filters, "label": label, "exclude": {"label": without}}
    before, paged = None, []
    while page := labelled.list(limit=limit, before=before, sort=sort, **filters):
        before = page[-1].job_id
        paged += page
    assert len({job.job_id for job in paged}) == len(paged)
    key = attrgetter(sort.strip("-") if sort else "job_id")
    assert [key(job) for job in paged] == [key(job) for job in every]
    assert {job.job_id for job in paged} == {job.job_id for job in every}
    assert labelled.list(sort=sort, **filters) == paged
    assert labelled.list(sort=sort, skip=2, limit=limit, **filters) == paged[2 : 2 + limit]
    assert labelled.totals(**filters) == Counter(job.state for job in every)


def test_a_reason_for_the_same_state_is_noted(store):
    job_id = submit(store)
    waits = Change(job_id=job_id, state=JobState.PENDING, at=1.0, reason="Priority")
    (noted,) = store.apply([waits])
    assert (noted.state, noted.reason, noted.revision) == (JobState.PENDING, "Priority", 1)
    (running,) = store.apply([Change(job_id=job_id, state=JobState.RUNNING, at=2.0)])
    assert running.reason is None
    # A note on its waiting that was overtaken by its beginning must not send it back.
    assert store.apply([evolve(waits, reason="Resources")]) == []
    assert store.get(job_id).state is JobState.RUNNING
    assert [event.reason for event in store.events(job_id=job_id)][1:] == ["Priority", None]
    store.apply([Change(job_id=job_id, state=JobState.COMPLETED, at=3.0)])
    late = Change(job_id=job_id, state=JobState.COMPLETED, at=4.0, reason="too late")
    assert store.apply([late]) == []
