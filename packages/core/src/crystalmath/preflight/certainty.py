"""What of a later step's input is known beforehand: all that no earlier result changes.

A recipe is called again, and its calculations end with another structure, and with other moments or
none. What stays the same whatever they end with is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.models.inputs import StepInputs
    from crystalmath.preflight.report import Report, Step

#: More cores than any machine has.
CORES = 1_000_000

#: What calculations end with on each atom, in µB.
MOMENTS = (0.0, 1.25)
#: How far from where they began, as strain and in Å: meshes of k-points that are made from the cell
#: become others, too.
_STRAIN = 0.3
_STEP = 0.1


def move(atoms: Atoms) -> None:
    """Move atoms in place, as if they had been relaxed."""
    import numpy as np

    constraints, atoms.constraints = atoms.constraints, []
    atoms.set_cell(atoms.cell.array * (1 + _STRAIN), scale_atoms=True)
    numbers = np.arange(3 * len(atoms)).reshape(-1, 3)
    atoms.positions += _STEP * np.sin(1.0 + numbers)
    atoms.constraints = constraints


def with_cores(report: Report, other: Report) -> Report:
    """Note what of the inputs depends on how many cores the machine has.

    Parameters
    ----------
    report, other : Report
        What the recipe said, and what it said of a machine with `CORES`.
    """
    others = [*other.steps, *[None] * len(report.steps)]
    steps = [_of_cores(*pair) for pair in zip(report.steps, others, strict=False)]
    return evolve(report, steps=tuple(steps))


def _of_cores(step: Step, other: Step | None) -> Step:
    if step.inputs is None or other is None or other.inputs is None:
        return step
    ours, theirs = (
        {(each.file, each.name): each.value for each in told.settings}
        for told in (step.inputs, other.inputs)
    )
    places = [place for place in {**ours, **theirs} if ours.get(place) != theirs.get(place)]
    return evolve(step, of_cores=tuple(places))


def with_certainty(report: Report, other: Report) -> Report:
    """Mark what of the inputs is not known beforehand.

    Parameters
    ----------
    report, other : Report
        What the recipe said, and what it said when its calculations ended elsewhere.
    """
    others = [*other.steps, *[None] * len(report.steps)]
    steps = [_compared(*pair) for pair in zip(report.steps, others, strict=False)]
    return evolve(report, steps=tuple(steps))


def _compared(step: Step, other: Step | None) -> Step:
    like = None if other is None or other.calculator != step.calculator else other
    starts = tuple(dict.fromkeys((*step.starts, *(like.starts if like else ()))))
    step = evolve(step, starts=starts)
    if step.inputs is None:
        return step
    return evolve(step, inputs=_marked(step.inputs, None if like is None else like.inputs))


def _marked(inputs: StepInputs, then: StepInputs | None) -> StepInputs:
    known = (
        set() if then is None else {(each.file, each.name, each.value) for each in then.settings}
    )
    settings = tuple(
        evolve(each, certain=each.certain and (each.file, each.name, each.value) in known)
        for each in inputs.settings
    )
    certain = inputs.certain and then is not None and inputs.files == then.files
    return evolve(inputs, settings=settings, certain=certain)
