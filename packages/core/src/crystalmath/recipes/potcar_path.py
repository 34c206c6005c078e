"""Find out where VASP's pseudopotentials are said to be, as quacc 1.8 and ASE 3.29 do it.

Highest first:

1. ``VASP_PP_PATH`` in the section ``[environment]`` of ASE's configuration file
   (``~/.config/ase/config.ini``, or the files that ``ASE_CONFIG_PATH`` lists).
2. quacc's setting ``VASP_PP_PATH``: as it is in this process, else the environment variable
   ``QUACC_VASP_PP_PATH``, else ``~/.quacc.yaml`` or the file that ``QUACC_CONFIG_FILE`` names.
3. The environment variable ``VASP_PP_PATH``.

Neither ASE nor quacc is imported here: importing quacc takes seconds.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import stat
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "VARIABLE",
    "PotcarPath",
    "folder_trouble",
    "fresh_process",
    "names_in",
    "quacc_setting",
    "settings_files",
    "shown",
    "this_process",
]

VARIABLE = "VASP_PP_PATH"


@frozen(kw_only=True)
class PotcarPath:
    """Where the pseudopotentials are said to be.

    Parameters
    ----------
    path : pathlib.Path, optional
        As quacc or ASE would use it; ``None`` where nothing names one.
    source : str, optional
        What named it: a variable, or a setting and its file.
    trouble : str, optional
        Why what should name it cannot be used.
    """

    path: Path | None = None
    source: str | None = None
    trouble: str | None = None


def this_process() -> PotcarPath:
    """Find the path as this process would, with the settings of a quacc that it has imported."""
    return _ase(os.environ) or _imported_quacc() or _quacc(os.environ)


def fresh_process(environment: Mapping[str, str]) -> PotcarPath:
    """Find the path as a fresh worker process would, whatever this process has imported.

    Parameters
    ----------
    environment : mapping of str to str
        The worker's environment. ``HOME``, and what a path spells as ``$NAME``, are taken from
        this process where they are not in it.
    """
    return _ase(environment) or _quacc(environment)


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
    return (settings[name], f"{name} in {shown(file)}") if name in settings else None


def settings_files(environment: Mapping[str, str]) -> list[str]:
    """Name the files that quacc and ASE read their settings from, whether they exist or not.

    Parameters
    ----------
    environment : mapping of str to str
        The environment of the process that reads them.
    """
    files = _ase_files(environment)
    with contextlib.suppress(ValueError):  # quacc does not start then
        files.append(_quacc_file(environment))
    return [os.path.abspath(file) for file in files]  # noqa: PTH100 - resolve() follows links


def shown(value: object) -> str:
    """Write a path or an error on one line, quoted where it could be misread."""
    text = str(value)
    return text if text.isprintable() and text == text.strip() else repr(text)


def _ase(environment: Mapping[str, str]) -> PotcarPath | None:
    named = environment.get("ASE_CONFIG_PATH")
    if not any(os.path.exists(file) for file in _ase_files(environment)):  # noqa: PTH110 - may raise
        return None
    parser = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    try:
        # As in ASE, what cannot be opened is passed over.
        read = parser.read(_ase_files(environment))
        value = parser.get("environment", VARIABLE, fallback=None)
    except (configparser.Error, ValueError) as error:
        source = f"ASE's configuration ({shown(named or '~/.config/ase/config.ini')})"
        return PotcarPath(source=source, trouble=f"{source} cannot be used: {_words(error)}")
    if value is None:
        return None
    # ASE opens the path as it stands: no "~", no "$NAME".
    return _named(value, f"[environment] {VARIABLE} in {', '.join(map(shown, read))}")


def _ase_files(environment: Mapping[str, str]) -> list[Path]:
    named = environment.get("ASE_CONFIG_PATH")
    if named is None:
        return [_home(environment) / ".config/ase/config.ini"]
    return [Path(name) for name in named.split(":")]


def _imported_quacc() -> PotcarPath | None:
    module = sys.modules.get("quacc")
    source = f"quacc.get_settings().{VARIABLE}"
    try:
        if (get_settings := getattr(module, "get_settings", None)) is not None:
            value = getattr(get_settings(), VARIABLE, False)
        else:
            source = f"quacc.SETTINGS.{VARIABLE}"
            value = getattr(getattr(module, "SETTINGS", None), VARIABLE, False)
    except Exception as error:  # noqa: BLE001 - a new thread's settings are read from files here
        return PotcarPath(source=source, trouble=f"{source} cannot be read: {_words(error)}")
    if value is None:
        return _plain(os.environ)
    return _named(str(value), source) if isinstance(value, (str, PurePath)) else None


def _quacc(environment: Mapping[str, str]) -> PotcarPath:
    try:
        setting = quacc_setting(VARIABLE, environment)
    except ValueError as error:
        return PotcarPath(source="quacc's settings", trouble=str(error))
    if setting is None:
        # quacc's own default is the variable, which it expands; ASE alone would not.
        return _expanded(environment.get(VARIABLE) or None, VARIABLE, environment)
    value, source = setting
    if value is None or (isinstance(value, str) and value.lower() in {"none", "null"}):
        return _plain(environment)
    if not isinstance(value, str):
        return PotcarPath(source=source, trouble=f"{source} must be a path, not {value!r}")
    return _expanded(value, source, environment)


def _plain(environment: Mapping[str, str]) -> PotcarPath:
    """Where quacc's setting is None, ASE uses the variable as it stands."""
    return _named(environment.get(VARIABLE) or None, VARIABLE)


