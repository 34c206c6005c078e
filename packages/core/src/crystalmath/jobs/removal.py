"""Removal of ended jobs' files, in such a way that a killed process leaves nothing half removed.

A run directory is first moved aside as a whole, so it exists with all its files or not at all. The
directories that were moved aside have no owner; the next process that removes files continues.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import BadFile, CrystalMathError
from crystalmath.jobs.documents import PACKS
from crystalmath.jobs.potcars import is_potcar, replace_potcar
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import files_below

if TYPE_CHECKING:
    from collections.abc import Generator

#: The folder, beside the run directories, of those that are being removed.
ASIDE = ".removed"
#: The removal yields after this many files.
_STEPS = 50
#: Names of files, compressed or not, that a restart can use and that hold no result.
HEAVY = (
    # VASP
    *("WAVECAR*", "WAVEDER*", "CHG*", "AECCAR[0-9]", "TMPCAR"),
    # Quantum ESPRESSO, below the folder *.save and beside it.
    *("wfc*.dat", "wfc*.hdf5", "charge-density.*", "*.wfc[0-9]*", "*.igk[0-9]*"),
    *("*.mix[0-9]*", "*.hub[0-9]*"),
)
#: The measurement yields after this many files.
_LOOKED_AT = 200


def remove_directory(directory: Path) -> None:
    """Remove a run directory, if it exists.

    `CrystalMathError` is raised if it is a link or cannot be moved; nothing was removed then.
    """
    if (moved := move_aside(directory)) is not None:
        remove_tree(moved)


def move_aside(directory: Path) -> Path | None:
    """Move a run directory to those that are being removed; ``None`` if there is none.

    `CrystalMathError` is raised if it is a link or cannot be moved.
    """
    if directory.is_symlink():
        raise CrystalMathError(
            f"{directory} is a link to {directory.readlink()}; remove both yourself"
        )
    aside = directory.parent / ASIDE
    try:
        aside.mkdir(mode=0o700, exist_ok=True)
        return directory.rename(aside / f"{directory.name}.{os.urandom(4).hex()}")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CrystalMathError(f"cannot remove {directory}: {error}") from error


def remove_dangling(folder: Path) -> None:
    """Remove the links in a folder that lead to no work directory, packed or not."""
    with contextlib.suppress(OSError):
        for link in folder.iterdir():
            work = Path(os.path.normpath(folder / link.readlink()))
            if not link.exists() and not RunDirectory(work.parent).is_packed():
                link.unlink()


def finish_removals(jobs_directory: Path) -> None:
    """Remove the directories that a process had moved aside before it was killed."""
    with contextlib.suppress(FileNotFoundError):
        for left in list((jobs_directory / ASIDE).iterdir()):
            remove_tree(left)


def remove_heavy(directory: Path) -> Generator[None, None, None]:
    """Remove the heavy files of a run directory; yield now and then for other work.

    `CrystalMathError` is raised if a file cannot be removed; others were.
    """
    heavy = [file.path for file in files_below(str(directory)) if is_heavy(file.path)]
    for count, path in enumerate(heavy, 1):
        remove = replace_potcar if is_potcar(path) else Path.unlink
        try:
            with contextlib.suppress(FileNotFoundError):
                remove(directory / path)
        except OSError as error:
            raise CrystalMathError(f"cannot remove {directory / path}: {error}") from error
        if count % _STEPS == 0:
            yield


def remove_tree(path: Path) -> None:
    """Remove a tree without an owner; files that cannot be removed stay for the next time."""
    # Another process may remove it at the same time; a program may have left unwritable folders.
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
        return
    folders = [str(path)]
    while folders:
        with contextlib.suppress(OSError):
            folder = folders.pop()
            Path(folder).chmod(0o700)
            with os.scandir(folder) as entries:
                folders += [one.path for one in entries if one.is_dir(follow_symlinks=False)]
    with contextlib.suppress(OSError):
        shutil.rmtree(path)


@frozen(kw_only=True)
class Use:
    """The disk space that files take."""

    jobs: int = 0
    files: int = 0
    #: Disk space of all files and their folders, in bytes.
    size: int = 0
    #: The share of the heavy files (:data:`HEAVY`), in bytes.
    heavy_size: int = 0
    #: How many of the jobs are in packs, which count with their share of these.
    packed: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(
            jobs=self.jobs + other.jobs,
            files=self.files + other.files,
            size=self.size + other.size,
            heavy_size=self.heavy_size + other.heavy_size,
            packed=self.packed + other.packed,
        )


def is_heavy(path: str) -> bool:
    """Return whether a file is large and not needed for the result."""
    name = posixpath.basename(path).removesuffix(".gz")
    # A POTCAR is a copy of a file in a library.
    return is_potcar(path) or any(fnmatchcase(name, pattern) for pattern in HEAVY)


def use_of(directory: str) -> Generator[None, None, Use]:
    """Measure the run directory of a job, or its part of a pack; yield now and then."""
    if (packed := _use_of_packed(directory)) is not None:
        return packed
    files = size = heavy = 0
    with contextlib.suppress(OSError):
        size += Path(directory).stat().st_blocks * 512
    for entries, file in enumerate(files_below(directory, folders_too=True), 1):
        files += not file.path.endswith("/")
        size += file.disk_size
        if is_heavy(file.path):
            heavy += file.disk_size
        if entries % _LOOKED_AT == 0:
            yield
    return Use(jobs=1, files=files, size=size, heavy_size=heavy)


def _use_of_packed(directory: str) -> Use | None:
    """Measure what a job takes in its pack, without files of its own; ``None`` without a pack."""
    jobs, _, job_id = directory.rpartition("/")
    if Path(directory).is_dir() or not Path(jobs, PACKS).is_dir():
        return None
    from crystalmath.jobs import packs

    try:
        files = packs.files(jobs, job_id)
    except BadFile:
        files = []
    if files is None:
        return None
    heavy = sum(file.packed_size for file in files if is_heavy(file.name))
    size = sum(file.packed_size for file in files)
    return Use(jobs=1, size=size, heavy_size=heavy, packed=1)
