"""What runs where nobody here can see it is over when the engine vouches for it."""

import pytest
from attrs import evolve

from crystalmath.jobs.changes import EndProcesses, Launch, NoteEnd, Publish, Release
from crystalmath.jobs.facts import (
    Claim,
    Damaged,
    Ended,
    Engine,
    Files,
    Moment,
    Outcome,
    Record,
    Spec,
)
from crystalmath.jobs.life import step
from crystalmath.models import Capabilities, JobState, Sighting

BATCH = Capabilities(gone_means_dead=True, workers_here=False)
RUNNING = Record(
    job_id="job", place="/jobs/job", state=JobState.RUNNING, written=True, launched=True
)
ELSEWHERE = Files(attempt=1, claim=Claim("pid 7 on node1", None), spec=Spec(1), cancel=False)
CANCELLED = Files(
    attempt=1,
    claim=ELSEWHERE.claim,
    outcome=Outcome(state="cancelled", error="cancelled", started=5.0),
    cancel=True,
)


def decide(files, sighting, capabilities=BATCH, record=RUNNING):
    return step(record, files, now=Moment(10.0, 10.0), engine=Engine(sighting, capabilities))


def test_a_supervisor_on_another_host_is_lost_when_its_allocation_is_over():
    decision = decide(ELSEWHERE, Sighting("gone", "NODE_FAIL"))
    error = "the engine ended it: NODE_FAIL"
    assert decision.actions == (Publish(state="lost", error=error, cancelled=False),)


def test_what_another_attempt_would_meet_again_fails():
    decision = decide(ELSEWHERE, Sighting("gone", "TIMEOUT", fatal=True))
    assert decision.actions == (Publish(state="failed", error="the engine ended it: TIMEOUT"),)


def test_what_was_to_be_stopped_does_not_fail_by_that():
    files = Files(attempt=1, claim=ELSEWHERE.claim, cancel=True)
    actions = decide(files, Sighting("gone", "TIMEOUT", fatal=True)).actions
    assert Publish(state="lost", error="the engine ended it: TIMEOUT", cancelled=True) in actions


@pytest.mark.parametrize(
    ("then", "now", "capabilities", "lost"),
    [
        ("one", "another", BATCH, True),
        ("one", "one", BATCH, False),
        ("one", None, BATCH, False),
        (None, "another", BATCH, False),
        ("one", "another", Capabilities(workers_here=False), False),
    ],
)
def test_nothing_outlives_a_boot_of_its_host(then, now, capabilities, lost):
    """The engine has lost sight of the host, and says in which boot that is now."""
    claim = Claim("pid 7 on node1", None, boot_id=then)
    sighting = Sighting("gone", "NODE_FAIL", unseen=True, boot_id=now)
    decision = decide(evolve(ELSEWHERE, claim=claim), sighting, capabilities)
    error = "the engine ended it: NODE_FAIL"
    expected = (Publish(state="lost", error=error, cancelled=False),) if lost else ()
    assert decision.actions == expected


@pytest.mark.parametrize("sighting", [None, Sighting("running"), Sighting("unknown")])
def test_without_its_word_it_goes_on(sighting):
    assert decide(ELSEWHERE, sighting).actions == ()


def test_an_engine_that_does_not_vouch_ends_nothing():
    capabilities = Capabilities(workers_here=False)
    assert decide(ELSEWHERE, Sighting("gone", "FAILED"), capabilities).actions == ()


def test_a_supervisor_that_lives_here_is_believed():
    files = Files(attempt=1, claim=Claim("pid 7", alive=True), spec=Spec(1), cancel=False)
    assert decide(files, Sighting("gone", "COMPLETED")).actions == ()


@pytest.mark.parametrize("sighting", [None, Sighting("running", "COMPLETING")])
def test_cancelled_is_not_told_before_the_engine_says_that_nothing_is_alive(sighting):
    decision = decide(CANCELLED, sighting)
    assert decision.state is JobState.RUNNING
    assert decision.changes == ()
    assert decision.actions == (Release(),)


