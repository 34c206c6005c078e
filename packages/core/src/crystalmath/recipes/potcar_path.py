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
import os
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import one_line, words_of
from crystalmath.recipes.quacc_settings import ase_files, expanded, quacc_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "VASP_PP_PATH"


@frozen(kw_only=True)
class PotcarPath:
    """Where the pseudopotentials are said to be."""

    #: As quacc or ASE would use it; ``None`` where nothing names one.
    path: Path | None = None
    #: What named it: a variable, or a setting and its file.
    source: str | None = None
    #: Why what should name it cannot be used.
    trouble: str | None = None


def this_process() -> PotcarPath:
    """Find the path as this process would, with the settings of a quacc that it has imported."""
    return _ase(os.environ) or _imported_quacc() or _quacc(os.environ)


def fresh_process(environment: Mapping[str, str]) -> PotcarPath:
    """Find the path as a fresh worker process would, whatever this process has imported."""
    return _ase(environment) or _quacc(environment)


def _ase(environment: Mapping[str, str]) -> PotcarPath | None:
    named = environment.get("ASE_CONFIG_PATH")
    if not any(os.path.exists(file) for file in ase_files(environment)):  # noqa: PTH110 - may raise
        return None
    parser = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    try:
        # As in ASE, what cannot be opened is passed over.
        read = parser.read(ase_files(environment))
        value = parser.get("environment", VARIABLE, fallback=None)
    except (configparser.Error, ValueError) as error:
        source = f"ASE's configuration ({one_line(named or '~/.config/ase/config.ini')})"
        return PotcarPath(source=source, trouble=f"{source} cannot be used: {words_of(error)}")
    if value is None:
        return None
    # ASE opens the path as it stands: no "~", no "$NAME".
    return _named(value, f"[environment] {VARIABLE} in {', '.join(map(one_line, read))}")


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
        return PotcarPath(source=source, trouble=f"{source} cannot be read: {words_of(error)}")
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
    """Take a value whose ``$NAME`` and ``~`` quacc expands."""
    if not value:
        return _named(value, source)
    try:
        return _named(str(expanded(value, environment)), source)
    except ValueError as error:
        return PotcarPath(source=source, trouble=f"{source} cannot be used: {error}")


def _named(value: str | None, source: str) -> PotcarPath:
    if value is None:
        return PotcarPath()
    if not value:
        return PotcarPath(source=source, trouble=f"{source} is empty")
    return PotcarPath(path=Path(value), source=source)
