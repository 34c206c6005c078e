"""Flows whose steps are jobs: their passes, the jobs that these call, and their ends.

A flow is a job each of whose attempts is a pass of its body (:mod:`crystalmath.worker.flow_pass`).
The outcome of a pass names the jobs that it has called. They are recorded here, and when those have
ended that the body needs, the next pass begins. All that is known here can be read again: from the
outcome of the last pass, and from the rows of the steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, evolve, field, fields_dict

from crystalmath.errors import (
    BadFile,
    Finding,
    InvalidJob,
    JobRefused,
    did_you_mean,
    shown,
)
from crystalmath.jobs.changes import Change
from crystalmath.jobs.reading import flow_end
from crystalmath.models import JobSpec, JobState, NewJob, Resources, Submission
from crystalmath.models.fields import plain
from crystalmath.models.job_notes import awaited, repeated, step_of
from crystalmath.models.reference import JOB, STEP
from crystalmath.models.submission import (
    MOST_LABELS,
    MOST_PRIORITY,
    MOST_STEPS,
    Terms,
    merged,
    of_step,
    step_matches,
)
from crystalmath.recipes import codec
from crystalmath.recipes.json_text import place_name
from crystalmath.recipes.lookup import look_up
from crystalmath.recipes.stored_result import unpacked
from crystalmath.recipes.unread_parameters import job_faults
from crystalmath.submitting.retrying import Again, environment_before

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from crystalmath.config import Config
    from crystalmath.errors import CrystalMathError
    from crystalmath.models.inputs import StepCheck
    from crystalmath.models.job_notes import Parent
    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.running.recorder import Recorder

_LOG = logging.getLogger("crystalmath.service")

_LONGEST_KEY = 255
_OVER = (
    "the time of the whole flow (--walltime-total) is up, and its steps were stopped; crystalmath "
    "retry goes on from those that have completed"
)
#: What the name of a link to a step does not have, and how long it is.
_UNREADABLE = re.compile(r"[^\w.+-]", re.ASCII)
_LONGEST_LINK = 80
#: The ends of steps' names, which number those of one function.
_NUMBER = re.compile(r"#.*")


def first_pass(
    spec: JobSpec,
    taken: Sequence[Mapping[str, Any]],
    repeats: str | None,
    on_cluster: Sequence[str],
) -> JobSpec:
    """Return what the first pass of a flow is to run, beside its owner and on none of its terms.

    These are for its steps. A flow that `on_cluster` means has its passes where its steps are, on
    the same terms. `taken` are steps of the flow that it repeats, if it does.
    """
    asked = {name: plain(value) for name, value in spec.terms().items()}
    asked["engine"] = spec.engine
    # A pass goes ahead of all other jobs that wait: it takes little, and others wait for it.
    priority = MOST_PRIORITY
    if not runs_on_cluster(spec, on_cluster):
        spec = evolve(
            spec,
            engine="local",
            cluster=spec.cluster if spec.engine == "local" else "local",
            environment=environment_before(spec.header()),
            replaced={},
            resources=Resources(),
            walltime_s=None,
        )
        priority += 1  # which only a pass has: no worker of the engine need be free for it
    return evolve(
        spec,
        walltime_s=_least(spec.walltime_s, spec.walltime_total_s),
        continue_lost=None,
        priority=priority,
        flow={
            "pass": 1,
            "attempt": 1,
            "serial": spec.serial,
            "most": MOST_STEPS,
            "repeats": repeats,
            "steps": list(taken),
            "asked": asked,
            "walltime_s": spec.walltime_s,
        },
    )


def runs_on_cluster(spec: JobSpec, on_cluster: Sequence[str]) -> bool:
    """Return whether patterns mean a flow, whose passes then run where its steps are."""
    return any(step_matches(pattern, spec.recipe, spec.recipe) for pattern in on_cluster)


def _least(*times: float | None) -> float | None:
    return min((one for one in times if one is not None), default=None)


def taken_over(
    jobs: HomeJobs, parents: Iterable[Parent]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the completed steps of the flow that another one repeats, and that flow."""
    origin = repeated(parents)
    if origin is None:
        return [], None
    header = json.loads(jobs.specification(origin).partition("\n")[0])
    told = (header.get("flow") or {}).get("steps", ())
    earlier = [{**each, "counted": False} for each in told if each.get("taken_over")]
    there = {
        job.job_id
        for job in jobs.some_jobs([each["job_id"] for each in earlier])
        if _has_result(jobs, job)
    }
    found = {each["name"]: each for each in earlier if each["job_id"] in there}
    own = _steps(jobs.some_jobs(jobs.step_ids(origin)))
    found |= {
        name: _entry(name, tries)
        for name, tries in own.items()
        if _has_result(jobs, _present(tries))
    }
    return [{**each, "taken_over": True} for each in found.values()], origin


