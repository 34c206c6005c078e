"""Turn the report on a recipe into findings: errors refuse the job, warnings inform its owner.

A job that would fail is refused with all its errors at once, each with a remedy. Uncertain problems
are warnings. Neither quacc nor pymatgen is imported here.
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
    from crystalmath.plugins.folders import Folders, FolderTrouble
    from crystalmath.plugins.program import Program
    from crystalmath.plugins.report import CalledJob, Report


def judge(
    report: Report,
    recipe: str,
    atoms: Atoms | None,
    environment: Mapping[str, str],
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Finding, ...]:
    """Return the findings about a job from the report on its recipe.

    Errors, which refuse it, come first, then files of a wrong element; unofficial files come last.
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
    """Judge each job that a flow would call, as far as they are known.

    Return the checks, ``None`` if no job is called, and the findings that the flow's body fails.
    """
    from crystalmath.preflight import inspector

    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document, calls=True)
    except inspector.CannotAsk as error:
        return FlowCheck(rest=said(str(error))), ()
    findings = judge(report, recipe, atoms, environment, parameters)
    fails = [finding for finding in findings if finding.code == "recipe_fails"]
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
    rest = None if report.awaits is None else f"further jobs need {said(report.awaits)} to end"
    if report.end != "done" and report.trouble is not None and rest is None:
        ends = "the flow fails there" if report.end == "failed" else "further jobs are not known"
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
    findings = [Finding(**each) for each in call.findings]
    findings += judge(own, call.recipe or flow, None, environment, parameters)
    if not (call.known or is_quaccs(flow)):  # the flow may take another course
        findings = [replace(each, severity="warning") for each in findings]
    return tuple(written_findings(findings))


def _programs_own(job: CheckedJob) -> Iterator[Finding]:
    for name in dict.fromkeys(step.calculator for step in job.report.steps):
        program = program_named(name)
        yield from guarded(program, program.findings, job)


def _rank(finding: Finding) -> int:
    """Return the rank of a finding: errors, then wrong elements; unofficial files come last."""
    if finding.severity == "error":
        return 0
    if finding.code.endswith("_element"):
        return 1
    return 3 if finding.code.endswith("_unofficial") else 2


def pseudopotentials(report: Report) -> tuple[Pseudopotential, ...]:
    """Return the files that a job reads, each once, unless a damaged one names no element."""
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
    """Return the finding about a job whose recipe could not be asked.

    Its program's own finding comes first, which may be an error. If quacc does not start with its
    `settings` (quacc's words by their names), it is the error ``quacc_settings``. Else it is a
    warning with the `reason`, which names the recipe.
    """
    program = program_of(recipe)
    own = [] if program is None else guarded(program, _unasked, program, recipe, environment)
    if own:
        return own[0]
    if settings:
        return _refused(settings, environment)
    return Finding(
        severity="warning",
        code="recipe_unchecked",
        message=said(reason),
        remedy="the job is submitted unchecked: make sure that the files it reads are there",
    )


def _unasked(program: Program, recipe: str, environment: Mapping[str, str]) -> list[Finding]:
    finding = program.unasked(recipe, environment)
    return [] if finding is None else [finding]


def _refused(settings: Mapping[str, str], environment: Mapping[str, str]) -> Finding:
    """Return the error about settings with which quacc does not start, whatever the recipe."""
    sources, problems = [], []
    for name, words in settings.items():
        setting = None
        with contextlib.suppress(ValueError):  # quacc's words already name an unreadable file
            setting = quacc_setting(name, environment)
        if setting is None:
            problems.append(f"{name}: {words}" if name else words)
        else:
            value, source = setting
            sources.append(source)
            problems.append(f"{source} is {said(repr(value)):.80}: {words}")
    return Finding(
        severity="error",
        code="quacc_settings",
        message=said(f"quacc does not start with these settings: {'; '.join(problems)}"),
        source=sources[0] if sources else None,
        remedy=f"correct {' and '.join(sources) or 'the variables QUACC_... or the settings file'}",
    )


#: Problems that a folder may cause.
_ABSENT = {"missing", "unreadable", "broken_link", "link_loop"}
#: Problems of paths without a file.
_NO_FILE = {"missing", "compressed", "broken_link", "link_loop", "not_a_file"}
_AGAIN = "copy the file again from its source"
#: problem -> the state of the file as it follows its name, and the remedy
_WORDS = {
    "missing": ("is not there", ""),
    "compressed": ("cannot be read", ""),
    "broken_link": ("is a broken link", "link it to the file"),
    "link_loop": ("is a link that leads back to itself", "link it to the file"),
    "not_a_file": ("is not a file", "put the file in its place"),
    "unreadable": ("cannot be read", "make it readable (chmod u+r)"),
    "empty": ("is empty", _AGAIN),
    "not_text": ("is not a text file", _AGAIN),
    "no_header": ("has no complete header", _AGAIN),
    "truncated": ("is cut off", _AGAIN),
    "several": (
        "holds more than one dataset",
        "keep one dataset in it: the job itself joins the files of its elements",
    ),
    "stray_text": ("holds more than a dataset", "remove the text that is no part of the dataset"),
}


def file_findings(job: CheckedJob) -> Iterator[Finding]:
    """Yield findings about files; a folder's problem appears once, for all its files."""
    # Ghost atoms have a finding of their own.
    files = [wanted for wanted in job.files if wanted.symbols != (GHOST,)]
    for name in dict.fromkeys(wanted.step.calculator for wanted in files):
        program = program_named(name)
        theirs = [wanted for wanted in files if wanted.step.calculator == name]
        yield from guarded(program, _findings, program, theirs, job)


def _findings(program: Program, files: list[Wanted], job: CheckedJob) -> Iterator[Finding]:
    blamed: dict[tuple[str, str], tuple[FolderTrouble | None, list[Folders]]] = {}
    for wanted in files:
        if wanted.facts.problem:
            around = program.folders(wanted, job)
            trouble = around.trouble() if wanted.facts.problem in _ABSENT else None
            key = ("folder", trouble.path) if trouble else ("file", wanted.path)
            blamed.setdefault(key, (trouble, []))[1].append(around)
    for trouble, group in blamed.values():
        yield _folder(job, trouble, group) if trouble else _file(job, group[0])
    for wanted in files:
        if not wanted.facts.problem:
            yield from _element(program, wanted, job)


def _folder(job: CheckedJob, trouble: FolderTrouble, group: list[Folders]) -> Finding:
    around = group[0]
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
    instead = around.instead() if problem in _ABSENT else ""
    trouble = f"the {wanted.kind.noun}{wanted.of} cannot be used"
    if problem in _NO_FILE:
        trouble = f"no {wanted.kind.noun}{wanted.of.replace(' of ', ' for ', 1)}"
    return Finding(
        severity=job.severity(wanted.steps),
        code=f"{wanted.kind.code}_{problem}",
        message=f"{trouble}: {said(wanted.reason)} wants {one_line(wanted.setup)}, "
        f"but {one_line(wanted.path)} (from {around.source}) {words}{detail}{instead}"
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
            message=f"WRONG ELEMENT: {wanted.kind.title} would compute {one_line(element)} in the "
            f"place of {brief(wrong)}: {one_line(wanted.path)} is a file for "
            f"{one_line(element)}{title}{job.where(wanted.steps)}",
            path=safe(wanted.path),
            source=program.folders(wanted, job).source,
            remedy=program.right_element(wanted, wrong),
        )
