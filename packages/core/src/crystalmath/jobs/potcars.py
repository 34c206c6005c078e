"""The POTCARs of ended jobs, which are licensed files and are not kept with each job.

A small file that names the datasets replaces each copy that a calculation made. So a failed job
still shows which datasets it used.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import read_chunks
from crystalmath.jobs.worktree import files_below, scratch_folders

#: The name of the file that replaces a POTCAR.
INSTEAD = "POTCAR.titel"
#: The names by which VASP reads the file and custodian keeps it aside.
_NAMES = ("POTCAR", "POTCAR.orig")


def is_potcar(path: str) -> bool:
    """Return whether a file has the name of a calculation's POTCAR, compressed or not."""
    return path.rpartition("/")[2].removesuffix(".gz") in _NAMES


def replace_potcars(work: str) -> None:
    """Replace all POTCARs below a work directory; files that cannot be removed stay.

    quacc leaves a failed calculation in its scratch directory, and a link to it. No other link is
    followed: it may lead to the library of POTCARs.
    """
    if _replace_below(work):
        for folder in scratch_folders(work):
            _replace_below(folder)


def _replace_below(folder: str) -> bool:
    """Replace the POTCARs below a folder; return whether the folder has links, which stay."""
    has_link = False
    for file in files_below(folder):
        has_link |= file.is_link
        if is_potcar(file.path) and not file.is_link:
            with contextlib.suppress(OSError):
                replace_potcar(Path(folder, file.path))
    return has_link


def replace_potcar(path: Path) -> None:
    """Replace a POTCAR by a file that names its datasets; `OSError` if the POTCAR stays."""
    description = "".join(f"{line}\n" for line in _described(path))
    # On a full disk the POTCAR is removed anyway.
    with contextlib.suppress(OSError):
        beside = path.with_name(INSTEAD)
        beside.unlink(missing_ok=True)  # it may be a link
        with beside.open("x") as file:
            file.write(description)
    path.unlink()


def titles(folder: Path) -> list[str] | None:
    """Return the datasets of a calculation's POTCAR, from the file or from its replacement."""
    for path in (folder / "POTCAR", folder / "POTCAR.gz", folder / INSTEAD):
        lines: list[str] = []
        try:
            rest = b""
            for chunk in read_chunks(path):
                *whole, rest = (rest + chunk).split(b"\n")
                lines += [title for line in whole if (title := _title(line)) is not None]
        except InvalidJob:
            continue
        return lines
    return None


def _described(path: Path) -> list[str]:
    """Return a line for each dataset of a POTCAR that can be read, and its digest."""
    titles: list[str] = []
    digest = hashlib.sha256()
    rest, whole = b"", False
    with contextlib.suppress(InvalidJob):
        for chunk in read_chunks(path):
            digest.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            titles += [title for title in map(_title, lines) if title is not None]
        whole = True
    return [
        "crystalmath: a POTCAR is not kept with a job that has ended; this one held",
        *(f"TITEL = {title}" for title in titles),
        f"SHA-256 = {digest.hexdigest()}" if whole else "and was damaged",
    ]


def _title(line: bytes) -> str | None:
    name, equals, value = line.partition(b"=")
    named = equals and name.strip() == b"TITEL"
    return value.strip().decode("ascii", "replace") if named else None
