"""Jobs of other processes: their present states, and the takeover of orphans."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.errors import CrystalMathError
from crystalmath.jobs.changes import Change, Publish, WriteSpec
from crystalmath.jobs.facts import Absent, Record
from crystalmath.jobs.life import step
from crystalmath.jobs.ownership import Recorded
from crystalmath.jobs.reading import Depth, read
from crystalmath.jobs.reconcile import Job, Reconciler
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.reading.current_jobs import Onlooker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from crystalmath.jobs.host import Host
    from crystalmath.jobs.life import Decision
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import JobMetadata, JobStore
    from crystalmath.running.recorder import Recorder

_LOG = logging.getLogger("crystalmath.service")

#: The number of adopted jobs from which ended ones are forgotten, and the most jobs whose logged
#: warnings are remembered.
MOST = 10_000
_NOT_TAKEN = "cannot be taken over"


class Recovery(Onlooker):
    """Care for the jobs that this process does not follow; `wait` gets those that wait."""

    def __init__(
        self,
        recorder: Recorder,
        runner_of: Callable[[str], EngineRunner],
        follows: Callable[[str], bool],
        jobs_directory: Path,
        *,
        wait: Callable[[Collection[str]], None] = lambda _: None,
        host: Host | None = None,
        open_directory: Callable[[Path], RunDirectory] = RunDirectory,
    ) -> None:
        super().__init__(jobs_directory, follows, host=host, open_directory=open_directory)
        self._recorder = recorder
        self._runner_of = runner_of
        self._wait = wait
        self._reconciler = Reconciler(self.host)
        self._owning = threading.Lock()
        self._disowned = False
        self._taken: set[str] = set()
        self._most_taken = MOST
        self._logged: dict[str, str] = {}
        self._looking = threading.Lock()
        # By the owners of unfinished jobs: the ids of these jobs, once the owner has died, and
        # unless events since may have changed them. The event up to which this is known.
        self._owned: dict[str, list[str] | None] = {}
        self._owners_of: JobStore | None = None
        self._read_to = 0

    # --- who takes over ----------------------------------------------------------------------

    def left(self) -> list[JobMetadata]:
        """Return the unfinished jobs that nobody follows.

        All unfinished jobs are read the first time only; then the owners of those with new events.
        """
        store = self._recorder.store
        with self._looking:
            last = store.last_event()
            is_new = self._owners_of is not store or last < self._read_to
            if is_new:
                self._owned.clear()
            if is_new or last > self._read_to:
                self._owned |= dict.fromkeys(store.owners(after=None if is_new else self._read_to))
            self._owners_of, self._read_to = store, last
            left: list[JobMetadata] = []
            for text, job_ids in list(self._owned.items()):
                if not self.host.is_orphan(owner := json.loads(text)):
                    continue
                jobs = store.unfinished(owner=text) if job_ids is None else store.get_many(job_ids)
                # Events since may have ended them, or have given them another owner.
                jobs = [job for job in jobs if not job.state.is_terminal() and job.owner == owner]
                self._owned[text] = [job.job_id for job in jobs]
                if not jobs:
                    del self._owned[text]
                left += jobs
            return left

    def take_over(self, jobs: Sequence[JobMetadata]) -> list[str]:
        """Adopt the orphans among some jobs; return the ids of those that were adopted.

        Jobs that have ended are recorded as such. If the files alone decide how a job ended, its
        engine is not loaded.
        """
        taken: list[str] = []
        waiting: list[str] = []
        runners: dict[str, EngineRunner | str] = {}
        notes: list[Change] = []
        self.host.publish_left()
        for job in jobs:
            if job.state.is_terminal() or not self.host.is_orphan(job.owner):
                continue
            if job.waits:  # no engine has it yet
                taken.append(job.job_id)
                waiting.append(job.job_id)
                continue
            try:
                if self._take_over(job, runners, notes):
                    taken.append(job.job_id)
            except (CrystalMathError, OSError, ValueError, KeyError, TypeError) as error:
                # One job's bad file must not keep the others from being taken over.
                message = f"{_NOT_TAKEN}: {error}"
                self._warn(job.job_id, f"job {job.job_id} {message}")
                notes += self._note(job, message)
        self._recorder.apply(*notes)
        with self._owning:
            if self._disowned or not taken:
                return []  # the engines have cancelled them, or let them go
            self._taken |= set(taken)
            me = self.host.own_fields()
            reason = f"taken over by the process {me['pid']} on {me['host']}"
            self._recorder.store.set_owner(taken, me, reason, self.host.now())
            # Replace the reasons of jobs that could not be taken over before.
            before = [job for job in jobs if (job.reason or "").startswith(_NOT_TAKEN)]
            mine = [job for job in before if job.job_id in self._taken]
            self._recorder.apply(*(note for job in mine for note in self._note(job, reason)))
            if len(self._taken) > self._most_taken:
                self._taken &= set(self._own_unfinished())
                self._most_taken = max(MOST, 2 * len(self._taken))
            # The flow of a pass that has ended meanwhile waits for its steps.
            passes = {job.job_id for job in jobs if job.stage is not None}.difference(waiting)
            adopted = self._recorder.store.get_many(sorted(passes.intersection(taken)))
            waiting += [job.job_id for job in adopted if job.waits]
        if waiting:
            self._wait(waiting)
        return taken

    def _own_unfinished(self) -> list[str]:
        store = self._recorder.store
        mine = [owner for owner in store.owners() if self.host.is_own(json.loads(owner))]
        return [job.job_id for owner in mine for job in store.unfinished(owner=owner)]

    def disown(self, *, own: bool, but: Collection[str] = ()) -> None:
        """Disown the unfinished jobs that were adopted, so that other processes adopt them.

        With `own` also the jobs that this process has submitted. The jobs in `but` stay: another
        service of this process follows them.
        """
        with self._owning:
            # From now on, no thread records an adoption.
            self._disowned = True
        if not (own or self._taken) or not self._recorder.exists():
            return
        # Other processes may have adopted some already; the recorded owner counts.
        mine = [job_id for job_id in self._own_unfinished() if own or job_id in self._taken]
        left = [job_id for job_id in mine if job_id not in but]
        if left:
            self._recorder.store.set_owner(left, {}, "let go", self.host.now())
        self._taken.clear()

    def end_flows(self) -> None:
        """Record as cancelled the flows of this process without unfinished steps."""
        if not self._recorder.exists():
            return
        store = self._recorder.store
        unfinished = store.get_many(self._own_unfinished())
        alive = set(store.flows_of([job.job_id for job in unfinished]).values())
        flows = [job.job_id for job in unfinished if job.stage is not None]
        now, state = self.host.now(), JobState.CANCELLED
        self._recorder.apply(
            *(
                Change(job_id=job_id, state=state, at=now, error="cancelled")
                for job_id in flows
                if job_id not in alive and not self._follows(job_id)
            )
        )

    def _runner(self, engine: str) -> EngineRunner | str:
        try:
            return self._runner_of(engine)
        except (CrystalMathError, ImportError) as error:
            message = f"{_NOT_TAKEN} by its engine {engine!r}: {error}"
            self._warn(engine, f"jobs {_NOT_TAKEN} by their engine {engine!r}: {error}")
            return message

    def _take_over(
        self, job: JobMetadata, runners: dict[str, EngineRunner | str], notes: list[Change]
    ) -> bool:
        directory, record = self._directory(job), self._record(job)
        files = read(directory, record, self.host)
        decision = step(record, files, now=self.host.moment())
        self._doubts.pop(job.job_id, None)
        if decision.doubt is not None:
            self._doubts[job.job_id] = decision.doubt
        runner: EngineRunner | str | None = None
        removed = isinstance(files.directory, Absent) and record.written
        if not (decision.state.is_terminal() or removed):
            recorded = self._recorded(job)
            # The passes of a flow may run on another engine than its steps.
            engine = job.engine if job.stage is None else recorded.header["engine"]
            if engine not in runners:
                runners[engine] = self._runner(engine)
            if not isinstance(runner := runners[engine], str):
                return runner.adopt(job.job_id, recorded)
        if decision.actions or decision.changes:
            self._settle(job, record, decision)
        if isinstance(runner, str):
            notes += self._note(evolve(job, state=decision.state), runner)
        return False

    def _settle(self, job: JobMetadata, record: Record, decision: Decision) -> None:
        """Carry out the decision about an orphan without its engine."""
        directory, recorded = self._directory(job), self._recorded(job)
        writes = any(isinstance(action, (WriteSpec, Publish)) for action in decision.actions)
        owned: Job | None = Job(dict(recorded.header), recorded.body, directory, self.host, record)
        if writes:
            engine = job.engine if job.stage is None else recorded.header["engine"]
            owned = Job.taken_over(directory, engine, self.host, recorded)
        if owned is not None:
            owned.update(doubt=record.doubt)
            owned.reported = owned.stalled = job.reason  # it is on record and in the log already
            try:
                looked = self._reconciler.look(owned, Depth.THOROUGH)
                self._recorder.apply(*looked.changes)
            finally:
                if writes:
                    owned.let_go()

    # --- what is known -----------------------------------------------------------------------

    def _recorded(self, job: JobMetadata) -> Recorded:
        header, body = self._recorder.store.specification(job.job_id).split("\n", 1)
        return Recorded(
            header={**json.loads(header), "job_id": job.job_id, "created_at": job.created_at},
            body=body,
            state=job.state,
            attempt=job.attempt,
            cancelled=job.cancel_requested_at is not None,
            owner=job.owner,
        )

    def _note(self, job: JobMetadata, reason: str) -> list[Change]:
        """Return the change that notes why a job was not adopted, if the reason is new."""
        now = self.host.now()
        change = Change(job_id=job.job_id, state=job.state, at=now, reason=reason)
        return [change] if reason != job.reason else []

    def _warn(self, about: str, message: str) -> None:
        """Log a warning, unless it repeats the last one about the same thing."""
        if self._logged.get(about) != message:
            self._logged.pop(about, None)
            self._logged[about] = message
            if len(self._logged) > MOST:
                del self._logged[next(iter(self._logged))]
            _LOG.warning("%s", message)
