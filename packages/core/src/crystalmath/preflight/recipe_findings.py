"""Findings about the troubles of a recipe's calculations that are not their files'."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING

from crystalmath.errors import one_line
from crystalmath.models import Finding
from crystalmath.plugins.checked_job import FileKind, brief, said
from crystalmath.preflight.programs_here import guarded, program_named, program_of
from crystalmath.recipes.lookup import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.plugins.checked_job import CheckedJob
    from crystalmath.plugins.program import Program
    from crystalmath.plugins.report import Trouble

#: The symbol of a ghost atom.
GHOST = "X"
_NO_TEXT = re.compile(r"\s*([\[{(]|[-+]?\.?[0-9]|(true|false|none|null)\s*$)", re.IGNORECASE)
_NO_PRESET = re.compile(r"Cannot find (.+)", re.DOTALL)


def recipe_findings(job: CheckedJob) -> Iterator[Finding]:
    """Yield findings about the structure, the input, and the recipe's own code."""
    troubles: dict[Trouble, list[int]] = {}
    for number, step in enumerate(job.report.steps):
        for trouble in step.troubles:
            steps = troubles.setdefault(trouble, [])
            steps += [number] * (number not in steps)
    explained = list(defects(job, troubles))
    yield from explained
    for trouble, steps in troubles.items():
        if not (explained and trouble.type in MUTE and trouble.where != "parse"):
            step = job.report.steps[steps[0]]
            program = program_named(step.calculator)
            yield from guarded(program, _trouble, job, program, trouble, steps)
    yield from _end(job, explained=bool(explained))


#: The exceptions of Python and numpy for a value of a wrong kind.
_PYTHONS = frozenset(("AttributeError", "IndexError", "KeyError", "TypeError", "UFuncTypeError"))


def _trouble(
    job: CheckedJob, program: Program, trouble: Trouble, steps: list[int]
) -> Iterator[Finding]:
    worded = [
        (number, finding)
        for number in steps
        if (finding := program.words(trouble, job.report.steps[number], job)) is not None
    ]
    if worded:
        code, words = worded[0][1]
        steps = [number for number, _ in worded]
        yield Finding(
            severity=job.severity(steps),
            code=code,
            message=f"{words}: {said(trouble)}{job.where(steps)}",
            remedy=_text_instead(job),
        )


def _text_instead(job: CheckedJob) -> str | None:
    """Return a remedy that names the texts which look like values of another kind."""
    texts = [
        f"{one_line(name)} = {said(value)!r}"
        for name, value in job.parameters.items()
        if isinstance(value, str) and _NO_TEXT.match(value)
    ]
    if not texts:
        return None
    return f"these are texts, and a list, a mapping or a number may be meant: {brief(texts)}"


def _check_parameters(trouble: Trouble, job: CheckedJob) -> str | None:
    """Return a remedy that names the parameters, if the error is one of Python's own."""
    if trouble.type not in _PYTHONS or not job.parameters or not job.ours:
        return None
    name = job.recipe.removeprefix(f"{NAMESPACE}.")
    return (
        f"check the parameters {brief(job.parameters)}; crystalmath recipes {one_line(name)} shows "
        "their kinds"
    )


def _end(job: CheckedJob, *, explained: bool) -> Iterator[Finding]:
    trouble, seen = job.report.trouble, len(job.report.steps)
    if job.report.survives:
        yield Finding(
            severity="warning",
            code="recipe_goes_on",
            message=f"the first calculation of {one_line(job.recipe)} cannot begin; the recipe "
            "catches that, and goes on without it",
        )
    if job.report.end == "failed" and trouble is not None:
        if not (explained and trouble.type in MUTE):
            when = f"after step {seen}" if seen else "before its first calculation"
            yield Finding(
                # A user's own recipe may need the node: a scheduler's variables, a GPU.
                severity="error" if job.ours else "warning",
                code="recipe_fails",
                message=f"{one_line(job.recipe)} fails {when}: {said(trouble)}",
                remedy=_preset_instead(trouble)
                or _text_instead(job)
                or _check_parameters(trouble, job),
            )
    elif job.report.end == "stopped":
        why, then = "no result is known yet", "depends on results"
        if trouble is not None and trouble.type == "Unknown":
            # These are the gate's own words, without an exception's class.
            why = said(trouble.message)
        elif trouble is not None:
            why, then = said(trouble), "was not reached"
        if seen:
            steps = "step 1" if seen == 1 else f"steps 1 to {seen}"
            yield Finding(
                severity="warning",
                code="recipe_partly_checked",
                message=f"only {steps} of {one_line(job.recipe)} could be checked; the rest "
                f"{then}: {why}",
            )
        else:
            yield Finding(
                severity="warning",
                code="recipe_unchecked",
                message=f"{one_line(job.recipe)} could not be checked: {why}",
            )


