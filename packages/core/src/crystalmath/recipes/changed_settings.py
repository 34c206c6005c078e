"""What a caller has changed of quacc's settings, as the environment that says the same."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PREFIX = "QUACC_"
#: What a job has of its own, or what is about the caller's process alone.
_OWN = frozenset(("CONFIG_FILE", "LOG_FILENAME", "RESULTS_DIR", "WORKFLOW_ENGINE"))


def changed_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Write what this thread has changed of quacc's settings as environment variables.

    ``quacc.change_settings`` and ``quacc.set_settings`` change the settings of their thread only,
    and a job runs elsewhere. Where quacc is not imported nobody has changed them, and it stays so.

    Parameters
    ----------
    environ : mapping of str to str
        The environment. What it says goes before what it did not say when quacc was imported.

    Returns
    -------
    dict of str to str
        ``QUACC_ESPRESSO_PSEUDO`` and the like, for what is not what quacc would read anew.
    """
    quacc = sys.modules.get("quacc")
    # quacc.get_settings() would make them in a thread that has none.
    settings = getattr(getattr(quacc, "_thread_local", None), "settings", None)
    if settings is None:
        return {}
    return dict(_changed(settings, environ))


def _changed(settings: Any, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    kind: Any = type(settings)
    anew = _read_anew(settings, environ)
    written: dict[str, Any] | None = None
    for name, field in kind.model_fields.items():
        value = getattr(settings, name)
        if name in _OWN or (name in anew and value == anew[name]):
            continue
        variable = f"{_PREFIX}{name}"
        untouched = value == field.default and name not in settings.model_fields_set
        if untouched and variable in environ:
            continue  # the variable was set when quacc had been imported
        if written is None:
            written = settings.model_dump(mode="json")
        yield variable, _text(written[name])


def _read_anew(settings: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    kind: Any = type(settings)
    try:
        return dict(_as_read(kind, _said(environ), _signature(environ)))
    except Exception:  # noqa: BLE001
        # quacc does not start with what the environment says now, and the job is refused for that,
        # with the reason, unless it is what was set here.
        return {name: value for name, value in settings if name not in settings.model_fields_set}


def _said(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(item for item in environ.items() if item[0].upper().startswith(_PREFIX))


@functools.lru_cache(maxsize=8)
def _as_read(kind: Any, said: tuple[tuple[str, str], ...], file: object) -> Any:
    """Return the settings that quacc would have if it read them anew, which takes milliseconds."""
    del said, file  # what they are read from
    return kind()


def _signature(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    file = environ.get(f"{_PREFIX}CONFIG_FILE", "~/.quacc.yaml")
    try:
        status = Path(file).expanduser().stat()
    except (OSError, RuntimeError):  # or there is no home
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _text(value: Any) -> str:
    # As quacc's settings read it again: JSON but for texts, and "None" for none.
    if isinstance(value, (str, PurePath)):
        return str(value)
    return "None" if value is None else json.dumps(value)
