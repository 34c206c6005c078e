"""Judge what a recipe was found to need: what refuses a job, and what its owner should know.

A job that would die is refused, with all that is wrong at once and what to do about it. What
cannot be known is a warning. Neither quacc nor pymatgen is imported here.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.errors import one_line
from crystalmath.models import Finding, Pseudopotential
from crystalmath.models.inputs import FlowCheck, StepCheck
from crystalmath.models.job_notes import written_findings
from crystalmath.plugins.checked_job import CheckedJob, brief, files_of, safe, said
from crystalmath.preflight.programs_here import (
    file_kinds,
    guarded,
    program_named,
    program_of,
)
from crystalmath.preflight.recipe_findings import GHOST, recipe_findings
from crystalmath.recipes.lookup import is_quaccs
from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.models.job_notes import FindingDocument
    from crystalmath.plugins.checked_job import Wanted
    from crystalmath.plugins.folders import Folders
    from crystalmath.plugins.program import Program
    from crystalmath.plugins.report import CalledJob, Report


def judge(
    report: Report,
    recipe: str,
    atoms: Atoms | None,
    environment: Mapping[str, str],
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Finding, ...]:
    """Judge a job by what its recipe was found to need.

    Errors, which refuse it, come first, then files of a wrong element, unofficial files last.
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
        *file_findings(job),
        *recipe_findings(job),
        *_programs_own(job),
    ]
    return tuple(sorted(findings, key=_rank))


def judge_calls(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str | None = None,
) -> tuple[FlowCheck | None, Sequence[Finding]]:
    """Judge each job that a flow would call as far as is known, and whether its body fails.

    There is no `FlowCheck` where no job is called.
    """
    from crystalmath.preflight import inspector

    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document, calls=True)
    except inspector.CannotAsk as error:
        return FlowCheck(rest=said(str(error))), ()
    told = judge(report, recipe, atoms, environment, parameters)
    fails = [finding for finding in told if finding.code == "recipe_fails"]
    if not report.calls:
        return None, fails
    steps = tuple(
        StepCheck(
            name=call.name,
            recipe=call.recipe,
            formula=call.formula,
            known=call.known,
            calculations=tuple(number + 1 for number in range(*call.steps)),
            findings=_of_call(call, report, recipe, parameters, environment),
        )
        for call in report.calls
    )
    rest = None if report.awaits is None else f"what follows needs {said(report.awaits)} to end"
    if report.end != "done" and report.trouble is not None and rest is None:
        ends = "the flow fails there" if report.end == "failed" else "what follows is not known"
        rest = f"{ends}: {said(report.trouble)}"
    return FlowCheck(steps=steps, rest=rest), fails


