"""Say which pseudopotential files are missing or cannot be used, and what is there instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models import Finding
from crystalmath.preflight.case import brief, safe, said
from crystalmath.preflight.surroundings import Surroundings
from crystalmath.recipes.potcar_path import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.preflight.case import Case

__all__ = ["GHOST", "findings"]

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


def findings(case: Case) -> Iterator[Finding]:
    """Find what is wrong with the files: a folder once, whatever is wanted from it."""
    bad = [wanted for wanted in case.files if wanted.facts.problem]
    # Ghost atoms have a finding of their own.
    bad = [wanted for wanted in bad if wanted.symbols != (GHOST,)]
    blamed: dict[tuple[str, str], list[Surroundings]] = {}
    for wanted in bad:
        around = Surroundings(wanted, case)
        trouble = around.trouble() if wanted.facts.problem in _ABSENT else None
        key = ("folder", trouble.path) if trouble else ("file", wanted.path)
        blamed.setdefault(key, []).append(around)
    for (kind, _), group in blamed.items():
        yield _folder(case, group) if kind == "folder" else _file(case, group[0])
    yield from _loose_ends(case)


def _folder(case: Case, group: list[Surroundings]) -> Finding:
    around = group[0]
    trouble = around.trouble()
    assert trouble is not None  # noqa: S101 - it was found before
    steps = sorted({number for each in group for number in each.wanted.steps})
    symbols = dict.fromkeys(symbol for each in group for symbol in each.wanted.symbols)
    symbols.pop(GHOST, None)
    return Finding(
        severity=case.severity(steps),
        code=f"{around.wanted.prefix}_{trouble.code}",
        message=f"{trouble.message}; wanted for {brief(symbols, 20)}{case.where(steps)}",
        path=safe(trouble.path) or None,
        source=around.source,
        remedy=trouble.remedy,
    )


def _file(case: Case, around: Surroundings) -> Finding:
    wanted = around.wanted
    problem = wanted.facts.problem or ""
    words, remedy = _WORDS.get(problem, (said(problem), _AGAIN))
    detail = f": {said(wanted.facts.detail)}" if wanted.facts.detail else ""
    found = around.instead() if problem in _ABSENT else ""
    symbols = brief(wanted.symbols)
    trouble = f"the {wanted.noun} of {symbols} cannot be used"
    if problem in _NO_FILE:
        trouble = f"no {wanted.noun} for {symbols}"
    return Finding(
        severity=case.severity(wanted.steps),
        code=f"{wanted.prefix}_{problem}",
        message=f"{trouble}: {said(wanted.reason)} wants "
        f"{shown(wanted.setup)}, and {shown(wanted.path)} (from {around.source}) {words}{detail}"
        f"{found}{case.where(wanted.steps)}",
        path=safe(wanted.path),
        source=around.source,
        remedy=remedy or around.addition(),
    )


def _loose_ends(case: Case) -> Iterator[Finding]:
    """Find the files behind which VASP would not find the next one's title."""
    files = {wanted.path: wanted for wanted in case.files if wanted.potcar}
    followed: dict[str, list[int]] = {}
    for number, step in enumerate(case.report.steps):
        for need in step.needs[:-1]:
            if need.path in files and files[need.path].facts.loose_end:
                followed.setdefault(need.path, []).append(number)
    for path, steps in followed.items():
        yield Finding(
            severity=case.severity(steps),
            code="potcar_loose_end",
            message=f"{shown(path)} does not end with the line 'End of Dataset': blank lines "
            "follow, or the line's own end is missing, so that VASP does not find the dataset that "
            f"comes next{case.where(steps)}",
            path=safe(path),
            source=Surroundings(files[path], case).source,
            remedy="end the file with that line, and nothing behind it",
        )
