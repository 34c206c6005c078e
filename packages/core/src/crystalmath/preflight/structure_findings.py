"""Say what of a structure a calculation does not survive, or does not take as it is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models import Finding
from crystalmath.preflight.checked_job import FileKind, brief, said
from crystalmath.preflight.file_findings import GHOST
from crystalmath.preflight.programs_here import program_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.preflight.checked_job import CheckedJob
    from crystalmath.preflight.report import Trouble

_DIMENSIONS = 3
#: What structures without atoms, cell or element make of code that expects them: no message says
#: so, and the cause is named instead.
MUTE = {
    "AttributeError",
    "CalculatorSetupError",
    "IndexError",
    "LinAlgError",
    "ZeroDivisionError",
}


def defects(job: CheckedJob, troubles: Mapping[Trouble, Sequence[int]]) -> Iterator[Finding]:
    """Find what a calculation does not survive in the structure, where one was seen to die."""
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
    """Return the words of the program that the job is about."""
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
                f"there is no {kind.noun} for a ghost atom X ({symbols.count(GHOST)} of "
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
                f"the structure is not periodic in all directions, and {kind.title} knows no "
                f"other: pbc is {atoms.pbc.tolist()}"
            ),
            "set pbc to true in all directions, with vacuum where nothing repeats",
        )
