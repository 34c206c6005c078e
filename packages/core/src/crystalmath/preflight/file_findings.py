"""Say which files are missing, cannot be used or are for another element, and what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models import Finding
from crystalmath.preflight.checked_job import brief, safe, said
from crystalmath.preflight.programs_here import guarded, program_named
from crystalmath.recipes.one_line import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.preflight.checked_job import CheckedJob, Wanted
    from crystalmath.preflight.folders import Folders
    from crystalmath.preflight.program import Program

GHOST = "X"

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


def findings(job: CheckedJob) -> Iterator[Finding]:
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
        message=f"{trouble}: {said(wanted.reason)} wants "
        f"{shown(wanted.setup)}, and {shown(wanted.path)} (from {around.source}) {words}{detail}"
        f"{found}{job.where(wanted.steps)}",
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
            message=f"WRONG ELEMENT: {wanted.kind.title} computes {shown(element)} where the "
            f"structure has {brief(wrong)}: {shown(wanted.path)} is a file for "
            f"{shown(element)}{title}{job.where(wanted.steps)}",
            path=safe(wanted.path),
            source=program.folders(wanted, job).source,
            remedy=program.right_element(wanted, wrong),
        )
