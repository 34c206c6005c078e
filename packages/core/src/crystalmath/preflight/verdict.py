"""Judge what a recipe was found to need: what refuses a job, and what its owner should know.

A job that would die is refused, with all that is wrong at once and what to do about it. What
cannot be known is a warning. Neither quacc nor pymatgen is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.models import Finding, Pseudopotential
from crystalmath.preflight import doubts, missing, troubles
from crystalmath.preflight.case import Case, files_of, safe, said
from crystalmath.recipes.potcar_path import VARIABLE, fresh_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from crystalmath.preflight.report import Report

__all__ = ["judge", "pseudopotentials", "unasked"]


def judge(
    report: Report,
    recipe: str,
    atoms: Atoms,
    environment: Mapping[str, str],
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Finding, ...]:
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
    parameters : mapping of str to object, optional
        The recipe's parameters.

    Returns
    -------
    tuple of Finding
        Errors, which refuse the job, first; then files of a wrong element. Files that are merely
        not official come last.
    """
    case = Case(
        report=report,
        recipe=recipe,
        atoms=atoms,
        environment=environment,
        parameters=parameters or {},
    )
    findings = [*missing.findings(case), *troubles.findings(case), *doubts.findings(case)]
    return tuple(sorted(findings, key=_rank))


def _rank(finding: Finding) -> int:
    """Order findings: what may be wrong with the job itself stands before its files' origin."""
    if finding.severity == "error":
        return 0
    return {"potcar_element": 1, "upf_element": 1, "potcar_unofficial": 3}.get(finding.code, 2)


def pseudopotentials(report: Report) -> tuple[Pseudopotential, ...]:
    """Identify the files that a job reads, each once.

    Parameters
    ----------
    report : Report
        What asking the recipe brought.

    Returns
    -------
    tuple of Pseudopotential
        Without those that are so bad that they do not even say what they are for.
    """
    return tuple(
        Pseudopotential(
            symbol=wanted.symbols[0],
            setup=safe(wanted.setup),
            path=safe(wanted.path),
            sha256=wanted.facts.sha256,
            titel=wanted.facts.titel,
            lexch=wanted.facts.lexch,
            zval=wanted.facts.zval,
        )
        for wanted in files_of(report)
        if wanted.facts.sha256 and (wanted.facts.element or not wanted.facts.problem)
    )


def unasked(reason: str, recipe: str, environment: Mapping[str, str]) -> Finding:
    """Judge a job whose recipe could not be asked.

    Parameters
    ----------
    reason : str
        Why not, in words that name the recipe.
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
        message=said(reason),
        remedy="the job is submitted all the same; see that its pseudopotentials are there",
    )
