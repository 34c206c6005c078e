"""Options of the command line for the places that findings and errors name."""

from __future__ import annotations

import re

from crystalmath.models import Resources, Submission
from crystalmath.models.fields import declared
from crystalmath.models.resources import RESOURCE_NAMES
from crystalmath.models.retry import Retry

#: The options that fill ``by_step``, for all settings of a step and for each of them.
_BOTH = "--step-cluster/--step-resources"
_FOR_SETTING = {
    "cluster": "--step-cluster",
    "params": "--param",
    "walltime_s": "--step-resources",
    "resources": "--step-resources",
}
_SETTING = re.compile(rf"(.+?)\.({'|'.join(_FOR_SETTING)})(?:\.(.+))?")
_RESOURCE_OF = {field: name for name, field in RESOURCE_NAMES.items()}


def option_at(place: str) -> str | None:
    """Return the option for a place, or ``None`` if the command line has none.

    Examples
    --------
    >>> option_at("by_step.relax_job.walltime_s")
    '--step-resources relax_job=walltime'
    """
    if place == "by_step":
        return _BOTH
    if place.startswith("by_step."):
        return _option_of_step(place.removeprefix("by_step."))
    for record in (Submission, Retry, Resources):
        for field in declared(record):
            if place in {field.wire, f"resources.{field.wire}"} and field.about.option is not None:
                return field.about.option.name.partition("/")[0]
    return None


def _option_of_step(place: str) -> str:
    if (parts := _SETTING.fullmatch(place)) is None:
        return f"{_BOTH} {place}"
    step, setting, name = parts.groups()
    key = "walltime" if setting == "walltime_s" else _RESOURCE_OF.get(name)
    inside = f"={key}" if key else f".{name}" if name else ""
    return f"{_FOR_SETTING[setting]} {step}{inside}"
