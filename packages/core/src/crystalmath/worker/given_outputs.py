"""A stand-in for a program whose calculation is read again: it copies the earlier outputs.

It is started instead of the program's launcher, in the folder of a calculation whose input has just
been written: ``python -P -m crystalmath.worker.given_outputs WORK NAMES PROGRAM...``. ``WORK`` is
the work directory of the earlier job. The stand-in finds the calculation below it with the same
input (the files ``NAMES``, separated by commas) and copies its files. It does not start
``PROGRAM``.
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
#: The suffix of custodian's copies of inputs that it has changed during a calculation.
_ORIGINAL = ".orig"


def main(arguments: list[str]) -> int:
    """Copy the outputs of the earlier calculation; return 1 if none has this input."""
    work, names = arguments[0], arguments[1].split(",")
    inputs = {name: _plain(Path(name).read_bytes()) for name in names if Path(name).is_file()}
    folder = next((each for each in _folders(work) if _had(each, inputs)), None)
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
    return sorted({Path(root, file.path).parent for root in roots for file in files_below(root)})


def _had(folder: Path, inputs: dict[str, bytes]) -> bool:
    return bool(inputs) and all(_input(folder, name) == text for name, text in inputs.items())


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
    # The program's output goes where its caller sends it, mostly to a file in this folder.
    streams = {os.path.basename(os.readlink(f"/proc/self/fd/{each}")): each for each in (1, 2)}
    for file in files_below(str(folder)):
        name = file.path.removesuffix(".gz")
        if name in inputs or file.is_link or is_heavy(file.path):
            continue
        chunks = read_chunks(folder / file.path)
        if name in streams:
            with os.fdopen(os.dup(streams[name]), "wb") as stream:
                stream.writelines(chunks)
            continue
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.writelines(chunks)
        shutil.copystat(folder / file.path, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
