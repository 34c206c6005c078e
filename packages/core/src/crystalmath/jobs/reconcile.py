"""The owner's side of a job's life: look at its files, decide, and act."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from crystalmath.errors import CrystalMathError
from crystalmath.jobs import ownership
from crystalmath.jobs.changes import (
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
from crystalmath.jobs.facts import Engine, Files, Record
from crystalmath.jobs.life import STOPPED, step
from crystalmath.jobs.potcars import replace_potcars
from crystalmath.jobs.reading import Depth, attempt_in, read
from crystalmath.jobs.rundir import attempt_id
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.models import Attempt, JobState, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystalmath.jobs.changes import Action
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.life import Decision
    from crystalmath.jobs.ownership import Recorded
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import Sighting

_LOG = logging.getLogger("crystalmath.jobs")

#: The number of decisions in one look: the supervisor is dead, the attempt lost, another begins.
_MOST_STEPS = 4
#: A stalled job is tried again after this part of the time that it has been stalled, and at the
#: latest after this many seconds.
_PART, _AGAIN_S = 0.25, 30.0


@define(eq=False)
class Job:
    """One unfinished job that this process owns."""

    header: dict[str, Any]
    body: str
    directory: RunDirectory
    host: Host
    #: The owner's memory of the job. Two threads replace it, under `lock`: one watches the files,
    #: the other calls the engine.
    record: Record
    #: Whether another process submitted the job.
    adopted: bool = False
    #: Whether the present attempt already ran on this host when the job was taken over. The engine
    #: does not count its worker.
    survivor: bool = False
    #: The engine's handle of the present attempt.
    handle: str | None = None
    #: The parcel of the present attempt, as long as the engine has it.
    parcel: Parcel | None = None
    #: Whether the job goes alone, as a parcel of this process was lost before the job began.
    apart: bool = False
    #: A hash of what the jobs of one call of a batched function have in common, once it is needed.
    alike: int | None = None
    #: Whether the list of jobs that its worker runs after it is written.
    leads: bool = False
    #: When the job may be handed to the engine again, in seconds of the monotonic clock.
    not_before: float = 0.0
    #: The reason for waiting that was reported last.
    reported: str | None = None
    #: The reported reason why the job is stalled; since when it is, and when it is tried again, in
    #: seconds of the monotonic clock.
    stalled: str | None = None
    stalled_since: float | None = None
    again_at: float = -math.inf
    #: The attempt that has no process on this host any more.
    swept: int | None = None
    #: An attempt and the engine's report of it, until a look has used it.
    sighting: tuple[str, Sighting] | None = None
    #: Whether this process let the job go, so that another one writes its specification.
    disowned: bool = False
    lock: threading.RLock = field(factory=threading.RLock, repr=False)

    @classmethod
    def of(cls, header: dict[str, Any], body: str, directory: RunDirectory, host: Host) -> Job:
        """Make a job that this process submits."""
        spec = WrittenSpec.of(header)
        record = Record(
            job_id=spec.job_id,
            place=directory.path,
            attempt=spec.attempt,
            is_flow=spec.pass_from is not None,
            pass_from=spec.pass_from,
        )
        return cls(header, body, directory, host, record)

    @classmethod
    def taken_over(
        cls,
        directory: RunDirectory,
        engine: str,
        host: Host,
        recorded: Recorded | None = None,
    ) -> Job | None:
        """Become the owner of a job without one; ``None`` if the job is not ours to take."""
        taken = ownership.take_over(directory, engine, host, recorded)
        if taken is None:
            return None
        header, body = taken
        job = cls.of(header, body, directory, host)
        # The engine knows whether the last owner came this far.
        job.update(launched=True, inherited=True, written=True)
        if recorded is not None:
            # Further changes follow those on record.
            attempt = min(recorded.attempt, job.record.attempt)
            job.update(state=recorded.state, attempt=attempt, cancelled=recorded.cancelled)
            with contextlib.suppress(OSError):  # a look will show it
                if job.record.is_flow and not directory.has(f"{attempt}.claim"):
                    job.update(state=JobState.PENDING)  # the flow runs; its pass has not begun
        job.adopted = True
        return job

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job_id

    @property
    def cluster(self) -> str:
        """The cluster that it is for."""
        return str(self.header["cluster"])

    @property
    def state(self) -> JobState:
        """The state that was reported last."""
        return self.record.state

    def update(self, **changes: Any) -> None:
        """Change the owner's memory of the job."""
        with self.lock:
            self.record = evolve(self.record, **changes)

    @property
    def attempt_id(self) -> str:
        """The id of the present attempt."""
        return attempt_id(self.job_id, self.record.attempt)

    def note_sighting(self, attempt: str, sighting: Sighting) -> None:
        """Keep the engine's report of an attempt for the next look."""
        with self.lock:
            self.sighting = attempt, sighting

    def take_sighting(self) -> Sighting | None:
        """Return the engine's new report of the present attempt, if there is one."""
        with self.lock:
            (attempt, sighting), self.sighting = self.sighting or ("", None), None
            # The job may have begun another attempt meanwhile.
            return sighting if attempt == self.attempt_id else None

    def attempt(self) -> Attempt:
        """Return the present attempt, as the engine sees it."""
        with self.lock:
            return Attempt(
                id=attempt_id(self.job_id, self.record.attempt),
                job_id=self.job_id,
                directory=Path(self.directory.path),
                handle=self.handle,
                **Terms.terms_in(self.header),
            )

    def write_first(self) -> None:
        """Write the files of a job that this process submits, unless another process was quicker.

        That process may have taken the job over while this one was suspended; a look shows it.
        """
        with self.lock:
            if self.record.attempt > 1:  # the next pass of a flow, whose directory is there
                self.write(self.record.attempt)
            elif not self.disowned and self.directory.make():
                try:
                    self.directory.write_spec(self.header, self.body)
                except BaseException:
                    self.directory.remove_empty()
                    raise
                self.update(written=True)

    def refuse(self, why: str) -> list[Change]:
        """End a job that has no files yet."""
        self.update(state=JobState.FAILED)
        return [Change(job_id=self.job_id, state=self.state, at=self.host.now(), error=why)]

    def write(self, attempt: int) -> bool:
        """Write the specification; ``False`` if another process owns the job."""
        with self.lock:
            header = {**self.header, "attempt": attempt}
            if self.disowned or not ownership.write_again(
                self.directory, header, self.body, self.host
            ):
                return False
            self.header = header
            self.update(written=True)
            return True

    def let_go(self) -> None:
        """Release the job, so that another process can take it over."""
        with self.lock:
            self.disowned = True
            ownership.let_go(self.directory, self.header, self.body, self.host)

    def note(self, reason: str | None) -> list[Change]:
        """Return the reason for waiting as a change, unless it was reported already."""
        if reason is None or reason == self.reported:
            return []
        self.reported = reason
        return [Change(job_id=self.job_id, state=self.state, at=self.host.now(), reason=reason)]

    def note_stalled(self, error: Exception) -> list[Change]:
        """Return why the job is stalled as a change, unless it was reported already."""
        why = getattr(error, "strerror", None) or str(error)  # no names of temporary files
        reason = f"cannot go on, trying again: {why}"
        if reason == self.stalled:
            return []
        self.stalled = reason
        _LOG.warning("job %s %s", self.job_id, reason)
        return self.note(reason)

    def pause(self) -> None:
        """Wait before the next try of a stalled job, longer each time."""
        now = self.host.monotonic()
        since = self.stalled_since = now if self.stalled_since is None else self.stalled_since
        self.again_at = now + min(_PART * (now - since), _AGAIN_S)

    def try_at_once(self) -> None:
        """Try a stalled job again at its next turn, as the user's wishes have changed."""
        self.again_at = -math.inf

    def go_on(self) -> list[Change]:
        """Return that the job goes on as a change, if it was reported as stalled."""
        self.stalled_since, self.again_at = None, -math.inf
        stalled, self.stalled = self.stalled, None
        return self.note("goes on again") if stalled and stalled == self.reported else []

    def settle(self, decision: Decision) -> None:
        """Remember a decision whose actions are done."""
        changes: dict[str, Any] = {"doubt": decision.doubt, "state": decision.state}
        if decision.state is JobState.RUNNING:
            changes["launched"] = True  # the engine has started it, whatever it reported
        if decision.attempt > self.record.attempt:
            changes |= {"attempt": decision.attempt, "lost_since": None, "relaunches": 0, "ends": 0}
            self.survivor = False
            if any(isinstance(action, WriteSpec) for action in decision.actions):
                unknown = ("offered", "launched", "inherited", "released", "dropped")
                changes |= dict.fromkeys(unknown, False)
                self.handle = self.reported = None
        self.update(**changes)


