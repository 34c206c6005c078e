"""``crystalmath run``: submit a job, follow it, and cancel it on Ctrl-C."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from crystalmath import server
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.cli.shared.parameter_options import parse_parameters
from crystalmath.cli.shared.structure_files import read_document
from crystalmath.cli.shared.submission_options import (
    Params,
    ParamsFile,
    Recipe,
    Structure,
    asking,
    checked,
    is_asked,
    make_submission,
    with_options,
)
from crystalmath.errors import InvalidJob, ServerNotRunning
from crystalmath.models import JobState, SubmissionOptions
from crystalmath.models.job_notes import told_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn, Self

    from crystalmath.client import Client, Job, Submission

# The interval at which the elapsed time is renewed and signals are handled, in seconds: for a new
# job, and for one that has run for a while.
_TICK = 0.2
_SLOW_TICK = 1.0
# The signals that a command waits with until the first one has reached the job.
_MOST_SIGNALS = 2
# How long to wait for a job that was cancelled at its timeout, in seconds.
_STOP_S = 60.0
# The interval at which progress is read, in seconds.
_ASK_S = 3.0


@with_options
def run(
    recipe: Recipe,
    structure: Structure = None,
    *,
    param: Params = None,
    params: ParamsFile = None,
    options: SubmissionOptions,
    as_json: Json = False,
) -> int:
    """Run a recipe, wait for it, and print its result.

    Ctrl-C cancels the job and waits until it has ended; a second Ctrl-C leaves at once. Exits 0
    if the job completed.
    """
    with Interrupts() as interrupts:
        parameters = parse_parameters(param or (), params)
        read = None if structure is None else read_document(structure)
        submission = make_submission(recipe, read, parameters, options)
        job = run_submission(submission, interrupts)
    if as_json:
        output.write_json(job.document())
    else:
        report(job)
    if interrupts.received is not None:
        return 128 + interrupts.received
    return 0 if job.state is JobState.COMPLETED else 1


def run_submission(
    submission: Submission, interrupts: Interrupts, timeout_s: float = math.inf
) -> Job:
    """Run a job to its end: by the home's server on this host, or without one in this process.

    A job that has not ended after `timeout_s` is cancelled; it is returned as it was before.
    """
    with any_client(runs=True) as client, Progress() as progress:
        job = client.job(_submitted(client, submission, interrupts))
        for warning in job.warnings:
            output.note(f"warning: {output.sentence(warning)}")
        return _followed(client, job, interrupts, progress, timeout_s)


def _followed(
    client: Client, job: Job, interrupts: Interrupts, progress: Progress, timeout_s: float
) -> Job:
    """Follow a job to its end, across one crash of the server."""
    from crystalmath.client import connect
    from crystalmath.client.client_errors import ConnectionLost

    try:
        return follow(client, job, interrupts, progress, timeout_s)
    except (ServerNotRunning, ConnectionLost):
        with connect() as again:
            return follow(again, job, interrupts, progress, timeout_s)


def _submitted(client: Client, submission: Submission, interrupts: Interrupts) -> str:
    # client.submit would follow the job in a thread of its own.
    from crystalmath.client.request import present_writer

    recipe = str(submission.recipe)
    # The first check takes seconds. Until then there is no job to cancel, and Ctrl-C leaves at
    # once. A job with a key may be known already, so it is submitted directly.
    if is_asked(recipe) and submission.key is None:
        # The submission reports the problems.
        with contextlib.suppress(InvalidJob), interrupts.leaving():
            checked(client, submission)
    interrupts.leave_if_asked()
    interrupts.passed_on = False
    with asking(client, [recipe]):
        answer = client.ask(server.JOBS_SUBMIT, **present_writer().document(submission))
        return str(answer["job_id"])


def follow(
    client: Client,
    job: Job,
    interrupts: Interrupts,
    progress: Progress,
    timeout_s: float = math.inf,
) -> Job:
    """Show a job's changes until it has ended; cancel it after a signal."""
    begun = time.monotonic()
    while True:
        tick = min(_SLOW_TICK, max(_TICK, (time.monotonic() - begun) / 20))
        for change in client.wait([job.job_id], timeout=tick):
            job = change
            progress.show(job)
        if job.state.is_terminal():
            return job
        progress.tick(_reached(client, job) if progress.wants_more(job) else None)
        if interrupts.received is not None and not interrupts.passed_on:
            progress.say(f"stopping job {job.job_id}; press Ctrl-C again to leave at once")
            client.cancel(job.job_id)
            interrupts.pass_on()
        elif interrupts.received is None and time.monotonic() - begun >= timeout_s:
            progress.say(f"stopping job {job.job_id}: it took more than {timeout_s:g} s")
            client.cancel(job.job_id)
            list(client.wait([job.job_id], timeout=_STOP_S))
            return job


