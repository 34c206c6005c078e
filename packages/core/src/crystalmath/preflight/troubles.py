"""Say what keeps a recipe's calculations from beginning, their files apart."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING

from crystalmath.models import Finding
from crystalmath.preflight.case import brief, safe, said
from crystalmath.preflight.missing import GHOST
from crystalmath.preflight.surroundings import Surroundings
from crystalmath.recipes.potcar_path import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.preflight.case import Case
    from crystalmath.preflight.report import Step, Trouble

__all__ = ["findings"]

_DIMENSIONS = 3
#: What structures without atoms, cell or element make of code that expects them: no message says
#: so, and the cause is named instead.
_MUTE = {
    "AttributeError",
    "CalculatorSetupError",
    "IndexError",
    "LinAlgError",
    "ZeroDivisionError",
}
_NO_TEXT = re.compile(r"\s*([\[{(]|[-+]?\.?[0-9]|(true|false|none|null)\s*$)", re.IGNORECASE)
_NO_PRESET = re.compile(r"Cannot find (.+\.ya?ml)", re.DOTALL)
_WORDS = {
    "structure": ("structure_refused", "the structure cannot be computed"),
    "input": ("input_fails", "the input cannot be written"),
    "parse": ("potcar_unparsed", "custodian cannot read the POTCAR that these files make"),
}
#: Files that custodian reads -> the parameters that they are made from, as far as it is worth it.
_MADE_FROM: dict[str, set[str]] = {
    "INCAR": set(),
    "KPOINTS": {"gamma", "kpts", "pmg_kpts", "reciprocal"},
    "POSCAR": set(),
}


def findings(case: Case) -> Iterator[Finding]:
    """Find what is wrong with the structure, the input, and the recipe's own code."""
    troubles: dict[Trouble, list[int]] = {}
    for number, step in enumerate(case.report.steps):
        for trouble in step.troubles:
            if not (trouble.where == "parse" and _explained(case, step)):
                steps = troubles.setdefault(trouble, [])
                steps += [number] * (number not in steps)
    defects = list(_defects(case, troubles))
    yield from defects
    for trouble, steps in troubles.items():
        if not (defects and trouble.type in _MUTE and trouble.where != "parse"):
            yield _trouble(case, trouble, steps)
    yield from _mixed(case)
    yield from _end(case, explained=bool(defects))


def _trouble(case: Case, trouble: Trouble, steps: list[int]) -> Finding:
    code, words = _WORDS.get(trouble.where, ("input_fails", "it cannot begin"))
    if trouble.where in _MADE_FROM:
        words = f"custodian cannot read the {trouble.where} that {_origin(case, trouble)}"
    return Finding(
        severity=case.severity(steps),
        code=code,
        message=f"{words}: {said(trouble)}{case.where(steps)}",
        remedy=_text_instead(case),
    )


def _origin(case: Case, trouble: Trouble) -> str:
    """Name the user's parameters that made a file, or that a message about it names."""
    made = _MADE_FROM[trouble.where] | set(re.findall(r"\w+", trouble.message.lower()))
    given = [
        f"{shown(name)} = {said(repr(value))}"
        for name, value in case.parameters.items()
        if name.lower() in made
    ]
    return f"is made from {brief(given)}" if given else "is written"


def _text_instead(case: Case) -> str | None:
    """Name the parameters that are text and look as if something else was meant."""
    texts = [
        f"{shown(name)} = {said(value)!r}"
        for name, value in case.parameters.items()
        if isinstance(value, str) and _NO_TEXT.match(value)
    ]
    if not texts:
        return None
    return f"text was given where a list, a mapping or a number may be meant: {brief(texts)}"


def _end(case: Case, *, explained: bool) -> Iterator[Finding]:
    trouble, seen = case.report.trouble, len(case.report.steps)
    if case.report.survives:
        yield Finding(
            severity="warning",
            code="recipe_goes_on",
            message=f"the first calculation of {shown(case.recipe)} cannot begin, and the recipe "
            "goes on without it",
        )
    if case.report.end == "failed" and trouble is not None:
        if not (explained and trouble.type in _MUTE):
            when = f"after step {seen}" if seen else "before its first calculation"
            yield Finding(
                # A user's own may need what is only where jobs run: a scheduler's variables, a GPU.
                severity="error" if case.ours else "warning",
                code="recipe_fails",
                message=f"{shown(case.recipe)} fails {when}: {said(trouble)}",
                remedy=_preset_instead(trouble) or _text_instead(case),
            )
    elif case.report.end == "stopped":
        why, then = "its results are not known yet", "depends on results"
        if trouble is not None and trouble.type == "Unknown":
            # The gate's own words need no name of a class.
            why = said(trouble.message)
        elif trouble is not None:
            why, then = said(trouble), "was not seen"
        if seen:
            steps = "step 1" if seen == 1 else f"steps 1 to {seen}"
            yield Finding(
                severity="warning",
                code="recipe_partly_checked",
                message=f"only {steps} of {shown(case.recipe)} could be checked; what follows "
                f"{then}: {why}",
            )
        else:
            yield Finding(
                severity="warning",
                code="recipe_unchecked",
                message=f"{shown(case.recipe)} could not be checked: {why}",
            )


