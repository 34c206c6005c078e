"""Which files of a calculation are large and can be computed again: wave functions, densities."""

from __future__ import annotations

import contextlib
import posixpath
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.worktree import files_below

if TYPE_CHECKING:
    from collections.abc import Generator

#: Names of files, compressed or not, that a restart can use and no result is read from.
HEAVY = (
    # VASP
    *("WAVECAR*", "WAVEDER*", "CHG*", "AECCAR[0-9]", "TMPCAR"),
    # Quantum ESPRESSO, below the folder *.save and beside it.
    *("wfc*.dat", "wfc*.hdf5", "charge-density.*", "*.wfc[0-9]*", "*.igk[0-9]*"),
    *("*.mix[0-9]*", "*.hub[0-9]*"),
)
#: After so many files others may come between.
_STEPS = 200


@frozen(kw_only=True)
class Use:
    """What files take on the disk.

    Parameters
    ----------
    jobs, files : int
        How many they are.
    size, heavy_size : int
        What they take on the disk, with their folders, and what the heavy ones among them do
        (:data:`HEAVY`), in bytes.
    """

    jobs: int = 0
    files: int = 0
    size: int = 0
    heavy_size: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(
            jobs=self.jobs + other.jobs,
            files=self.files + other.files,
            size=self.size + other.size,
            heavy_size=self.heavy_size + other.heavy_size,
        )


def is_heavy(path: str) -> bool:
    """Return whether a file is large, and nothing of the result is lost with it."""
    name = posixpath.basename(path).removesuffix(".gz")
    # A POTCAR is the copy of a file that is elsewhere.
    return is_potcar(path) or any(fnmatchcase(name, pattern) for pattern in HEAVY)


def use_of(directory: str) -> Generator[None, None, Use]:
    """Measure the run directory of a job; yields where others may come between."""
    files = size = heavy = 0
    with contextlib.suppress(OSError):
        size += Path(directory).stat().st_blocks * 512
    for entries, file in enumerate(files_below(directory, folders_too=True), 1):
        files += not file.path.endswith("/")
        size += file.disk_size
        if is_heavy(file.path):
            heavy += file.disk_size
        if entries % _STEPS == 0:
            yield
    return Use(jobs=1, files=files, size=size, heavy_size=heavy)
