"""The input of a job's programs, before it runs and afterwards, with the origin of each setting."""

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
    """Return the input of a recipe's programs, before the job runs.

    If the job runs on another machine (not `here`), settings that depend on the number of cores are
    not certain. If the recipe cannot be asked, there is no step, and `rest` has the reason.
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
    """Mark the settings that depend on the machine's cores, and add those that are not set here."""
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

#: An answer has at most so many bytes of files.
MOST_BYTES = 8 * 2**20
#: An answer has at most so many steps, as a report has (`crystalmath.preflight.gate.MAX_STEPS`).
_MOST_STEPS = 50
#: The generators pause after so many names, so that other requests may run.
_STEPS = 1000
#: quacc names the folder of a calculation by the time of its beginning.
_BEGAN = re.compile(r"quacc-(\d{4}(?:-\d+)+)")


def written_inputs(works: Sequence[str], programs: Sequence[Program]) -> _Work[Inputs]:
    """Return the input files below attempts' work directories, in the order of calculations.

    Only quacc's own link to its scratch directory is followed. The settings have no origins yet;
    :func:`with_marks` adds them.
    """
    folders: list[tuple[Path, Program]] = []
    for work in works:
        folders += yield from calculations(work, programs)
    steps: list[StepInputs] = []
    room = MOST_BYTES
    for folder, program in folders:
        files = yield from _read(folder, program, room)
        room -= sum(map(len, files.values()))
        if room < 0 or len(steps) == _MOST_STEPS:
            rest = f"there are {len(folders)} calculations; only the first {len(steps)} are shown"
            return Inputs(steps=tuple(steps), rest=rest, source="files")
        if files:
            steps.append(_step(program, files))
        yield
    return Inputs(steps=tuple(steps), source="files")


def _step(program: Program, files: dict[str, str]) -> StepInputs:
    # The folder of the calculation differs from job to job.
    plain = {name: FOLDER.sub(".", text) for name, text in files.items()}
    return evolve(program.written(plain), files=files)


def calculations(work: str, programs: Sequence[Program]) -> _Work[list[tuple[Path, Program]]]:
    """Return the folders that hold a program's input, in the order of their calculations."""
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
            if (lines := titles(folder)) is not None:
                files[INSTEAD] = "".join(f"{title}\n" for title in lines)
            continue
        for path in as_stored(folder, name):
            with contextlib.suppress(InvalidJob):  # the file is damaged
                # One byte more than the room shows that a file is too large.
                part = yield from read_part(path, 0, most + 1, whole=True)
                files[name] = part.text
                break
    return files


def with_marks(written: Inputs, expected: Inputs) -> Inputs:
    """Return a job's written input with the origins in its recipe's input of today.

    Presets may have changed since: a setting whose value differs gets no origin, unless it depends
    on an earlier step's result.
    """
    pairs = zip_longest(written.steps, expected.steps)
    steps = (_marked(step, other) for step, other in pairs if step is not None)
    return evolve(written, steps=tuple(steps))


def _marked(step: StepInputs, expected: StepInputs | None) -> StepInputs:
    if expected is None or expected.program != step.program:
        return step
    return evolve(
        step,
        formula=step.formula or expected.formula,
        preset=expected.preset,
        settings=tuple(_settings(step, expected)),
    )


def _settings(step: StepInputs, expected: StepInputs) -> Iterator[Setting]:
    known = {(each.file, each.name): each for each in expected.settings}
    for each in step.settings:
        mark = known.pop((each.file, each.name), None)
        if mark is not None and (mark.value == each.value or not mark.certain):
            yield evolve(each, origin=mark.origin, instead_of=mark.instead_of)
        else:
            yield each
    # Settings of a preset that the input leaves out.
    left = (each for each in known.values() if each.value is None and each.certain)
    yield from (each for each in left if each.file in step.files)