def _has_result(jobs: HomeJobs, job: JobMetadata) -> bool:
    """Return whether a step has completed, and its result is as it was published."""
    if job.state is not JobState.COMPLETED or job.without_files():
        return False
    try:
        return jobs.results.verify(job) is None
    except OSError:
        return True  # that may pass


def _steps(rows: Iterable[JobMetadata]) -> dict[str, list[JobMetadata]]:
    """Sort the jobs of a flow by the step that they are tries at, those left out that are void."""
    found: dict[str, list[JobMetadata]] = {}
    for job in rows:
        of_flow = step_of(job.parents)
        if of_flow is not None and not _is_void(job):
            found.setdefault(of_flow[1], []).append(job)
    return found


def _is_void(job: JobMetadata) -> bool:
    """Return whether a step has ended without having been launched, and nobody has stopped it."""
    ended = job.state.is_terminal() and job.state is not JobState.COMPLETED
    return ended and job.cancel_requested_at is None and bool(awaited(job.parents))


def _present(tries: Sequence[JobMetadata]) -> JobMetadata:
    """Return which of the tries at a step counts, the oldest first."""
    completed = (job for job in reversed(tries) if job.state is JobState.COMPLETED)
    unfinished = (job for job in reversed(tries) if not job.state.is_terminal())
    return next(completed, None) or next(unfinished, None) or tries[-1]


def _entry(name: str, tries: Sequence[JobMetadata]) -> dict[str, Any]:
    """Write what a pass is told of a step."""
    job = _present(tries)
    state = job.state.value
    if not job.state.is_terminal():
        state = "waiting" if job.waits else "launched"
    entry: dict[str, Any] = {"name": name, "job_id": job.job_id, "state": state}
    entry |= {"attempt": job.attempt, "error": job.error}
    # A retry may have other parameters than those that the body calls it with.
    known = {each.job_id for each in tries}
    origin, asked = repeated(job.parents), job.job_id
    while origin in known:
        asked = origin
        origin = next(repeated(each.parents) for each in tries if each.job_id == asked)
    return entry if asked == job.job_id else {**entry, "asked": asked}


def link_steps(
    jobs: HomeJobs, flow: JobMetadata, own: Mapping[str, Sequence[JobMetadata]] | None = None
) -> None:
    """Link to the work directories of a flow's steps from its own; `OSError` if that fails.

    Its `own` steps may be read already. Those that it has taken over are linked to, too.
    """
    if own is None:
        own = _steps(jobs.some_jobs(jobs.step_ids(flow.job_id)))
    if repeated(flow.parents) is not None:
        children = jobs.children(flow.job_id)
        taken = [child["job_id"] for child in children if child["role"] == "taken"]
        own = {**_steps(jobs.some_jobs(taken)), **own}
    jobs.directory(flow.job_id).link_steps(_links(jobs, own))


