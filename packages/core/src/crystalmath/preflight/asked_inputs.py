"""What a job's programs get: as its recipe is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.models.inputs import Inputs, Setting
from crystalmath.preflight import inspector
from crystalmath.preflight.checked_job import said

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ase import Atoms

    from crystalmath.models.inputs import StepInputs
    from crystalmath.preflight.report import Report


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

    Parameters
    ----------
    recipe, atoms, parameters, environment, document
        As for :func:`crystalmath.preflight.inspector.ask`.
    here : bool
        Whether the job runs on this machine. What depends on its cores is not certain else.

    Returns
    -------
    Inputs
        With no step where the recipe cannot be asked; `rest` tells why.
    """
    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document, inputs=True)
    except inspector.CannotAsk as error:
        return Inputs(rest=said(str(error)))
    steps = tuple(
        step.inputs if here else _elsewhere(step.inputs, step.of_cores)
        for step in report.steps
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
        told = report.trouble
        why = told.message if told.type == "Unknown" else str(told)
        yield f"further steps are not known: {said(why)}"
