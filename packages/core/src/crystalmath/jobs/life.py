"""One job's life: which state it is in, and what is to be done next.

::

    pending -> running -> completed | failed | cancelled
    pending -> failed | cancelled
    running -> pending            the attempt was lost, and another one is allowed

A flow whose steps are jobs is one job whose attempts are passes of its body. If a pass fails, the
flow keeps its state and waits for its steps; the process that manages the steps ends the flow.

:func:`step` decides from the record, the run directory and the engine's report. This module reads
no file, no clock and no process table, so a simulation can run thousands of lives in a second. The
owner of a job carries out the decisions; other processes only see a state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath.jobs.changes import (
    Action,
    Change,
    EndProcesses,
    Hold,
    Launch,
    LetGo,
    NoteEnd,
    Publish,
    Release,
    WriteCancel,
    WriteSpec,
)
from crystalmath.jobs.documents import cleaned
from crystalmath.jobs.facts import (
    Absent,
    Claim,
    Damaged,
    Doubt,
    Ended,
    Engine,
    Files,
    Moment,
    Outcome,
    Record,
    Spec,
    Unreadable,
)
from crystalmath.models import Capabilities, JobState, Sighting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.jobs.facts import Reading
    from crystalmath.models import Job

#: The number of attempts of a job; only lost ones are repeated.
ATTEMPTS = 2
#: The number of attempts of each pass of a flow. A lost pass loses no result.
PASS_ATTEMPTS = 5
#: The state of an outcome of a flow's pass that needs steps that have not ended.
WAITS = "waits"
#: A run directory counts as removed after this many looks, and this many seconds, without it.
GONE_LOOKS = 3
GONE_S = 2.0
#: How long a file must be damaged before it counts as damaged, in seconds. A network file system
#: may show an empty file for a while, and a worker may take long to begin what it has claimed.
DAMAGED_S = 30.0
#: How long files must be unreadable before that is reported, in seconds.
TELL_S = 10.0
#: An attempt is given up after the engine has lost it this often, over this many seconds.
RELAUNCHES = 5
GIVE_UP_S = 300.0
#: An attempt fails after this many allocations in a row have ended before they began it.
ENDS = 3

#: The end of an attempt that is cancelled before it begins.
STOPPED = Publish(state="cancelled", error="cancelled", unbegun=True)

# A job whose outcome is the first sign of it passes through running.
_STEPS: Mapping[tuple[JobState, JobState], tuple[JobState, ...]] = {
    (JobState.PENDING, JobState.RUNNING): (JobState.RUNNING,),
    (JobState.PENDING, JobState.COMPLETED): (JobState.RUNNING, JobState.COMPLETED),
    (JobState.PENDING, JobState.FAILED): (JobState.FAILED,),
    (JobState.PENDING, JobState.CANCELLED): (JobState.CANCELLED,),
    (JobState.RUNNING, JobState.COMPLETED): (JobState.COMPLETED,),
    (JobState.RUNNING, JobState.FAILED): (JobState.FAILED,),
    (JobState.RUNNING, JobState.CANCELLED): (JobState.CANCELLED,),
    (JobState.RUNNING, JobState.PENDING): (JobState.PENDING,),
}


def steps(before: JobState, after: JobState) -> tuple[JobState, ...]:
    """Return the states that a job passes from one to another; none if there is no such way."""
    return _STEPS.get((before, after), ())


@frozen
class Decision:
    """The decision after a look at a job's files."""

    #: State and attempt are as people see them once `actions` are done.
    state: JobState
    attempt: int
    #: The owner's next actions, in this order. If one fails, the rest wait until it succeeds.
    actions: tuple[Action, ...] = ()
    #: The owner reports these once all actions are done.
    changes: tuple[Change, ...] = ()
    #: The next look needs this.
    doubt: Doubt | None = None
    #: Why nothing can be decided, if that lasts.
    waits: str | None = None


