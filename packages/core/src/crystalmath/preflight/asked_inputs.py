"""What a job's programs get: as its recipe is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.models.inputs import Inputs
from crystalmath.preflight import inspector
from crystalmath.preflight.checked_job import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

    from crystalmath.preflight.report import Report

__all__ = ["asked_inputs"]


def asked_inputs(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str | None = None,
) -> Inputs:
    """Ask a recipe what its programs would get, whatever program it runs.

    Parameters
    ----------
    recipe, atoms, parameters, environment, document
        As for :func:`crystalmath.preflight.inspector.ask`.

    Returns
    -------
    Inputs
        With no step where the recipe cannot be asked; `rest` tells why.
    """
    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document, inputs=True)
    except inspector.CannotAsk as error:
        return Inputs(rest=said(str(error)))
    steps = tuple(step.inputs for step in report.steps if step.inputs is not None)
    return Inputs(steps=steps, rest="; ".join(_rest(report)) or None)


def _rest(report: Report) -> Iterator[str]:
    for number, step in enumerate(report.steps, 1):
        if step.inputs is None:
            why = ", ".join(said(str(each)) for each in step.troubles)
            yield f"the input of step {number} cannot be written" + (f": {why}" if why else "")
    if report.end != "done" and report.trouble is not None:
        told = report.trouble
        why = told.message if told.type == "Unknown" else str(told)
        yield f"further steps are not known: {said(why)}"
