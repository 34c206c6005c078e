"""Judge what a recipe was found to need: what refuses a job, and what its owner should know.

A job that would die is refused, with all that is wrong at once and what to do about it. What
cannot be known is a warning. Neither quacc nor pymatgen is imported here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from crystalmath.models import Finding, Pseudopotential
from crystalmath.preflight import file_findings, recipe_findings
from crystalmath.preflight.checked_job import CheckedJob, files_of, safe, said
from crystalmath.preflight.programs_here import (
    file_kinds,
    guarded,
    program_named,
    program_of,
)
from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

    from crystalmath.preflight.report import Report


def judge(
    report: Report,
    recipe: str,
    atoms: Atoms | None,
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
    job = CheckedJob(
        report=report,
        recipe=recipe,
        atoms=atoms,
        environment=environment,
        parameters=parameters or {},
        kinds=file_kinds(),
    )
    findings = [
        *file_findings.findings(job),
        *recipe_findings.findings(job),
        *_programs_own(job),
    ]
    return tuple(sorted(findings, key=_rank))


def _programs_own(job: CheckedJob) -> Iterator[Finding]:
    for name in dict.fromkeys(step.calculator for step in job.report.steps):
        program = program_named(name)
        yield from guarded(program, lambda: program.findings(job))  # noqa: B023 - at once


def _rank(finding: Finding) -> int:
    """Order findings: what may be wrong with the job itself stands before its files' origin."""
    if finding.severity == "error":
        return 0
    if finding.code.endswith("_element"):
        return 1
    return 3 if finding.code.endswith("_unofficial") else 2


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


def unasked(
    reason: str,
    recipe: str,
    environment: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> Finding:
    """Judge a job whose recipe could not be asked.

    Parameters
    ----------
    reason : str
        Why not, in words that name the recipe.
    recipe : str
        Its full dotted name.
    environment : mapping of str to str
        The environment variables that the job will see.
    settings : mapping of str to str, optional
        What quacc says of its settings where it does not start with them, by their names.

    Returns
    -------
    Finding
        What its program makes of that, an error perhaps; ``quacc_settings``, an error, where quacc
        does not start with its settings; else a warning.
    """
    program = program_of(recipe)
    if program is not None:
        for finding in guarded(
            program, lambda: filter(None, [program.unasked(recipe, environment)])
        ):
            return finding
    if settings:
        return _refused(settings, environment)
    return Finding(
        severity="warning",
        code="recipe_unchecked",
        message=said(reason),
        remedy="the job is submitted all the same; see that its files are there",
    )


def _refused(settings: Mapping[str, str], environment: Mapping[str, str]) -> Finding:
    """Return which settings quacc does not start with; no job of any recipe would."""
    sources, told = [], []
    for name, words in settings.items():
        found = None
        with contextlib.suppress(ValueError):  # a file that cannot be read is what it tells
            found = quacc_setting(name, environment)
        if found is None:
            told.append(f"{name}: {words}" if name else words)
        else:
            value, source = found
            sources.append(source)
            told.append(f"{source} is {said(repr(value)):.80}: {words}")
    return Finding(
        severity="error",
        code="quacc_settings",
        message=said(f"quacc does not start with its settings: {'; '.join(told)}"),
        source=sources[0] if sources else None,
        remedy=f"correct {' and '.join(sources) or 'its variables (QUACC_...) or its file'}",
    )
