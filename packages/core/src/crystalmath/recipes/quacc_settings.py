"""quacc's settings: where quacc and ASE read them, what a caller has changed, and VASP's POTCARs.

Neither is imported here: importing quacc takes seconds. The folder of the POTCARs comes from these
sources, as in quacc 1.8 and ASE 3.29; the first one counts:

1. ``VASP_PP_PATH`` in the section ``[environment]`` of ASE's configuration file
   (``~/.config/ase/config.ini``, or the files that ``ASE_CONFIG_PATH`` lists).
2. quacc's setting ``VASP_PP_PATH``: as it is in this process, else the environment variable
   ``QUACC_VASP_PP_PATH``, else ``~/.quacc.yaml`` or the file that ``QUACC_CONFIG_FILE`` names.
3. The environment variable ``VASP_PP_PATH``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import one_line, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FILE_VARIABLE = "QUACC_CONFIG_FILE"


def quacc_setting(name: str, environment: Mapping[str, str]) -> tuple[object, str] | None:
    """Look up one of quacc's settings as a fresh process would, without importing quacc.

    Returns the value as that process's environment or quacc's settings file has it, and its source;
    ``None`` for the default. Raises `ValueError`: the settings file cannot be read, so that quacc
    would not start either.
    """
    file = _quacc_file(environment)
    # Read in any case, as quacc does: it does not start if it cannot read the file.
    settings = _read_yaml(file)
    variable = f"QUACC_{name}"
    if (value := _quacc_variable(variable, environment)) is not None:
        return value, variable
    return (settings[name], f"{name} in {one_line(file)}") if name in settings else None


def settings_files(environment: Mapping[str, str]) -> list[str]:
    """Return the files that quacc and ASE read their settings from, present or not."""
    files = map(_absolute, ase_files(environment))
    return [*files, *filter(None, [settings_file(environment)])]


def settings_file(environment: Mapping[str, str]) -> str | None:
    """Return the file that quacc reads its settings from; ``None`` if its name is not usable."""
    try:
        return _absolute(_quacc_file(environment))
    except ValueError:  # quacc does not start then
        return None


def _absolute(file: Path) -> str:
    return os.path.abspath(file)  # noqa: PTH100 - resolve() follows links


def relative_file(environment: Mapping[str, str]) -> str | None:
    """Return the name of quacc's settings file if it depends on the working directory."""
    named = _quacc_variable(_FILE_VARIABLE, environment)
    try:
        is_absolute = named is None or _quacc_file(environment).is_absolute()
    except ValueError:  # quacc does not start then
        return None
    return None if is_absolute else named


def ase_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the files that ASE reads its configuration from, present or not."""
    named = environment.get("ASE_CONFIG_PATH")
    if named is None:
        return [_home(environment) / ".config/ase/config.ini"]
    return [Path(name) for name in named.split(":")]


def expanded(value: str, environment: Mapping[str, str]) -> Path:
    """Expand ``$NAME`` and ``~`` as quacc does; `ValueError`: there is no such home directory."""

    def known(match: re.Match[str]) -> str:
        name = match[1].strip("{}")
        return environment.get(name, os.environ.get(name, match[0]))

    path = Path(re.sub(r"\$(\w+|\{[^}]*\})", known, value, flags=re.ASCII))
    return _at_home(path, environment)


def _at_home(path: Path, environment: Mapping[str, str]) -> Path:
    """Expand ``~``; `ValueError`: no such home directory is known."""
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
    # pydantic ignores the case, and the last spelling counts.
    values = [value for name, value in environment.items() if name.upper() == variable]
    return values[-1] if values else None


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - never raises


def _read_yaml(file: Path) -> dict[object, object]:
    from ruamel.yaml import YAML

    try:
        if not file.exists() or file.stat().st_size == 0:
            return {}
        # quacc, too, takes anything that dict() takes.
        return dict(YAML().load(file))
    except Exception as error:
        # The parser also raises errors that are not its own, such as RecursionError.
        text = f"quacc's settings file {one_line(file)} cannot be read: {words_of(error)}"
        raise ValueError(text) from error


_PREFIX = "QUACC_"
#: Settings that each job has of its own, or that concern the caller's process alone.
_OWN = frozenset(("CONFIG_FILE", "LOG_FILENAME", "RESULTS_DIR", "WORKFLOW_ENGINE"))


def changed_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the changes of quacc's settings in this thread, as environment variables.

    ``quacc.change_settings`` and ``quacc.set_settings`` change the settings of their thread only,
    and a job runs elsewhere. If quacc is not imported there are no changes, and it is not imported
    here.
    """
    quacc = sys.modules.get("quacc")
    # quacc.get_settings() would make settings in a thread without any.
    settings = getattr(getattr(quacc, "_thread_local", None), "settings", None)
    if settings is None:
        return {}
    return dict(_changed(settings, environ))