def _reached(client: Client, job: Job) -> str | None:
    if job.stage is not None:
        steps = client.job(job.job_id).steps
        return f"steps {told_steps(steps)}" if steps else None
    read = client.progress([job.job_id])[job.job_id]
    return None if read is None else str(read)


def report(job: Job) -> None:
    """Print the outcome of a job for people."""
    took = (job.finished_at or time.time()) - job.created_at
    pairs: list[tuple[str, object]] = [("state", f"{job.state.value} ({took:.1f} s)")]
    if job.state is JobState.COMPLETED:
        pairs += output.summary_fields(job.document())
    pairs += [("work dir", output.there(output.work_dir(job.document()))), ("job", job.job_id)]
    output.write(output.fields(pairs))
    if job.state is JobState.FAILED:
        output.note(f"error: {job.error or 'no reason is known'}")
        commands = [f"crystalmath {name} {job.job_id}" for name in ("status", "result", "logs")]
        output.note(f"see: {', '.join(commands)}")


class Interrupts:
    """Signal handlers: the first signal cancels the job, the second ends the process.

    The first signal only sets a flag, so that it cannot interrupt a submission. The second takes
    effect once the job is cancelled; otherwise the job would run on unattended. A third ends the
    process at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.passed_on = True
        self._count = 0
        self._may_leave = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP, and so does the command.
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave_if_asked(self) -> None:
        """End the command if a signal came before there was a job to cancel."""
        if self.received is not None:
            raise SystemExit(128 + self.received)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """End the command at the first signal, even within a call: there is no job yet."""
        self._may_leave = True
        try:
            self.leave_if_asked()
            yield
        finally:
            self._may_leave = False

    def pass_on(self) -> None:
        """Record that the job was cancelled; leave if a second signal has come."""
        self.passed_on = True
        if self._count > 1:
            self._leave()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self.received is None:
            self.received = number
            if self._may_leave:
                self.leave_if_asked()
        elif self.passed_on or self._count > _MOST_SIGNALS:
            self._leave()

    def _leave(self) -> NoReturn:
        os._exit(128 + (self.received or 0))


class Progress(output.LiveLine):
    """State changes and the elapsed time, on standard error.

    A terminal shows a line for each change, and a live line below; other outputs only the changes.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown: tuple[str, int, str | None] | None = None
        self._state = "submitting"
        self._reached = ""
        # Most jobs of a second or two write no progress.
        self._ask_at = self._started + _ASK_S
        super().__init__(self._line())

    def show(self, job: Job) -> None:
        """Write a line if a job's state, attempt or reason has changed."""
        seen = (job.state.value, job.attempt, job.reason)
        if seen == self._shown:
            return
        self._shown, self._state, self._reached = seen, job.state.value, ""
        # Each pass of a flow is an attempt.
        again = f" (attempt {job.attempt})" if job.attempt > 1 and job.stage is None else ""
        reason = f": {job.reason}" if job.reason else ""
        self.say(f"{self._line()}{again}{reason}")

    def wants_more(self, job: Job) -> bool:
        """Return whether it is time to read a job's progress."""
        now = time.monotonic()
        if not self.is_live or job.state is not JobState.RUNNING or now < self._ask_at:
            return False
        self._ask_at = now + _ASK_S
        return True

    def tick(self, reached: str | None = None) -> None:
        """Renew the live line with the elapsed time and the progress."""
        if reached is not None:
            self._reached = f": {reached}"
        self.update(self._line() + self._reached)

    def _line(self) -> str:
        return f"{time.monotonic() - self._started:7.1f} s  {self._state}"
