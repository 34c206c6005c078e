"""How the race calls a contestant: ``python contestants/NAME.py TASK COUNT FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from work import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["run", "wait"]


def run(
    compute: Callable[[str, int, str], None],
    cancel: Callable[[str, Running], None] | None = None,
) -> None:
    """Do what the command line says."""
    task, count, folder = sys.argv[1], int(sys.argv[2]), str(Path(sys.argv[3]).resolve())
    if task != "cancel":
        compute(task, count, folder)
    elif cancel is None:
        sys.exit("it has no way to cancel a job")
    else:
        cancel(folder, Running(folder))


def wait(futures: Iterable[Any]) -> None:
    """Wait for all futures, and raise the error of one that failed."""
    for future in list(futures):
        future.result()
