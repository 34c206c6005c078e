"""Find what the programs of a job write, wherever its calculations are."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from crystalmath.jobs.scratch import scratch_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: So deep are calculations in a work directory; recipes make one folder for each.
_DEPTH = 4
#: After so many names others may come between.
_STEPS = 1000


def calculation_files(
    work: str, is_wanted: Callable[[str], bool]
) -> Generator[None, None, list[tuple[float, str]]]:
    """Find the files of some names, with the times of their last changes.

    Parameters
    ----------
    work : str
        The work directory of a job's attempt. No links are followed but quacc's to its scratch
        directory.
    is_wanted : callable
        Tells of a file's name whether it is looked for.

    Yields
    ------
    None
        Now and then: others may come between.

    Returns
    -------
    list of (float, str)
        When each was changed last, in seconds since the epoch, and its path. What cannot be read,
        or is gone meanwhile, is left out.
    """
    found = []
    folders = [(work, 0), *((each, 1) for each in scratch_folders(work))]
    seen = 0
    while folders:
        folder, depth = folders.pop()
        # Folders and files may be gone meanwhile, or not be readable.
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                seen += 1
                if seen % _STEPS == 0:
                    yield
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEPTH:
                        folders.append((entry.path, depth + 1))
                elif is_wanted(entry.name):
                    with contextlib.suppress(OSError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    yield
    return found
