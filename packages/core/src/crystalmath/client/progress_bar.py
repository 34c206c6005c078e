"""A bar that shows how many jobs have ended."""

from __future__ import annotations

import importlib.util
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from crystalmath.client.future import JobFuture


def watch(futures: Sequence[JobFuture], *, shown: bool | None = None) -> Iterator[JobFuture]:
    """Yield each job as it ends, and show how many have.

    Parameters
    ----------
    futures : sequence of JobFuture
        The jobs.
    shown : bool, optional
        Whether to show it; default: on a terminal and in a notebook.
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
