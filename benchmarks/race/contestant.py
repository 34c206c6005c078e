"""How the race calls a contestant: ``python contestants/NAME.py TASK COUNT FOLDER``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from work import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["run", "wait"]


def run(
    compute: Callable[[str, int, str], None],
    cancel: Callable[[str, Running], None] | None = None,
    record: Callable[[int, str], list[list[str]]] | None = None,
) -> None:
    """Do what the command line says.

    `record` puts so many jobs on record, and returns the commands that list jobs and show one.
    """
    task, count, folder = sys.argv[1], int(sys.argv[2]), str(Path(sys.argv[3]).resolve())
    if task == "record":
        if record is None:
            sys.exit("it keeps no record of jobs")
        times = (_seconds(command) for command in record(count, folder))
        print(", ".join(f"{each:.2f} s" for each in times))
    elif task != "cancel":
        compute(task, count, folder)
    elif cancel is None:
        sys.exit("it has no way to cancel a job")
    else:
        cancel(folder, Running(folder))


def _seconds(command: list[str]) -> float:
    """Return the median of five runs of a command."""
    times = []
    for _ in range(5):
        begun = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def wait(futures: Iterable[Any]) -> None:
    """Wait for all futures, and raise the error of one that failed."""
    for future in list(futures):
        future.result()
