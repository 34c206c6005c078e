"""The input of a job's programs: as it was written, as its recipe asks for it, and who set what."""

from __future__ import annotations

import contextlib
import re
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import evolve

from crystalmath.errors import InvalidJob
from crystalmath.jobs.potcars import INSTEAD, is_potcar, titles
from crystalmath.jobs.workfiles import as_stored, read_part
from crystalmath.jobs.worktree import files_below, scratch_folders
from crystalmath.models.inputs import FOLDER, Inputs, Setting
from crystalmath.plugins.checked_job import said

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.models.inputs import StepInputs
    from crystalmath.plugins.program import Program
    from crystalmath.plugins.report import Report


def asked_inputs(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str | None = None,
    *,
    here: bool = True,
) -> Inputs:
    """Ask a recipe what its programs would get, whatever program it runs.

    If the job does not run on this machine (`here`), what depends on its cores is not certain. If
    the recipe cannot be asked there is no step, and `rest` says why.
    """
    from crystalmath.preflight import inspector

    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document, inputs=True)
    except inspector.CannotAsk as error:
        return Inputs(rest=said(str(error)))
    called = {number: call.name for call in report.calls for number in range(*call.steps)}
    steps = tuple(
        evolve(
            step.inputs if here else _elsewhere(step.inputs, step.of_cores), step=called.get(number)
        )
        for number, step in enumerate(report.steps)
        if step.inputs is not None
    )
    return Inputs(steps=steps, rest="; ".join(_rest(report)) or None)


def _elsewhere(inputs: StepInputs, of_cores: Collection[tuple[str, str]]) -> StepInputs:
    """Mark what another machine decides, with a value of its own or with none."""
    if not of_cores:
        return inputs
    there = {(each.file, each.name) for each in inputs.settings}
    settings = [
        evolve(each, certain=each.certain and (each.file, each.name) not in of_cores)
        for each in inputs.settings
    ]
    settings += [
        Setting(file=file, name=name, value=None, origin="quacc", certain=False)
        for file, name in of_cores
        if (file, name) not in there
    ]
    return evolve(inputs, settings=tuple(settings), certain=False)


def _rest(report: Report) -> Iterator[str]:
    for number, step in enumerate(report.steps, 1):
        if step.inputs is None:
            why = ", ".join(said(str(each)) for each in step.troubles)
            yield f"the input of step {number} cannot be written" + (f": {why}" if why else "")
    if report.end != "done" and report.trouble is not None:
        trouble = report.trouble
        why = trouble.message if trouble.type == "Unknown" else str(trouble)
        which = "further steps are" if report.steps else "its steps are"
        yield f"{which} not known: {said(why)}"


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


def written_inputs(works: Sequence[str], programs: Sequence[Program]) -> _Work[Inputs]:
    """Read the input files below attempts' work directories, of each in order of calculations.

    No links are followed but quacc's to its scratch directory. Who has set what is not told; see
    :func:`with_marks`.
    """
    found: list[tuple[Path, Program]] = []
    for work in works:
        found += yield from calculations(work, programs)
    steps: list[StepInputs] = []
    room = MOST_BYTES
    for folder, program in found:
        files = yield from _read(folder, program, room)
        room -= sum(map(len, files.values()))
        if room < 0 or len(steps) == _MOST_STEPS:
            rest = f"there are {len(found)} calculations; the input of these first ones is shown"
            return Inputs(steps=tuple(steps), rest=rest, source="files")
        if files:
            steps.append(_step(program, files))
        yield
    return Inputs(steps=tuple(steps), source="files")


def _step(program: Program, files: dict[str, str]) -> StepInputs:
    # Where it ran is another folder for each job.
    plain = {name: FOLDER.sub(".", text) for name, text in files.items()}
    return evolve(program.written(plain), files=files)


def calculations(work: str, programs: Sequence[Program]) -> _Work[list[tuple[Path, Program]]]:
    """Return the folders in which a program's input lies, in the order of their calculations."""
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
        for path in as_stored(folder, name):
            with contextlib.suppress(InvalidJob):  # broken
                # One more than there is room for: what is too large is seen to be.
                part = yield from read_part(path, 0, most + 1, whole=True)
                files[name] = part.text
                break
    return files


def with_marks(written: Inputs, asked: Inputs) -> Inputs:
    """Return what a job has written, marked with who has set it as its recipe tells it now.

    Presets are as they are now: what has another value there is not marked, unless it is of an
    earlier step's result.
    """
    pairs = zip_longest(written.steps, asked.steps)
    steps = (_marked(step, asked) for step, asked in pairs if step is not None)
    return evolve(written, steps=tuple(steps))


def _marked(step: StepInputs, asked: StepInputs | None) -> StepInputs:
    if asked is None or asked.program != step.program:
        return step
    return evolve(
        step,
        formula=step.formula or asked.formula,
        preset=asked.preset,
        settings=tuple(_settings(step, asked)),
    )


def _settings(step: StepInputs, asked: StepInputs) -> Iterator[Setting]:
    known = {(each.file, each.name): each for each in asked.settings}
    for each in step.settings:
        mark = known.pop((each.file, each.name), None)
        if mark is not None and (mark.value == each.value or not mark.certain):
            yield evolve(each, origin=mark.origin, instead_of=mark.instead_of)
        else:
            yield each
    # What a preset has, and was left out.
    left = (each for each in known.values() if each.value is None and each.certain)
    yield from (each for each in left if each.file in step.files)