@define(eq=False)
class Parcel:
    """Jobs that the engine has as one attempt, the first job's; its worker runs all of them."""

    attempt: Attempt
    #: Whether the recipe has a function that computes several of the jobs in one call.
    is_batch: bool = False
    #: All jobs of the parcel, each with its attempt, in their order.
    members: dict[Job, int] = field(factory=dict)
    #: The unfinished jobs, and the jobs that have not begun.
    jobs: dict[str, Job] = field(factory=dict)
    unbegun: dict[str, Job] = field(factory=dict)
    has_begun: bool = False
    #: When the engine was asked about it last, in seconds of the monotonic clock.
    since: float = -math.inf
    #: When one of its jobs was last seen to begin or to end, by the same clock; and whether one has
    #: since then.
    moved_at: float = -math.inf
    has_moved: bool = False

    def is_over(self) -> bool:
        """Return whether none of its jobs has a process, though their ends may be unpublished."""
        return all(job.swept == attempt for job, attempt in self.members.items())


@frozen
class Looked:
    """The result of a look: changes to report, and requests to the engine's driver.

    Unless `done`, an action has not succeeded yet, and another look has to follow.
    """

    changes: tuple[Change, ...] = ()
    requests: tuple[Action, ...] = ()
    done: bool = True


class Reconciler:
    """Brings the jobs that this process owns in line with their files.

    `notice` is called with the id of a job whose processes have ended. Without it, a look waits for
    the processes.
    """

    def __init__(self, host: Host, notice: Callable[[str], None] | None = None) -> None:
        self._host = host
        self._notice = notice

    def look(self, job: Job, depth: Depth = Depth.LOOK, engine: Engine | None = None) -> Looked:
        """Look at a job, act on its files, and return changes and requests."""
        if depth is Depth.GLANCE and _is_idle(job):
            return Looked()
        if job.again_at > self._host.monotonic():
            return Looked(done=False)
        if job.record.doubt is not None:
            depth = max(depth, Depth.LOOK)
        changes: list[Change] = []
        requests: list[Action] = []
        done = True
        for _ in range(_MOST_STEPS):
            files = read(job.directory, job.record, self._host, depth)
            decision = step(job.record, files, now=self._host.moment(), engine=engine)
            try:
                done = all(self._do(job, files, action, requests) for action in decision.actions)
            except (CrystalMathError, OSError) as error:
                changes += job.note_stalled(error)
                job.pause()
                done = False
            if not done:
                break  # the next look tries again
            changes += job.go_on()
            job.settle(decision)
            changes += [*decision.changes, *job.note(decision.waits)]
            again = any(isinstance(each, (Publish, WriteSpec)) for each in decision.actions)
            if not again or decision.state.is_terminal():
                break
            depth = Depth.LOOK
            if any(isinstance(each, WriteSpec) for each in decision.actions):
                engine = engine and evolve(engine, sighting=None)  # it was of the attempt before
        return Looked(tuple(changes), tuple(requests), done)

    def _do(self, job: Job, files: Files, action: Action, requests: list[Action]) -> bool:
        """Do one action; ``False`` if it has not succeeded, and further actions must wait."""
        if isinstance(action, (Launch, Release, LetGo)):
            requests.append(action)
        elif isinstance(action, EndProcesses):
            attempt, notice = attempt_id(job.job_id, action.attempt), self._notice
            if notice is None:
                ended = self._host.end_processes(attempt)
            else:
                ended = self._host.sweep(attempt, lambda: notice(job.job_id))
            job.swept = action.attempt if ended else job.swept
            return ended
        elif isinstance(action, WriteSpec):
            return job.write(action.attempt)
        elif isinstance(action, Hold):
            job.let_go()  # another process may own the next pass
            requests.append(action)
        elif isinstance(action, WriteCancel):
            job.directory.request_cancel()
        elif isinstance(action, NoteEnd):
            job.directory.note_ended(action.attempt, action.error)
        else:
            publish(job.directory, files.attempt, action, self._host)
        return True


