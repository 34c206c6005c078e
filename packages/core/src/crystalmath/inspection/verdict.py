"""Judge what a recipe was found to need: what refuses a job, and what its owner should know.

A job that would die is refused, with all that is wrong at once and what to do about it. What
cannot be known is a warning. Neither quacc nor pymatgen is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.inspection import doubts, missing, troubles
from crystalmath.inspection.case import Case, safe, said
from crystalmath.models import Finding, Pseudopotential
from crystalmath.quacc.potcar_path import VARIABLE, fresh_process, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

    from crystalmath.inspection.report import Report

__all__ = ["Verdict", "judge", "unasked"]


@frozen
class Verdict:
    """What is said about a job before it is submitted.

    Parameters
    ----------
    findings : tuple of Finding
        Errors refuse the job.
    pseudopotentials : tuple of Pseudopotential
        The files that the job reads, each once.
    """

    findings: tuple[Finding, ...] = ()
    pseudopotentials: tuple[Pseudopotential, ...] = ()


def judge(report: Report, recipe: str, atoms: Atoms, environment: Mapping[str, str]) -> Verdict:
    """Judge a job by what its recipe was found to need.

    Parameters
    ----------
    report : Report
        What asking the recipe brought.
    recipe : str
        Its full dotted name.
    atoms : ase.Atoms
        The structure.
    environment : mapping of str to str
        The environment variables that the job will see.

    Returns
    -------
    Verdict
        Findings with errors first.
    """
    case = Case(report=report, recipe=recipe, atoms=atoms, environment=environment)
    findings = [*missing.findings(case), *troubles.findings(case), *doubts.findings(case)]
    findings.sort(key=lambda finding: finding.severity != "error")
    return Verdict(tuple(findings), tuple(_pseudopotentials(case)))


def unasked(reason: str, recipe: str, environment: Mapping[str, str]) -> Finding:
    """Judge a job whose recipe could not be asked.

    Parameters
    ----------
    reason : str
        Why not.
    recipe : str
        Its full dotted name.
    environment : mapping of str to str
        The environment variables that the job will see.

    Returns
    -------
    Finding
        An error where quacc's or ASE's settings cannot be used, which keeps VASP jobs from
        starting; else a warning.
    """
    trouble = fresh_process(environment).trouble
    if trouble is not None and recipe.startswith("quacc.recipes.vasp."):
        return Finding(
            severity="error",
            code="potcar_settings",
            message=f"{trouble}; the job would not start",
            source=fresh_process(environment).source,
            remedy=f"mend it: {VARIABLE} there must name the folder that holds potpaw_PBE.64",
        )
    return Finding(
        severity="warning",
        code="recipe_unchecked",
        message=f"{shown(recipe)} could not be asked which files it reads: {said(reason)}",
        remedy="the job is submitted all the same; see that its pseudopotentials are there",
    )


def _pseudopotentials(case: Case) -> Iterator[Pseudopotential]:
    for wanted in case.files:
        if wanted.facts.sha256 is not None:
            yield Pseudopotential(
                symbol=wanted.symbols[0],
                setup=safe(wanted.setup),
                path=safe(wanted.path),
                sha256=wanted.facts.sha256,
                titel=wanted.facts.titel,
                lexch=wanted.facts.lexch,
                zval=wanted.facts.zval,
            )
