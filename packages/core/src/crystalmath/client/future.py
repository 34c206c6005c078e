"""A job as a future, and waiting for many futures."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, as_completed, wait
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from crystalmath.client.client_errors import ClientClosed, JobFailed
from crystalmath.client.results import raised
from crystalmath.errors import CrystalMathError
from crystalmath.models import JobState, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crystalmath.client.results import Results
    from crystalmath.models import Job, Progress
    from crystalmath.models.notebook import Jobs

#: How long `cancel` waits until no process of the job is alive, in seconds.
CANCEL_S = 60.0
#: The shortest time between two drawings of a notebook's bar, in seconds.
REDRAW_S = 0.25


class Controls(Protocol):
    """The methods of a client that its futures call."""

    def job(self, job_id: str) -> Job:
        """Return the record of a job."""

    def jobs(self, *, parent: str) -> Jobs[JobFuture]:
        """Return futures of the steps of a flow."""

    def progress(self, job_ids: Sequence[str], *, history: bool) -> dict[str, Progress | None]:
        """Return the progress of jobs."""

    def view(self, job_id: str) -> Any:
        """Return the structure of a job for a notebook."""

    def cancel(self, job_id: str) -> bool:
        """Request that a job be cancelled."""

    def wait(self, job_ids: Sequence[str], timeout: float) -> Iterator[Job]:
        """Yield the states of jobs until they have ended."""


class JobFuture(Future[Any]):
    """A job's future: the result of its recipe, or the reason why there is none.

    It is a :class:`concurrent.futures.Future`: ``as_completed``, ``wait`` and
    ``asyncio.wrap_future`` take it (the last within ``asyncio.shield``, or a timeout would cancel
    the job). A failed job raises :class:`~crystalmath.client.JobFailed`; its cause is the recipe's
    exception, if that type is imported here. A cancelled job raises
    :class:`~concurrent.futures.CancelledError`. The first call of :meth:`result` fetches and
    decodes the result in its own thread; small results of other completed jobs may come along.
    Callbacks run in a thread of the client.

    Only :class:`~crystalmath.client.Client` makes futures.

    Attributes
    ----------
    job_id : str
        The job's id, a UUID4. ``client.future(job_id)`` returns a future again, in any process.
    name : str or None
        The job's name.
    labels : mapping of str to str
        The job's labels.
    known : Job or None
        The job's record when the client last read it.
    energies : sequence of float
        The energies (eV) of its ionic steps, if :meth:`progress` or :meth:`result` has read them. A
        notebook draws them.
    """

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a job's future belongs to its client, in this process: pass its job_id on, and take "
            "client.future(job_id) there"
        )

    def __init__(
        self,
        client: Controls,
        results: Results,
        job_id: str,
        name: str | None,
        labels: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.job_id = job_id
        self.name = name
        self.labels = dict(labels)
        self.known: Job | None = None
        self.energies: Sequence[float] = ()
        self.summary: Mapping[str, Any] = {}  # of the result that `result` has read
        self._client = client
        self._results = results
        self._seen = (0, JobState.PENDING)  # the record's revision, and the state then
        self._ended = False
        self._loading = threading.Lock()
        self._loaded = False
        self._value: Any = None

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<JobFuture {self.job_id}{name} {self._seen[1].value}>"

    def _repr_html_(self) -> str:
        from crystalmath.models.notebook import job_html

        return job_html(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from crystalmath.models.notebook import bundle

        return bundle(self)

    @property
    def state(self) -> JobState:
        """The last state that the client has read; the server is not asked."""
        return self._seen[1]

    def __getitem__(self, key: str | int) -> Reference:
        """Return a reference to a part of the result, whether or not the job has ended.

        Pass it to another submission, which then waits for this job: as its structure
        (``relaxed["atoms"]``, ``relaxed["trajectory"][-1]``) or inside its parameters. The server
        is not asked. The value itself is in ``result()``.
        """
        return Reference(self.job_id)[key]

    # Without these Python would index a future with 0, 1, ... for ever.
    __iter__ = None
    __contains__ = None

    def info(self) -> Job:
        """Read the job's record from the server and return it."""
        self.known = info = self._client.job(self.job_id)
        self.update(info)
        return info

    def progress(self) -> Progress | None:
        """Return the calculation's progress with its ionic steps; ``None`` before any output.

        From then on a notebook draws their energies with the future.
        """
        from crystalmath.models.notebook import energies

        progress = self._client.progress([self.job_id], history=True)[self.job_id]
        if progress is not None:
            self.energies = energies(progress)
        return progress

    def view(self) -> Any:
        """Return the structure, with its frames, for a notebook; see :meth:`Client.view`."""
        return self._client.view(self.job_id)

    def steps(self) -> Jobs[JobFuture]:
        """Return futures of the steps of a flow, in the order of their recording.

        Flows that run in one job have no steps, like jobs that are no flows.
        """
        steps = self._client.jobs(parent=self.job_id)
        steps.reverse()
        return steps

    def running(self) -> bool:
        """Return whether the last state that the client has read is `RUNNING`."""
        return not self.done() and self._seen[1] is JobState.RUNNING

    def result(self, timeout: float | None = None, *, original: bool = False) -> Any:
        """Wait for the job, and return the result of its recipe.

        Parameters
        ----------
        timeout : float, optional
            How long to wait at most, in seconds.
        original : bool
            Raise the recipe's own exception for a failed job, if that type is imported here.
            By default that exception is the cause (``__cause__``) of `JobFailed`.

        Raises
        ------
        JobFailed
            The job failed.
        concurrent.futures.CancelledError
            The job was cancelled.
        TimeoutError
            The job has not ended in time. It goes on.
        """
        if (error := self.exception(timeout)) is not None:
            if original and error.__cause__ is not None:
                raise error.__cause__
            raise error
        with self._loading:
            if not self._loaded:
                self._value = self._results.value(self.job_id)
                self._loaded = True
                self._note_energies()
        return self._value

    def _note_energies(self) -> None:
        from crystalmath.recipes.summary import summarize

        self.summary = summarize(self._value)
        steps = self._value.get("trajectory_results") if isinstance(self._value, dict) else None
        if isinstance(steps, list):
            energies = [step.get("energy") for step in steps if isinstance(step, dict)]
            self.energies = [energy for energy in energies if isinstance(energy, int | float)]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the job, and return the error that :meth:`result` raises, if any."""
        error = super().exception(timeout)
        if isinstance(error, JobFailed):
            with self._loading, contextlib.suppress(CrystalMathError):
                if not self._loaded:
                    error.traceback = self._results.traceback(self.job_id)
                    if error.traceback:
                        error.add_note(error.traceback.rstrip())
                        error.__cause__ = raised(error.traceback)
                    self._loaded = True
        return error

    def cancel(self) -> bool:
        """Cancel the job, and wait until none of its processes is alive.

        An event loop must not wait. If one calls this method, as after a timeout of
        ``asyncio.wait_for(asyncio.wrap_future(job), 5)``, a thread cancels the job instead.

        Returns
        -------
        bool
            Whether the job ended as cancelled; ``False`` if it had ended before, or has not ended
            after a minute.
        """
        if _is_callback_of_a_loop():
            threading.Thread(target=self._stop_aside, name="crystalmath-stop", daemon=True).start()
        else:
            self._stop()
        return self.cancelled()

    def _stop_aside(self) -> None:
        try:
            self._stop()
        except (CrystalMathError, OSError) as error:  # the client was closed, or the server left
            import logging

            log = logging.getLogger("crystalmath.client")
            log.warning("cannot cancel job %s: %s", self.job_id, error)

    def _stop(self) -> None:
        if not self.done():
            self._client.cancel(self.job_id)
            for info in self._client.wait([self.job_id], CANCEL_S):
                self.update(info)
            if self._ended:
                # Another thread may have seen the end first, and be about to finish the future.
                wait([self], CANCEL_S)

    def update(self, info: Job) -> None:
        """Update the future from the job's record; the client calls it."""
        with self._condition:
            is_older = info.revision < self._seen[0]
            # A rebuilt database counts revisions from the beginning.
            if self._ended or (is_older and not info.state.is_terminal()):
                return
            self._seen = (info.revision, info.state)
            self.known = info
        if info.state is JobState.FAILED:
            self.end(JobFailed(self.job_id, info.error or "no reason is known"))
        else:
            self._reach(info.state)

    def observe(self, state: JobState) -> None:
        """Update the future to a state of the event log, except failed; the client calls it."""
        with self._condition:
            if self._ended:
                return
            self._seen = (self._seen[0], state)
        self._reach(state)

    def _reach(self, state: JobState) -> None:
        if state is JobState.COMPLETED:
            self._results.note(self.job_id, self)
            self.end()
        elif state is JobState.CANCELLED and self._end():
            super().cancel()
            self.set_running_or_notify_cancel()

    def end(self, error: Exception | None = None) -> None:
        """Finish the future, unless it is finished; the client calls it."""
        if not self._end():
            return
        if error is None:
            self.set_result(None)  # `result` fetches the value
        else:
            self.set_exception(error)

    def abandon_in_fork(self) -> None:
        """End the future with an error in a forked process, where no thread follows the job."""
        self._condition = threading.Condition()  # another thread may have held it
        self._loading = threading.Lock()
        if self.done():
            return
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self._ended = False
        self.end(
            ClientClosed(
                "this future belongs to the parent of this forked process; "
                f"client.future({self.job_id!r}) returns one for this process"
            )
        )

    def _end(self) -> bool:
        # Several threads may see a job's end; only the first finishes its future.
        with self._condition:
            ended, self._ended = self._ended, True
        return not ended


