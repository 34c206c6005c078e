"""What a job's programs got: the input files that its calculations have written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from crystalmath.errors import InvalidJob
from crystalmath.jobs.potcars import INSTEAD, is_potcar, titles
from crystalmath.jobs.scratch import scratch_folders
from crystalmath.jobs.workfiles import check_inside, read_part
from crystalmath.jobs.worktree import files_below
from crystalmath.models.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from crystalmath.models.inputs import StepInputs
    from crystalmath.preflight.program import Program

_T = TypeVar("_T")
_Work: TypeAlias = "Generator[None, None, _T]"

#: So much of all files together is told, in bytes.
MOST_BYTES = 8 * 2**20
#: As many as a recipe that is asked tells.
_MOST_STEPS = 50
#: After so many names others may come between.
_STEPS = 1000
#: How quacc names the folder of a calculation: by the time when it began.
_BEGAN = re.compile(r"quacc-(\d{4}(?:-\d+)+)")
#: The path of such a folder, which is another one once the calculation has ended.
_FOLDER = re.compile(r"/[^\s'\"]*/tmp-quacc-[\d-]+")


def written_inputs(work: str, programs: Sequence[Program]) -> _Work[Inputs]:
    """Read the input files below a work directory, calculation by calculation.

    Parameters
    ----------
    work : str
        The work directory of a job's attempt. No links are followed but quacc's to its scratch
        directory.
    programs : sequence of Program
        Whose files are known.

    Returns
    -------
    Inputs
        In the order in which the calculations began; no step where no program has written any.
        Who has set what is not told; see :mod:`.marked_inputs`.
    """
    found = yield from calculations(work, programs)
    steps: list[StepInputs] = []
    room = MOST_BYTES
    for folder, program in found:
        files = yield from _read(folder, program, room)
        room -= sum(map(len, files.values()))
        if room < 0 or len(steps) == _MOST_STEPS:
            told = f"there are {len(found)} calculations; the input of these first ones is shown"
            return Inputs(steps=tuple(steps), rest=told, source="files")
        if files:
            steps.append(_step(program, files))
        yield
    return Inputs(steps=tuple(steps), source="files")


def _step(program: Program, files: dict[str, str]) -> StepInputs:
    from attrs import evolve

    # Where it ran is another folder for each job.
    plain = {name: _FOLDER.sub(".", text) for name, text in files.items()}
    return evolve(program.written(plain), files=files)


def calculations(work: str, programs: Sequence[Program]) -> _Work[list[tuple[Path, Program]]]:
    """Return the folders in which a program's input lies, in the order of their calculations.

    Parameters
    ----------
    work, programs
        As for :func:`written_inputs`.
    """
    owners = {name: program for program in programs for name in program.input_files}
    began: dict[Path, tuple[str, float]] = {}
    whose: dict[Path, Program] = {}
    for root in [work, *scratch_folders(work)]:
        for count, file in enumerate(files_below(root)):
            if count % _STEPS == 0:
                yield
            path = Path(root, file.path)
            program = owners.get(path.name.removesuffix(".gz"))
            if program is None or file.is_link:
                continue
            folder = path.parent
            named = _BEGAN.search(str(folder))
            at = (named[1] if named else "", file.modified_at)
            began[folder] = min(at, began.get(folder, at))
            whose[folder] = program
    return [(folder, whose[folder]) for folder in sorted(began, key=lambda each: began[each])]


def _read(folder: Path, program: Program, most: int) -> _Work[dict[str, str]]:
    files: dict[str, str] = {}
    for name in program.input_files:
        if is_potcar(name):
            if (said := titles(folder)) is not None:
                files[INSTEAD] = "".join(f"{title}\n" for title in said)
            continue
        for path in (folder / name, folder / f"{name}.gz"):
            if not os.path.lexists(path):
                continue
            try:
                # One more than there is room for: what is too large is seen to be.
                part = yield from read_part(check_inside(folder, path), 0, most + 1, whole=True)
            except (InvalidJob, FileNotFoundError):  # a link, a pipe, broken, or gone meanwhile
                continue
            files[name] = part.text
            break
    return files