def _links(jobs: HomeJobs, steps: Mapping[str, Sequence[JobMetadata]]) -> dict[str, str]:
    """Return links to the work directories of steps, ``01-relax-Cu80``, in the order of calls."""
    in_order = sorted(steps.items(), key=lambda step: step[1][0].created_at)
    width = max(2, len(str(len(in_order))))
    links: dict[str, str] = {}
    for number, (name, tries) in enumerate(in_order, 1):
        job = _present(tries)
        work = Path(jobs.directory(job.job_id).work(job.attempt))
        short = name.rpartition("/")[2].rpartition("#")[0].rpartition(".")[2].removesuffix("_job")
        parts = [f"{number:0{width}}", short, *([job.formula] if job.formula else ())]
        if work.is_dir():
            own = _UNREADABLE.sub("_", "-".join(parts))[:_LONGEST_LINK]
            links[own] = f"../../{job.job_id}/{work.name}"
    return links


class Intake(Protocol):
    """Takes steps, and hands over passes."""

    def record_steps(
        self,
        keys: Sequence[str],
        ask: Callable[[int, Sequence[str]], Again],
        refused: Callable[[int, Exception], CrystalMathError],
    ) -> list[JobMetadata]:
        """Take the steps that a flow has called, all of them or none."""

    def next_pass(self, flow: JobMetadata, row: NewJob, spec: JobSpec, document: str) -> None:
        """Record that the next pass of a flow begins, and hand it to its engine."""


@define
class _Plan:
    """What the last pass of a flow has left to be done."""

    attempt: int
    #: What stands in the flow's specification above structure and parameters, which may be large.
    header: Mapping[str, Any]
    #: The names of the steps that the next pass waits for.
    needs: Sequence[str] = ()
    #: The names of the steps that it has called and that had jobs before.
    known: Collection[str] = ()
    #: How the pass has ended, unless it waits for steps.
    end: Change | None = None
    #: When the time of the flow is up, in seconds since the epoch.
    ends_at: float = math.inf
    is_over: bool = False
    #: The states of its jobs as the event log has told them since all rows were last read.
    states: dict[str, JobState] = field(factory=dict)
    #: Those of them that count: of steps that have not ended, and that the next pass waits for.
    open: set[str] = field(factory=set)
    needed: set[str] = field(factory=set)
    #: How many steps there were, how many of them have failed, and how many were taken over.
    count: int = 0
    failed: int = 0
    taken: int = 0
    #: Whether only the rows tell what follows: something else than that steps completed.
    must_read: bool = True
    #: The jobs that were told to stop.
    stopped: set[str] = field(factory=set)

    def count_steps(self, steps: Mapping[str, Sequence[JobMetadata]]) -> None:
        """Count the steps, of which all rows were read, by the states of the database."""
        present = {name: _present(tries).job_id for name, tries in steps.items()}
        self.open = {one for one in present.values() if not self.states[one].is_terminal()}
        self.needed = self.open.intersection(present.get(name) for name in self.needs)
        self.count = len(present)
        self.failed = sum(self.states[one] is JobState.FAILED for one in present.values())
        self.taken = len(set(self.known) - present.keys())
        self.must_read = False

    def progress(self) -> str:
        """Say how far the steps have come; those beside them were taken over."""
        more = f", {self.failed} failed" if self.failed else ""
        more += f", {self.taken} more taken over" if self.taken else ""
        return f"{self.count - len(self.open)} of {self.count} steps have ended{more}"