def step(
    record: Record,
    files: Files,
    *,
    now: Moment,
    owns: bool = True,
    engine: Engine | None = None,
) -> Decision:
    """Decide the state of a job and the next actions of its owner.

    Without `owns`, return the state that the owner would decide from the same files, and no
    actions. `engine` is ``None`` if the engine cannot be asked.
    """
    if record.state.is_terminal():
        return Decision(record.state, record.attempt)
    if owns and isinstance(files.spec, Spec) and files.spec.foreign:
        return Decision(record.state, record.attempt, (LetGo(),))
    earlier: tuple[Change, ...] = ()
    if files.attempt > record.attempt:  # its last owner had no time to report it
        lost = f"attempt {record.attempt} was lost"
        record = evolve(record, state=JobState.PENDING, attempt=files.attempt, doubt=None)
        earlier = (_change(record, JobState.PENDING, now, reason=lost),)
    if record.pass_from is None and isinstance(files.spec, Spec) and files.spec.pass_from:
        record = evolve(record, is_flow=True, pass_from=files.spec.pass_from)
    engine = engine or _unreachable(files)
    decide = _owned if owns else _seen
    decision = decide(record, files, now, engine)
    if earlier:
        decision = evolve(decision, changes=(*earlier, *decision.changes))
    return _held(record, decision, files, now, owns=owns) if record.is_flow else decision


def _held(record: Record, decision: Decision, files: Files, now: Moment, *, owns: bool) -> Decision:
    """Have a flow wait if its pass has ended, unless the flow has completed with it."""
    outcome, state = files.outcome, decision.state
    waits = isinstance(outcome, Outcome) and outcome.state == WAITS
    ended = state.is_terminal() and isinstance(outcome, Outcome)  # not by removed files
    if not waits and (not ended or state is JobState.COMPLETED):
        return decision
    changes = tuple(change for change in decision.changes if not change.state.is_terminal())
    before = changes[-1].state if changes else record.state
    change = evolve(_change(record, before, now), attempt=decision.attempt, waits=True)
    actions = (*decision.actions, Hold()) if owns else ()
    return Decision(before, decision.attempt, actions, (*changes, change))


def _owned(record: Record, files: Files, now: Moment, engine: Engine) -> Decision:
    if isinstance(files.directory, Absent):
        return _without_directory(record, now)
    for reading in (files.directory, files.outcome, files.claim, files.cancel):
        if isinstance(reading, Unreadable):
            return _wait(record, f"its files cannot be read: {reading.why}", now)
    if isinstance(files.outcome, Outcome):
        return _decided(record, files.outcome, files.ended, now, engine)
    if isinstance(files.outcome, Damaged):
        return _without_outcome(record, files.outcome, files, now)
    return _unfinished(record, files, now, engine)


def _unreachable(files: Files) -> Engine:
    """Return an engine that cannot be asked, with its capabilities from ``spec``."""
    can = Capabilities(workers_here=False, gone_means_dead=True)
    if isinstance(files.spec, Spec):
        can = files.spec.capabilities
    return Engine(None, can, reachable=False)


def _decided(
    record: Record, outcome: Outcome, ended: Reading[Ended], now: Moment, engine: Engine
) -> Decision:
    """Decide after an outcome; a stopped attempt may also need the engine's report."""
    if isinstance(ended, Unreadable):
        return _wait(record, f"its files cannot be read: {ended.why}", now)
    if isinstance(ended, Ended) or not outcome.was_stopped:
        error = ended.error if isinstance(ended, Ended) else None
        return _ended(record, outcome, error, now)
    begun = outcome.started is not None
    elsewhere = not engine.capabilities.workers_here
    if begun and elsewhere and _may_be_alive(engine):
        why = f"it was stopped ({outcome.error}); waiting until its allocation is over"
        return evolve(_running(record, now), actions=_release(record), waits=why)
    if not begun and elsewhere and _may_be_queued(record, engine):
        waits = None if engine.reachable else "it was cancelled, and its engine does not know yet"
        return Decision(record.state, record.attempt, _release(record), waits=waits)
    # The engine also knows why its worker had to stop. The outcome stays unchanged.
    fatal = outcome.state == "lost" and not outcome.cancelled and engine.is_fatal
    error = engine.end_reason() if fatal else None
    decision = _ended(record, outcome, error, now)
    # Other processes cannot ask the engine.
    awaited = elsewhere and (not begun or engine.capabilities.gone_means_dead)
    if decision.state.is_terminal() and (awaited or fatal):
        note = NoteEnd(record.attempt, error)
        decision = evolve(decision, actions=(note, *decision.actions))
    return decision


