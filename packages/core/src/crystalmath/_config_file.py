"""Read ``config.toml``, and say of what is in it that it is not known or of another type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

#: What is wrong with most TOML that cannot be read.
UNQUOTED = 'in TOML, text stands in quotes: name = "text"'

_ANY = "*"
_WORDS: dict[Any, str] = {str: "a str", list: "a list", bool: "true or false"}
# What may stand in the file: a type, or the keys of a table; None takes any table.
_SHAPE: dict[str, Any] = {
    "engine": str,
    "database_url": str,
    "storage": {"database": str, "runs": str, "network": bool},
    "strict": bool,
    "recipes": {"allow": list, "fresh": list},
    "environment": {"forward": list, "set": {_ANY: str}},
    "server": {"quiet_s": float, "warm": bool},
    "logs": {"max_mb": float},
    "walltime": {"notice_s": float},
    "cancel": {"grace_s": float},
    "jobs": {"lease_s": float, "continue_lost": bool},
    "flows": {"on_cluster": list},
    # Any key: the names of recipes.
    "restricted": {_ANY: list},
    "engines": None,
    "clusters": None,
}


def read(path: Path) -> dict[str, Any]:
    """Return what stands in the file; an empty table where there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    import tomllib  # most homes have no such file

    try:
        table = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        hint = f"; {UNQUOTED}" if isinstance(error, tomllib.TOMLDecodeError) else ""
        raise ConfigError(f"cannot read the configuration file {path}: {error}{hint}") from error
    _check(table, _SHAPE, path, "")
    return table


def _check(table: Mapping[str, Any], shape: Mapping[str, Any], path: Path, prefix: str) -> None:
    for key, value in table.items():
        place = f"{path}: {prefix}{key}"
        if key not in shape and _ANY not in shape:
            hint = did_you_mean(key, sorted(shape))
            raise ConfigError(f"{place} is not a known setting; {hint}")
        wanted = shape.get(key, shape.get(_ANY))
        if wanted is None or isinstance(wanted, Mapping):
            _check_table(value, wanted, path, f"{prefix}{key}")
        else:
            _check_value(value, wanted, place)


def _check_table(value: object, shape: Mapping[str, Any] | None, path: Path, name: str) -> None:
    place = f"{path}: {name}"
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place} must be a table, not {value!r}")
    if shape is not None:
        _check(value, shape, path, f"{name}.")
    elif not all(isinstance(item, Mapping) for item in value.values()):
        raise ConfigError(f"{place} must hold one table for each {name.removesuffix('s')}")


def _check_value(value: object, wanted: type, place: str) -> None:
    if wanted is float:
        # Also ``inf``: for ever.
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
            raise ConfigError(f"{place} must be a number from 0, not {value!r}")
        try:
            float(value)
        except OverflowError:
            raise ConfigError(f"{place} is too large; inf means for ever") from None
    elif not isinstance(value, wanted):
        raise ConfigError(f"{place} must be {_WORDS[wanted]}, not {value!r}")
    elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{place} must be a list of strings, not {value!r}")