def _changed(settings: Any, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    kind: Any = type(settings)
    current = _read_again(settings, environ)
    written: dict[str, Any] | None = None
    for name, field in kind.model_fields.items():
        value = getattr(settings, name)
        if name in _OWN or (name in current and value == current[name]):
            continue
        variable = f"{_PREFIX}{name}"
        untouched = value == field.default and name not in settings.model_fields_set
        if untouched and variable in environ:
            continue  # the variable was set after the import of quacc
        if written is None:
            written = settings.model_dump(mode="json")
        yield variable, _text(written[name])


def _read_again(settings: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    kind: Any = type(settings)
    # With variables that pydantic refuses quacc does not start: the job is refused with the reason,
    # unless the caller has changed that very setting.
    with contextlib.suppress(Exception):
        return dict(_as_read(kind, _variables(environ), _signature(environ)))
    return {name: value for name, value in settings if name not in settings.model_fields_set}


def _variables(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(item for item in environ.items() if item[0].upper().startswith(_PREFIX))


@functools.lru_cache(maxsize=8)
def _as_read(kind: Any, variables: tuple[tuple[str, str], ...], file: object) -> Any:
    """Return the settings as quacc would read them now, which takes milliseconds."""
    del variables, file  # their sources, the key of the cache
    return kind()


def _signature(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    file = environ.get(f"{_PREFIX}CONFIG_FILE", "~/.quacc.yaml")
    try:
        status = Path(file).expanduser().stat()
    except (OSError, RuntimeError):  # or there is no home
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _text(value: Any) -> str:
    # The form that quacc reads: JSON but for texts, and "None" for none.
    if isinstance(value, (str, PurePath)):
        return str(value)
    return "None" if value is None else json.dumps(value)


VARIABLE = "VASP_PP_PATH"


@frozen(kw_only=True)
class PotcarPath:
    """The folder of the pseudopotentials, by the settings of quacc and ASE."""

    #: The folder as quacc or ASE would use it; ``None`` if no setting names one.
    path: Path | None = None
    #: The variable, or the setting with its file, that names the folder.
    source: str | None = None
    #: Why that source cannot be used.
    trouble: str | None = None


def potcars_of_this_process() -> PotcarPath:
    """Return the path that this process would use, with the settings of quacc if imported."""
    return _ase(os.environ) or _imported_quacc() or _quacc(os.environ)


def potcars_of(environment: Mapping[str, str]) -> PotcarPath:
    """Return the path that a fresh worker process would use."""
    return _ase(environment) or _quacc(environment)


def _ase(environment: Mapping[str, str]) -> PotcarPath | None:
    import configparser

    named = environment.get("ASE_CONFIG_PATH")
    if not any(os.path.exists(file) for file in ase_files(environment)):  # noqa: PTH110 - Path.exists may raise
        return None
    parser = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    try:
        # As ASE does, skip files that cannot be opened.
        read = parser.read(ase_files(environment))
        value = parser.get("environment", VARIABLE, fallback=None)
    except (configparser.Error, ValueError) as error:
        source = f"ASE's configuration ({one_line(named or '~/.config/ase/config.ini')})"
        return PotcarPath(source=source, trouble=f"{source} cannot be used: {words_of(error)}")
    if value is None:
        return None
    # ASE expands neither "~" nor "$NAME".
    return _potcar_path(value, f"[environment] {VARIABLE} in {', '.join(map(one_line, read))}")


def _imported_quacc() -> PotcarPath | None:
    get_settings = getattr(sys.modules.get("quacc"), "get_settings", None)
    if get_settings is None:
        return None
    source = f"quacc.get_settings().{VARIABLE}"
    try:
        value = getattr(get_settings(), VARIABLE, False)
    except Exception as error:  # noqa: BLE001 - a new thread's settings are read from files here
        return PotcarPath(source=source, trouble=f"{source} cannot be read: {words_of(error)}")
    if value is None:
        return _plain(os.environ)
    return _potcar_path(str(value), source) if isinstance(value, (str, PurePath)) else None


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
    """Return the path of the variable, which ASE does not expand, if quacc's setting is None."""
    return _potcar_path(environment.get(VARIABLE) or None, VARIABLE)


def _expanded(value: str | None, source: str, environment: Mapping[str, str]) -> PotcarPath:
    """Return the path of a value whose ``$NAME`` and ``~`` quacc expands."""
    if not value:
        return _potcar_path(value, source)
    try:
        return _potcar_path(str(expanded(value, environment)), source)
    except ValueError as error:
        return PotcarPath(source=source, trouble=f"{source} cannot be used: {error}")


def _potcar_path(value: str | None, source: str) -> PotcarPath:
    if value is None:
        return PotcarPath()
    if not value:
        return PotcarPath(source=source, trouble=f"{source} is empty")
    return PotcarPath(path=Path(value), source=source)
