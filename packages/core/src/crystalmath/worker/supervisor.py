"""The supervisor: claims an attempt, has its runner run it, and publishes one outcome.

It is a child subreaper in a session of its own: all processes of a job, even detached ones, stay
below it and can be ended. It imports nothing heavy and runs no code of a recipe, so that no recipe
can end it.

It is started as ``python -P -m crystalmath.worker.supervisor FD``; FD is a socket to the engine
worker. A message ``{"jobs", "environment", "shared", "tied", "batch"}`` names the run directory and
attempt of each job; with ``batch``, one call may compute several of them. The supervisor answers
with a line ``claimed`` when the first job is claimed or skipped, and a line ``done`` when the
outcomes of all are published. On ``{"warm": environment}`` it prepares a runner for that
environment, and does not end when it is idle. When the engine worker is gone or closes the socket,
the supervisor ends. It finishes its running job or call first, unless that is tied to the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import config, processes
from crystalmath._storage import file_system, is_local
from crystalmath.errors import BadFile
from crystalmath.jobs.cgroups import ControlGroup
from crystalmath.jobs.heartbeat import Heartbeat
from crystalmath.jobs.identities import IDENTITIES, IdentityFile
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.worker.batch_jobs import Batches
from crystalmath.worker.child import become_subreaper, end_descendants
from crystalmath.worker.disk_space import keep_reserve, when_there_is_room
from crystalmath.worker.execution import Execution, allocation
from crystalmath.worker.publishing import Publisher
from crystalmath.worker.running_job import RunningJob
from crystalmath.worker.starting import receive_all_signals
from crystalmath.worker.time_left import is_nearly_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType


#: An idle supervisor ends after this time, in seconds.
IDLE_S = 60.0


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
    """One supervisor; it runs one job at a time, or one call of a batched function.

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
        self._execution = Execution(owner, group)
        self._idle_s: float | None = IDLE_S
        self._busy = False
        signal.signal(signal.SIGTERM, self._on_term)

    def serve(self) -> None:
        """Take jobs until the owner is gone or has been idle for a while."""
        buffer = b""
        try:
            while not self._execution.stopping:
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
            self._execution.end_all()
            if self._execution.publisher:
                self._execution.publisher.close()
            if self._identity:
                self._identity.remove()
            if self._group:
                self._group.remove()

    def _is_unguarded(self) -> bool:
        return self._guardian is not None and os.getppid() != self._guardian.pid

    def _on_term(self, *_: object) -> None:
        self._execution.stopping = True
        if not self._busy:
            raise SystemExit(0)

    def _serve_one(self, request: dict[str, Any]) -> None:
        execution = self._execution
        if "warm" in request:
            self._idle_s = None
            execution.warm(request["warm"])
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
            execution.heartbeat = Heartbeat(self._beat, lease_s, self._end_cut_off, sleeps=sleeps)
        identity = self._identity
        together = len(jobs) > 1
        # Without locks, other processes could not tell whether a journal is being written.
        if together and execution.publisher is None and self._identity.identity.lock:
            execution.publisher = Publisher(folder, self._identity, execution.goes_on)
        keep_reserve(folder)
        try:
            self._run_all(jobs, request, identity)
        finally:
            execution.running = ()
            execution.heartbeat.rest()
        if together and execution.publisher:
            execution.publisher.flush()
        # Another supervisor runs the remaining jobs.
        if not (together and execution.stopping):
            self._reply("done")

    def _run_all(
        self,
        jobs: list[tuple[RunDirectory, int]],
        request: Mapping[str, Any],
        identity: IdentityFile,
    ) -> None:
        """Run jobs one after another, or in batches."""
        execution, environment = self._execution, request["environment"]
        together, has_replied = len(jobs) > 1, False

        def claim(directory: RunDirectory, attempt: int) -> RunningJob | None:
            nonlocal has_replied
            execution.heartbeat.begin()
            spec = self._claimed(directory, attempt, identity)
            follows, has_replied = has_replied, True
            if not follows:
                self._reply("claimed")
            if spec is None:
                return None
            job = RunningJob(
                directory, spec, environment, execution.goes_on, shared=request["shared"]
            )
            job.is_journaled = together and execution.publisher is not None
            job.follows, job.tied = follows, request["tied"]
            return job

        def goes_on() -> bool:
            return not (has_replied and (execution.is_left() or is_nearly_over(environment)))

        if request["batch"]:
            Batches(execution, jobs, claim, goes_on).run()
            return
        for directory, attempt in jobs:
            if not goes_on():
                break
            if (job := claim(directory, attempt)) is not None:
                execution.running = [job]
                execution.run(job)

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
                is_wanted=lambda: not self._execution.is_left(),
            ):
                return spec
        return None

    def _beat(self) -> None:
        """Beat for other hosts, and check whether they have decided the running attempts."""
        if self._identity:
            self._identity.beat()
        for job in self._execution.running:
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
            lambda: processes.descendants(me) if self._execution.heartbeat.is_overdue() else [],
            grace_s=config.GRACE_S,
            limit_s=self._execution.heartbeat.lease_s / 4,
        )

    def _containment(self) -> dict[str, Any]:
        """Return our allocation, and our group or guardian, for our claims (jobs.cgroups)."""
        fields: dict[str, Any] = {"allocation": name} if (name := allocation()) else {}
        if self._group:
            fields["cgroup"] = self._group.path
        elif self._guardian:
            fields["guardian"] = [self._guardian.pid, self._guardian.start_time]
        return fields

    def _reply(self, word: str) -> None:
        # The owner may be gone; the outcome does not depend on it.
        with contextlib.suppress(OSError):
            self._owner.sendall(word.encode() + b"\n")


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
