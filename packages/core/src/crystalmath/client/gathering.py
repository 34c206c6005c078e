"""Waits for many jobs, shows how many have ended, and returns what became of each."""

from __future__ import annotations

import importlib.util
from concurrent.futures import CancelledError, as_completed
from typing import TYPE_CHECKING, Any, cast

from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from crystalmath.client.future import JobFuture


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
            answer.add_note(
                f"structure {index} of {len(answers)}; {accepted} others were accepted and go on; "
                "return_exceptions=True gives their results"
            )
            raise answer


def _outcome(future: JobFuture) -> Any:
    try:
        return future.result()
    except (CrystalMathError, CancelledError) as error:
        return error


def watch(futures: Sequence[JobFuture], *, shown: bool | None = None) -> Iterator[JobFuture]:
    """Yield each job as it ends, and show how many have.

    By default that is shown on a terminal and in a notebook.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = _console()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    without = 0
    ended = cast("Iterator[JobFuture]", as_completed(futures))
    if not (console.is_terminal or console.is_jupyter if shown is None else shown):
        yield from ended
        return
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("", total=len(futures))
        for future in ended:
            without += future.cancelled() or future.exception() is not None
            told = f"{without} without a result" if without else ""
            bar.update(task, advance=1, description=told)
            yield future


def _console() -> Console:
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter and importlib.util.find_spec("ipywidgets") is None:
        # Rich would warn, and draw nothing. A line that is written over works there too.
        return Console(stderr=True, force_jupyter=False, force_terminal=True)
    return console
