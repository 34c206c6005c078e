"""Marks in the input files of a job who has set what stands in them, as its recipe is asked."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.models.inputs import Inputs, Setting, StepInputs


def with_marks(written: Inputs, asked: Inputs) -> Inputs:
    """Return what a job has written with who has set it.

    Parameters
    ----------
    written : Inputs
        Read from the files of its calculations.
    asked : Inputs
        What its recipe tells, with what is on record of the job. Presets are as they are now: what
        has another value there is not marked, unless it is of an earlier step's result.
    """
    pairs = zip_longest(written.steps, asked.steps)
    steps = (_marked(step, told) for step, told in pairs if step is not None)
    return evolve(written, steps=tuple(steps))


def _marked(step: StepInputs, told: StepInputs | None) -> StepInputs:
    if told is None or told.program != step.program:
        return step
    return evolve(
        step,
        formula=step.formula or told.formula,
        preset=told.preset,
        settings=tuple(_settings(step, told)),
    )


def _settings(step: StepInputs, told: StepInputs) -> Iterator[Setting]:
    known = {(each.file, each.name): each for each in told.settings}
    for each in step.settings:
        mark = known.pop((each.file, each.name), None)
        if mark is not None and (mark.value == each.value or not mark.certain):
            yield evolve(each, origin=mark.origin, instead_of=mark.instead_of)
        else:
            yield each
    # What a preset has, and was left out.
    left = (each for each in known.values() if each.value is None and each.certain)
    yield from (each for each in left if each.file in step.files)
