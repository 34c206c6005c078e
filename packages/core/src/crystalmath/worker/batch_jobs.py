"""The supervisor's side of batches: plan the calls, claim their jobs, and publish each outcome."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from crystalmath.worker.calls import Calls, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.worker.child import Runner
    from crystalmath.worker.execution import Execution
    from crystalmath.worker.running_job import RunningJob

#: The reason in the record of a job that is computed again, as another job was cancelled.
CANCELLED = "another job of its batch was cancelled"
#: The same for a batch that took too long.
LATE = "its batch had no result within the walltime of one job"


class Batches:
    """The jobs of one parcel whose recipe may have a batched function.

    `claim` claims a job for this supervisor; ``None`` if it must not run here. `goes_on` is whether
    another job may begin.
    """

    def __init__(
        self,
        execution: Execution,
        jobs: Sequence[tuple[RunDirectory, int]],
        claim: Callable[[RunDirectory, int], RunningJob | None],
        goes_on: Callable[[], bool],
    ) -> None:
        self._execution = execution
        self._jobs = list(jobs)
        self._claim = claim
        self._goes_on = goes_on
        #: The claimed jobs that have not ended, by their index.
        self._claimed: dict[int, RunningJob] = {}
        # The job with the output of the present call in its log.
        self._leader: RunningJob | None = None

    def run(self) -> None:
        """Run all jobs: in calls of the batched function, or one by one if there is none."""
        plan, first = None, 0
        for first in range(len(self._jobs)):
            if not self._goes_on():
                return
            plan = self._plan(first)
            if plan is not None or first in self._claimed:
                break
        else:
            return
        calls = self._calls(plan, first)
        while (indices := calls.next()) and (self._claimed or self._goes_on()):
            members = self._begin(indices)
            if len(members) == 1:
                self._run_alone(calls, *members)
            elif members:
                self._call(calls, members)

    def _calls(self, plan: Mapping[str, Any] | None, first: int) -> Calls:
        count = len(self._jobs)
        if plan is None:
            return Calls([range(first, count)], [1] * count, Limits(1))
        groups = [[job for job in group if job >= first] for group in plan["groups"]]
        recipe = self._claimed[first].recipe
        limits = self._execution.limits.setdefault(recipe, Limits(plan["most"], plan["atoms"]))
        # The first job is claimed, so its call comes first.
        groups.sort(key=lambda group: first not in group)
        return Calls(filter(None, groups), plan["sizes"], limits)

    def _job(self, index: int) -> RunningJob | None:
        """Return a job that is claimed, by now at the latest."""
        if index not in self._claimed:
            job = self._claim(*self._jobs[index])
            if job is None:
                return None
            self._claimed[index] = job
        return self._claimed[index]

    def _begin(self, indices: Iterable[int]) -> dict[int, RunningJob]:
        """Claim jobs; return the ones that are still wanted."""
        members = {index: job for index in indices if (job := self._job(index)) is not None}
        self._execution.running = [*members.values()]
        for index, job in list(members.items()):
            if not self._execution.prepare(job):
                self._end(members, index)
        return members

    def _end(self, members: dict[int, RunningJob], index: int) -> None:
        """Note that a job has ended."""
        job = self._claimed.pop(index)
        members.pop(index, None)
        if job is not self._leader:
            job.log.close()

    def _run_alone(self, calls: Calls, index: int) -> None:
        """Run a job as if it had no batch."""
        job = self._claimed.pop(index)
        self._execution.running = [job]
        self._execution.run(job)
        calls.ended_alone(index, failed=job.failed)

    def _plan(self, index: int) -> dict[str, Any] | None:
        """Have the runner plan the calls, for a job that is claimed, and may end meanwhile."""
        job = self._begin([index]).get(index)
        if job is None:
            return None
        execution, jobs = self._execution, self._jobs
        while True:
            runner = execution.runner_of(job)
            runner.give(self._request(job, jobs, plan=True))
            outcome = execution.watch(job, runner)
            if outcome is not None or runner.message is None:
                # The import of a recipe's module may end the process: its jobs do so by themselves.
                self._end_runner(runner, job)
                if outcome is not None:
                    job.publish(**outcome)
                    self._end({}, index)
                return None
            if "outdated" not in runner.message:
                break
            execution.end_outdated([job], runner)
        execution.settle(job, runner, runner.message)
        plan: dict[str, Any] | None = runner.message["plan"]
        return plan

    def _request(
        self, job: RunningJob, jobs: Sequence[tuple[RunDirectory, int]], **more: Any
    ) -> dict[str, Any]:
        """Return a request to the runner that concerns jobs; the first one's terms hold."""
        return {
            "calls": [(directory.path, attempt) for directory, attempt in jobs],
            "plan": False,
            "recipe": job.recipe,
            "fresh": job.fresh,
            "small": job.is_journaled,
            "follows": job.follows,
            **more,
        }

    def _call(self, calls: Calls, members: dict[int, RunningJob]) -> None:
        """Have the batched function compute jobs, and publish each outcome as it comes."""
        execution, order = self._execution, list(members)
        leader = self._leader = members[order[0]]
        runner = execution.runner_of(leader)
        jobs = [(job.directory, job.attempt) for job in members.values()]
        replaced = [job.replaced for job in members.values()]
        request = self._request(leader, jobs, replaced=replaced, timed=leader.has_walltime)
        runner.give(request)
        alone: list[int] = []
        while True:
            stop = execution.look(leader, runner, list(members.values()))
            for message in runner.take_results():
                index = order[message["index"]]
                leader.time.begin_anew()
                if "log" in message:
                    self._publish(leader, index, members, message)
                else:
                    alone.append(index)
                    del members[index]
            is_late = leader.left(begun=runner.begun) <= 0 and not leader.time.is_allocations
            if stop or is_late or runner.ended or runner.message is not None:
                break
        if stop:
            self._stopped(calls, leader, members, runner, stop)
        elif runner.message is not None:
            self._returned(calls, order, leader, members, runner)
        elif runner.ended:
            self._died(calls, order, leader, members, runner)
        else:
            self._late(calls, order, leader, members, runner)
        self._leader = None
        if leader not in self._claimed.values():
            leader.log.close()
        for index in alone:
            self._run_alone(calls, index)

    def _returned(
        self,
        calls: Calls,
        order: Sequence[int],
        leader: RunningJob,
        members: dict[int, RunningJob],
        runner: Runner,
    ) -> None:
        """Go on after a call has returned, or has raised an error."""
        left, message = list(members), runner.message or {}
        if "outdated" in message:
            self._execution.end_outdated(members.values(), runner)
            calls.again(left)
            return
        self._execution.settle(leader, runner, message)
        if message["memory"]:
            calls.too_large(order, left)
            return
        calls.fitted({*order} - {*left})
        if left:
            calls.failed(left, done=len(order) - len(left))

    def _publish(
        self,
        leader: RunningJob,
        index: int,
        members: dict[int, RunningJob],
        message: Mapping[str, Any],
    ) -> None:
        job = members[index]
        if message["log"]:
            job.write_log(message["log"].encode())
        elif job is not leader:
            # The output of the call is in the log of each of its jobs, and on the disk once.
            with contextlib.suppress(OSError):
                os.link(leader.directory.log(leader.attempt), job.directory.log(job.attempt))
        self._execution.publish(job, message)
        self._end(members, index)

    def _stopped(
        self,
        calls: Calls,
        leader: RunningJob,
        members: dict[int, RunningJob],
        runner: Runner,
        stop: Mapping[RunningJob, Mapping[str, str]],
    ) -> None:
        """End a call: some of its jobs are cancelled, or none may go on."""
        # No process of a job may be alive when its end is published.
        self._end_runner(runner, leader)
        for index, job in list(members.items()):
            if job in stop:
                job.publish(**stop[job])
                self._end(members, index)
            else:
                job.note_replaced(CANCELLED)
        calls.again(list(members))

    def _end_runner(self, runner: Runner, leader: RunningJob) -> None:
        """End a runner and all its processes, and write its last output to a job's log."""
        self._execution.end_runner()
        runner.drain(leader.write_log)

    def _died(
        self,
        calls: Calls,
        order: Sequence[int],
        leader: RunningJob,
        members: dict[int, RunningJob],
        runner: Runner,
    ) -> None:
        """Go on after the end of the runner in a call."""
        ending = runner.end()
        self._end_runner(runner, leader)
        if outcome := self._execution.ends_with_all():
            for index, job in list(members.items()):
                job.publish(**outcome)
                self._end(members, index)
            return
        for job in members.values():
            job.note_replaced(f"the process of its batch {ending.how}")
        if ending.memory:
            calls.too_large(order, list(members))
        else:
            calls.failed(list(members), done=len(order) - len(members))

    def _late(
        self,
        calls: Calls,
        order: Sequence[int],
        leader: RunningJob,
        members: dict[int, RunningJob],
        runner: Runner,
    ) -> None:
        """End a call that had no result within the walltime of one of its jobs."""
        self._end_runner(runner, leader)
        for job in members.values():
            job.note_replaced(LATE)
        if done := len(order) - len(members):
            calls.failed(list(members), done=done)
        else:
            calls.too_large(order, list(members))