def _may_be_alive(engine: Engine) -> bool:
    """Return whether parts of a stopped attempt may be alive on hosts that nobody here sees.

    The supervisor ends what is on its own host; ranks on others end with the allocation.
    """
    # If the engine has lost sight of a host, a lease or the supervisor itself decided the attempt.
    return engine.capabilities.gone_means_dead and not engine.is_gone


def _may_be_queued(record: Record, engine: Engine) -> bool:
    """Return whether an attempt that was cancelled unbegun may wait in a queue unseen from here."""
    offered = record.launched or record.offered or not engine.reachable
    # Without shared files a claim keeps no worker away: the attempt may have begun by now.
    dropped = record.dropped and engine.capabilities.shares_files
    return offered and not dropped and not engine.is_gone


def _unfinished(record: Record, files: Files, now: Moment, engine: Engine) -> Decision:
    if isinstance(files.claim, Claim):
        return _claimed(record, files.claim, files, now, engine)
    if isinstance(files.claim, Damaged) or record.state is JobState.RUNNING:
        return _without_claim(record, files, now, engine)
    return _unbegun(record, files, now, engine)


def _seen(record: Record, files: Files, now: Moment, engine: Engine) -> Decision:
    """Decide as the owner does, but without actions or doubts."""
    record = evolve(record, doubt=None)
    decision = _owned(record, files, now, engine)
    death = _death(record, files)
    if death is not None and death in decision.actions and not death.cancelled:
        # The owner is about to publish this end. No end is reported before that.
        outcome = Outcome(state="lost", error=death.error, started=now.at)
        following = _decided(record, outcome, Absent(), now, engine)
        if not following.state.is_terminal():
            changes = tuple(evolve(each, attempt=record.attempt) for each in following.changes)
            decision = evolve(following, attempt=record.attempt, changes=changes)
    return evolve(decision, actions=(), doubt=None)


def _running(record: Record, now: Moment) -> Decision:
    if record.state is JobState.RUNNING:
        return Decision(JobState.RUNNING, record.attempt)
    change = _change(record, JobState.RUNNING, now)
    return Decision(JobState.RUNNING, record.attempt, (), (change,))


def _ended(record: Record, outcome: Outcome, error: str | None, now: Moment) -> Decision:
    """Decide by an outcome; an `error` of the engine fails the job."""
    outcome = _not_ahead(outcome, now)
    # An attempt that its owner ended before it began was never running.
    ran = record.state is JobState.PENDING and outcome.started is not None
    began = _change(record, JobState.RUNNING, now, started_at=outcome.started)
    earlier = (began,) if ran else ()
    if outcome.state == WAITS:
        return Decision(JobState.RUNNING, record.attempt, (), earlier)
    if outcome.state == "lost":
        return _lost(record, outcome, error, earlier, now)
    state = JobState(outcome.state)
    change = _change(
        record,
        state,
        now,
        error=outcome.error,
        traceback=outcome.traceback,
        summary=outcome.summary,
        started_at=outcome.started,
        finished_at=outcome.finished,
        reason=_begun_from(record, outcome),
    )
    actions: tuple[Action, ...] = _release(record) if state is JobState.CANCELLED else ()
    if record.state is JobState.RUNNING and outcome.started is None:
        # The claim had been removed, so the outcome was published as of an unbegun attempt.
        actions = (EndProcesses(record.attempt), *actions)
    return Decision(state, record.attempt, actions, (*earlier, change))


