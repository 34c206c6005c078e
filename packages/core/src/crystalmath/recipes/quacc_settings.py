"""quacc's settings, and the files that it and ASE read them from, as a fresh process would.

Neither is imported here: importing quacc takes seconds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.errors import one_line, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE_VARIABLE = "QUACC_CONFIG_FILE"


def quacc_setting(name: str, environment: Mapping[str, str]) -> tuple[object, str] | None:
    """Look up one of quacc's settings as a fresh process would, without importing quacc.

    Parameters
    ----------
    name : str
        The setting, ``VASP_PP_PATH``.
    environment : mapping of str to str
        The environment of that process.

    Returns
    -------
    tuple of object and str, or None
        The value as it is written and what named it; ``None`` where the default holds.

    Raises
    ------
    ValueError
        quacc's settings file cannot be read, which quacc itself does not survive either.
    """
    file = _quacc_file(environment)
    # Read in any case: quacc does, and does not start where it cannot.
    settings = _read_yaml(file)
    variable = f"QUACC_{name}"
    if (value := _quacc_variable(variable, environment)) is not None:
        return value, variable
    return (settings[name], f"{name} in {one_line(file)}") if name in settings else None


def settings_files(environment: Mapping[str, str]) -> list[str]:
    """Name the files that quacc and ASE read their settings from, whether they exist or not.

    Parameters
    ----------
    environment : mapping of str to str
        The environment of the process that reads them.
    """
    files = [os.path.abspath(file) for file in ase_files(environment)]  # noqa: PTH100 - resolve() follows links
    return [*files, *filter(None, [settings_file(environment)])]


def settings_file(environment: Mapping[str, str]) -> str | None:
    """Name the file that quacc reads its settings from; ``None`` where it has no name that is one.

    Parameters
    ----------
    environment : mapping of str to str
        The environment of the process that reads it.
    """
    try:
        return os.path.abspath(_quacc_file(environment))  # noqa: PTH100 - as above
    except ValueError:  # quacc does not start then
        return None


def relative_file(environment: Mapping[str, str]) -> str | None:
    """Return the name of quacc's settings file where that is a relative path.

    It means another file in each directory, and where there is none quacc says nothing of it.

    Parameters
    ----------
    environment : mapping of str to str
        The environment of the process that reads it.
    """
    try:
        named = _quacc_file(environment)
    except ValueError:  # quacc does not start then
        return None
    return None if named.is_absolute() else _quacc_variable(_FILE_VARIABLE, environment)


def ase_files(environment: Mapping[str, str]) -> list[Path]:
    """Name the files that ASE reads its configuration from, whether they exist or not."""
    named = environment.get("ASE_CONFIG_PATH")
    if named is None:
        return [_home(environment) / ".config/ase/config.ini"]
    return [Path(name) for name in named.split(":")]


def expanded(value: str, environment: Mapping[str, str]) -> Path:
    """Expand ``$NAME`` and ``~`` in a setting that is a path, as quacc does.

    Parameters
    ----------
    value : str
        As it is written.
    environment : mapping of str to str
        The environment of the process that reads it; what it lacks is taken from this process.

    Raises
    ------
    ValueError
        No such home directory is known.
    """

    def known(match: re.Match[str]) -> str:
        name = match[1].strip("{}")
        return environment.get(name, os.environ.get(name, match[0]))

    path = Path(re.sub(r"\$(\w+|\{[^}]*\})", known, value, flags=re.ASCII))
    return _at_home(path, environment)


def _at_home(path: Path, environment: Mapping[str, str]) -> Path:
    """Expand ``~``; `ValueError` where no such home directory is known."""
    if path.parts[:1] == ("~",):
        return _home(environment).joinpath(*path.parts[1:])
    try:
        return path.expanduser()
    except (RuntimeError, ValueError):
        raise ValueError(f"no home directory is known for {path.parts[0]!r}") from None


def _quacc_file(environment: Mapping[str, str]) -> Path:
    named = _quacc_variable(_FILE_VARIABLE, environment)
    return _at_home(Path("~/.quacc.yaml" if named is None else named), environment)


def _quacc_variable(variable: str, environment: Mapping[str, str]) -> str | None:
    # pydantic ignores the case, and the last spelling wins.
    values = [value for name, value in environment.items() if name.upper() == variable]
    return values[-1] if values else None


def _home(environment: Mapping[str, str]) -> Path:
    # Unlike Path.home(), this does not raise where the user has no home directory.
    return Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111


def _read_yaml(file: Path) -> dict[object, object]:
    from ruamel.yaml import YAML

    try:
        if not file.exists() or file.stat().st_size == 0:
            return {}
        # As quacc merges it: anything that dict() takes.
        return dict(YAML().load(file))
    except Exception as error:
        # The parser has more kinds of errors than its own, RecursionError for one.
        text = f"quacc's settings file {one_line(file)} cannot be read: {words_of(error)}"
        raise ValueError(text) from error
