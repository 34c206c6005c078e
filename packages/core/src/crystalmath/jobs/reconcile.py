"""The owner's side of a job's life: look at its files, decide, and do what was decided."""

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

#: So many decisions may follow from one look: found dead, lost, handed out again.
_MOST_STEPS = 4
#: A job that cannot go on is tried again after this part of the time since it last could, and at
#: the latest after so many seconds.
_PART, _AGAIN_S = 0.25, 30.0


@define(eq=False)
class Job:
    """One unfinished job that this process owns."""

    header: dict[str, Any]
    body: str
    directory: RunDirectory
    host: Host
    #: What is remembered of the job. It is replaced under `lock` alone: two threads do so, the one
    #: that watches the files and the one that calls the engine.
    record: Record
    #: Whether another process submitted the job.
    adopted: bool = False
    #: Whether the present attempt ran on this host already when the job was taken over: it has a
    #: worker that the engine does not count.
    survivor: bool = False
    #: The engine's handle of the present attempt.
    handle: str | None = None
    #: What the engine has the present attempt in, as long as it has it.
    parcel: Parcel | None = None
    #: Whether a parcel of this process was lost before the job began: it goes alone from then on.
    apart: bool = False
    #: Whether what its worker runs after it was written down.
    leads: bool = False
    #: When the job may be handed to the engine again, in seconds of the monotonic clock.
    not_before: float = 0.0
    #: The reason for waiting that was reported last.
    told: str | None = None
    #: The reason why it cannot go on that was reported since it last could; since when that is so,
    #: and when it is tried again, in seconds of the monotonic clock.
    stalled: str | None = None
    stalled_since: float | None = None
    again_at: float = -math.inf
    #: The attempt that is known to have no process on this host any more.
    swept: int | None = None
    #: An attempt and the engine's report of it, until a look has used it.
    sighting: tuple[str, Sighting] | None = None
    #: Whether the job was let go: another process writes its specification from then on.
    disowned: bool = False
    lock: threading.RLock = field(factory=threading.RLock, repr=False)

    @classmethod
    def of(cls, header: dict[str, Any], body: str, directory: RunDirectory, host: Host) -> Job:
        """Make a job that is submitted here."""
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
        """Become the owner of a job that nobody follows; ``None`` where that is not ours to do."""
        taken = ownership.take_over(directory, engine, host, recorded)
        if taken is None:
            return None
        header, body = taken
        job = cls.of(header, body, directory, host)
        # Whether the last owner came so far is the engine's to say.
        job.update(launched=True, inherited=True, written=True)
        if recorded is not None:
            # Changes reported from here on follow those on record.
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
        """Remember something."""
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
        """Return what the engine said of the present attempt since this was asked last."""
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
        """Write down a job that was submitted here, unless another process has been quicker.

        That process may have taken the job over while this one stood still: a look shows it.
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
        """End the job before there are any files of it that would show its end."""
        self.update(state=JobState.FAILED)
        return [Change(job_id=self.job_id, state=self.state, at=self.host.now(), error=why)]

    def write(self, attempt: int) -> bool:
        """Write the specification; ``False`` if the job is not ours any more."""
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
        """Leave the job to the next process that asks for it."""
        with self.lock:
            self.disowned = True
            ownership.let_go(self.directory, self.header, self.body, self.host)

    def note(self, reason: str | None) -> list[Change]:
        """Return what the job waits for, if that was not reported yet."""
        if reason is None or reason == self.told:
            return []
        self.told = reason
        return [Change(job_id=self.job_id, state=self.state, at=self.host.now(), reason=reason)]

    def note_stalled(self, error: Exception) -> list[Change]:
        """Return why the job cannot go on now, unless that was reported since it last could."""
        why = getattr(error, "strerror", None) or str(error)  # no names of temporary files
        told = f"cannot go on, trying again: {why}"
        if told == self.stalled:
            return []
        self.stalled = told
        _LOG.warning("job %s %s", self.job_id, told)
        return self.note(told)

    def pause(self) -> None:
        """Leave a job alone that cannot go on, the longer the longer that lasts."""
        now = self.host.monotonic()
        since = self.stalled_since = now if self.stalled_since is None else self.stalled_since
        self.again_at = now + min(_PART * (now - since), _AGAIN_S)

    def try_at_once(self) -> None:
        """Look at a job that cannot go on as soon as its turn comes: what is wanted has changed."""
        self.again_at = -math.inf

    def go_on(self) -> list[Change]:
        """Take back that the job cannot go on, if that was reported."""
        self.stalled_since, self.again_at = None, -math.inf
        told, self.stalled = self.stalled, None
        return self.note("goes on again") if told and told == self.told else []

    def settle(self, decision: Decision) -> None:
        """Remember what was decided, once that is done."""
        changes: dict[str, Any] = {"doubt": decision.doubt, "state": decision.state}
        if decision.state is JobState.RUNNING:
            changes["launched"] = True  # the engine has started it, whatever it said
        if decision.attempt > self.record.attempt:
            changes |= {"attempt": decision.attempt, "lost_since": None, "relaunches": 0, "ends": 0}
            self.survivor = False
            if any(isinstance(action, WriteSpec) for action in decision.actions):
                unknown = ("offered", "launched", "inherited", "released", "dropped")
                changes |= dict.fromkeys(unknown, False)
                self.handle = self.told = None
        self.update(**changes)


@define(eq=False)
class Parcel:
    """Jobs that the engine has as one attempt, the first one's; its worker runs them in turn."""

    attempt: Attempt
    #: All that were put into it, each with its attempt, in the order in which they are run.
    members: dict[Job, int] = field(factory=dict)
    #: Those of them that have not ended, and those that have not begun.
    jobs: dict[str, Job] = field(factory=dict)
    unbegun: dict[str, Job] = field(factory=dict)
    has_begun: bool = False
    #: When the engine was asked about it last, in seconds of the monotonic clock.
    since: float = -math.inf
    #: When a job of it was last seen to begin or to end, likewise; and whether one has since.
    moved_at: float = -math.inf
    has_moved: bool = False

    def is_over(self) -> bool:
        """Return whether no job of it has a process, though their ends are not published yet."""
        return all(job.swept == attempt for job, attempt in self.members.items())