def _not_ahead(outcome: Outcome, now: Moment) -> Outcome:
    """Set the times of an attempt back if the clock of its host is ahead of ours."""
    ahead = max(outcome.started or 0.0, outcome.finished or 0.0) - now.at
    if ahead <= 0.0:
        return outcome
    began, ended = outcome.started, outcome.finished
    return evolve(
        outcome,
        started=None if began is None else began - ahead,
        finished=None if ended is None else ended - ahead,
    )


def _begun_from(record: Record, outcome: Outcome) -> str | None:
    if outcome.begun_from is None:
        return None
    return f"attempt {record.attempt} began from the geometry in {outcome.begun_from}"


def _lost(
    record: Record, outcome: Outcome, fatal: str | None, earlier: tuple[Change, ...], now: Moment
) -> Decision:
    number = record.attempt
    reason = f"attempt {number} was lost: {outcome.error}"
    # No process of the attempt may be alive when its end is reported or the next one starts.
    end = EndProcesses(number)
    noted = {"reason": reason, "finished_at": outcome.finished}
    if outcome.cancelled:
        change = _change(record, JobState.CANCELLED, now, error="cancelled", **noted)
        return Decision(change.state, number, (end, *_release(record)), (*earlier, change))
    most = record.pass_from + PASS_ATTEMPTS - 1 if record.pass_from else ATTEMPTS
    if fatal is not None or number >= most:
        error = f"lost: {outcome.error}" if fatal is None else f"{fatal} ({outcome.error})"
        change = _change(record, JobState.FAILED, now, error=error, **noted)
        return Decision(change.state, number, (end,), (*earlier, change))
    following = evolve(record, attempt=number + 1)
    change = _change(following, JobState.PENDING, now, reason=reason)
    return Decision(change.state, number + 1, (end, WriteSpec(number + 1)), (*earlier, change))


def _claimed(record: Record, claim: Claim, files: Files, now: Moment, engine: Engine) -> Decision:
    actions: list[Action] = _restored(record, files)
    doubt = _doubted(record, "own claim", now) if claim.own else None
    if _is_cancelled(record, files):
        actions += _asked_to_stop(files)
        actions += _release(record)
    if doubt is not None and now.clock - doubt.since >= DAMAGED_S:
        actions.append(_publish_lost(record, files, "the outcome of its owner was removed"))
    elif (death := _death(record, files)) is not None:
        actions += [EndProcesses(record.attempt), death]
    elif claim.alive is None and (engine.is_over or engine.has_rebooted(claim)):
        # An outcome that its supervisor has published meanwhile stands.
        actions.append(_publish_engines_end(record, files, engine))
    elif claim.is_lease_over():
        actions.append(_publish_lost(record, files, f"{claim.unheard()} for all of its lease"))
    waits = claim.waits_for()
    return evolve(_running(record, now), actions=tuple(actions), waits=waits, doubt=doubt)


def _death(record: Record, files: Files) -> Publish | None:
    """Return the end of an attempt whose supervisor is known to be dead."""
    if not isinstance(files.claim, Claim) or files.claim.alive is not False:
        return None
    return _publish_lost(record, files, f"the supervisor ({files.claim.who}) died")


def _publish_engines_end(record: Record, files: Files, engine: Engine) -> Publish:
    """Return the end of an attempt on another host that its engine reports as over."""
    if engine.is_fatal and not _is_cancelled(record, files):
        return Publish(state="failed", error=engine.end_reason())
    return _publish_lost(record, files, engine.end_reason())


def _unbegun(record: Record, files: Files, now: Moment, engine: Engine) -> Decision:
    actions: list[Action] = _restored(record, files)
    if isinstance(files.spec, Absent):  # the claim of a running attempt may be removed, too
        actions.insert(0, EndProcesses(record.attempt))
    if _is_cancelled(record, files):
        actions += _asked_to_stop(files)
        actions += [STOPPED]
        actions += _release(record)
    elif record.launched and _has_lost(record, engine):
        actions.append(_again(record, engine, now))
    return Decision(JobState.PENDING, record.attempt, tuple(actions))