def _expanded(value: str | None, source: str, environment: Mapping[str, str]) -> PotcarPath:
    """Expand ``$NAME`` and ``~``, as quacc does."""

    def known(match: re.Match[str]) -> str:
        name = match[1].strip("{}")
        return environment.get(name, os.environ.get(name, match[0]))

    if not value:
        return _named(value, source)
    path = Path(re.sub(r"\$(\w+|\{[^}]*\})", known, value, flags=re.ASCII))
    try:
        return _named(str(_at_home(path, environment)), source)
    except ValueError as error:
        return PotcarPath(source=source, trouble=f"{source} cannot be used: {error}")


def _named(value: str | None, source: str) -> PotcarPath:
    if value is None:
        return PotcarPath()
    if not value:
        return PotcarPath(source=source, trouble=f"{source} is empty")
    return PotcarPath(path=Path(value), source=source)


def _quacc_file(environment: Mapping[str, str]) -> Path:
    named = _quacc_variable("QUACC_CONFIG_FILE", environment)
    return _at_home(Path("~/.quacc.yaml" if named is None else named), environment)


def _quacc_variable(variable: str, environment: Mapping[str, str]) -> str | None:
    # pydantic ignores the case, and the last spelling wins.
    values = [value for name, value in environment.items() if name.upper() == variable]
    return values[-1] if values else None


def _at_home(path: Path, environment: Mapping[str, str]) -> Path:
    if path.parts[:1] == ("~",):
        return _home(environment).joinpath(*path.parts[1:])
    try:
        return path.expanduser()
    except (RuntimeError, ValueError):
        raise ValueError(f"no home directory is known for {path.parts[0]!r}") from None


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
        text = f"quacc's settings file {shown(file)} cannot be read: {_words(error)}"
        raise ValueError(text) from error


def _words(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(" ".join(str(text).split()))


def folder_trouble(path: Path) -> tuple[str, str]:
    """Say what keeps files from being found in a folder.

    Parameters
    ----------
    path : pathlib.Path
        The folder.

    Returns
    -------
    tuple of str and str
        A code (``path``, ``not_a_folder``, ``unlisted``) and words that follow its name; empty
        where nothing does.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "path", "is a broken link" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        return "path", f"cannot be reached: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISDIR(mode):
        return "not_a_folder", "is not a folder"
    if not os.access(path, os.X_OK):
        return "path", "cannot be opened: permission denied"
    return (
        ("unlisted", "cannot be listed: permission denied") if names_in(path) is None else ("", "")
    )


def names_in(path: Path) -> list[str] | None:
    """List what is in a folder, sorted; ``None`` where it cannot be listed."""
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 - names are wanted, not paths
    except (OSError, ValueError):
        return None
