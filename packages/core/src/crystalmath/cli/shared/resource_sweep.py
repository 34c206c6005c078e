"""Read which resources are to be swept: ``--sweep ranks=16,32,64``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from crystalmath.cli.shared.parameter_options import parse_memory
from crystalmath.models import Resources
from crystalmath.models.fields import declared
from crystalmath.models.resources import RESOURCE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "resources."
_FIELDS = {one.name: one for one in declared(Resources) if one.name in RESOURCE_NAMES}


def split_sweeps(sweeps: Iterable[str], recipe: str) -> tuple[list[str], list[str]]:
    """Return the sweeps of resources from those of a recipe's parameters.

    A resource's name is the resource, unless the recipe has a parameter of its own of that name;
    ``resources.ranks`` is the resource in any case.

    Returns
    -------
    tuple of list and list
        Those of resources, and those of parameters.
    """
    resources: list[str] = []
    parameters: list[str] = []
    own: frozenset[str] | None = None
    for text in sweeps:
        name = text.partition("=")[0].strip()
        is_resource = name.startswith(_PREFIX)
        if name in RESOURCE_NAMES:
            own = _parameters_of(recipe) if own is None else own
            is_resource = name not in own
        (resources if is_resource else parameters).append(text)
    return resources, parameters


def parse_resource_sweep(text: str, given: Iterable[str]) -> list[tuple[str, str, str, Any]]:
    """Read one sweep of a resource.

    Parameters
    ----------
    text : str
        ``ranks=16,32,64``, or ``ranks=[16, 32, 64]``.
    given : iterable of str
        The resources that all jobs are given.

    Returns
    -------
    list of tuple
        For each value the label's name, the resource's, its text, and what it is then.

    Raises
    ------
    typer.BadParameter
        There is no such resource, it is given for all jobs, or a value is none of it.
    """
    label, _, values = text.partition("=")
    label = label.strip().removeprefix(_PREFIX)
    if label not in RESOURCE_NAMES:
        known = ", ".join(_FIELDS)
        raise typer.BadParameter(f"there is no resource {label!r} to sweep; there are {known}")
    name = RESOURCE_NAMES[label]
    if name in set(given):
        raise typer.BadParameter(f"{label!r} is swept, and given for all jobs by an option")
    texts = [value.strip().strip("\"'") for value in values.strip().strip("[]").split(",")]
    if "" in texts or len(set(texts)) < len(texts):
        raise typer.BadParameter(f"--sweep {label}=16,32 takes values, each once, not {text!r}")
    return [(label, name, value, _read(name, value, text)) for value in texts]


def _read(name: str, value: str, text: str) -> object:
    if name == "memory_mb":
        return parse_memory(value)
    schema = _FIELDS[name].about.schema
    if schema["type"] == "string":
        return value
    if not value.isdecimal() or int(value) < schema["minimum"]:
        raise typer.BadParameter(
            f"{value!r} in {text!r} must be a whole number of at least {schema['minimum']}"
        )
    return int(value)


def _parameters_of(recipe: str) -> frozenset[str]:
    from crystalmath.config import load
    from crystalmath.errors import InvalidJob
    from crystalmath.recipes.lookup import full_name, look_up

    allow = load().recipes_allow
    try:
        found = look_up(full_name(recipe, allow), allow).signature
    except InvalidJob:
        return frozenset()  # whoever checks the job says what is wrong with the recipe
    return frozenset(found.parameters if found else ())