def _has_lost(record: Record, engine: Engine) -> bool:
    """Return whether the engine will not start an attempt any more."""
    if engine.sighting is None:
        return False
    if engine.sighting.state == "unknown":
        # The queue of the process that launched it went with that process.
        return record.inherited and engine.capabilities.queue_dies_with_owner
    return engine.sighting.state == "gone"


def _again(record: Record, engine: Engine, now: Moment) -> Action:
    """Launch an attempt again that the engine lost before it began, or give the job up."""
    sighting = engine.sighting or Sighting("unknown")
    ended = sighting.state == "gone" and sighting.ended
    since = now.clock if record.lost_since is None else record.lost_since
    if sighting.state == "gone" and sighting.fatal:
        error = "the engine cannot begin it"
    elif ended and record.ends + 1 >= ENDS:
        error = f"{record.ends + 1} allocations ended without having begun it, the last one"
    elif record.relaunches < RELAUNCHES or now.clock - since < GIVE_UP_S:
        return Launch(ends=record.ends + 1 if ended else 0)
    else:
        error = f"the engine lost it {record.relaunches + 1} times before it began"
    error = f"{error}: {sighting.reason}" if sighting.reason else error
    return Publish(state="failed", error=error, unbegun=True)


def _without_directory(record: Record, now: Moment) -> Decision:
    if not record.written and record.state is JobState.PENDING:
        # The process that recorded it died before it wrote the files, or these were removed since.
        write = (EndProcesses(record.attempt), WriteSpec(record.attempt))
        return Decision(record.state, record.attempt, write)
    doubt = _doubted(record, "directory", now)
    if doubt.looks < GONE_LOOKS or now.clock - doubt.since < GONE_S:
        return Decision(record.state, record.attempt, doubt=doubt)
    if record.cancelled:
        change = _change(record, JobState.CANCELLED, now, error="cancelled")
    else:
        error = f"its run directory {record.place} was removed"
        change = _change(record, JobState.FAILED, now, error=error)
    # The engine may still have it in its queue, or running on a host that is not visible here.
    actions = (EndProcesses(record.attempt), *_release(record))
    return Decision(change.state, record.attempt, actions, (change,))


def _without_outcome(record: Record, outcome: Damaged, files: Files, now: Moment) -> Decision:
    """Decide that an attempt with a damaged outcome is lost, as no process can publish another."""
    doubt = _doubted(record, "outcome", now)
    if now.clock - doubt.since < DAMAGED_S:
        return evolve(_running(record, now), doubt=doubt)
    lost = _publish_lost(record, files, f"its outcome is damaged: {outcome.why}")
    actions = (EndProcesses(record.attempt), evolve(lost, replace=True))
    return evolve(_running(record, now), actions=actions)


def _without_claim(record: Record, files: Files, now: Moment, engine: Engine) -> Decision:
    """Decide about an attempt whose claim is damaged or was removed."""
    doubt = _doubted(record, "claim", now)
    actions = _restored(record, files)
    if _is_cancelled(record, files):
        actions += _asked_to_stop(files)
    lasts = now.clock - doubt.since >= DAMAGED_S
    vouched = engine.vouches_for_end or now.clock - doubt.since >= files.lease_s
    nobody = files.processes is False and vouched
    # A cancel ends processes without a claim, too.
    if lasts and (nobody or (files.processes and _is_cancelled(record, files))):
        why = files.claim.why if isinstance(files.claim, Damaged) else "its claim was removed"
        lost = _publish_lost(record, files, f"nobody runs it: {why}")
        # A worker that comes late must find a claim.
        lost = evolve(lost, unbegun=isinstance(files.claim, Absent))
        actions += [EndProcesses(record.attempt), lost]
    waits = "its worker is unknown, as its claim is damaged" if lasts else None
    return evolve(_running(record, now), actions=tuple(actions), doubt=doubt, waits=waits)


def _wait(record: Record, why: str, now: Moment) -> Decision:
    doubt = _doubted(record, "unreadable", now)
    waits = why if now.clock - doubt.since >= TELL_S else None
    return Decision(record.state, record.attempt, doubt=doubt, waits=waits)