def _preset_instead(trouble: Trouble) -> str | None:
    """Return a remedy for a missing preset, with the nearest one that is there."""
    missing = _NO_PRESET.fullmatch(trouble.message)
    if trouble.type != "FileNotFoundError" or missing is None:
        return None
    folder, name = os.path.split(missing[1])
    if not name.endswith((".yaml", ".yml")):  # quacc adds it to a preset's name
        return 'set setups to a table of suffixes, {"Cu": "_pv"}, or to the path of a file'
    try:
        there = [
            file.removesuffix(".yaml")
            for file in os.listdir(folder or ".")
            if file.endswith(".yaml")
        ]
    except (OSError, ValueError):
        there = []
    near = difflib.get_close_matches(name.removesuffix(".yaml"), there, n=1)
    words = f"; did you mean {one_line(near[0])!r}?" if near else ""
    listed = sorted(file for file in there if file[:1] not in "._")
    words += f"; there are {brief(listed, 20)}" if listed else ""
    return f"correct the parameter preset or setups, which names that file{words}"


_DIMENSIONS = 3
#: Exceptions of code that expects atoms, a cell or elements. Their messages do not name the cause,
#: so a finding about the structure replaces them.
MUTE = {
    "AttributeError",
    "CalculatorSetupError",
    "IndexError",
    "LinAlgError",
    "ZeroDivisionError",
}


def defects(job: CheckedJob, troubles: Mapping[Trouble, Sequence[int]]) -> Iterator[Finding]:
    """Yield findings about defects of the structure that explain a calculation's failure."""
    died = {each: list(steps) for each, steps in troubles.items() if each.where != "parse"}
    if job.report.end == "failed" and job.report.trouble is not None:
        died.setdefault(job.report.trouble, []).append(len(job.report.steps))
    mute = [each for each in died if each.type in MUTE]
    refused = any(each.where == "structure" for each in died)
    ghosts = [wanted for wanted in job.files if wanted.symbols == (GHOST,)]
    steps = [number for each in died for number in died[each]]
    steps += [number for wanted in ghosts for number in wanted.steps]
    lost = bool(mute or refused or any(wanted.facts.problem for wanted in ghosts))
    signs = [said(each) for each in mute if each.where != "structure"]
    seen = f" (seen as {brief(signs)})" if signs else ""
    if job.atoms is None or not lost:
        return
    for code, message, remedy in _wrong(job.atoms, _kind(job), periodic=refused):
        yield Finding(
            severity=job.severity(steps), code=code, message=message + seen, remedy=remedy
        )


def _kind(job: CheckedJob) -> FileKind:
    """Return the words of the job's program."""
    seen = [step.calculator for step in job.report.steps if step.calculator in job.kinds]
    if seen:
        return job.kinds[seen[0]]
    program = program_of(job.recipe)
    return program.files if program else FileKind()


def _wrong(atoms: Atoms, kind: FileKind, *, periodic: bool) -> Iterator[tuple[str, str, str]]:
    symbols = atoms.get_chemical_symbols()
    if GHOST in symbols:
        yield (
            f"{kind.code}_ghost_atom",
            (
                f"there is no {kind.noun} for ghost atoms X ({symbols.count(GHOST)} of "
                f"{len(symbols)} atoms, the first at index {symbols.index(GHOST)})"
            ),
            "remove the ghost atoms, or replace X with their elements",
        )
    if not symbols:
        yield "structure_empty", "the structure has no atoms", "submit a structure with atoms"
    if atoms.cell.rank < _DIMENSIONS:
        yield (
            "structure_no_cell",
            f"the structure has no three-dimensional cell: {said(atoms.cell)}",
            "set three lattice vectors, with vacuum around a molecule",
        )
    if periodic and not atoms.pbc.all():
        yield (
            "structure_not_periodic",
            (
                f"{kind.title} needs a structure that is periodic in all directions: pbc is "
                f"{atoms.pbc.tolist()}"
            ),
            "set pbc to true in all directions, with vacuum in those that do not repeat",
        )
