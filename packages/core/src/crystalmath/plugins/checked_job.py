"""A job under judgement: the report on its recipe, and the files that its steps read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from crystalmath.errors import one_line
from crystalmath.plugins.report import FileFacts
from crystalmath.recipes.lookup import is_quaccs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ase import Atoms

    from crystalmath.plugins.report import Need, Report, Step

__all__ = ["CheckedJob", "FileKind", "Wanted", "brief", "files_of", "safe", "said"]

_LONGEST = 500
_MANY = 8


@frozen(kw_only=True)
class FileKind:
    """The words of findings for a program and the files that it reads.

    Parameters
    ----------
    title : str
        The program: ``VASP``, ``pw.x``.
    noun : str
        One of its files: ``POTCAR``, ``pseudopotential``.
    code : str
        The beginning of the codes of findings about its files: ``potcar``, ``upf``.
    choice : str, optional
        The recipes' parameter that chooses a file for an element.
    unreadable : tuple of str
        Endings of compressed files that the program cannot read (``.Z``).
    """

    title: str = "the program"
    noun: str = "file"
    code: str = "file"
    choice: str | None = None
    unreadable: tuple[str, ...] = ()


@frozen(kw_only=True)
class Wanted:
    """A file that a job reads.

    Parameters
    ----------
    path, setup, reason : str
        As in :class:`~crystalmath.plugins.report.Need`.
    symbols : tuple of str
        The chemical symbols that it is read for.
    facts : FileFacts
        The state of the file on this machine.
    step : Step
        The first step that reads it.
    steps : tuple of int
        The numbers of all steps that read it, from 0.
    kind : FileKind
        Its program's words for it.
    """

    path: str
    setup: str
    reason: str
    symbols: tuple[str, ...]
    facts: FileFacts
    step: Step
    steps: tuple[int, ...]
    kind: FileKind = FileKind()

    @property
    def of(self) -> str:
        """The symbols as they follow a noun (`` of Si``); empty if the file has none."""
        return f" of {brief(self.symbols)}" if any(self.symbols) else ""


def files_of(report: Report, kinds: Mapping[str, FileKind] | None = None) -> tuple[Wanted, ...]:
    """Return the files of a report, in the order of their first reading."""
    known = kinds or {}
    readers: dict[str, list[tuple[int, str]]] = {}
    firsts: dict[str, tuple[Need, Step]] = {}
    for number, step in enumerate(report.steps):
        for need in step.needs:
            firsts.setdefault(need.path, (need, step))
            readers.setdefault(need.path, []).append((number, need.symbol))
    return tuple(
        Wanted(
            path=path,
            setup=need.setup,
            reason=need.reason,
            symbols=tuple(dict.fromkeys(symbol for _, symbol in readers[path])),
            facts=report.files.get(path, FileFacts()),
            step=step,
            steps=tuple(dict.fromkeys(number for number, _ in readers[path])),
            kind=known.get(step.calculator, FileKind()),
        )
        for path, (need, step) in firsts.items()
    )


@frozen(kw_only=True, slots=False)
class CheckedJob:
    """A job with the report on its recipe.

    Parameters
    ----------
    report, recipe, atoms, environment, parameters
        As for :func:`crystalmath.preflight.verdict.judge`.
    kinds : mapping of str to FileKind
        The words for each program's files, by the program's name.
    """

    report: Report
    recipe: str
    atoms: Atoms | None
    environment: Mapping[str, str] = field(factory=dict)
    parameters: Mapping[str, Any] = field(factory=dict)
    kinds: Mapping[str, FileKind] = field(factory=dict)

    @cached_property
    def files(self) -> tuple[Wanted, ...]:
        """The files that its steps read, in the order of their first reading."""
        return files_of(self.report, self.kinds)

    @property
    def ours(self) -> bool:
        """Whether it is one of quacc's own recipes."""
        return is_quaccs(self.recipe)

    def severity(self, steps: Sequence[int]) -> Literal["error", "warning"]:
        """Return whether a problem of these steps is an error or a warning.

        quacc's own flows run all their steps, so each problem is an error. Other recipes saw
        stand-ins for the results of earlier steps, and may take another course: only a problem of
        the first step is certain.
        """
        if self.report.survives:
            return "warning"
        return "error" if self.ours or not steps or min(steps) == 0 else "warning"

    def where(self, steps: Sequence[int]) -> str:
        """Return the numbers of the steps as they end a sentence; empty if all steps are meant."""
        total = len(self.report.steps)
        if len(steps) == total:
            return ""
        named = brief([str(number + 1) for number in steps])
        seen = f" of {total}" if self.report.end == "done" else ""
        return f", in step{'s' * (len(steps) > 1)} {named}{seen}"


def brief(words: Iterable[str], many: int = _MANY) -> str:
    """Join words with commas on one line; only the first `many` are named."""
    listed = [one_line(word) for word in words]
    more = len(listed) - many
    return ", ".join(listed[:many]) + (f" and {more} more" if more > 0 else "")


def said(text: object) -> str:
    """Return a program's text on one line, shortened."""
    line = " ".join(str(text).split())
    return one_line(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ...")


def safe(path: str) -> str:
    """Return a path with undecodable bytes escaped, so that it can be stored as text."""
    return path.encode("utf-8", "backslashreplace").decode()
