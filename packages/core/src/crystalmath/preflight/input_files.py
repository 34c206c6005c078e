"""What stands in input files: small readers that programs share, and who has set what."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.models.inputs import Setting, StepInputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from ase import Atoms

    from crystalmath.models.inputs import Origin

__all__ = [
    "PARAMETERS",
    "assignments",
    "marked",
    "of_parameters",
    "preset_name",
    "same",
    "shown_value",
    "whole",
]

#: The file of a calculator's parameters, where no program has files of its own.
PARAMETERS = "parameters.json"
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z][\w%]*(?:\([\d, ]+\))?)\s*=\s*(.*?)\s*,?\s*$")


def assignments(file: str, text: str) -> Iterator[Setting]:
    """Read lines ``NAME = value``, as INCAR and Fortran's namelists have them."""
    for line in text.splitlines():
        if found := _ASSIGNMENT.match(line):
            yield Setting(file=file, name=found[1], value=found[2])


def whole(file: str, text: str, *, comments: int = 0) -> Setting:
    """Take a file as one setting, without so many lines of comment at its beginning."""
    lines = [line.strip() for line in text.splitlines()[comments:]]
    return Setting(file=file, name=file, value="\n".join(lines))


def shown_value(value: object) -> str:
    """Write a parameter's value for people."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def preset_name(preset: object) -> str:
    """Return the name of a preset that may be a path: ``sssp_1.3.0_pbe_efficiency``."""
    return os.path.basename(str(preset)).removesuffix(".yaml").removesuffix(".yml")


def same(one: object, other: object) -> bool:
    """Return whether two values of a parameter are the same, arrays and texts in any case too."""
    return shown_value(one).lower() == shown_value(other).lower()


def _plain(value: Any) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def marked(
    settings: Iterable[Setting], origins: Mapping[str, tuple[Origin, str | None]]
) -> tuple[Setting, ...]:
    """Mark settings with who has set them.

    `origins` says by their names in lower case who, and what they stand in the place of.
    """
    return tuple(
        evolve(each, origin=origin[0], instead_of=origin[1])
        if (origin := origins.get(each.name.lower()))
        else each
        for each in settings
    )


def of_parameters(calculator: Any, atoms: Atoms, given: Collection[str]) -> StepInputs:
    """Return the parameters of any ASE calculator that writes no files that anybody knows.

    `given` are the names of all parameters that come from the user, in lower case.
    """
    found = getattr(calculator, "parameters", None)
    parameters = dict(found) if isinstance(found, dict) else {}
    defaults = getattr(calculator, "default_parameters", None)
    defaults = defaults if isinstance(defaults, dict) else {}
    settings = tuple(
        Setting(
            file=PARAMETERS,
            name=str(name),
            value=shown_value(value),
            origin=_origin(str(name), value, given, defaults),
        )
        for name, value in sorted(parameters.items(), key=lambda item: str(item[0]))
    )
    lines = ",\n".join(f"  {json.dumps(each.name)}: {each.value}" for each in settings)
    return StepInputs(
        program=type(calculator).__name__,
        formula=atoms.get_chemical_formula(),
        files={PARAMETERS: f"{{\n{lines}\n}}\n" if settings else "{}\n"},
        settings=settings,
    )


def _origin(
    name: str, value: object, given: Collection[str], defaults: Mapping[str, Any]
) -> Origin:
    if name.lower() in given:
        return "asked"
    return "default" if name in defaults and same(defaults[name], value) else "recipe"
