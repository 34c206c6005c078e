"""The files of ended jobs, removed so that whoever is killed meanwhile leaves nothing in between.

A run directory is first moved aside as a whole: it is there with all its files, or it is not there.
What is aside belongs to nobody any more, and whoever removes files next goes on with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.errors import CrystalMathError
from crystalmath.jobs.heavy import is_heavy
from crystalmath.jobs.potcars import is_potcar, replace_potcar
from crystalmath.jobs.worktree import files_below

if TYPE_CHECKING:
    from collections.abc import Generator

#: The folder, beside the run directories, of those that are being removed.
ASIDE = ".removed"
#: After so many files others may come between.
_STEPS = 50


def remove_directory(directory: Path) -> None:
    """Remove a run directory; one that is not there is as good.

    Raises
    ------
    CrystalMathError
        It is a link, or cannot be moved. Nothing was removed.
    """
    if directory.is_symlink():
        raise CrystalMathError(
            f"{directory} is a link to {directory.readlink()}; remove both yourself"
        )
    aside = directory.parent / ASIDE
    try:
        aside.mkdir(mode=0o700, exist_ok=True)
        moved = directory.rename(aside / f"{directory.name}.{os.urandom(4).hex()}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise CrystalMathError(f"cannot remove {directory}: {error}") from error
    _remove_tree(moved)


def finish_removals(jobs_directory: Path) -> None:
    """Remove what somebody has moved aside, and was killed."""
    with contextlib.suppress(FileNotFoundError):
        for left in list((jobs_directory / ASIDE).iterdir()):
            _remove_tree(left)


def remove_heavy(directory: Path) -> Generator[None, None, None]:
    """Remove the heavy files of a run directory; yields where others may come between.

    Raises
    ------
    CrystalMathError
        One cannot be removed. Others were.
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


def _remove_tree(path: Path) -> None:
    """Remove a tree that nobody owns; what cannot be removed now stays for the next time."""
    # Somebody else may be removing it, too; a program may have left folders that nobody can write.
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
        return
    folders = [str(path)]
    while folders:
        with contextlib.suppress(OSError):
            folder = folders.pop()
            os.chmod(folder, 0o700)  # noqa: PTH101 - there may be very many
            with os.scandir(folder) as entries:
                folders += [one.path for one in entries if one.is_dir(follow_symlinks=False)]
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
