"""The jobs that others wait for: whether they have ended, and which retry stands in for one."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from crystalmath.errors import UnknownJob
from crystalmath.models import JobState
from crystalmath.models.job_notes import awaited, awaits_structure, repeated, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs

__all__ = ["Outlook", "Predecessors"]

#: A reason names this many predecessors at most.
_NAMED = 3
#: The search for what holds a job up visits this many waiting jobs at most.
_MOST_WAITING = 10_000


@frozen
class Outlook:
    """Whether the predecessors of a job have ended as it needs them to."""

    #: Why the job waits; ``None`` where it can run.
    reason: str | None = None
    #: Why the job ends without having run (``on_failure="fail"``), and its state then.
    failed: str | None = None
    state: JobState = JobState.FAILED
    #: Id of the job that has failed or lost its files: the job waits for a retry of that one.
    held_up_by: str | None = None
    #: Id of a waiting job in between; `reason` is the reason of that job.
    through: str | None = None
    #: Why the files of a completed predecessor cannot be used.
    removed: str | None = None


class _Standing(Enum):
    """The state of a predecessor, seen from the job that waits for it."""

    READY = auto()
    PENDING = auto()
    BROKEN = auto()


class Predecessors:
    """Read the jobs that others wait for, each once.

    Parameters
    ----------
    jobs : HomeJobs
        The jobs of the home.
    planned : collection of str, optional
        Ids of jobs whose retry is being submitted: their failure counts as pending.
    """

    def __init__(self, jobs: HomeJobs, planned: Collection[str] = ()) -> None:
        self._jobs = jobs
        self._planned = planned
        self._known: dict[str, JobMetadata] = {}
        self._retries: dict[str, list[str]] = {}

    def add(self, job: JobMetadata) -> None:
        """Add a job that is not on record yet."""
        self._known[job.job_id] = job

    def job(self, job_id: str) -> JobMetadata:
        """Return a job; raise `UnknownJob` if there is none."""
        if job_id not in self._known:
            self._known[job_id] = self._jobs.job(job_id)
        return self._known[job_id]

    def read(self, job_ids: Iterable[str]) -> None:
        """Read several jobs in one query."""
        missing = [job_id for job_id in dict.fromkeys(job_ids) if job_id not in self._known]
        self._known |= {job.job_id: job for job in self._jobs.some_jobs(missing)}

    def unfinished(self) -> list[JobMetadata]:
        """Return the jobs read so far that have not ended."""
        return [job for job in self._known.values() if not job.state.is_terminal()]

    def of_flow(self, job: JobMetadata, has_read: Callable[[JobMetadata], bool]) -> Outlook | None:
        """Return why the flow of a step keeps it from starting; ``None`` if it does not.

        `has_read` returns whether the outcome of the flow's last pass was read.
        """
        if (of_flow := step_of(job.parents)) is None:
            return None
        flow = self.job(of_flow[0])
        if flow.state.is_terminal():
            if repeated(job.parents) is not None:
                return None  # A retry of the step alone runs without its flow.
            reason = f"its flow {flow.job_id} {flow.state.ended}"
            return Outlook(reason, reason, state=JobState.CANCELLED)
        # A running pass, or an outcome that is not read yet, may call the step differently.
        is_open = flow.waits or (flow.stage == "pass" and flow.attempt > 1)
        return Outlook("") if is_open and not has_read(flow) else None

    def outlook(self, parents: Sequence[Parent]) -> Outlook:
        """Return whether a job with these parents can run."""
        pending: dict[str, None] = {}
        broken: dict[str, str] = {}
        waited_for = awaited(parents)
        for parent in waited_for:
            job_id = parent["job_id"]
            standing, trouble = self._standing(parent)
            if standing is _Standing.PENDING:
                pending[job_id] = None
            elif standing is _Standing.BROKEN:
                # A job that is not on record can never be retried.
                if parent.get("on_failure") == "fail" or job_id not in self._known:
                    return Outlook(trouble, f"it needs job {job_id}: {trouble}")
                broken[job_id] = trouble
        if not broken:
            return Outlook(_waits_for(list(pending), waited_for))
        job_id, trouble = next(iter(broken.items()))
        more = f" (and for {len(broken) - 1} more such jobs)" if len(broken) > 1 else ""
        return Outlook(
            f"waits for job {job_id}{more}: {trouble}; it starts once a retry of that completes "
            f"(crystalmath retry {job_id[:8]})",
            held_up_by=job_id,
            removed=trouble if self._known[job_id].state is JobState.COMPLETED else None,
        )

    def held_up(
        self, jobs: Iterable[JobMetadata], known: dict[str, Outlook | None] | None = None
    ) -> dict[str, Outlook]:
        """Return the outlook of each job that only a retry can free, directly or through others.

        Parameters
        ----------
        jobs : iterable of JobMetadata
            Any jobs; those that do not wait are passed over.
        known : dict, optional
            The outlooks of earlier calls, by job id. It gains those of this call.
        """
        known = {} if known is None else known
        waiting = [job for job in jobs if job.waits and job.stage is None]
        new = [job for job in waiting if job.job_id not in known]
        parents = dict.fromkeys(parent["job_id"] for job in new for parent in awaited(job.parents))
        unknown = [job_id for job_id in parents if job_id not in known]
        before = self._jobs.ancestors(unknown, limit=_MOST_WAITING)
        self.read(job_id for job_id, waits in before.items() if not waits)
        broken = {job_id for job_id in before if self._is_broken(job_id)}
        held = {job_id: outlook for job_id, outlook in known.items() if outlook is not None}
        if broken or held:
            self.read((*before, *parents))
            between = [
                self._known[job_id] for job_id in before if before[job_id] and job_id not in known
            ]
            self._spread(held, {job.job_id: job for job in (*new, *between)}, known.keys())
        known |= dict.fromkeys((*(before.keys() - broken), *(job.job_id for job in new))) | held
        return {
            job.job_id: evolve(
                outlook, reason=f"waits for job {outlook.through}, which {outlook.reason}"
            )
            if outlook.through is not None
            else outlook
            for job in waiting
            if (outlook := known[job.job_id]) is not None
        }

    def _spread(
        self, held: dict[str, Outlook], jobs: Mapping[str, JobMetadata], known: Collection[str]
    ) -> None:
        """Add the jobs among `jobs` that are held up, directly or through others, to `held`."""
        seen = set(jobs).union(known)
        behind: dict[str, list[str]] = {}
        room = _MOST_WAITING - len(jobs)
        queue = deque(jobs.values())
        while queue:
            job = queue.popleft()
            outlook = self.outlook(job.parents) if job.waits and job.stage is None else Outlook()
            if outlook.held_up_by is not None:
                held[job.job_id] = outlook
            elif outlook.reason is not None:
                pending = (
                    self.source(parent)
                    for parent in awaited(job.parents)
                    if self._standing(parent)[0] is _Standing.PENDING
                )
                for source in pending:
                    behind.setdefault(source.job_id, []).append(job.job_id)
                    if source.job_id not in seen and room > 0:
                        seen.add(source.job_id)  # A retry that waits itself.
                        queue.append(source)
                        room -= 1
        blocked = deque(held)
        while blocked:
            between = blocked.popleft()
            for job_id in behind.get(between, ()):
                if job_id not in held:
                    held[job_id] = evolve(held[between], through=between)
                    blocked.append(job_id)

    def _is_broken(self, job_id: str) -> bool:
        """Return whether a job has ended without a usable result."""
        job = self._known.get(job_id)
        if job is None or not job.state.is_terminal():
            return False
        return job.state is not JobState.COMPLETED or self._without_result(job) is not None

    def _without_result(self, job: JobMetadata) -> str | None:
        """Return why a completed job has no usable result, as far as that is known."""
        return job.without_files() or self._jobs.results.damage(job)

    def _standing(self, parent: Parent) -> tuple[_Standing, str]:
        """Return the standing of a predecessor, and what is wrong with a broken one."""
        try:
            self.job(parent["job_id"])
        except UnknownJob as error:
            return _Standing.BROKEN, str(error)
        job = self.source(parent)
        if parent["awaited"] == "any":
            return (_Standing.READY if job.state.is_terminal() else _Standing.PENDING), ""
        if parent.get("frame") == 0 and not (job.waits and awaits_structure(job.parents)):
            return _Standing.READY, ""  # Its first geometry is its input, already on record.
        if not job.state.is_terminal():
            return _Standing.PENDING, ""
        trouble: str | None = f"job {job.job_id} {job.state.ended}"
        if job.state is JobState.COMPLETED:
            trouble = self._without_result(job) if parent["role"] != "after" else None
        if not trouble:
            return _Standing.READY, ""
        return (_Standing.PENDING if job.job_id in self._planned else _Standing.BROKEN), trouble

    def source(self, parent: Parent) -> JobMetadata:
        """Return the job that provides what a parent stands for: the job itself, or a retry."""
        if parent.get("frame") == 0 or parent.get("awaited") == "any":
            return self.job(parent["job_id"])
        tries: list[JobMetadata] = []
        seen: set[str] = set()
        queue = deque([parent["job_id"]])
        while queue:
            job_id = queue.popleft()
            job = self.job(job_id)
            tries.append(job)
            if job_id in seen:
                continue
            seen.add(job_id)
            if job.state is JobState.COMPLETED and not self._without_result(job):
                return job
            if job.state.is_terminal():
                if job_id not in self._retries:
                    self._retries[job_id] = self._jobs.retries_of(job_id)
                queue.extend(self._retries[job_id])
        unfinished = (job for job in reversed(tries) if not job.state.is_terminal())
        completed = (job for job in tries if job.state is JobState.COMPLETED)
        return next(unfinished, None) or next(completed, None) or tries[-1]

    def sources(self, parents: Sequence[Parent]) -> list[str]:
        """Return the ids of the jobs that provide what the parents stand for."""
        return [self.source(parent).job_id for parent in awaited(parents)]


def _waits_for(job_ids: Sequence[str], awaited: Sequence[Parent]) -> str | None:
    """Return the reason of a job that waits for unfinished jobs."""
    if len(job_ids) > _NAMED:
        # The number at submission: a falling one would change the row at each of their ends.
        return f"waits for {len({parent['job_id'] for parent in awaited})} jobs"
    if len(job_ids) > 1:
        return f"waits for the jobs {', '.join(job_ids)}"
    return f"waits for job {job_ids[0]}" if job_ids else None
