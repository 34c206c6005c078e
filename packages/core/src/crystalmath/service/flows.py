"""Advance flows: record the steps that a pass has called, and start the next pass.

A flow is a job. Each of its attempts is a pass of its body
(:mod:`crystalmath.worker.flow_pass`), whose outcome names the steps that the body has called. This
module records the new ones as jobs. The next pass starts when the steps that the body needs have
ended. Nothing is kept here alone: the outcome of the last pass and the rows of the steps tell all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, evolve, field, fields_dict

from crystalmath.errors import (
    BadFile,
    InvalidJob,
)
from crystalmath.jobs.changes import Change
from crystalmath.jobs.reading import flow_end
from crystalmath.models import JobSpec, JobState, NewJob, Submission
from crystalmath.models.reference import JOB, STEP
from crystalmath.models.submission import (
    MOST_LABELS,
    Terms,
    of_step,
)
from crystalmath.reading.flow_steps import current_try, link_steps, step_entry, steps_by_name
from crystalmath.recipes import codec
from crystalmath.recipes.json_text import place_name
from crystalmath.recipes.stored_result import unpacked
from crystalmath.submitting.flow_terms import least, terms_by_step
from crystalmath.submitting.retrying import Again, environment_before

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.errors import CrystalMathError
    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.running.recorder import Recorder

_LOG = logging.getLogger("crystalmath.service")

_LONGEST_KEY = 255
_OVER = (
    "the time of the whole flow (--walltime-total) is up, and its steps were stopped; crystalmath "
    "retry continues from the completed ones"
)


class Intake(Protocol):
    """Records steps and starts passes."""

    def record_steps(
        self,
        keys: Sequence[str],
        ask: Callable[[int, Sequence[str]], Again],
        refused: Callable[[int, Exception], CrystalMathError],
    ) -> list[JobMetadata]:
        """Record the steps that a flow has called, all of them or none."""

    def next_pass(self, flow: JobMetadata, row: NewJob, spec: JobSpec, document: str) -> None:
        """Record the next pass of a flow, and hand it to its engine."""


@define
class _Plan:
    """The steps of a flow as its last pass left them, and their states since."""

    attempt: int
    #: The first line of the flow's specification, without structure and parameters.
    header: Mapping[str, Any]
    #: Names of the steps that the next pass waits for.
    needs: Sequence[str] = ()
    #: Names of the steps that the pass has called and that were on record before.
    known: Collection[str] = ()
    #: The end of the flow, once its body has returned or raised.
    end: Change | None = None
    #: Deadline of the flow, in seconds since the epoch.
    ends_at: float = math.inf
    is_over: bool = False
    #: States of its jobs: from the rows, then from the event log.
    states: dict[str, JobState] = field(factory=dict)
    #: Ids of the current tries that have not ended, and of those that the next pass waits for.
    open: set[str] = field(factory=set)
    needed: set[str] = field(factory=set)
    #: The number of steps, of failed ones, and of ones kept from the flow that this one retries.
    count: int = 0
    failed: int = 0
    taken: int = 0
    #: Whether the rows must be read again: something other than a completion has happened.
    must_read: bool = True
    #: Ids of the jobs whose cancellation was requested.
    stopped: set[str] = field(factory=set)

    def count_steps(self, steps: Mapping[str, Sequence[JobMetadata]]) -> None:
        """Count the steps by the states in the database; `steps` has all rows."""
        present = {name: current_try(tries).job_id for name, tries in steps.items()}
        self.open = {tried for tried in present.values() if not self.states[tried].is_terminal()}
        self.needed = self.open.intersection(present.get(name) for name in self.needs)
        self.count = len(present)
        self.failed = sum(self.states[tried] is JobState.FAILED for tried in present.values())
        self.taken = len(set(self.known) - present.keys())
        self.must_read = False

    def progress(self) -> str:
        """Return the flow's progress as a text."""
        more = f", {self.failed} failed" if self.failed else ""
        more += f", {self.taken} more taken over" if self.taken else ""
        return f"{self.count - len(self.open)} of {self.count} steps have ended{more}"


