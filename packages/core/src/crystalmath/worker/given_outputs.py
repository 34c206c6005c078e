"""A stand-in for a program whose calculation is read again: it returns the earlier outputs.

It is started in the place of the program's launcher, in the folder of a calculation whose input has
just been written: ``python -P -m crystalmath.worker.given_outputs WORK NAMES PROGRAM...``. ``WORK``
is the work directory of the earlier job. Of the calculations below it, the one with the same input
(the files ``NAMES``, with commas between them) is taken, and its files are copied. ``PROGRAM`` is
not started.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from crystalmath.jobs.potcars import INSTEAD
from crystalmath.jobs.removal import is_heavy
from crystalmath.jobs.workfiles import read_chunks
from crystalmath.jobs.worktree import files_below, scratch_folders
from crystalmath.models.inputs import FOLDER

#: The path of a running calculation, as it may stand in its input.
_FOLDER = re.compile(FOLDER.pattern.encode())
#: How custodian keeps what it has changed in the course of a calculation.
_ORIGINAL = ".orig"


def main(arguments: list[str]) -> int:
    """Return the outputs of the earlier calculation; 1 if there is none with this input."""
    work, names = arguments[0], arguments[1].split(",")
    given = {name: _plain(Path(name).read_bytes()) for name in names if Path(name).is_file()}
    folder = next((each for each in _folders(work) if _had(each, given)), None)
    if folder is None:
        sys.stderr.write(
            # Reports of a failure show the beginning of a line.
            "crystalmath: no earlier calculation had this input, and none is started; "
            f"crystalmath retry runs the job again ({work} has none with that of {Path.cwd()})\n"
        )
        return 1
    _copy(folder, {*names, INSTEAD})
    return 0


def _folders(work: str) -> list[Path]:
    """Return all folders with files below a work directory."""
    roots = [work, *scratch_folders(work)]
    found = {Path(root, file.path).parent for root in roots for file in files_below(root)}
    return sorted(found)


def _had(folder: Path, given: dict[str, bytes]) -> bool:
    return bool(given) and all(_input(folder, name) == text for name, text in given.items())


def _input(folder: Path, name: str) -> bytes | None:
    """Read an input file as it was when the program started."""
    for each in (f"{name}{_ORIGINAL}", name):
        for path in (folder / each, folder / f"{each}.gz"):
            if path.is_file():
                return _plain(b"".join(read_chunks(path)))
    return None


def _plain(text: bytes) -> bytes:
    return _FOLDER.sub(b".", text)


def _copy(folder: Path, inputs: set[str]) -> None:
    # What the program says goes where its caller wants it, which is a file in this folder mostly.
    speaking = {os.path.basename(os.readlink(f"/proc/self/fd/{each}")): each for each in (1, 2)}
    for file in files_below(str(folder)):
        name = file.path.removesuffix(".gz")
        if name in inputs or file.is_link or is_heavy(file.path):
            continue
        chunks = read_chunks(folder / file.path)
        if name in speaking:
            with os.fdopen(os.dup(speaking[name]), "wb") as stream:
                stream.writelines(chunks)
            continue
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.writelines(chunks)
        shutil.copystat(folder / file.path, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