@frozen
class Looked:
    """The result of a look: what is to be reported, and what the engine's driver has to do.

    Unless `done` is set, something could not be done yet, and another look has to follow.
    """

    changes: tuple[Change, ...] = ()
    requests: tuple[Action, ...] = ()
    done: bool = True


class Reconciler:
    """Bring the jobs that this process owns in line with their files.

    `notice` is called with the id of a job whose processes have ended; without it they are waited
    for.
    """

    def __init__(self, host: Host, notice: Callable[[str], None] | None = None) -> None:
        self._host = host
        self._notice = notice

    def look(self, job: Job, depth: Depth = Depth.LOOK, engine: Engine | None = None) -> Looked:
        """Look at a job, act on its files, and return what follows for others."""
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
                break  # it is tried again
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
        """Take one step; ``False`` if it did not succeed, and what follows must wait."""
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
            job.let_go()  # who keeps its steps may be another process by then
            requests.append(action)
        elif isinstance(action, WriteCancel):
            job.directory.request_cancel()
        elif isinstance(action, NoteEnd):
            job.directory.note_ended(action.attempt, action.error)
        else:
            publish(job.directory, files.attempt, action, self._host)
        return True


def _is_idle(job: Job) -> bool:
    """Return quickly whether nothing has happened to a job: most looks are at jobs that wait."""
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
        # Its recipe may have come to its end, and nobody have been left to publish that.
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
    """Request that another process's job be stopped; end it here if nobody has begun it.

    `OSError` is raised if the request cannot be written.
    """
    directory.request_cancel()
    try:
        host.publish_left()  # it may have ended, and a power cut have hidden that
        publish(directory, attempt_in(directory), STOPPED, host)
    except (CrystalMathError, OSError) as error:
        # Its owner finds the request.
        _LOG.info("left the cancel of %s to its owner: %s", directory.path, error)