def test_cancelled_is_told_once_the_engine_says_so():
    decision = decide(CANCELLED, Sighting("gone", "CANCELLED"))
    assert decision.state is JobState.CANCELLED
    assert decision.actions == (NoteEnd(1), Release())


def test_cancelled_where_workers_are_here_is_told_at_once():
    assert decide(CANCELLED, None, Capabilities()).state is JobState.CANCELLED


LOST = Files(
    attempt=1,
    claim=ELSEWHERE.claim,
    outcome=Outcome(state="lost", error="the worker was told to stop", started=5.0),
)


def test_why_a_worker_was_told_to_stop_is_the_engines_to_say():
    waiting = decide(LOST, None)
    assert (waiting.state, waiting.actions) == (JobState.RUNNING, (Release(),))
    failed = decide(LOST, Sighting("gone", "TIMEOUT", fatal=True))
    assert failed.state is JobState.FAILED
    assert failed.changes[-1].error == "the engine ended it: TIMEOUT (the worker was told to stop)"


def test_the_engines_reason_stands_beside_the_outcome_and_decides_for_all():
    failed = decide(LOST, Sighting("gone", "TIMEOUT", fatal=True))
    assert failed.actions == (NoteEnd(1, "the engine ended it: TIMEOUT"), EndProcesses(1))
    noted = evolve(LOST, ended=Ended("the engine ended it: TIMEOUT"))
    for owns in (True, False):
        later = step(RUNNING, noted, now=Moment(10.0, 10.0), owns=owns)
        assert (later.state, later.changes) == (failed.state, failed.changes)
    assert not any(isinstance(action, NoteEnd) for action in decide(noted, None).actions)


DEAD = Files(attempt=1, claim=Claim("pid 7", alive=False), spec=Spec(1, BATCH), cancel=False)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING])
@pytest.mark.parametrize("files", [CANCELLED, LOST, DEAD], ids=["cancelled", "lost", "dead"])
def test_who_looks_sees_what_the_owner_of_the_same_files_decides(files, state):
    files = evolve(files, spec=Spec(1, BATCH))
    record = evolve(RUNNING, state=state)
    owned = decide(files, None, record=record)
    seen = step(evolve(record, launched=False), files, now=Moment(10.0, 10.0), owns=False)
    assert seen.state is owned.state is JobState.RUNNING
    assert (seen.changes, seen.actions) == (owned.changes, ())
    over = evolve(files, ended=Ended())
    owned = decide(over, None, record=record)
    seen = step(record, over, now=Moment(10.0, 10.0), owns=False)
    assert (seen.state, seen.changes) == (owned.state, owned.changes)


def test_what_a_damaged_spec_does_not_say_is_not_promised():
    files = evolve(CANCELLED, spec=Damaged("garbage"))
    assert step(RUNNING, files, now=Moment(10.0, 10.0), owns=False).state is JobState.RUNNING


def test_without_its_engine_nobody_takes_a_stopped_attempt_for_dead():
    files = evolve(CANCELLED, spec=Spec(1, BATCH))
    assert step(RUNNING, files, now=Moment(10.0, 10.0)).state is JobState.RUNNING
    files = evolve(files, spec=Spec(1))
    assert step(RUNNING, files, now=Moment(10.0, 10.0)).state is JobState.CANCELLED


def test_a_lost_attempt_of_another_host_is_followed_by_the_next_once_it_is_gone():
    decision = decide(LOST, Sighting("gone", "PREEMPTED"))
    assert (decision.state, decision.attempt) == (JobState.PENDING, 2)
    assert decision.actions[0] == EndProcesses(1)


WAITING = evolve(RUNNING, state=JobState.PENDING)
UNBEGUN = Files(attempt=1, spec=Spec(1), cancel=False)
DROPPED = Files(attempt=1, outcome=Outcome(state="cancelled", error="cancelled"), cancel=True)