class Flows:
    """Advances the flows of this process whenever their steps change; `cancel` stops a job."""

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
        """Drop the plan of a flow that no longer waits here."""
        self._plans.pop(job_id, None)

    def has_read(self, flow: JobMetadata) -> bool:
        """Return whether the outcome of the flow's last pass was read."""
        plan = self._plans.get(flow.job_id)
        return plan is not None and plan.attempt == flow.attempt

    def over(self) -> list[str]:
        """Return the ids of flows that have passed their deadline since the last look."""
        now = time.time()
        return [
            job_id
            for job_id, plan in self._plans.items()
            if plan.ends_at <= now and not plan.is_over
        ]

    def follow(self, flows: Mapping[str, str], states: Mapping[str, JobState]) -> None:
        """Note new states of steps from the event log; `flows` has the flow of each step."""
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
        """Advance a flow between two passes: record steps, start the next pass, or end it.

        Return the ids of the steps that may start now that the pass has ended, and the steps that
        have not ended, where their rows were read. Raises `OSError` or `CrystalMathError` where
        something must be tried again later.
        """
        is_new = not self.has_read(flow)
        plan = self._read(flow) if is_new else self._plans[flow.job_id]
        plan.is_over = plan.ends_at <= time.time()
        is_stopped = plan.is_over or flow.cancel_requested_at is not None
        is_open = plan.open if plan.end is not None else plan.needed
        if is_open and not plan.must_read and not is_stopped:
            reason = plan.progress() if plan.end is None else _left(plan.end, plan.open)
            self._note(flow, reason)
            return [], []
        plan.states = self._recorder.store.step_states(flow.job_id)
        rows = self._jobs.some_jobs(list(plan.states))
        # Rows in memory may lag behind the event log, which reports each end once.
        ended = {job_id for job_id, state in plan.states.items() if state.is_terminal()}
        stale = [row.job_id for row in rows if row.job_id in ended and not row.state.is_terminal()]
        if stale:
            fresh = {row.job_id: row for row in self._recorder.store.get_many(stale)}
            rows = [fresh.get(row.job_id, row) for row in rows]
        steps = steps_by_name(rows)
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
        # Last: after an error above, the whole step is tried again.
        self._plans[flow.job_id] = plan
        return [job.job_id for job in living if job.waits] if is_new else [], living

    def _stop(
        self, flow: JobMetadata, plan: _Plan, living: Sequence[JobMetadata]
    ) -> list[JobMetadata]:
        """Cancel the steps of a flow, and end it with the last; return the steps still alive."""
        if flow.cancel_requested_at is not None:
            self.request_cancel(flow.job_id)
        for job in living:
            if job.cancel_requested_at is None and job.job_id not in plan.stopped:
                self._cancel(job.job_id)
                plan.stopped.add(job.job_id)
        left = [job for job in self._fresh(living) if not job.state.is_terminal()]
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
        """Write the cancel request into the run directory, for a rebuilt database."""
        with contextlib.suppress(OSError):  # A full disk does not keep the flow from stopping.
            self._jobs.directory(flow).request_cancel()

    def _note_end(self, flow: JobMetadata, error: str) -> None:
        """Write the error of a flow that fails between two passes, for a rebuilt database."""
        with contextlib.suppress(OSError):
            self._jobs.directory(flow.job_id).note_ended(flow.attempt, error)

    def _link(self, flow: JobMetadata, steps: Mapping[str, Sequence[JobMetadata]]) -> None:
        """Link the flow's work directory to those of its steps, by readable names."""
        # The links are a convenience: an error does not stop the flow.
        with contextlib.suppress(OSError):
            link_steps(self._jobs, flow, steps)

    def _fresh(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        return self._recorder.store.get_many([job.job_id for job in jobs])

    def _note(self, flow: JobMetadata, reason: str) -> None:
        if reason != flow.reason:
            at = time.time()
            self._recorder.apply(Change(job_id=flow.job_id, state=flow.state, at=at, reason=reason))

    def _end(self, flow: JobMetadata, state: JobState, error: str) -> None:
        at = time.time()
        self._recorder.apply(Change(job_id=flow.job_id, state=state, at=at, error=error))

    # --- the outcome of a pass ---------------------------------------------------------------

    def _read(self, flow: JobMetadata) -> _Plan:
        """Read the outcome of the last pass, and record the steps that it has called."""
        header = json.loads(self._jobs.specification(flow.job_id).partition("\n")[0])
        total, since = header.get("walltime_total_s"), flow.started_at or flow.created_at
        ends_at = math.inf if total is None else since + total
        plan = _Plan(flow.attempt, header, ends_at=ends_at)
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
            return plan  # The calls are lost: the next pass repeats them.
        try:
            outcome = json.loads(unpacked(directory.payload(flow.attempt)))
        except BadFile:
            return plan
        try:
            is_recorded = self._record(flow, plan.header, outcome["calls"])
        except InvalidJob as refused:
            self._note_end(flow, str(refused))
            return evolve(plan, end=evolve(failed, error=str(refused)))
        known = [call["name"] for call in outcome["calls"] if call["known"] is not None]
        # A rebuilt database lacks steps that waited: the next pass calls them again.
        return evolve(plan, needs=outcome["needs"], known=known) if is_recorded else plan

    def _record(
        self, flow: JobMetadata, header: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Record the new steps that a pass has called, all of them or none.

        Return whether the steps of earlier passes are still on record.
        """
        entries = header["flow"]["steps"]
        earlier = {entry["job_id"] for entry in entries if not entry.get("taken_over")}
        known_before = earlier.intersection(call["known"] for call in calls)
        if len(self._jobs.some_jobs([*known_before])) < len(known_before):
            return False
        kept = [entry for entry in entries if entry.get("taken_over")]
        taken = {entry["job_id"] for entry in kept if not entry.get("counted")}
        taken.intersection_update(call["known"] for call in calls)
        if taken:
            self._recorder.store.take_over(flow.job_id, sorted(taken))
        new = [call for call in calls if call["known"] is None]
        ids = {call["name"]: call["known"] for call in calls if call["known"] is not None}
        keys = [_key(flow, call["name"]) for call in new]

        def ask(index: int, before: Sequence[str]) -> Again:
            recorded = dict(zip((call["name"] for call in new), before, strict=False))
            submission = _submission(flow, header, new[index], self._jobs.config)
            return _with_parents(flow, submission, new[index], {**ids, **recorded})

        def refused(index: int, error: Exception) -> InvalidJob:
            return InvalidJob(f"the step {new[index]['name']} is refused: {error}")

        recorded = self._intake.record_steps(keys, ask, refused) if new else []
        called = {*ids.values(), *(job.job_id for job in recorded)}
        waiting = [job for job in self._waiting(flow.job_id) if job.job_id not in called]
        at, error = time.time(), "its flow no longer calls it"
        self._recorder.apply(
            *(
                Change(job_id=job.job_id, state=JobState.CANCELLED, at=at, error=error)
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
        """Start the next pass; its specification lists all steps."""
        header, before = dict(plan.header), plan.header["flow"]
        taken = {each["name"]: each for each in before["steps"] if each.get("taken_over")}
        for name in taken.keys() & plan.known:
            taken[name] = {**taken[name], "counted": True}
        entries = taken | {name: step_entry(name, tries) for name, tries in steps.items()}
        for entry in entries.values():
            if entry["state"] == "waiting":
                first_line, _, body = self._jobs.specification(entry["job_id"]).partition("\n")
                entry["document"] = json.loads(body)
                entry["changed"] = json.loads(first_line).get("changed", {})
        attempt = flow.attempt + 1
        header["flow"] = {
            **before,
            "pass": before["pass"] + 1,
            "attempt": attempt,
            "steps": [*entries.values()],
        }
        left = None if plan.ends_at == math.inf else max(plan.ends_at - time.time(), 1.0)
        header["walltime_s"] = least(before.get("walltime_s"), left)
        known = {name: header[name] for name in fields_dict(JobSpec) if name in header}
        spec = JobSpec(atoms=None, **known)
        same = {
            name: getattr(flow, name)
            for name in fields_dict(type(flow))
            if name not in _CHANGES_BY_PASS
        }
        body = self._jobs.specification(flow.job_id).partition("\n")[2]
        row = NewJob(
            **same,
            attempt=attempt,
            stage="pass",
            reason=plan.progress() if steps else None,
            specification=f"{json.dumps(spec.header())}\n{body}",
        )
        self._intake.next_pass(flow, row, spec, body)


#: Fields of a flow's row that change with each pass.
_CHANGES_BY_PASS = {"attempt", "stage", "reason"}


def _left(end: Change, living: Collection[object]) -> str:
    return f"{end.error}; {_count(living)} still to end"


def _count(jobs: Collection[object]) -> str:
    return "1 step has" if len(jobs) == 1 else f"{len(jobs)} steps have"


def _key(flow: JobMetadata, name: str) -> str:
    """Return a step's key, by which it is recorded once however often its pass is read."""
    key = f"{flow.job_id}/{name}/{flow.attempt}"
    if len(key) <= _LONGEST_KEY and key.isprintable():
        return key
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{flow.job_id}/{digest}/{flow.attempt}"


def _submission(
    flow: JobMetadata, header: Mapping[str, Any], call: Mapping[str, Any], configured: Config
) -> Submission:
    """Return the submission of a step: on its own terms, else on those of its flow."""
    terms: dict[str, Any] = {name: getattr(flow, name) for name in fields_dict(Terms)}
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


def _with_parents(
    flow: JobMetadata, submission: Submission, call: Mapping[str, Any], ids: Mapping[str, str]
) -> Again:
    """Add the body of the call and the parents to the submission of a step."""
    parents: list[Parent] = [{"job_id": flow.job_id, "role": "flow", "step": call["name"]}]
    body = _refer_to_jobs(call["document"], ids, parents, ())
    for name in call["after"]:
        if not any(parent["job_id"] == ids[name] for parent in parents):
            parents.append({"job_id": ids[name], "role": "after"})
    for parent in parents[1:]:
        parent |= {"awaited": "ok", "on_failure": "fail"}
    return Again(submission, parents, body=body, settings=call.get("settings") or {})


def _refer_to_jobs(
    node: Any, ids: Mapping[str, str], parents: list[Parent], place: tuple[Any, ...]
) -> Any:
    """Replace references to steps by references to their jobs, and add these to `parents`."""
    if isinstance(node, list):
        return [
            _refer_to_jobs(item, ids, parents, (*place, index)) for index, item in enumerate(node)
        ]
    if not isinstance(node, dict):
        return node
    if STEP not in node:
        return {
            key: _refer_to_jobs(item, ids, parents, (*place, key)) for key, item in node.items()
        }
    job_id, path = ids[node[STEP]], list(node["path"])
    if place == ("atoms",):
        parents.append({"job_id": job_id, "role": "structure", "path": path})
    else:
        name = place_name(place[1:])
        parents.append({"job_id": job_id, "role": "value", "place": name, "path": path})
    return {JOB: job_id, "path": path}