def _preset_instead(trouble: Trouble) -> str | None:
    """Name the preset that may be meant by one that is not there."""
    missing = _NO_PRESET.fullmatch(trouble.message)
    if trouble.type != "FileNotFoundError" or missing is None:
        return None
    folder, name = os.path.split(missing[1])
    try:
        there = [file.removesuffix(".yaml") for file in os.listdir(folder or ".")]
    except (OSError, ValueError):
        there = []
    near = difflib.get_close_matches(name.removesuffix(".yaml"), there, n=1)
    words = f"; did you mean {shown(near[0])!r}?" if near else ""
    return f"correct the parameter preset or setups, which names that file{words}"


def _explained(case: Case, step: Step) -> bool:
    """Whether its files' own findings say why custodian cannot read them."""
    files = [case.report.files.get(need.path) for need in step.needs]
    return any(facts and facts.problem for facts in files) or len(_functionals(case, step)) > 1


def _functionals(case: Case, step: Step) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for need in step.needs:
        facts = case.report.files.get(need.path)
        if facts and facts.lexch:
            found.setdefault(facts.lexch, []).append(need.setup)
    return found


def _mixed(case: Case) -> Iterator[Finding]:
    """Find datasets that were made with different functionals."""
    mixed: dict[str, tuple[Step, list[int], bool]] = {}
    for number, step in enumerate(case.report.steps):
        functionals = _functionals(case, step) if step.calculator == "vasp" else {}
        if len(functionals) > 1:
            words = "; ".join(f"{shown(name)}: {brief(of)}" for name, of in functionals.items())
            refused = any(trouble.where == "parse" for trouble in step.troubles)
            first = mixed.setdefault(words, (step, [], refused))
            first[1].append(number)
    for words, (step, steps, refused) in mixed.items():
        of = next(wanted for wanted in case.files if wanted.path == step.needs[0].path)
        around = Surroundings(of, case)
        yield Finding(
            severity=case.severity(steps) if refused else "warning",
            code="potcar_mixed",
            message=f"the POTCARs are of different functionals (LEXCH {words})"
            f"{', which custodian refuses' if refused else ''}{case.where(steps)}",
            path=safe(around.library),
            source=around.source,
            remedy="take all datasets from one family, with the parameters setups and pp",
        )


def _defects(case: Case, troubles: Mapping[Trouble, Sequence[int]]) -> Iterator[Finding]:
    """Find what a calculation does not survive in the structure, where one was seen to die."""
    died = {each: list(steps) for each, steps in troubles.items() if each.where != "parse"}
    if case.report.end == "failed" and case.report.trouble is not None:
        died.setdefault(case.report.trouble, []).append(len(case.report.steps))
    mute = [each for each in died if each.type in _MUTE]
    refused = any(each.where == "structure" for each in died)
    ghosts = [wanted for wanted in case.files if wanted.symbols == (GHOST,)]
    steps = [number for each in died for number in died[each]]
    steps += [number for wanted in ghosts for number in wanted.steps]
    lost = bool(mute or refused or any(wanted.facts.problem for wanted in ghosts))
    signs = [said(each) for each in mute if each.where != "structure"]
    seen = f" (seen as {brief(signs)})" if signs else ""
    for code, message, remedy in _wrong(case.atoms, periodic=refused) if lost else ():
        yield Finding(
            severity=case.severity(steps), code=code, message=message + seen, remedy=remedy
        )


def _wrong(atoms: Atoms, *, periodic: bool) -> Iterator[tuple[str, str, str]]:
    symbols = atoms.get_chemical_symbols()
    if GHOST in symbols:
        yield (
            "potcar_ghost_atom",
            (
                f"there is no pseudopotential for a ghost atom X ({symbols.count(GHOST)} of "
                f"{len(symbols)} atoms, the first at index {symbols.index(GHOST)})"
            ),
            "remove ghost atoms, or give them their elements",
        )
    if not symbols:
        yield "structure_empty", "the structure has no atoms", "give it some"
    if atoms.cell.rank < _DIMENSIONS:
        yield (
            "structure_no_cell",
            f"the structure has no cell in three dimensions: {said(atoms.cell)}",
            "give it three lattice vectors, for a molecule with vacuum around it",
        )
    if periodic and not atoms.pbc.all():
        yield (
            "structure_not_periodic",
            (
                "the structure is not periodic in all directions, and VASP knows no other: "
                f"pbc is {atoms.pbc.tolist()}"
            ),
            "set pbc to true in all directions, with vacuum where nothing repeats",
        )
