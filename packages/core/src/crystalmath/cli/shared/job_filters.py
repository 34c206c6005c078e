"""The options that choose jobs, and the filters that they make."""

from __future__ import annotations

import inspect
import math
import time
from typing import TYPE_CHECKING, Any

from crystalmath.cli.shared.common_arguments import option_of, taking
from crystalmath.cli.shared.output import refuse
from crystalmath.errors import did_you_mean
from crystalmath.models.fields import declared
from crystalmath.models.filters import EXCLUDABLE, JobFilter
from crystalmath.models.job_notes import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from crystalmath.models.fields import Field


def with_filters(function: Callable[..., int]) -> Callable[..., int]:
    """Replace a command's parameter ``filters`` by the options of :class:`JobFilter`."""
    return _with_filters(function, _FILTERS)


def with_filters_but(*names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator like `with_filters`, without the options of some filters."""
    filters = [one for one in _FILTERS if one.name not in names]
    return lambda function: _with_filters(function, filters)


def _with_filters(function: Callable[..., int], filters: Sequence[Field]) -> Callable[..., int]:
    own = inspect.signature(function, eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(option_of(one, _KINDS.get(one.name, str | None)) for one in filters),
        *(one.replace(kind=keyword) for one in own if one.name != "filters"),
    ]

    def read(arguments: dict[str, Any]) -> dict[str, Any]:
        values = {one.name: arguments.pop(one.name) for one in filters}
        read = {name: _read(name, value) for name, value in values.items() if value is not None}
        return {"filters": read, **arguments}

    return taking(function, parameters, read)


_FILTERS = [one for one in declared(JobFilter) if one.about.option is not None]
_REPEATED = ("state", "labels", "exclude")
_ENERGIES = ("energy_min", "energy_max")
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_REPEATED, list[str] | None),
    **dict.fromkeys(_ENERGIES, float | None),
    **dict.fromkeys(("steps", "all_tries"), bool | None),
}


def _read(name: str, value: Any) -> Any:
    """Parse the value of a filter's option."""
    if name == "state":
        return states(value)
    if name == "labels":
        from crystalmath.cli.shared.parameter_options import parse_labels

        return parse_labels(value)
    if name == "elements":
        return [symbol.strip() for symbol in value.split(",")]
    if name in _ENERGIES and not math.isfinite(value):
        option = f"--{name.replace('_', '-')}"
        refuse(f"must be a finite number, not {value}", option)
    if name in {"since", "until"}:
        return _moment(value, f"--{name}")
    if name == "exclude":
        return _excluded(value)
    if value == "":
        refuse("must not be empty", f"--{name}")
    return value


def _moment(text: str, option: str) -> float:
    """Parse a local date and time, or a time ago, in seconds since the epoch."""
    from datetime import datetime

    from crystalmath.models.written import read_timespan

    ago = read_timespan(text)
    if ago is not None:
        return time.time() - ago
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        refuse(
            f"{text!r} is not a time; write 2h or 60d (ago), 2026-11-20, or '2026-11-20 14:30'",
            option,
        )


def _excluded(texts: Sequence[str]) -> dict[str, Any]:
    excluded: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = {"label": "labels"}.get(name, name)
        if name not in EXCLUDABLE or not equals or not value:
            known = ", ".join("label" if one == "labels" else one for one in EXCLUDABLE)
            refuse(f"{text!r} is not FILTER=VALUE; the filters are {known}", "--exclude")
        read = _read(name, [value] if name in _REPEATED else value)
        if isinstance(read, list):
            excluded[name] = [*excluded.get(name, []), *read]
        elif name == "labels" and not read.keys() & excluded.get(name, {}).keys():
            excluded[name] = excluded.get(name, {}) | read
        elif name not in excluded:
            excluded[name] = read
        else:
            refuse(f"{text!r}: another {name} is excluded already; only one can be", "--exclude")
    return excluded


def states(names: Iterable[str] | None) -> list[str] | None:
    """Return the names of states after a check; ``None`` for all."""
    known = [state.value for state in JobState]
    for name in names or ():
        if name not in known:
            refuse(f"{name!r} is not a state; {did_you_mean(name, known)}", "--state")
    return list(names) if names else None
