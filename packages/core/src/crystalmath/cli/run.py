"""``crystalmath run``: submit, watch, and stop the job for real where the user wants out."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from crystalmath.cli import output
from crystalmath.cli.submission import (
    Cluster,
    Engine,
    Json,
    Key,
    Labels,
    Name,
    Params,
    ParamsFile,
    Recipe,
    Structure,
    Walltime,
    make_submission,
)

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType, TracebackType
    from typing import NoReturn, Self

    from crystalmath.admission import Submission
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService

__all__ = ["Interrupts", "Progress", "follow", "run", "run_submission"]

# How often the elapsed time is renewed and a signal is answered, in seconds.
_TICK = 0.1


def run(
    recipe: Recipe,
    structure: Structure,
    *,
    engine: Engine = None,
    cluster: Cluster = "local",
    param: Params = None,
    params: ParamsFile = None,
    walltime: Walltime = None,
    name: Name = None,
    label: Labels = None,
    key: Key = None,
    as_json: Json = False,
) -> int:
    """Run a recipe on a structure, wait for it, and print its result.

    Ctrl-C stops the job and waits until it has stopped; a second Ctrl-C leaves at once.
    """
    with Interrupts() as interrupts:
        submission = make_submission(
            recipe,
            structure,
            engine=engine,
            cluster=cluster,
            param=param,
            params=params,
            walltime=walltime,
            name=name,
            label=label,
            key=key,
        )
        job, work_dir = run_submission(submission, interrupts)
    if as_json:
        output.write_json(output.status_document(job))
    else:
        report(job, work_dir)
    if interrupts.received is not None:
        return 128 + interrupts.received
    return 0 if job.state.value == "completed" else 1


def run_submission(submission: Submission, interrupts: Interrupts) -> tuple[JobMetadata, Path]:
    """Run a submission to its end in this process; give the job and its work directory."""
    from crystalmath.service import JobService

    interrupts.leave_if_asked()
    interrupts.passed_on = False
    with JobService() as service, Progress() as progress:
        job = service.submit(submission)
        for warning in job.warnings:
            output.note(f"warning: {warning['message']}")
        job = follow(service, job, interrupts, progress)
        return job, service.work_directory(job.job_id)


def follow(
    service: JobService, job: JobMetadata, interrupts: Interrupts, progress: Progress
) -> JobMetadata:
    """Show a job's changes until it has ended; pass on the user's wish to stop it."""
    while True:
        for change in service.wait([job.job_id], timeout=_TICK):
            job = change
            progress.show(job)
        if job.state.is_terminal():
            return job
        progress.tick()
        if interrupts.received is not None and not interrupts.passed_on:
            progress.say(f"stopping job {job.job_id}; once more leaves at once")
            service.cancel(job.job_id)
            interrupts.pass_on()


def report(job: JobMetadata, work_dir: Path) -> None:
    """Print what became of a job, for people."""
    took = (job.finished_at or time.time()) - job.created_at
    pairs: list[tuple[str, object]] = [("state", f"{job.state.value} ({took:.1f} s)")]
    if job.state.value == "completed":
        pairs += output.summary_fields(job)
    # quacc makes a folder of its own in it, and names that in the result.
    where = (job.summary or {}).get("work_dir") or work_dir
    pairs += [("work dir", where), ("job", job.job_id)]
    output.write(output.fields(pairs))
    if job.state.value == "failed":
        output.note(f"error: {output.printable(job.error or 'no reason is known')}")
        output.note(f"see: crystalmath result {job.job_id}, crystalmath logs {job.job_id}")


class Interrupts:
    """Notes the signals that ask a command to stop; the second one ends the process at once.

    The first only sets a flag, so that it cannot break into the middle of a submission. The second
    waits until the first has reached the job: leaving before would let it run on, with nobody
    there. A third waits for nothing.

    Attributes
    ----------
    received : int or None
        The first signal's number.
    passed_on : bool
        There is no job that has yet to hear of it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.passed_on = True
        self._count = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup the command is to live on.
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def leave_if_asked(self) -> None:
        """End the command where a signal came before there was a job to stop."""
        if self.received is not None:
            raise SystemExit(128 + self.received)

    def pass_on(self) -> None:
        """Note that the job has heard of it; leave where the user has asked twice."""
        self.passed_on = True
        if self._count > 1:
            self._leave()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._count += 1
        if self.received is None:
            self.received = number
        elif self.passed_on or self._count > 2:  # noqa: PLR2004 - the third
            self._leave()

    def _leave(self) -> NoReturn:
        os._exit(128 + (self.received or 0))


class Progress(output.LiveLine):
    """Shows state changes and the elapsed time on standard error.

    On a terminal a live line, below one line for each change; elsewhere the changes alone.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown: tuple[str, int, str | None] | None = None
        self._state = "submitting"
        super().__init__(self._line())

    def show(self, job: JobMetadata) -> None:
        """Show a job's state where it is a new one."""
        seen = (job.state.value, job.attempt, job.reason)
        if seen == self._shown:
            return
        self._shown, self._state = seen, job.state.value
        again = f" (attempt {job.attempt})" if job.attempt > 1 else ""
        reason = f": {output.printable(job.reason)}" if job.reason else ""
        self.say(f"{self._line()}{again}{reason}")

    def tick(self) -> None:
        """Renew the elapsed time."""
        self.update(self._line())

    def _line(self) -> str:
        return f"{time.monotonic() - self._started:7.1f} s  {self._state}"
