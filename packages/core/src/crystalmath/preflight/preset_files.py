"""quacc's presets: which there are, and what each sets.

They are read by quacc's own function, from its file: to import quacc takes seconds, and a server
never does.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, did_you_mean, shown
from crystalmath.models.inputs import Preset
from crystalmath.preflight.programs_here import programs
from crystalmath.recipes.quacc_settings import expanded, quacc_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from crystalmath.preflight.program import Program


def presets(environment: Mapping[str, str], name: str | None = None) -> list[Preset]:
    """Return the presets of all programs, or those of one name.

    Parameters
    ----------
    environment : mapping of str to str
        The variables that a job would see; quacc's settings name the folders.
    name : str, optional
        As the parameter ``preset`` of a recipe has it.

    Raises
    ------
    InvalidJob
        There is none of that name, or one cannot be read, or quacc's settings cannot.
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
        if told := program.preset(document):
            yield Preset(name=file.stem, program=program.files.title, file=str(file), settings=told)


@cache
def _loader(file: str) -> Callable[[Path], Any]:
    spec = importlib.util.spec_from_file_location("_crystalmath_quacc_files", file)
    assert spec is not None  # noqa: S101 - a file of Python's
    assert spec.loader is not None  # noqa: S101 - as above
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    load: Callable[[Path], Any] = module.load_yaml_calc
    return load