class Flows:
    """Have the flows of this process go on, each time something has happened to their steps.

    `cancel` stops a job.
    """

    def __init__(
        self,
        jobs: HomeJobs,
        recorder: Recorder,
        intake: Intake,
        cancel: Callable[[str], object],
    ) -> None:
        self._jobs = jobs
        self._recorder = recorder
        self._intake = intake
        self._cancel = cancel
        self._plans: dict[str, _Plan] = {}

    def forget(self, job_id: str) -> None:
        """Forget a flow that waits here no more."""
        self._plans.pop(job_id, None)

    def has_read(self, flow: JobMetadata) -> bool:
        """Return whether it is known here what the last pass of a flow has called."""
        plan = self._plans.get(flow.job_id)
        return plan is not None and plan.attempt == flow.attempt

    def over(self) -> list[str]:
        """Return the ids of flows whose time is up since they were last looked at."""
        now = time.time()
        return [
            one for one, plan in self._plans.items() if plan.ends_at <= now and not plan.is_over
        ]

    def follow(self, flows: Mapping[str, str], states: Mapping[str, JobState]) -> None:
        """Take note of what the event log tells of steps; `flows` says whose they are."""
        for job_id, flow in flows.items():
            if (plan := self._plans.get(flow)) is None:
                continue
            before = plan.states.get(job_id)
            state = states.get(job_id, before)
            if state is JobState.COMPLETED and job_id in plan.open:
                plan.states[job_id] = state
                plan.open.discard(job_id)
                plan.needed.discard(job_id)
            elif state is None or (state is not before and state.is_terminal()) or before is None:
                plan.must_read = True

    def look(self, flow: JobMetadata) -> tuple[list[str], list[JobMetadata]]:
        """Do what follows for a flow between two passes.

        Return the ids of those of its steps that may go on since its pass has ended, and those of
        its steps that have not ended, if they were read. Raises `OSError`, `CrystalMathError`:
        something cannot be done now, and is to be tried again.
        """
        is_new = not self.has_read(flow)
        plan = self._read(flow) if is_new else self._plans[flow.job_id]
        plan.is_over = plan.ends_at <= time.time()
        is_stopped = plan.is_over or flow.cancel_requested_at is not None
        is_open = plan.open if plan.end is not None else plan.needed
        if is_open and not plan.must_read and not is_stopped:
            told = plan.progress() if plan.end is None else _left(plan.end, plan.open)
            self._note(flow, told)
            return [], []
        plan.states = self._recorder.store.step_states(flow.job_id)
        rows = self._jobs.some_jobs(list(plan.states))
        # Memory may learn of an end a moment later than the event log, which tells once.
        ended = {one for one, state in plan.states.items() if state.is_terminal()}
        stale = [row.job_id for row in rows if row.job_id in ended and not row.state.is_terminal()]
        if stale:
            fresh = {row.job_id: row for row in self._recorder.store.get_many(stale)}
            rows = [fresh.get(row.job_id, row) for row in rows]
        steps = _steps(rows)
        plan.count_steps(steps)
        self._link(flow, steps)
        living = [job for job in rows if not job.state.is_terminal()]
        if is_stopped:
            living = self._stop(flow, plan, living)
        elif plan.end is not None:
            if living:
                self._note(flow, _left(plan.end, living))
            else:
                self._recorder.apply(evolve(plan.end, at=time.time()))
        elif plan.needed:
            self._note(flow, plan.progress())
        else:
            self._begin(flow, steps, plan)
        # Not before: where something of this cannot be done now, all of it is tried again.
        self._plans[flow.job_id] = plan
        return [job.job_id for job in living if job.waits] if is_new else [], living

    def _stop(
        self, flow: JobMetadata, plan: _Plan, living: Sequence[JobMetadata]
    ) -> list[JobMetadata]:
        """Stop the steps of a flow, and end it once none is left; return those that are."""
        if flow.cancel_requested_at is not None:
            self.request_cancel(flow.job_id)
        for job in living:
            if job.cancel_requested_at is None and job.job_id not in plan.stopped:
                self._cancel(job.job_id)
                plan.stopped.add(job.job_id)
        left = [job for job in self._again(living) if not job.state.is_terminal()]
        if left:
            self._note(flow, f"{_count(left)} to be stopped")
        elif flow.cancel_requested_at is not None:
            self._end(flow, JobState.CANCELLED, "cancelled")
        elif plan.end is not None:
            self._recorder.apply(evolve(plan.end, at=time.time()))
        else:
            self._note_end(flow, _OVER)
            self._end(flow, JobState.FAILED, _OVER)
        return left

    def request_cancel(self, flow: str) -> None:
        """Write for a record that is made anew that a flow is to be stopped."""
        with contextlib.suppress(OSError):  # without room for it, it is stopped all the same
            self._jobs.directory(flow).request_cancel()

    def _note_end(self, flow: JobMetadata, error: str) -> None:
        """Write for a record that is made anew why a flow fails whose pass waits for steps."""
        with contextlib.suppress(OSError):
            self._jobs.directory(flow.job_id).note_ended(flow.attempt, error)

    def _link(self, flow: JobMetadata, steps: Mapping[str, Sequence[JobMetadata]]) -> None:
        """Link to the work directories of the steps from the flow's own, by names for people."""
        # They are for people alone: no flow stops for them.
        with contextlib.suppress(OSError):
            link_steps(self._jobs, flow, steps)

    def _again(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        return self._recorder.store.get_many([job.job_id for job in jobs])

    def _note(self, flow: JobMetadata, reason: str) -> None:
        if reason != flow.reason:
            at = time.time()
            self._recorder.apply(Change(job_id=flow.job_id, state=flow.state, at=at, reason=reason))

    def _end(self, flow: JobMetadata, state: JobState, error: str) -> None:
        at = time.time()
        self._recorder.apply(Change(job_id=flow.job_id, state=state, at=at, error=error))

    # --- what a pass has come to -------------------------------------------------------------

    def _read(self, flow: JobMetadata) -> _Plan:
        """Read the outcome of the last pass, and record the steps that it has called."""
        asked = json.loads(self._jobs.specification(flow.job_id).partition("\n")[0])
        total, since = asked.get("walltime_total_s"), flow.started_at or flow.created_at
        ends_at = math.inf if total is None else since + total
        plan = _Plan(flow.attempt, asked, ends_at=ends_at)
        is_stopped = flow.cancel_requested_at is not None or plan.ends_at <= time.time()
        return plan if is_stopped else self._with_outcome(plan, flow)

    def _with_outcome(self, plan: _Plan, flow: JobMetadata) -> _Plan:
        directory = self._jobs.directory(flow.job_id)
        failed = Change(job_id=flow.job_id, state=JobState.FAILED, at=0.0)
        try:
            if directory.is_gone():
                gone = f"its run directory {directory.path} was removed"
                return evolve(plan, end=evolve(failed, error=gone))
            header = directory.outcome(flow.attempt) or {}
        except BadFile:
            header = {}
        if (end := flow_end(directory, flow.job_id, flow.attempt, header)) is not None:
            return evolve(plan, end=end)
        if not header:
            return plan  # what it has called is not known: one more pass tells
        try:
            told = json.loads(unpacked(directory.payload(flow.attempt)))
        except BadFile:
            return plan
        try:
            is_recorded = self._record(flow, plan.header, told["calls"])
        except InvalidJob as refused:
            self._note_end(flow, str(refused))
            return evolve(plan, end=evolve(failed, error=str(refused)))
        known = [call["name"] for call in told["calls"] if call["known"] is not None]
        # Steps that waited are lost with a database: one more pass tells.
        return evolve(plan, needs=told["needs"], known=known) if is_recorded else plan

    def _record(
        self, flow: JobMetadata, header: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Record the new steps that a pass has called, all of them or none.

        Return whether those are on record that it has called before.
        """
        told_of = {one["job_id"] for one in header["flow"]["steps"] if not one.get("taken_over")}
        known_before = told_of.intersection(call["known"] for call in calls)
        if len(self._jobs.some_jobs([*known_before])) < len(known_before):
            return False
        others = [one for one in header["flow"]["steps"] if one.get("taken_over")]
        taken = {one["job_id"] for one in others if not one.get("counted")}
        taken.intersection_update(call["known"] for call in calls)
        if taken:
            self._recorder.store.take_over(flow.job_id, sorted(taken))
        new = [call for call in calls if call["known"] is None]
        ids = {call["name"]: call["known"] for call in calls if call["known"] is not None}
        keys = [_key(flow, call["name"]) for call in new]

        def ask(index: int, before: Sequence[str]) -> Again:
            told = dict(zip((call["name"] for call in new), before, strict=False))
            submission = _on_terms(flow, header, new[index], self._jobs.config)
            return _asked(flow, submission, new[index], {**ids, **told})

        def refused(index: int, error: Exception) -> InvalidJob:
            return InvalidJob(f"the step {new[index]['name']} is refused: {error}")

        recorded = self._intake.record_steps(keys, ask, refused) if new else []
        called = {*ids.values(), *(job.job_id for job in recorded)}
        waiting = [job for job in self._waiting(flow.job_id) if job.job_id not in called]
        at, told = time.time(), "its flow calls it no more"
        self._recorder.apply(
            *(
                Change(job_id=job.job_id, state=JobState.CANCELLED, at=at, error=told)
                for job in waiting
            )
        )
        return True

    def _waiting(self, flow: str) -> list[JobMetadata]:
        rows = self._recorder.store.get_many(self._jobs.step_ids(flow))
        return [job for job in rows if job.waits]

    # --- the next pass -----------------------------------------------------------------------

    def _begin(
        self,
        flow: JobMetadata,
        steps: Mapping[str, Sequence[JobMetadata]],
        plan: _Plan,
    ) -> None:
        """Begin the next pass, which is told of all steps."""
        header, before = dict(plan.header), plan.header["flow"]
        taken = {each["name"]: each for each in before["steps"] if each.get("taken_over")}
        for name in taken.keys() & plan.known:
            taken[name] = {**taken[name], "counted": True}
        entries = taken | {name: _entry(name, tries) for name, tries in steps.items()}
        for entry in entries.values():
            if entry["state"] == "waiting":
                asked = self._jobs.specification(entry["job_id"]).partition("\n")
                entry["document"] = json.loads(asked[2])
                entry["changed"] = json.loads(asked[0]).get("changed", {})
        attempt = flow.attempt + 1
        told = {"pass": before["pass"] + 1, "attempt": attempt, "steps": [*entries.values()]}
        header["flow"] = {**before, **told}
        left = None if plan.ends_at == math.inf else max(plan.ends_at - time.time(), 1.0)
        header["walltime_s"] = _least(before.get("walltime_s"), left)
        known = {name: header[name] for name in fields_dict(JobSpec) if name in header}
        spec = JobSpec(atoms=None, **known)
        same = {one: getattr(flow, one) for one in fields_dict(type(flow)) if one not in _OTHER}
        body = self._jobs.specification(flow.job_id).partition("\n")[2]
        row = NewJob(
            **same,
            attempt=attempt,
            stage="pass",
            reason=plan.progress() if steps else None,
            specification=f"{json.dumps(spec.header())}\n{body}",
        )
        self._intake.next_pass(flow, row, spec, body)


#: What of a flow's row is another one in its next pass.
_OTHER = {"attempt", "stage", "reason"}


def _left(end: Change, living: Collection[object]) -> str:
    return f"{end.error}; {_count(living)} still to end"


def _count(jobs: Collection[object]) -> str:
    return "1 step has" if len(jobs) == 1 else f"{len(jobs)} steps have"


def _key(flow: JobMetadata, name: str) -> str:
    """Return the key by which a step is recorded once, however often its pass is read."""
    key = f"{flow.job_id}/{name}/{flow.attempt}"
    if len(key) <= _LONGEST_KEY and key.isprintable():
        return key
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{flow.job_id}/{digest}/{flow.attempt}"


def terms_by_step(
    terms: Mapping[str, Any], settings: Mapping[str, Any], configured: Config
) -> dict[str, Any]:
    """Return the terms of a step, with the engine: those of its flow, but for its `settings`."""
    own = {name: value for name, value in settings.items() if value is not None}
    own.pop("params", None)
    resources = Resources(**own.pop("resources", {})).over(terms["resources"])
    if (cluster := configured.clusters.get(own.get("cluster", ""))) is not None:
        own.setdefault("engine", cluster.engine)
    return {**terms, **own, "resources": resources}


def by_step_faults(
    by_step: Mapping[str, Mapping[str, Any]],
    steps: Iterable[StepCheck],
    configured: Config,
    awaits: str | None,
) -> tuple[list[Finding], list[str]]:
    """Find terms by step that mean none of a flow's steps, and parameters that these do not take.

    `awaits` says why there may be other steps. Then also return patterns that may mean these.
    """
    called = [(step.recipe, step.name) for step in steps if step.recipe]
    findings: list[Finding] = []
    unknown = []
    for pattern, settings in by_step.items():
        findings += _changed_faults(pattern, settings, called, configured)
        # A later step of those that are known is none.
        likely = _NUMBER.sub("*", pattern) if awaits else pattern
        remedy = _meant(pattern, called, awaits and "")
        if any(step_matches(pattern, *one) for one in called):
            continue
        if awaits and (not remedy or any(step_matches(likely, *one) for one in called)):
            unknown.append(pattern)
            continue
        place = f"by_step.{pattern}"
        known = " that is known before it has begun" if awaits else ""
        told = f"'{place}.{next(iter(settings), '')}' means no step of the flow{known}"
        findings.append(
            Finding(
                severity="warning",
                code="step_unknown",
                message=told,
                remedy=remedy,
                place=place,
            )
        )
    return findings, unknown


def _meant(pattern: str, called: Collection[tuple[str, str]], otherwise: str | None = None) -> str:
    """Ask back which steps a pattern may mean that means none of them."""
    anywhere = f"*{pattern}"  # in whichever part of the flow it is called
    if "#" in pattern and any(step_matches(anywhere, *one) for one in called):
        return f"did you mean {anywhere!r}?"
    return did_you_mean(pattern, sorted({one[0].rpartition(".")[2] for one in called}), otherwise)


def _changed_faults(
    pattern: str,
    settings: Mapping[str, Any],
    called: Iterable[tuple[str, str]],
    configured: Config,
) -> Iterator[Finding]:
    """Find what is wrong with the parameters that are to be other for some steps."""
    parameters = codec.decode_request(settings.get("params") or {})
    recipes = {one[0] for one in called if step_matches(pattern, *one)} if parameters else ()
    for recipe in sorted(recipes):
        with contextlib.suppress(InvalidJob):  # it may be gone, which is told elsewhere
            found = look_up(recipe, configured.recipes_allow)
            yield from job_faults(found, parameters, f"{pattern}.")


def changes_by_step(
    changes: Retry, flow: JobMetadata, jobs: HomeJobs
) -> tuple[Retry, tuple[Finding, ...]]:
    """Move parameters that are named after steps of a flow to what changes of these.

    Also return what is wrong with changes by step. `InvalidJob`: one is called neither as a
    parameter of the flow nor as a step. `JobRefused`: a step would not take it.
    """
    signature = look_up(flow.recipe, jobs.config.recipes_allow).signature
    parameters = {} if signature is None else signature.parameters
    others = changes.parameters.keys() - parameters.keys()
    if not (others or changes.by_step):
        return changes, ()
    takes_any = signature is None or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    own, by_step = dict(changes.parameters), dict(changes.by_step)
    header = json.loads(jobs.specification(flow.job_id).partition("\n")[0])
    told = [each["job_id"] for each in header["flow"]["steps"]]
    called: dict[tuple[str, str], bool] = {}
    for job in jobs.some_jobs([*told, *jobs.step_ids(flow.job_id)]):
        if of_flow := step_of(job.parents):
            one = (job.recipe, of_flow[1])
            called[one] = called.get(one, False) or _has_result(jobs, job)
    for name in sorted(others):
        if not any(step_matches(name, *one) for one in called):
            if takes_any:
                continue
            known = sorted({recipe.rpartition(".")[2] for recipe, _ in called})
            hint = did_you_mean(name, [*known, *parameters])
            raise InvalidJob(
                f"{shown(name)} is no parameter of {flow.recipe}, and no step of flow "
                f"{flow.job_id} is called so; {hint}"
            )
        value = own.pop(name)
        if not isinstance(value, Mapping):
            raise InvalidJob(
                f"{name!r} is a step of flow {flow.job_id}, and takes its parameters by their "
                f"names ({name}.PARAMETER=VALUE), not {shown(value)}"
            )
        by_step[name] = merged(by_step.get(name, {}), {"params": codec.encode_request(value)})
    findings = [
        finding
        for pattern, settings in by_step.items()
        for finding in _changed_faults(pattern, settings, called, jobs.config)
    ]
    if any(finding.severity == "error" for finding in findings):
        raise JobRefused(findings)
    findings += [] if own else _taken_over_all_the_same(by_step, called)
    findings += _meant_for_none(changes.by_step, called, flow)
    return evolve(changes, parameters=own, by_step=by_step), tuple(findings)


def _meant_for_none(
    by_step: Iterable[str], called: Collection[tuple[str, str]], flow: JobMetadata
) -> Iterator[Finding]:
    """Find patterns that mean none of a flow's steps, and are nearly the name of one."""
    for pattern in by_step:
        near = _meant(pattern, called, "")
        if near and not any(step_matches(pattern, *one) for one in called):
            yield Finding(
                severity="warning",
                code="step_unknown",
                message=f"{pattern!r} means no step that flow {flow.job_id} has called",
                remedy=near,
                place=f"by_step.{pattern}",
            )


def _taken_over_all_the_same(
    by_step: Iterable[str], called: Mapping[tuple[str, str], bool]
) -> Iterator[Finding]:
    """Find changes that mean completed steps alone; `called` says of each whether it has."""
    for pattern in by_step:
        states = [completed for one, completed in called.items() if step_matches(pattern, *one)]
        if states and all(states):
            which = "the one step" if len(states) == 1 else f"each of the {len(states)} steps"
            yield Finding(
                severity="warning",
                code="step_taken_over",
                message=f"{which} that {pattern!r} means has completed, and is taken over as it is "
                "where the flow calls it with the same arguments",
                remedy="to compute it with what is changed, submit the flow anew, or run the step "
                "again alone (crystalmath retry STEP)",
                place=f"by_step.{pattern}",
            )


def _on_terms(
    flow: JobMetadata, header: Mapping[str, Any], call: Mapping[str, Any], configured: Config
) -> Submission:
    """Make the submission of a step, on the terms of its flow, and those that are its own."""
    terms: dict[str, Any] = {one: getattr(flow, one) for one in fields_dict(Terms)}
    terms |= {**dict.fromkeys(header.get("defaulted", ())), "engine": flow.engine}
    settings = of_step(header.get("by_step", {}), call["recipe"], call["name"])
    labels = {**flow.labels, "step": call["step"]}
    return Submission(
        **{
            **terms_by_step(terms, settings, configured),
            "name": flow.name and f"{flow.name} {call['step']}"[:_LONGEST_KEY],
            "labels": labels if len(labels) <= MOST_LABELS else flow.labels,
            "key": _key(flow, call["name"]),
        },
        recipe=call["recipe"],
        parameters=codec.decode_request(settings.get("params") or {}),
        environment=environment_before(header),
    )


def _asked(
    flow: JobMetadata, submission: Submission, call: Mapping[str, Any], ids: Mapping[str, str]
) -> Again:
    """Ask for a step as its flow has called it."""
    parents: list[Parent] = [{"job_id": flow.job_id, "role": "flow", "step": call["name"]}]
    body = _with_jobs(call["document"], ids, parents, ())
    for name in call["after"]:
        if not any(one["job_id"] == ids[name] for one in parents):
            parents.append({"job_id": ids[name], "role": "after"})
    for parent in parents[1:]:
        parent |= {"awaited": "ok", "on_failure": "fail"}
    return Again(submission, parents, body=body, settings=call.get("settings") or {})


def _with_jobs(
    node: Any, ids: Mapping[str, str], parents: list[Parent], place: tuple[Any, ...]
) -> Any:
    """Write references to steps as references to their jobs, and these among the parents."""
    if isinstance(node, list):
        return [_with_jobs(each, ids, parents, (*place, at)) for at, each in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if STEP not in node:
        return {key: _with_jobs(each, ids, parents, (*place, key)) for key, each in node.items()}
    job_id, path = ids[node[STEP]], list(node["path"])
    if place == ("atoms",):
        parents.append({"job_id": job_id, "role": "structure", "path": path})
    else:
        spelt = place_name(place[1:])
        parents.append({"job_id": job_id, "role": "value", "place": spelt, "path": path})
    return {JOB: job_id, "path": path}