def _is_callback_of_a_loop() -> bool:
    """Return whether an event loop itself is the caller, and not one of its tasks."""
    asyncio = sys.modules.get("asyncio")  # without it no loop runs
    try:
        return asyncio is not None and asyncio.current_task() is None
    except RuntimeError:  # no loop runs in this thread
        return False


def gather(
    answers: Sequence[JobFuture | CrystalMathError],
    *,
    progress: bool | None,
    return_exceptions: bool,
) -> list[Any]:
    """Return the results of jobs in their order; see :meth:`~crystalmath.client.Client.map`."""
    accepted = [one for one in answers if not isinstance(one, CrystalMathError)]
    if not return_exceptions:
        _raise_refusal(answers, len(accepted))
    # Each result is fetched while the others are still being computed.
    outcomes = {future: _outcome(future) for future in watch(accepted, shown=progress)}
    results = [one if isinstance(one, CrystalMathError) else outcomes[one] for one in answers]
    for outcome in () if return_exceptions else results:
        if isinstance(outcome, Exception):
            raise outcome
    return results


def _raise_refusal(answers: Sequence[JobFuture | CrystalMathError], accepted: int) -> None:
    for index, answer in enumerate(answers):
        if isinstance(answer, CrystalMathError):
            others = (
                "1 other was accepted and goes"
                if accepted == 1
                else f"{accepted} others were accepted and go"
            )
            answer.add_note(
                f"structure {index} of {len(answers)}; {others} on; "
                "return_exceptions=True returns their results"
            )
            raise answer


