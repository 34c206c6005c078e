"""Looking at folders and processes while these come and go: what goes meanwhile is not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What looking at a process or a file raises that ends meanwhile, or is somebody else's.
TRANSIENT = (OSError, psutil.Error)


def listed(folder: Path | str) -> list[Path]:
    """List what is in a folder; nothing, if it is not there or not ours to read."""
    # Unlike `iterdir` and `glob`, which do so while they are asked for more.
    with contextlib.suppress(OSError):
        return [Path(folder, name) for name in os.listdir(folder)]  # noqa: PTH208
    return []


def below(folder: Path | str) -> Iterator[Path]:
    """Yield the files and folders below a folder."""
    # Unlike `rglob`, it survives that a folder goes meanwhile.
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def links(folder: Path | str) -> list[str]:
    """Return where the symbolic links in a folder lead, as those of ``/proc/<pid>/fd``."""
    found = []
    for path in listed(folder):
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return found
