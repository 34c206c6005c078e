"""The execution of claimed jobs on a template and a runner, and the publication of their ends."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import select
import time
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.jobs.heartbeat import Heartbeat
from crystalmath.jobs.potcars import replace_potcars
from crystalmath.worker.child import Runner, Template, end_descendants
from crystalmath.worker.disk_space import when_there_is_room

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence

    from crystalmath.jobs.cgroups import ControlGroup
    from crystalmath.worker.calls import Limits
    from crystalmath.worker.publishing import Publisher
    from crystalmath.worker.running_job import RunningJob

#: How often a running job looks for a request to cancel, in seconds.
LOOK_S = 0.2
#: How long a scheduler may take to signal all processes of an allocation, in seconds.
SIGNALLED_S = 0.5
_CANCELLED = {"state": "cancelled", "error": "cancelled"}


class Execution:
    """The work of a supervisor on its template and runner: a job, or a batched call.

    `owner` is the connection to the engine worker. Runners are put into `group`, if there is one.
    """

    def __init__(self, owner: socket.socket, group: ControlGroup | None) -> None:
        self._owner = owner
        self._group = group
        self.heartbeat = Heartbeat(lambda: None, math.inf)
        self.publisher: Publisher | None = None
        #: The jobs that run: one, or those of a call.
        self.running: Sequence[RunningJob] = ()
        #: The limits of calls of batched functions, by recipe; memory may have been short for more.
        self.limits: dict[str, Limits] = {}
        #: Whether SIGTERM came.
        self.stopping = False
        self._look_at = 0.0
        self._template: Template | None = None
        self._runner: Runner | None = None
        # Whether the jobs here need quacc.
        self._quacc = False
        self._grace_s = config.GRACE_S

    def warm(self, environment: dict[str, str]) -> None:
        """Prepare a runner for an environment."""
        self._runner_for(environment, uses_quacc=True)

    def goes_on(self) -> bool:
        """Return whether the present job goes on: no SIGTERM came."""
        return not self.stopping

    def is_left(self) -> bool:
        """Return whether no further job may begin: SIGTERM came, or the owner is gone."""
        return self.stopping or bool(select.select([self._owner], [], [], 0)[0])

    def run(self, job: RunningJob) -> None:
        """Run a claimed job, and publish its outcome."""
        try:
            if self.prepare(job):
                while not self._run_once(job):
                    pass
        finally:
            job.log.close()

    def prepare(self, job: RunningJob) -> bool:
        """Make the work directory of a claimed job; ``False`` if the job has ended instead."""
        job.time.begin_anew()
        # A cancel may have been requested before the claim was made.
        if job.directory.cancel_requested():
            job.started = None
            job.publish(**_CANCELLED)
            return False
        self._grace_s = config.cancel_grace(job.environment)
        if self.heartbeat.is_overdue():
            job.publish("lost", error=self._cut_off())
            return False
        with contextlib.suppress(FileExistsError):
            when_there_is_room(
                lambda: os.mkdir(job.directory.work(job.attempt), 0o700),
                job.jobs_directory,
                is_wanted=self.goes_on,
            )
        return True

    def _run_once(self, job: RunningJob) -> bool:
        """Run the job; ``False`` if the runner was out of date and has not run it."""
        runner = self.runner_of(job)
        request = {"directory": job.directory.path, "attempt": job.attempt, "recipe": job.recipe}
        request |= {"fresh": job.fresh, "small": job.is_journaled, "follows": job.follows}
        runner.give({**request, "replaced": job.replaced})
        outcome = self.watch(job, runner)
        if outcome is not None:
            # No process of the job may be alive when its end is published.
            self.end_runner()
            runner.drain(job.write_log)
            job.publish(**outcome)
        elif runner.message is None:
            self._ended_early(job, runner)
        elif "outdated" in runner.message:
            self.end_outdated([job], runner)
            return False
        else:
            self._finish(job, runner, runner.message)
        return True

    def end_outdated(self, jobs: Iterable[RunningJob], runner: Runner) -> None:
        """End a runner that has loaded a file which has changed since, before it ran jobs."""
        for job in jobs:
            job.note_replaced(runner.message["outdated"] if runner.message else "")
        # Before the runner's first job, it was its template that read the old file.
        if runner.taken == 1:
            self.end_all()
        else:
            self.end_runner()

    def runner_of(self, job: RunningJob) -> Runner:
        """Return the runner for a job; the job is lost if none can be started."""
        try:
            if self._runner and self._template and self._template.environment != job.environment:
                job.note_replaced("its environment is another one")
            return self._runner_for(job.environment, uses_quacc=job.recipe.startswith("quacc."))
        except OSError as error:
            for each in self.running:
                each.publish("lost", error=f"no process could be started for it: {error}")
            raise

    def _runner_for(self, environment: dict[str, str], *, uses_quacc: bool) -> Runner:
        self._quacc = self._quacc or uses_quacc
        template, runner = self._template, self._runner
        if template and (
            template.environment != environment
            or template.is_dead()
            or (not template.quacc and (uses_quacc if runner else self._quacc))
        ):
            self.end_all()
        # An idle runner may have been killed, which must not cost a job.
        elif runner and runner.is_dead():
            self.end_runner()
        if self._template is None:
            self._template = Template(environment, quacc=self._quacc, group=self._group)
        if self._runner is None:
            self._runner = Runner(self._template.fork)
        return self._runner

    def watch(self, job: RunningJob, runner: Runner) -> dict[str, str] | None:
        """Wait for the runner; return the outcome if it must be stopped before it is done."""
        while True:
            runner.pump(job.write_log, min(LOOK_S, max(0.0, job.left(begun=runner.begun))))
            if runner.ended or runner.message is not None:
                return None
            # Before SIGTERM is looked at, which a scheduler sends for a cancel, too.
            if job.directory.cancel_requested():
                return _CANCELLED
            if error := self._must_not_go_on(job):
                return {"state": "lost", "error": error}
            left = job.left(begun=runner.begun)
            if left <= 0:
                return job.overdue()
            job.ask_to_stop(left)

    def look(
        self, leader: RunningJob, runner: Runner, jobs: Sequence[RunningJob]
    ) -> dict[RunningJob, dict[str, str]]:
        """Wait a moment for a call; return the outcomes of jobs for which it must be stopped.

        The output of the call goes to the leader's log. The jobs' own walltime ends no job here.
        """
        runner.pump(leader.write_log, min(LOOK_S, max(0.0, leader.left(begun=runner.begun))))
        # Results may come one after another, and each job costs a look at its files.
        if runner.ended or runner.message is not None or time.monotonic() < self._look_at:
            return {}
        self._look_at = time.monotonic() + LOOK_S
        if stop := {job: _CANCELLED for job in jobs if job.directory.cancel_requested()}:
            return stop
        if leader.left(begun=runner.begun) <= 0 and leader.time.is_allocations:
            # Each may find another allocation, in which it runs alone.
            outcome = leader.overdue() | {"state": "lost"}
            return dict.fromkeys(jobs, outcome)
        errors = {job: self._must_not_go_on(job) for job in jobs}
        return {job: {"state": "lost", "error": error} for job, error in errors.items() if error}

    def _must_not_go_on(self, job: RunningJob) -> str | None:
        """Return why an attempt must end as a lost one; ``None`` if it may go on."""
        if self.stopping:
            return "the worker had to stop (SIGTERM)"
        if self.heartbeat.is_overdue():
            return self._cut_off()
        if job.tied and self.is_left():
            return "the engine's worker ended"
        return "another process decided that it was lost" if job.given_up else None

    def _cut_off(self) -> str:
        lease_s = self.heartbeat.lease_s
        return (
            f"it could not show for {lease_s / 2:g} s, half of its lease, that it lives: its file "
            "system was out, or its host was suspended"
        )

    def _finish(self, job: RunningJob, runner: Runner, message: dict[str, Any]) -> None:
        """Publish the runner's outcome, once the processes that the job left are gone."""
        self.settle(job, runner, message)
        job.failed = message["failed"]
        self.publish(job, message)

    def settle(self, job: RunningJob, runner: Runner, message: Mapping[str, Any]) -> None:
        """End the processes that a job has left, and the runner if it must be replaced."""
        self._quacc = self._quacc or message["quacc"]
        leavings = runner.leavings(has_children=message["children"])
        if leavings or not message["keep"]:
            # A thread that goes on counts as a living process.
            self.end_runner()
        runner.drain(job.write_log)
        if leavings:
            count = len(leavings)
            job.write_log(f"crystalmath: ended {count} process(es) left running\n".encode())
        replace_potcars(job.directory.work(job.attempt))

    def publish(self, job: RunningJob, message: Mapping[str, Any]) -> None:
        """Publish an outcome that the runner has sent or prepared."""
        if self.publisher and "content" in message:
            content = base64.b64decode(message["content"])
            self.publisher.add(job.directory, job.attempt, content)
            return
        when_there_is_room(
            lambda: job.directory.publish_prepared(job.attempt, message["outcome"]),
            job.jobs_directory,
            is_wanted=self.goes_on,
        )

    def _ended_early(self, job: RunningJob, runner: Runner) -> None:
        """Publish the end of an attempt whose runner has ended before the recipe."""
        ending = runner.end()
        self.end_runner()
        runner.drain(job.write_log)
        error = f"the process that ran the recipe {ending.how}{job.last_words()}"
        if lost := self.ends_with_all():
            # The scheduler may have ended the runner before we read a request to cancel.
            is_cancelled = self.stopping and job.directory.cancel_requested()
            job.publish(**(_CANCELLED if is_cancelled else lost))
        elif not ending.by_somebody:
            job.publish("failed", error=error)
        elif job.directory.cancel_requested():
            job.publish(**_CANCELLED)
        else:
            job.publish("lost", error=error)

    def ends_with_all(self) -> dict[str, str] | None:
        """Return the outcome of jobs whose runner was ended together with this process, or by it.

        ``None``: the runner alone has ended.
        """
        if self._is_stopping_with_all():
            return {"state": "lost", "error": "the worker had to stop (SIGTERM)"}
        if self.heartbeat.is_overdue():
            return {"state": "lost", "error": self._cut_off()}
        return None

    def _is_stopping_with_all(self) -> bool:
        """Return whether a scheduler ends the allocation: it signals us as well as the runner."""
        deadline = time.monotonic() + (SIGNALLED_S if allocation() else 0.0)
        while not self.stopping and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.stopping

    def end_runner(self) -> None:
        """End all our descendants but the template, if that is another process."""
        if self._template and self._runner and self._runner.is_forked:
            end_descendants(self._grace_s, self._template.pid)
            self._runner = None
        else:
            self.end_all()

    def end_all(self) -> None:
        """End all our descendants."""
        end_descendants(self._grace_s)
        self._runner = self._template = None


def allocation() -> str | None:
    """Return the scheduler's allocation of this process, if the engine has named it."""
    return os.environ.get("CRYSTALMATH_ALLOCATION")
