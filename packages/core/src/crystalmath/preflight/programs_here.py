"""The programs that the installed plugins provide, by name and by recipe, and their presets."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.engines.registry import plugins
from crystalmath.errors import InvalidJob, did_you_mean, shown
from crystalmath.models import Finding
from crystalmath.models.inputs import Preset
from crystalmath.preflight.checked_job import said
from crystalmath.preflight.program import Condition, Program
from crystalmath.recipes.lookup import NAMESPACE
from crystalmath.recipes.quacc_settings import expanded, quacc_setting

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
    """Yield what is there on this machine of each program."""
    for program in programs():
        try:
            yield from list(program.conditions(environment))
        except Exception as error:  # noqa: BLE001 - a stranger's
            failed = failure(program, error)
            yield Condition(name="plugin", ok=False, message=failed.message, remedy=failed.remedy)


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


def presets(environment: Mapping[str, str], name: str | None = None) -> list[Preset]:
    """Return the presets of all programs, or those of one name.

    Raises `InvalidJob`: there is none of that name, or one cannot be read, or quacc's settings
    cannot.
    """
    found = [each for program in programs() for each in _of_program(program, environment)]
    if name is None:
        return found
    if chosen := [each for each in found if each.name == name]:
        return chosen
    known = [each.name for each in found]
    listed = ", ".join(known) or "none, as quacc is not installed"
    meant = f"{near} " if (near := did_you_mean(name, known, "")) else ""
    raise InvalidJob(f"there is no preset {shown(name)}; {meant}there are {listed}")


def _of_program(program: Program, environment: Mapping[str, str]) -> Iterator[Preset]:
    quacc = importlib.util.find_spec("quacc")
    if program.presets is None or quacc is None or quacc.origin is None:
        return
    setting, below = program.presets
    folder = Path(quacc.origin).parent / below
    try:
        if named := quacc_setting(setting, environment):
            folder = expanded(str(named[0]), environment)
    except ValueError as error:
        raise InvalidJob(f"the folder of {program.files.title}'s presets: {error}") from error
    load = _loader(str(Path(quacc.origin).parent / "utils/files.py"))
    for file in sorted(folder.glob("*.yaml")):
        try:
            document = json.loads(json.dumps(load(file), default=str))
        except Exception as error:
            raise InvalidJob(f"the preset {file} cannot be read: {error}") from error
        if parameters := program.preset(document):
            yield Preset(
                name=file.stem, program=program.files.title, file=str(file), settings=parameters
            )


@cache
def _loader(file: str) -> Callable[[Path], Any]:
    spec = importlib.util.spec_from_file_location("_crystalmath_quacc_files", file)
    assert spec is not None  # noqa: S101 - a file of Python's
    assert spec.loader is not None  # noqa: S101 - as above
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    load: Callable[[Path], Any] = module.load_yaml_calc
    return load
