"""Jobs that wait for other jobs: they are on record alone until those have ended.

The rows hold who waits for whom (``parents``, and ``lineage``, by which the successors of a job are
found). Nothing goes through all that wait: the event log tells which jobs have ended, by whatever
process, and their successors are looked at.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from crystalmath.errors import CrystalMathError
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.reading.predecessors import Outlook, Predecessors
from crystalmath.submitting.intake import fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.running.recorder import Recorder
    from crystalmath.running.recovery import Recovery
    from crystalmath.service.flows import Flows
    from crystalmath.submitting.intake import Intake

_LOG = logging.getLogger("crystalmath.service")

#: How often events of other processes are read while jobs wait here, in seconds.
POLL_S = 1.0
#: The pause before a failed release is tried again, and how often owners are checked, in seconds.
AGAIN_S = 5.0
#: How long `close` waits for a running release, in seconds.
CLOSE_S = 30.0
#: How many jobs are examined, and released, in one transaction.
_TOGETHER = 250
_EVENTS = 5000


class Waiting:
    """The waiting jobs of this process, and the thread that releases them."""

    def __init__(
        self,
        jobs: HomeJobs,
        recorder: Recorder,
        intake: Intake,
        recovery: Recovery,
        flows: Flows,
    ) -> None:
        self._flows = flows
        # The flows among the waiting jobs, also while their passes run.
        self._flow_ids: set[str] = set()
        self._jobs = jobs
        self._recorder = recorder
        self._intake = intake
        self._recovery = recovery
        self._host = recovery.host
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ids: dict[str, None] = {}
        # Jobs to examine now; jobs to try again, and when.
        self._due: dict[str, None] = {}
        self._later: dict[str, None] = {}
        self._later_at = 0.0
        # Unfinished predecessors of other owners, which may die.
        self._foreign: dict[str, None] = {}
        self._owners_at = 0.0
        self._seq: int | None = None
        # Jobs that the recorder announced as ended. Their events may have been read before the
        # jobs in memory were up to date, so their successors are examined once more.
        self._ended: dict[str, None] = {}
        recorder.waiters.add(self)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._ids

    def states(self) -> dict[str, JobState]:
        """Return the waiting jobs of this process, and their state."""
        flows = self._flow_ids
        running, pending = JobState.RUNNING, JobState.PENDING
        return {job_id: running if job_id in flows else pending for job_id in list(self._ids)}

    def may_go_on(self) -> bool:
        """Return whether one of the waiting jobs can go on without a retry."""
        predecessors, job_ids = Predecessors(self._jobs), list(self._ids)
        for start in range(0, len(job_ids), _TOGETHER):  # the first ones often decide
            jobs = self._recorder.store.get_many(job_ids[start : start + _TOGETHER])
            predecessors.read(parent["job_id"] for job in jobs for parent in job.parents)
            for job in jobs:
                outlook = self._outlook(job, predecessors) if job.waits else Outlook()
                if not job.state.is_terminal() and (outlook.failed or outlook.reason is None):
                    return True
            if any(not job.waits or job.job_id not in self for job in predecessors.unfinished()):
                return True
        return False

    def add(self, job_ids: Collection[str]) -> None:
        """Add waiting jobs of this process."""
        with self._lock:
            if self._closed:
                return
            self._ids |= dict.fromkeys(job_ids)
            self._due |= dict.fromkeys(job_ids)
            if self._thread is None:
                name = "crystalmath-waiting"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        self._wake.set()

    def put(self, jobs: list[JobMetadata], /) -> None:
        """Examine waiting jobs soon if recorded changes may concern them."""
        flows = [job for job in jobs if job.stage == "steps" and job.waits]
        if own := [job.job_id for job in flows if self._host.is_own(job.owner)]:
            self._flow_ids |= set(own)
            self.add(own)
        elif any(job.state.is_terminal() or job.parents for job in jobs):
            with self._lock:
                if self._thread is not None:
                    self._ended |= {job.job_id: None for job in jobs if job.state.is_terminal()}
            self._wake.set()

    def close(self, *, cancel: bool) -> None:
        """Release no more jobs; cancel those that wait here, or leave them to others."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)
        self._recorder.waiters.discard(self)
        if cancel and self._ids:
            try:
                self._cancel(self._recorder.store.get_many(list(self._ids)))
            except CrystalMathError as error:
                _LOG.warning("cannot record that waiting jobs are cancelled: %s", error)
        self._ids.clear()

    def cancel(self, job_ids: Sequence[str]) -> set[str]:
        """End jobs that wait here, for which a cancel was recorded; return their ids.

        The ids include jobs that the thread has already ended because of that record.
        """
        jobs = self._recorder.store.get_many(job_ids)
        ended = {
            job.job_id
            for job in jobs
            if job.state is JobState.CANCELLED and any("awaited" in one for one in job.parents)
        }
        return ended | self._cancel(jobs)

    def _cancel(self, jobs: Sequence[JobMetadata]) -> set[str]:
        mine = [job for job in jobs if job.waits and self._host.is_own(job.owner)]
        flows = [job.job_id for job in mine if job.stage is not None]
        self._end([job for job in mine if job.stage is None], JobState.CANCELLED, "cancelled")
        for flow in flows:  # whose steps are stopped first
            self._flows.request_cancel(flow)
        self.add(flows)
        return {job.job_id for job in mine}

    def _end(self, jobs: Sequence[JobMetadata], state: JobState, error: str) -> None:
        now = time.time()
        self._recorder.apply(
            *(Change(job_id=job.job_id, state=state, at=now, error=error) for job in jobs)
        )
        self._forget(job.job_id for job in jobs)

    def _forget(self, job_ids: Iterable[str]) -> None:
        with self._lock:
            for job_id in job_ids:
                self._ids.pop(job_id, None)
                self._later.pop(job_id, None)
                if job_id in self._flow_ids:
                    self._flow_ids.discard(job_id)
                    self._flows.forget(job_id)

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait(POLL_S)
            self._wake.clear()
            with self._lock:
                if self._closed or not (self._ids or self._due):
                    self._thread, self._seq = None, None
                    self._foreign.clear()
                    self._ended.clear()
                    return
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - the thread must survive any error
                _LOG.warning("cannot look after waiting jobs, trying again: %s", error)
                self._wake.wait(POLL_S)

    def _turn(self) -> None:
        """Examine the jobs that are due."""
        store = self._recorder.store
        if self._seq is None:
            # Before new jobs are examined, as their predecessors may end meanwhile.
            self._seq = store.last_event()
        self._read_events()
        if self._later and time.monotonic() >= self._later_at:
            with self._lock:
                self._due |= self._later
                self._later.clear()
        with self._lock:
            self._due |= dict.fromkeys(self._flows.over())
        while self._due and not self._closed:
            with self._lock:
                some = list(self._due)[:_TOGETHER]
                # Removed first: a job that is adopted meanwhile is due again.
                for job_id in some:
                    del self._due[job_id]
            try:
                self._look(store.get_many(some), some)
            except BaseException:
                with self._lock:
                    self._due |= dict.fromkeys(some)
                raise
        if self._foreign and time.monotonic() >= self._owners_at:
            self._owners_at = time.monotonic() + AGAIN_S
            # No other process may adopt them.
            left = [job for job in self._recovery.left() if job.job_id in self._foreign]
            self._recovery.take_over(left)

    def _read_events(self) -> None:
        """Mark as due the successors of jobs that have ended or were retried, by the new events."""
        store = self._recorder.store
        ended = list(self._ended)
        changed = set(ended)
        states: dict[str, JobState] = {}
        while self._seq is not None:
            events, seq = store.follow(self._seq, limit=_EVENTS)
            changed |= {
                event.job_id
                for event in events
                if event.to_state.is_terminal() or event.from_state is None
            }
            states |= {event.job_id: event.to_state for event in events}
            noted = {event.job_id for event in events if event.job_id in self._ids}
            successors = store.successors(sorted(changed)) if changed else []
            if changed and self._flow_ids:
                steps = store.flows_of(sorted(changed))
                self._flows.follow(steps, states)
                successors = [*successors, *steps.values()]
            for job_id in changed:
                self._foreign.pop(job_id, None)
            with self._lock:
                self._due |= {name: None for name in (*successors, *noted) if name in self._ids}
                for job_id in ended:
                    self._ended.pop(job_id, None)
            self._seq, changed, ended = seq, set(), []
            if len(events) < _EVENTS:
                return

    def _look(self, jobs: Sequence[JobMetadata], job_ids: Sequence[str]) -> None:
        """Release jobs, end them, or keep them waiting, as their predecessors are."""
        if gone := set(job_ids) - {job.job_id for job in jobs}:
            _LOG.error("jobs that waited are not on record any more: %s", ", ".join(sorted(gone)))
            self._forget(gone)
        waiting: list[JobMetadata] = []
        for job in jobs:
            is_flow = job.stage is not None and not job.state.is_terminal()
            if not (job.waits or is_flow) or not self._host.is_own(job.owner):
                self._forget([job.job_id])
                continue
            self._ids[job.job_id] = None
            if is_flow:
                self._flow_ids.add(job.job_id)
                if job.waits:
                    self._look_at_flow(job)
            elif job.cancel_requested_at is not None:
                self._cancel([job])
            else:
                waiting.append(job)
        # Flows first, as their next passes decide about the steps.
        predecessors = Predecessors(self._jobs)
        predecessors.read(parent["job_id"] for job in jobs for parent in job.parents)
        self._note_foreign(predecessors.unfinished())
        self._look_at_others(waiting, predecessors)

    def _note_foreign(self, jobs: Iterable[JobMetadata]) -> None:
        """Note the predecessors of other owners, which may die."""
        foreign = [job.job_id for job in jobs if not self._host.is_own(job.owner)]
        self._foreign |= dict.fromkeys(foreign)

    def _look_at_others(self, jobs: Sequence[JobMetadata], predecessors: Predecessors) -> None:
        """Release jobs that wait for others, end them, or keep them waiting."""
        ready: list[JobMetadata] = []
        notes: list[Change] = []
        now = time.time()
        for job in jobs:
            outlook = self._outlook(job, predecessors)
            if outlook.failed is not None:
                self._end([job], outlook.state, outlook.failed)
            elif outlook.reason is None:
                ready.append(job)
            elif outlook.reason not in {job.reason, ""}:
                reason = outlook.reason
                notes.append(Change(job_id=job.job_id, state=job.state, at=now, reason=reason))
        self._recorder.apply(*notes)
        if ready and (later := self._release(ready)):
            # A job whose predecessor has a damaged result waits for a retry of that.
            unread = [job for job in ready if job.job_id in later]
            held = [job for job in unread if self._outlook(job, predecessors).reason is not None]
            self._look_at_others(held, predecessors)

    def _outlook(self, job: JobMetadata, predecessors: Predecessors) -> Outlook:
        """Return the outlook of a job; it fails if an unexpected error prevents that."""
        try:
            return predecessors.of_flow(job, self._has_read) or predecessors.outlook(job.parents)
        except (CrystalMathError, OSError, MemoryError):
            raise  # not the fault of this job
        except Exception as error:  # noqa: BLE001 - one fault must not block the others
            return Outlook(failed=str(fault(f"job {job.job_id}", error)))

    def _has_read(self, flow: JobMetadata) -> bool:
        # This process cannot know what the owner of another flow has read.
        return self._flows.has_read(flow) if self._host.is_own(flow.owner) else flow.waits

    def _look_at_flow(self, flow: JobMetadata) -> None:
        """Continue a flow if its steps have ended."""
        try:
            waiting, living = self._flows.look(flow)
        except (CrystalMathError, OSError, MemoryError) as error:
            reason = f"cannot go on now, trying again: {error}"
            _LOG.warning("flow %s %s", flow.job_id, reason)
            if reason != flow.reason:
                now, state = time.time(), flow.state
                self._recorder.apply(Change(job_id=flow.job_id, state=state, at=now, reason=reason))
            self._later_at = time.monotonic() + AGAIN_S
            with self._lock:
                self._later[flow.job_id] = None
        except Exception as error:  # noqa: BLE001 - one fault must not block the others
            self._end([flow], JobState.FAILED, str(fault(f"flow {flow.job_id}", error)))
        else:
            self._note_foreign(living)
            with self._lock:
                self._due |= {name: None for name in waiting if name in self._ids}

    def _release(self, ready: Sequence[JobMetadata]) -> Collection[str]:
        """Hand over jobs that no longer wait; return the ids of those to try again."""
        later = self._intake.release(ready)
        self._forget({job.job_id for job in ready}.difference(later))
        if later:
            self._later_at = time.monotonic() + AGAIN_S
            with self._lock:
                self._later |= dict.fromkeys(later)
        return later