def _is_idle(job: Job) -> bool:
    """Return quickly whether nothing has happened to a job, as most jobs wait."""
    if job.record.doubt is not None:
        return False
    running = job.state is JobState.RUNNING
    try:
        return not job.directory.has(f"{job.record.attempt}.{'outcome' if running else 'claim'}")
    except OSError:
        return False


def publish(directory: RunDirectory, attempt: int, end: Publish, host: Host) -> None:
    """Publish the end of an attempt, unless another end was published first."""
    now = host.now()
    ran = end.state == "lost" or not end.unbegun
    header: Mapping[str, Any] = {
        "state": end.state,
        "error": end.error,
        "started": now if ran else None,
        "finished": now,
        "summary": None,
        **({"cancelled": end.cancelled} if end.state == "lost" else {}),
    }
    if end.state == "lost":
        replace_potcars(directory.work(attempt))
        # The recipe may have ended, and its processes died before they could publish that.
        if not (end.cancelled or end.replace) and directory.publish_left(attempt):
            return
    if end.replace:
        directory.replace_outcome(attempt, header)
    elif not end.unbegun:
        directory.publish(attempt, header)
    elif directory.claim(attempt, host.identity):
        try:
            directory.publish(attempt, header)
        except OSError:
            # A claim of a living process without an outcome would look like a running job.
            directory.unclaim(attempt)
            raise


def request_cancel(directory: RunDirectory, host: Host) -> None:
    """Request the cancel of another process's job; end the job here if it has not begun.

    `OSError` is raised if the request cannot be written.
    """
    directory.request_cancel()
    try:
        host.publish_left()  # a power cut may have hidden the job's end
        publish(directory, attempt_in(directory), STOPPED, host)
    except (CrystalMathError, OSError) as error:
        # Its owner finds the request.
        _LOG.info("left the cancel of %s to its owner: %s", directory.path, error)