def _of_call(
    call: CalledJob,
    report: Report,
    flow: str,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Sequence[FindingDocument]:
    own = evolve(
        report, steps=report.steps[slice(*call.steps)], end="done", trouble=None, survives=False
    )
    told = [Finding(**each) for each in call.findings]
    told += judge(own, call.recipe or flow, None, environment, parameters)
    if not (call.known or is_quaccs(flow)):  # it may take another course
        told = [replace(each, severity="warning") for each in told]
    return tuple(written_findings(told))


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
    """Identify the files that a job reads, each once, but for those too bad to say whose."""
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
    """Judge a job whose recipe could not be asked, for a reason that names the recipe.

    The finding is what its program makes of that, an error perhaps; the error ``quacc_settings`` if
    quacc does not start with its `settings`, which have quacc's words by their names; else a
    warning.
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
    sources, problems = [], []
    for name, words in settings.items():
        found = None
        with contextlib.suppress(ValueError):  # a file that cannot be read is what it tells
            found = quacc_setting(name, environment)
        if found is None:
            problems.append(f"{name}: {words}" if name else words)
        else:
            value, source = found
            sources.append(source)
            problems.append(f"{source} is {said(repr(value)):.80}: {words}")
    return Finding(
        severity="error",
        code="quacc_settings",
        message=said(f"quacc does not start with its settings: {'; '.join(problems)}"),
        source=sources[0] if sources else None,
        remedy=f"correct {' and '.join(sources) or 'its variables (QUACC_...) or its file'}",
    )


#: Problems for which the folders may be to blame.
_ABSENT = {"missing", "unreadable", "broken_link", "link_loop"}
#: Problems of names at which no file is.
_NO_FILE = {"missing", "compressed", "broken_link", "link_loop", "not_a_file"}
_AGAIN = "copy the file again from where it came"
#: problem -> what is wrong with the file, and what to do
_WORDS = {
    "missing": ("is not there", ""),
    "compressed": ("cannot be read", ""),
    "broken_link": ("is a broken link", "link it to the file"),
    "link_loop": ("is a link that leads back to itself", "link it to the file"),
    "not_a_file": ("is not a file", "put the file in its place"),
    "unreadable": ("cannot be read", "make it readable (chmod u+r)"),
    "empty": ("is empty", _AGAIN),
    "not_text": ("is not a text file", _AGAIN),
    "no_header": ("has no whole header", _AGAIN),
    "truncated": ("is cut off", _AGAIN),
    "several": ("holds more than one dataset", "leave one dataset in it: a job joins the files"),
    "stray_text": ("holds more than a dataset", "remove what does not belong there"),
}


def file_findings(job: CheckedJob) -> Iterator[Finding]:
    """Find what is wrong with the files: a folder once, whatever is wanted from it."""
    # Ghost atoms have a finding of their own.
    files = [wanted for wanted in job.files if wanted.symbols != (GHOST,)]
    for name in dict.fromkeys(wanted.step.calculator for wanted in files):
        program = program_named(name)
        theirs = [wanted for wanted in files if wanted.step.calculator == name]
        yield from guarded(program, lambda: _findings(program, theirs, job))  # noqa: B023 - at once


def _findings(program: Program, files: list[Wanted], job: CheckedJob) -> Iterator[Finding]:
    blamed: dict[tuple[str, str], list[Folders]] = {}
    for wanted in files:
        if wanted.facts.problem:
            around = program.folders(wanted, job)
            trouble = around.trouble() if wanted.facts.problem in _ABSENT else None
            key = ("folder", trouble.path) if trouble else ("file", wanted.path)
            blamed.setdefault(key, []).append(around)
    for (kind, _), group in blamed.items():
        yield _folder(job, group) if kind == "folder" else _file(job, group[0])
    for wanted in files:
        if not wanted.facts.problem:
            yield from _element(program, wanted, job)


def _folder(job: CheckedJob, group: list[Folders]) -> Finding:
    around = group[0]
    trouble = around.trouble()
    assert trouble is not None  # noqa: S101 - it was found before
    steps = sorted({number for each in group for number in each.wanted.steps})
    symbols = dict.fromkeys(symbol for each in group for symbol in each.wanted.symbols if symbol)
    symbols.pop(GHOST, None)
    wanted = f"; wanted for {brief(symbols, 20)}" if symbols else ""
    return Finding(
        severity=job.severity(steps),
        code=f"{around.wanted.kind.code}_{trouble.code}",
        message=f"{trouble.message}{wanted}{job.where(steps)}",
        path=safe(trouble.path) or None,
        source=around.source,
        remedy=trouble.remedy,
    )


def _file(job: CheckedJob, around: Folders) -> Finding:
    wanted = around.wanted
    problem = wanted.facts.problem or ""
    words, remedy = _WORDS.get(problem, (said(problem), _AGAIN))
    detail = f": {said(wanted.facts.detail)}" if wanted.facts.detail else ""
    found = around.instead() if problem in _ABSENT else ""
    trouble = f"the {wanted.kind.noun}{wanted.of} cannot be used"
    if problem in _NO_FILE:
        trouble = f"no {wanted.kind.noun}{wanted.of.replace(' of ', ' for ', 1)}"
    return Finding(
        severity=job.severity(wanted.steps),
        code=f"{wanted.kind.code}_{problem}",
        message=f"{trouble}: {said(wanted.reason)} wants {one_line(wanted.setup)}, "
        f"and {one_line(wanted.path)} (from {around.source}) {words}{detail}{found}"
        f"{job.where(wanted.steps)}",
        path=safe(wanted.path),
        source=around.source,
        remedy=remedy or around.addition(),
    )


def _element(program: Program, wanted: Wanted, job: CheckedJob) -> Iterator[Finding]:
    element = wanted.facts.element
    wrong = [symbol for symbol in wanted.symbols if element not in (None, symbol)]
    if wrong:
        title = f" (TITEL = {said(wanted.facts.titel)})" if wanted.facts.titel else ""
        yield Finding(
            severity="warning",
            code=f"{wanted.kind.code}_element",
            message=f"WRONG ELEMENT: {wanted.kind.title} computes {one_line(element)} where the "
            f"structure has {brief(wrong)}: {one_line(wanted.path)} is a file for "
            f"{one_line(element)}{title}{job.where(wanted.steps)}",
            path=safe(wanted.path),
            source=program.folders(wanted, job).source,
            remedy=program.right_element(wanted, wrong),
        )
