"""The programs that the installed plugins provide, found by name or by recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.engines.registry import plugins
from crystalmath.models import Finding
from crystalmath.preflight.checked_job import said
from crystalmath.preflight.program import Condition, Program
from crystalmath.recipes.lookup import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from crystalmath.preflight.checked_job import FileKind


class _Nobodys(Program):
    """A calculator that no program knows."""

    name = ""


_NOBODYS = _Nobodys()


def programs() -> tuple[Program, ...]:
    """Return all programs, each name once."""
    return plugins().programs()


def program_named(name: str) -> Program:
    """Return a program by its name; one without a rule of its own if there is none."""
    return next((each for each in programs() if each.name == name), _NOBODYS)


def program_of(recipe: str) -> Program | None:
    """Return the program of one of quacc's recipes."""
    owns = (each for each in programs() if _is_of(recipe, each))
    return next(owns, None)


def file_kinds() -> Mapping[str, FileKind]:
    """Return what the files of each program are called."""
    return {each.name: each.files for each in programs()}


def may_be_asked(recipe: str) -> bool:
    """Tell by its full name alone whether a recipe may be asked which files it reads.

    That takes seconds for the first one. Of quacc's own only those of a known program are asked;
    what a user's recipe calls is in its source.
    """
    return program_of(recipe) is not None or not recipe.startswith(f"{NAMESPACE}.")


def conditions(environment: Mapping[str, str]) -> Iterator[Condition]:
    """Yield what is there on this machine of each program.

    Parameters
    ----------
    environment : mapping of str to str
        The variables that a job sees.
    """
    for program in programs():
        try:
            yield from list(program.conditions(environment))
        except Exception as error:  # noqa: BLE001 - a stranger's
            told = failure(program, error)
            yield Condition(name="plugin", ok=False, message=told.message, remedy=told.remedy)


def guarded(program: Program, call: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Call a program's code, and make a warning that names it of whatever it raises."""
    try:
        return list(call())
    except Exception as error:  # noqa: BLE001 - a stranger's; the job goes on
        return [failure(program, error)]


def failure(program: Program, error: Exception) -> Finding:
    """Say that a program's own code has failed."""
    module = type(program).__module__
    return Finding(
        severity="warning",
        code="plugin_failed",
        message=f"the checks of {program.files.title} ({module}) failed, so that not all was "
        f"checked: {said(f'{type(error).__name__}: {error}')}",
        remedy=f"mend or uninstall what provides {module}",
    )


def _is_of(recipe: str, program: Program) -> bool:
    return recipe.startswith(tuple(f"{module}." for module in program.recipes))