def _outcome(future: JobFuture) -> Any:
    try:
        return future.result()
    except (CrystalMathError, CancelledError) as error:
        return error


def watch(futures: Sequence[JobFuture], *, shown: bool | None = None) -> Iterator[JobFuture]:
    """Yield each job as it ends, and show their number in a bar.

    By default the bar is shown on a terminal and in a notebook.
    """
    display = _notebook()
    ended = cast("Iterator[JobFuture]", as_completed(futures))
    if shown is False:
        yield from ended
    elif display is not None:
        yield from _shown_in_notebook(futures, ended, display)
    else:
        yield from _shown_in_terminal(futures, ended, always=shown is True)


def _shown_in_terminal(
    futures: Sequence[JobFuture], ended: Iterator[JobFuture], *, always: bool
) -> Iterator[JobFuture]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    if not (always or console.is_terminal):
        yield from ended
        return
    without = 0
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("", total=len(futures))
        for future in ended:
            without += _has_none(future)
            failures = f"{without} without a result" if without else ""
            bar.update(task, advance=1, description=failures)
            yield future


def _shown_in_notebook(
    futures: Sequence[JobFuture], ended: Iterator[JobFuture], display: Callable[..., Any]
) -> Iterator[JobFuture]:
    from crystalmath.models.notebook import bar_html

    begun, without, drawn = time.monotonic(), 0, -math.inf

    def bar(count: int) -> dict[str, str]:
        html = bar_html(count, without, len(futures), time.monotonic() - begun)
        return {"text/plain": f"{count}/{len(futures)} jobs", "text/html": html}

    shown = display(bar(0), raw=True, display_id=True)
    for count, future in enumerate(ended, 1):
        without += _has_none(future)
        # Redraw at intervals, even if a thousand jobs end at once.
        if count == len(futures) or time.monotonic() > drawn + REDRAW_S:
            shown.update(bar(count), raw=True)
            drawn = time.monotonic()
        yield future


def _has_none(future: JobFuture) -> bool:
    return future.cancelled() or future.exception() is not None


def _notebook() -> Callable[..., Any] | None:
    """Return IPython's `display` if this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    show: Callable[..., Any] = sys.modules["IPython.display"].display
    return show