@pytest.mark.parametrize("handed", ["launched", "offered"])
def test_what_waited_is_cancelled_only_once_the_engine_was_told_to_drop_it(handed):
    record = evolve(WAITING, **{"launched": False, handed: True})
    decision = decide(DROPPED, None, record=record)
    assert (decision.state, decision.actions) == (JobState.PENDING, (Release(),))
    record = evolve(record, released=True)
    assert decide(DROPPED, None, record=record).state is JobState.PENDING
    assert decide(DROPPED, Sighting("queued"), record=record).state is JobState.PENDING
    told = evolve(record, dropped=True)
    assert decide(DROPPED, None, record=told).state is JobState.CANCELLED
    assert decide(DROPPED, Sighting("gone"), record=record).state is JobState.CANCELLED
    # A worker that sees no claim may run it all the same.
    apart = evolve(BATCH, shares_files=False)
    assert decide(DROPPED, None, apart, record=told).state is JobState.PENDING
    assert decide(DROPPED, Sighting("gone"), apart, record=told).state is JobState.CANCELLED


def test_who_looks_sees_what_waited_cancelled_only_with_its_owner():
    files = evolve(DROPPED, spec=Spec(1, BATCH))
    now = Moment(10.0, 10.0)
    assert step(WAITING, files, now=now, owns=False).state is JobState.PENDING
    told = decide(files, None, record=evolve(WAITING, dropped=True))
    assert told.actions[0] == NoteEnd(1)
    never = decide(files, None, record=evolve(WAITING, launched=False))
    assert never.actions[0] == NoteEnd(1)
    noted = evolve(files, ended=Ended())
    assert step(WAITING, noted, now=now, owns=False).state is JobState.CANCELLED
    without_engine = step(WAITING, files, now=now)
    assert without_engine.state is JobState.PENDING
    assert without_engine.waits == "it was cancelled, and its engine does not know yet"
    here = evolve(files, spec=Spec(1))
    assert step(WAITING, here, now=now, owns=False).state is JobState.CANCELLED


def test_what_no_engine_was_given_or_waits_here_is_cancelled_at_once():
    assert decide(DROPPED, None, record=evolve(WAITING, launched=False)).state.is_terminal()
    assert decide(DROPPED, None, Capabilities(), record=WAITING).state.is_terminal()


def test_the_third_allocation_that_ends_without_having_begun_a_job_is_the_last():
    record, printed = WAITING, "COMPLETED: line 2: module: command not found"
    for count in (1, 2):
        (action,) = decide(UNBEGUN, Sighting("gone", printed, ended=True), record=record).actions
        assert action == Launch(ends=count)
        record = evolve(record, ends=action.ends, relaunches=count)
    (forgotten,) = decide(UNBEGUN, Sighting("gone", unseen=True), record=record).actions
    assert forgotten == Launch(ends=0)  # not in a row
    (failed,) = decide(UNBEGUN, Sighting("gone", printed, ended=True), record=record).actions
    error = f"3 allocations ended without having begun it, the last one: {printed}"
    assert failed == Publish(state="failed", error=error, unbegun=True)


def test_what_no_attempt_can_begin_fails_at_once():
    (failed,) = decide(UNBEGUN, Sighting("gone", "TIMEOUT", fatal=True), record=WAITING).actions
    error = "the engine cannot begin it: TIMEOUT"
    assert failed == Publish(state="failed", error=error, unbegun=True)


def test_a_supervisor_that_is_known_dead_decides_though_the_engine_knows_nothing_of_it():
    dead = Files(attempt=1, claim=Claim("pid 7", alive=False), spec=Spec(1), cancel=False)
    actions = decide(dead, Sighting("gone", "another one by now", unseen=True)).actions
    assert actions == (
        EndProcesses(1),
        Publish(state="lost", error="the supervisor (pid 7) died", cancelled=False),
    )
    over = Sighting("gone", "another one by now", unseen=True)
    decision = decide(LOST, over)
    assert (decision.state, decision.attempt) == (JobState.PENDING, 2)


def test_what_a_stopped_job_waits_for_is_said():
    assert "waiting until its allocation is over" in decide(CANCELLED, None).waits
