"""The supervisor: claims an attempt, has its runner run it, and publishes one outcome.

It is a child subreaper in a session of its own: all processes of a job, even detached ones, stay
below it and can be ended. It imports nothing heavy and runs no code of a recipe, so that no recipe
can end it.

It is started as ``python -P -m crystalmath.worker.supervisor FD``; FD is a socket to the engine
worker. A message ``{"jobs", "environment", "shared", "tied"}`` names the run directory and attempt
of each job. The supervisor answers with a line ``claimed`` when the first job is claimed or
skipped, and a line ``done`` when the outcomes of all are published. On ``{"warm": environment}`` it
prepares a runner for that environment, and does not end when it is idle. When the engine worker is
gone or closes the socket, the supervisor ends. It finishes its running job first, unless that job
is tied to the worker.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import config, processes
from crystalmath._storage import file_system, is_local
from crystalmath.errors import BadFile
from crystalmath.jobs.cgroups import ControlGroup
from crystalmath.jobs.heartbeat import Heartbeat
from crystalmath.jobs.identities import IDENTITIES, IdentityFile
from crystalmath.jobs.potcars import replace_potcars
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.worker.child import Runner, Template, become_subreaper, end_descendants
from crystalmath.worker.disk_space import keep_reserve, when_there_is_room
from crystalmath.worker.publishing import Publisher
from crystalmath.worker.running_job import RunningJob
from crystalmath.worker.starting import receive_all_signals
from crystalmath.worker.time_left import is_nearly_over

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

#: An idle supervisor ends after this time, in seconds.
IDLE_S = 60.0
#: How often a running job looks for a request to cancel, in seconds.
LOOK_S = 0.2
#: How long a scheduler may take to signal all processes of an allocation, in seconds.
SIGNALLED_S = 0.5


def main() -> None:
    """Serve one engine worker until it disconnects."""
    descriptor = processes.inherited(int(sys.argv[1]))
    receive_all_signals()
    group = ControlGroup.make()
    guardian = None if group else go_below_guardian(descriptor)
    become_subreaper()
    with socket.socket(fileno=descriptor) as owner:
        Supervisor(owner, group, guardian).serve()


class Supervisor:
    """One supervisor; it runs one job at a time.

    `owner` is the connection to the engine worker. Runners are put into `group`, so that their
    processes can be ended without this one; without a group the guardian ends them.
    """

    def __init__(
        self,
        owner: socket.socket,
        group: ControlGroup | None = None,
        guardian: processes.Identity | None = None,
    ) -> None:
        self._owner = owner
        self._group = group
        self._guardian = guardian
        self._identity: IdentityFile | None = None
        self._heartbeat = Heartbeat(self._beat, math.inf)
        self._publisher: Publisher | None = None
        self._job: RunningJob | None = None
        self._template: Template | None = None
        self._runner: Runner | None = None
        # Whether the jobs here need quacc.
        self._quacc = False
        self._grace_s = config.GRACE_S
        self._idle_s: float | None = IDLE_S
        self._stopping = False
        self._busy = False
        signal.signal(signal.SIGTERM, self._on_term)

    def serve(self) -> None:
        """Take jobs until the owner is gone or has been idle for a while."""
        buffer = b""
        try:
            while not self._stopping:
                ready, _, _ = select.select([self._owner], [], [], self._idle_s)
                if not ready or self._is_unguarded():
                    return
                if not (data := self._owner.recv(1 << 16)):
                    return
                buffer += data
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    self._busy = True
                    self._serve_one(json.loads(line))
                    self._busy = False
        except ConnectionResetError:
            return
        finally:
            # A SIGTERM must not interrupt the cleanup.
            self._busy = True
            self._end_all()
            if self._publisher:
                self._publisher.close()
            if self._identity:
                self._identity.remove()
            if self._group:
                self._group.remove()

    def _is_unguarded(self) -> bool:
        return self._guardian is not None and os.getppid() != self._guardian.pid

    def _goes_on(self) -> bool:
        return not self._stopping

    def _on_term(self, *_: object) -> None:
        self._stopping = True
        if not self._busy:
            raise SystemExit(0)

    def _serve_one(self, request: dict[str, Any]) -> None:
        if "warm" in request:
            self._idle_s = None
            self._runner_for(request["warm"], uses_quacc=True)
            return
        environment = request["environment"]
        jobs = [(RunDirectory(path), attempt) for path, attempt in request["jobs"]]
        folder = os.path.dirname(jobs[0][0].path)
        if self._identity is None:
            lease_s = config.lease(environment)
            me = processes.own_identity()
            path = f"{folder}/{IDENTITIES}"
            self._identity = IdentityFile(path, me, self._containment(), lease_s)
            sleeps = is_local(file_system(Path(folder)))
            self._heartbeat = Heartbeat(self._beat, lease_s, self._end_cut_off, sleeps=sleeps)
        identity = self._identity
        together = len(jobs) > 1
        # Without locks, other processes could not tell whether a journal is being written.
        if together and self._publisher is None and self._identity.identity.lock:
            self._publisher = Publisher(folder, self._identity, self._goes_on)
        keep_reserve(folder)
        try:
            for number, (directory, attempt) in enumerate(jobs):
                if number and (self._is_left() or is_nearly_over(environment)):
                    break
                self._heartbeat.begin()
                spec = self._claimed(directory, attempt, identity)
                if number == 0:
                    self._reply("claimed")
                if spec is None:
                    continue
                job = RunningJob(
                    directory, spec, environment, self._goes_on, shared=request["shared"]
                )
                job.is_journaled = together and self._publisher is not None
                job.follows, job.tied = number > 0, request["tied"]
                self._job = job
                self._run(job)
        finally:
            self._job = None
            self._heartbeat.rest()
        if together and self._publisher:
            self._publisher.flush()
        # Another supervisor runs the remaining jobs.
        if not (together and self._stopping):
            self._reply("done")

    def _is_left(self) -> bool:
        """Return whether no further job may begin: SIGTERM came, or the owner is gone."""
        return self._stopping or bool(select.select([self._owner], [], [], 0)[0])

    def _claimed(
        self, directory: RunDirectory, attempt: int, identity: IdentityFile
    ) -> WrittenSpec | None:
        """Claim an attempt; return its specification, or ``None`` if it must not run here."""
        try:
            spec = WrittenSpec.read(directory)
        except (BadFile, OSError):
            return None
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            if spec.attempt == attempt and when_there_is_room(
                lambda: directory.claim(attempt, identity),
                os.path.dirname(directory.path),
                is_wanted=lambda: not self._is_left(),
            ):
                return spec
        return None

    def _beat(self) -> None:
        """Beat for other hosts, and check whether they have decided the running attempt."""
        if self._identity:
            self._identity.beat()
        if (job := self._job) is not None:
            job.given_up = job.directory.decided(job.attempt) or not self._has_claim(job)

    def _has_claim(self, job: RunningJob) -> bool:
        try:
            return job.directory.claimant(job.attempt) == processes.own_identity()
        except BadFile:
            return False

    def _end_cut_off(self) -> None:
        """End the job's processes without the file system, as another host may run it by now."""
        me = os.getpid()
        processes.end_processes(
            lambda: processes.descendants(me) if self._heartbeat.is_overdue() else [],
            grace_s=config.GRACE_S,
            limit_s=self._heartbeat.lease_s / 4,
        )

    def _containment(self) -> dict[str, Any]:
        """Return our allocation, and our group or guardian, for our claims (jobs.cgroups)."""
        fields: dict[str, Any] = {"allocation": allocation} if (allocation := _allocation()) else {}
        if self._group:
            fields["cgroup"] = self._group.path
        elif self._guardian:
            fields["guardian"] = [self._guardian.pid, self._guardian.start_time]
        return fields

    def _reply(self, word: str) -> None:
        # The owner may be gone; the outcome does not depend on it.
        with contextlib.suppress(OSError):
            self._owner.sendall(word.encode() + b"\n")

    def _run(self, job: RunningJob) -> None:
        # A cancel may have been requested before the claim was made.
        if job.directory.cancel_requested():
            job.started = None
            job.publish("cancelled", error="cancelled")
            return
        self._grace_s = config.cancel_grace(job.environment)
        if self._heartbeat.is_overdue():
            job.publish("lost", error=self._cut_off())
            return
        with contextlib.suppress(FileExistsError):
            when_there_is_room(
                lambda: os.mkdir(job.directory.work(job.attempt), 0o700),
                job.jobs_directory,
                is_wanted=self._goes_on,
            )
        try:
            while not self._run_once(job):
                pass
        finally:
            job.log.close()

    def _run_once(self, job: RunningJob) -> bool:
        """Run the job; ``False`` if the runner was out of date and has not run it."""
        try:
            if self._runner and self._template and self._template.environment != job.environment:
                job.note_replaced("its environment is another one")
            runner = self._runner_for(job.environment, uses_quacc=job.recipe.startswith("quacc."))
        except OSError as error:
            job.publish("lost", error=f"no process could be started for it: {error}")
            raise
        request = {"directory": job.directory.path, "attempt": job.attempt, "recipe": job.recipe}
        request |= {"fresh": job.fresh, "small": job.is_journaled, "follows": job.follows}
        runner.give({**request, "replaced": job.replaced})
        outcome = self._watch(job, runner)
        if outcome is not None:
            # No process of the job may be alive when its end is published.
            self._end_runner()
            runner.drain(job.write_log)
            job.publish(**outcome)
        elif runner.message is None:
            self._ended_early(job, runner)
        elif "outdated" in runner.message:
            job.note_replaced(runner.message["outdated"])
            # Before the runner's first job, it was its template that read the old file.
            if runner.taken == 1:
                self._end_all()
            else:
                self._end_runner()
            return False
        else:
            self._finish(job, runner, runner.message)
        return True

    def _runner_for(self, environment: dict[str, str], *, uses_quacc: bool) -> Runner:
        self._quacc = self._quacc or uses_quacc
        template, runner = self._template, self._runner
        if template and (
            template.environment != environment
            or template.is_dead()
            or (not template.quacc and (uses_quacc if runner else self._quacc))
        ):
            self._end_all()
        # An idle runner may have been killed, which must not cost a job.
        elif runner and runner.is_dead():
            self._end_runner()
        if self._template is None:
            self._template = Template(environment, quacc=self._quacc, group=self._group)
        if self._runner is None:
            self._runner = Runner(self._template.fork)
        return self._runner

    def _watch(self, job: RunningJob, runner: Runner) -> dict[str, str] | None:
        """Wait for the runner; return the outcome if it must be stopped before it is done."""
        while True:
            runner.pump(job.write_log, min(LOOK_S, max(0.0, job.left(begun=runner.begun))))
            if runner.ended or runner.message is not None:
                return None
            # Before SIGTERM is looked at, which a scheduler sends for a cancel, too.
            if job.directory.cancel_requested():
                return {"state": "cancelled", "error": "cancelled"}
            if error := self._must_not_go_on(job):
                return {"state": "lost", "error": error}
            left = job.left(begun=runner.begun)
            if left <= 0:
                return job.overdue()
            job.ask_to_stop(left)

    def _must_not_go_on(self, job: RunningJob) -> str | None:
        """Return why an attempt must end as a lost one; ``None`` if it may go on."""
        if self._stopping:
            return "the worker had to stop (SIGTERM)"
        if self._heartbeat.is_overdue():
            return self._cut_off()
        if job.tied and self._is_left():
            return "the engine's worker ended"
        return "another process decided that it was lost" if job.given_up else None

    def _cut_off(self) -> str:
        lease_s = self._heartbeat.lease_s
        return (
            f"it could not show for {lease_s / 2:g} s, half of its lease, that it lives: its file "
            "system was out, or its host was suspended"
        )

    def _finish(self, job: RunningJob, runner: Runner, message: dict[str, Any]) -> None:
        """Publish the runner's outcome, once the processes that the job left are gone."""
        self._quacc = self._quacc or message["quacc"]
        leavings = runner.leavings(has_children=message["children"])
        if leavings or not message["keep"]:
            # A thread that goes on counts as a living process.
            self._end_runner()
        runner.drain(job.write_log)
        if leavings:
            count = len(leavings)
            job.write_log(f"crystalmath: ended {count} process(es) left running\n".encode())
        replace_potcars(job.directory.work(job.attempt))
        if self._publisher and "content" in message:
            content = base64.b64decode(message["content"])
            self._publisher.add(job.directory, job.attempt, content)
            return
        when_there_is_room(
            lambda: job.directory.publish_prepared(job.attempt, message["outcome"]),
            job.jobs_directory,
            is_wanted=self._goes_on,
        )

    def _ended_early(self, job: RunningJob, runner: Runner) -> None:
        """Publish the end of an attempt whose runner has ended before the recipe."""
        ending = runner.end()
        self._end_runner()
        runner.drain(job.write_log)
        error = f"the process that ran the recipe {ending.how}{job.last_words()}"
        stopping = self._is_stopping_with_all()
        if stopping and job.directory.cancel_requested():
            # The scheduler has ended the runner before we read the request.
            job.publish("cancelled", error="cancelled")
        elif stopping:
            job.publish("lost", error="the worker had to stop (SIGTERM)")
        elif self._heartbeat.is_overdue():
            job.publish("lost", error=self._cut_off())
        elif not ending.by_somebody:
            job.publish("failed", error=error)
        elif job.directory.cancel_requested():
            job.publish("cancelled", error="cancelled")
        else:
            job.publish("lost", error=error)

    def _is_stopping_with_all(self) -> bool:
        """Return whether a scheduler ends the allocation: it signals us as well as the runner."""
        deadline = time.monotonic() + (SIGNALLED_S if _allocation() else 0.0)
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._stopping

    def _end_runner(self) -> None:
        """End all our descendants but the template, if that is another process."""
        if self._template and self._runner and self._runner.is_forked:
            end_descendants(self._grace_s, self._template.pid)
            self._runner = None
        else:
            self._end_all()

    def _end_all(self) -> None:
        """End all our descendants."""
        end_descendants(self._grace_s)
        self._runner = self._template = None


def _allocation() -> str | None:
    """Return the scheduler's allocation of this process, if the engine has named it."""
    return os.environ.get("CRYSTALMATH_ALLOCATION")


def go_below_guardian(inherited: int) -> processes.Identity:
    """Continue in a child of this process, which stays as the guardian and never returns.

    The guardian is the parent of a supervisor that can have no control group. It forks at first,
    and only waits. As a child subreaper it inherits the processes of a killed supervisor, and ends
    them. If the guardian is killed, the supervisor finishes its job and ends, so that no other job
    runs without one. (Documented limit: both are killed during one job, and a child of the job has
    cleared its environment.)

    The child alone keeps the file descriptor `inherited`. Return the guardian's identity.
    """
    become_subreaper()
    guardian = processes.own_identity()
    # A SIGTERM waits until the guardian can pass it on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return guardian
    os.close(inherited)
    try:
        _guard(child, before)
    finally:
        os._exit(0)


def _guard(supervisor: int, mask: Iterable[int]) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, number)

    signal.signal(signal.SIGTERM, pass_on)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.waitpid(supervisor, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_descendants()


if __name__ == "__main__":
    main()