def _doubted(record: Record, what: str, now: Moment) -> Doubt:
    doubt = record.doubt
    if doubt is None or doubt.what != what:
        return Doubt(what, now.clock)
    return evolve(doubt, looks=doubt.looks + 1)


def _restored(record: Record, files: Files) -> list[Action]:
    lost = isinstance(files.spec, (Absent, Damaged))
    return [WriteSpec(record.attempt)] if lost else []


def _is_cancelled(record: Record, files: Files) -> bool:
    return record.cancelled or files.cancel is True


def _asked_to_stop(files: Files) -> list[Action]:
    return [WriteCancel()] if files.cancel is False else []


def _release(record: Record) -> tuple[Action, ...]:
    return (Release(),) if (record.launched or record.offered) and not record.released else ()


def _publish_lost(record: Record, files: Files, error: str) -> Publish:
    return Publish(state="lost", error=error, cancelled=_is_cancelled(record, files))


def _change(record: Record, state: JobState, now: Moment, **more: Any) -> Change:
    return Change(job_id=record.job_id, state=state, at=now.at, attempt=record.attempt, **more)


# --- a job on record, along the steps of its life -------------------------------------------------


def follow(job: Job, change: Change) -> tuple[Job, list[dict[str, Any]]]:
    """Apply a change to a job; return the job and a row of the event log for each step.

    The same object is returned if the change is no step of the job's life.
    """
    log = []
    if change.waits and (job.waits or (change.attempt or 0) < job.attempt):
        return job, []  # already on record
    if change.waits and not job.state.is_terminal():
        log = [event_row(job, job.state, change.at, f"pass {change.attempt} has ended")]
        attempt = change.attempt or job.attempt
        return evolve(job, attempt=attempt, stage="steps", revision=job.revision + 1), log
    if _is_note(job, change):
        noted = evolve(job, revision=job.revision + 1, reason=cleaned(change.reason))
        return noted, [event_row(job, job.state, change.at, change.reason)]
    if change.state is JobState.PENDING and change.attempt is None and change.reason is not None:
        return job, []  # a note on a waiting attempt that has begun meanwhile
    for state in steps(job.state, change.state):
        last = state is change.state
        at = change.at if last or change.started_at is None else change.started_at
        log.append(event_row(job, state, at, change.reason if last else None))
        details = {**_details(change), "reason": cleaned(change.reason)} if last else {}
        job = evolve(
            job, state=state, revision=job.revision + 1, **_times(job, change, state), **details
        )
    return job, log


def _is_note(job: Job, change: Change) -> bool:
    same = change.state is job.state and change.attempt is None
    return same and change.reason is not None and not job.state.is_terminal()


def event_row(
    job: Job, to: JobState, at: float, reason: str | None, *, new: bool = False
) -> dict[str, Any]:
    """Return the row of the event log for a job that goes from its present state to another."""
    return {
        "job_id": job.job_id,
        "at": at,
        "from_state": None if new else job.state.value,
        "to_state": to.value,
        "reason": cleaned(reason),
    }


def _times(job: Job, change: Change, state: JobState) -> dict[str, Any]:
    # The change of a lost attempt only has the time of its discovery; a flow began with its first
    # pass.
    known = [at for at in (job.started_at, change.started_at) if at is not None]
    began = min(known, default=None)
    if state is JobState.COMPLETED and job.stage is None:
        began = change.started_at or began  # after the imports, which the recipe does not count
    if job.stage is None or job.started_at is None:
        if state is JobState.PENDING:
            return {"started_at": None}  # the next attempt starts at a time of its own
        if state is JobState.RUNNING and began is None:
            began = change.at
    if not state.is_terminal():
        return {"started_at": began}
    ended = change.at
    if change.finished_at is not None:
        ended = max(change.finished_at, job.created_at if began is None else began)
    return {"started_at": began, "finished_at": ended}


def _details(change: Change) -> dict[str, Any]:
    named = {
        "attempt": change.attempt,
        "error": cleaned(change.error),
        "traceback": cleaned(change.traceback),
        "summary": cleaned(change.summary),
    }
    return {name: value for name, value in named.items() if value is not None}
