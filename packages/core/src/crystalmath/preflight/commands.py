"""Tell whether the commands that start a program would be found on the job's PATH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.models import Finding
from crystalmath.preflight.launching import is_certain, is_found, starts_here
from crystalmath.preflight.programs_here import failure, program_of
from crystalmath.recipes.one_line import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.preflight.launching import Command, Launch

__all__ = ["check_commands"]


def check_commands(recipe: str, environment: Mapping[str, str]) -> Finding | None:
    """Look for the programs that a job starts. It claims nothing where that cannot be told.

    Parameters
    ----------
    recipe : str
        Full dotted name; quacc's own recipes are looked at.
    environment : mapping of str to str
        The environment variables that the job will see.

    Returns
    -------
    Finding or None
        ``command_missing``: an error where the worker itself would start what is not there, on
        this machine; a warning where a launcher does, which may look elsewhere.
    """
    path, program = environment.get("PATH"), program_of(recipe)
    if path is None or program is None:
        return None
    try:
        launch = program.launch(recipe, environment)
    except (ValueError, RecursionError):
        return None  # quacc's settings cannot be read, which is told elsewhere
    except Exception as error:  # noqa: BLE001 - a stranger's; the job goes on
        return failure(program, error)
    if launch is None or launch.launcher is None or None in launch.programs:
        return None
    return _finding(launch, launch.launcher, [each for each in launch.programs if each], path)


def _finding(
    launch: Launch, launcher: Command, programs: list[Command], path: str
) -> Finding | None:
    if launcher.text.strip():
        if not launcher.words:
            return None
        if not is_found(launcher.words[0], path):
            return _missing("the parallel command", [launcher], "correct it", path)
        if not starts_here(launcher.words, path):
            return None
    if not all(each.words and not is_found(each.words[0], path) for each in programs):
        return None
    found = _missing(launch.title, programs, launch.remedy, path)
    return evolve(found, severity="warning") if launcher.text.strip() else found


def _missing(what: str, commands: list[Command], remedy: str, path: str) -> Finding:
    words = [each.words[0] for each in commands]
    named = [
        f"{shown(word)!s:.200} ({each.source})" for word, each in zip(words, commands, strict=True)
    ]
    several = len(named) > 1
    if any("/" in word for word in words):
        where = "is a program" if several else "is no program"
    else:
        where = f"is {'' if several else 'not '}on the PATH that the job sees"
    told = f"neither {' nor '.join(named)}" if several else named[0]
    return Finding(
        severity="error" if all(is_certain(word, path) for word in words) else "warning",
        code="command_missing",
        message=f"{what} would not start: {told} {where}",
        path=words[0] if "/" in words[0] else None,
        source=commands[0].source,
        remedy=remedy,
    )
