"""Copies of other folders in which a job's programs run, and their record.

A recipe may name the folder of an earlier calculation for a program to run in, as ``prev_outdir``
does for Quantum ESPRESSO. The job gets a copy of that folder in its own work directory instead
(``outdir``, ``outdir-2``, ...). A record beside it names the folder, and the calculations that ran
in the copy. By this record a later job finds their files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, evolve, frozen

from crystalmath.errors import BadFile
from crystalmath.jobs import documents
from crystalmath.jobs.file_copies import Copied, copy_files, files_to_copy
from crystalmath.jobs.rundir import is_job_id

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

#: The name of the first copy in a work directory; others have a number.
NAME = "outdir"
#: The file of a work directory that lists its copies.
RECORD = "outdir.json"
#: quacc's prefixes of a calculation's folder while it runs, and after it has failed.
_STATES = ("tmp-", "failed-")
#: Inputs, outputs and messages of a calculation. No program continues from them, and a search for
#: a job's own calculations must not find them.
_MESSAGES = re.compile(r".*\.(in|out|err)(\.gz)?|CRASH(\.gz)?|" + re.escape(RECORD), re.DOTALL)
#: quacc's folders of calculations, and its links to those in a scratch directory.
_CALCULATION = re.compile(r"(symlink-)?(tmp-|failed-)?quacc-[\d-]+", re.ASCII)
_WORK = re.compile(r"\d+\.work", re.ASCII)


@frozen
class Outdir:
    """A copy in which programs of a job run."""

    #: The real path of the original folder.
    of: str
    #: Its name in the work directory.
    name: str
    #: The names of the folders of the calculations that ran in it.
    calculations: tuple[str, ...] = ()


def read(work: Path) -> list[Outdir]:
    """Return the copies in a work directory; `BadFile` if their record is damaged."""
    path = work / RECORD
    try:
        header, _ = documents.read_document(str(path))
    except FileNotFoundError:
        return []
    try:
        return [
            Outdir(each["of"], each["name"], tuple(each["calculations"]))
            for each in header["outdirs"]
        ]
    except (KeyError, TypeError) as error:
        raise BadFile(f"{path} is damaged, or no file of ours") from error


def write(work: Path, outdirs: Iterable[Outdir]) -> None:
    """Record the copies in a work directory."""
    header = {"outdirs": [asdict(each) for each in outdirs]}
    temporary = work / f".{RECORD}"
    temporary.write_bytes(documents.document(header, b""))
    temporary.replace(work / RECORD)


def used_by(outdir: Outdir, calculation: str) -> Outdir:
    """Add the folder of a calculation to the record of a copy."""
    names = dict.fromkeys((*outdir.calculations, _plain(calculation)))
    return evolve(outdir, calculations=tuple(names))


def place_of(folder: str | os.PathLike[str]) -> Path:
    """Return the folder with the files from which programs continue a calculation.

    It is the copy in which the calculation ran, if there is one, else the folder itself. `BadFile`
    if the record of the copies is damaged.
    """
    real = Path(folder).expanduser().resolve()
    if (work := work_directory_of(real)) is None:
        return real
    # If calculations have no folders of their own, the last copy counts.
    for each in reversed(read(work)):
        if real == work or _plain(real.name) in each.calculations:
            return work / each.name
    return real


def work_directory_of(path: Path) -> Path | None:
    """Return the work directory that contains a path; ``None`` if none does."""
    for each in (path, *path.parents):
        if _WORK.fullmatch(each.name) and is_job_id(each.parent.name):
            return each
    return None


def copy(source: Path, target: Path) -> Copied:
    """Copy the files from which programs continue; see :func:`.file_copies.copy_files`."""
    return copy_files(source, target, _is_read)


def size(folder: str | os.PathLike[str]) -> int:
    """Return how large the copy of a calculation's folder would be, in bytes."""
    return sum(file.stat().st_size for file in files_to_copy(place_of(folder), _is_read))


def _is_read(entry: os.DirEntry[str]) -> bool:
    return not (_MESSAGES.fullmatch(entry.name) or _CALCULATION.fullmatch(entry.name))


def _plain(calculation: str) -> str:
    for state in _STATES:
        calculation = calculation.removeprefix(state)
    return calculation
