"""The folders that files of a job come from, and checks that they exist."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.errors import one_line
from crystalmath.models import Finding
from crystalmath.recipes.lookup import is_quaccs

if TYPE_CHECKING:
    from collections.abc import Iterator


def folder_trouble(path: Path) -> tuple[str, str]:
    """Return a code (``path``, ``not_a_folder``, ``unlisted``) and words; empty: it is usable."""
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
    """Return the sorted names in a folder; ``None``: it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except (OSError, ValueError):
        return None


#: Parameters that name the folder of an earlier calculation, for programs to run in.
RUN_IN = frozenset(("prev_outdir",))
#: Parameters that name the folder of an earlier calculation.
FOLDERS = frozenset(("prev_dir", *RUN_IN))


def anchored(recipe: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with absolute paths for folders and sources of ``copy_files``."""
    return _anchored(parameters) if is_quaccs(recipe) else dict(parameters)


def _anchored(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(key, value) for key, value in parameters.items()}


def _value(key: str, value: Any) -> Any:
    if key in FOLDERS:
        return _absolute(value)
    if key == "copy_files" and isinstance(value, (list, tuple)):
        return [_spec(spec) for spec in value]
    return _anchored(value) if isinstance(value, dict) else value


def _spec(spec: Any) -> Any:
    if not isinstance(spec, dict) or "source" not in spec:
        return spec
    return {**spec, "source": _absolute(spec["source"])}


def _absolute(path: Any) -> Any:
    if not isinstance(path, (str, Path)) or not str(path) or str(path).startswith("~"):
        return path
    return type(path)(os.path.abspath(path))


_MAGIC = frozenset("*?[")


def check_sources(recipe: str, parameters: Mapping[str, Any]) -> list[Finding]:
    """Check that the folders and files exist that a job copies.

    Errors are ``source_missing`` and ``source_relative``; a pattern without matches is a warning.
    A recipe of the user's own may use such parameters in another way, and is not checked.
    """
    if not is_quaccs(recipe):
        return []
    return [
        finding
        for name, folder, files in _sources(parameters, "")
        for finding in _source_findings(name, os.path.expanduser(os.fspath(folder)), files)
    ]


def sources(parameters: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the names of parameters that make a recipe of quacc's copy files."""
    names = []
    for key, value in parameters.items():
        if value and (key in FOLDERS or key == "copy_files"):
            names.append(f"{above}{key}")
        elif isinstance(value, Mapping):
            names += sources(value, f"{above}{key}.")
    return names


def run_folders(recipe: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the folders that a recipe of quacc's would run its programs in, each once."""
    if not is_quaccs(recipe):
        return []
    named = (each for each in _sources(parameters, "") if each[0].rpartition(".")[2] in RUN_IN)
    folders = (os.path.expanduser(os.fspath(folder)) for _, folder, _ in named)
    return list(dict.fromkeys(folder for folder in folders if os.path.isdir(folder)))


def _sources(parameters: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any, list[str]]]:
    for key, value in parameters.items():
        name = f"{above}{key}"
        if key in FOLDERS and isinstance(value, (str, os.PathLike)):
            yield name, value, []
        elif key == "copy_files":
            yield from _specs(name, value)
        elif isinstance(value, Mapping):
            yield from _sources(value, f"{name}.")


def _specs(name: str, value: object) -> Iterator[tuple[str, Any, list[str]]]:
    for spec in value if isinstance(value, (list, tuple)) else [value]:
        source = spec.get("source") if isinstance(spec, Mapping) else None
        if isinstance(spec, Mapping) and isinstance(source, (str, os.PathLike)):
            files = spec.get("filenames", [])
            listed = files if isinstance(files, (list, tuple)) else [files]
            yield name, source, [str(each) for each in listed]


def _source_findings(name: str, folder: str, files: list[str]) -> Iterator[Finding]:
    if not os.path.isabs(folder):
        yield _finding(
            "error",
            "source_relative",
            f"{name} is {one_line(folder)!r}, but a job does not run in this directory",
            name,
            "give it as an absolute path",
        )
    elif not os.path.isdir(folder):
        words = "is not a folder" if os.path.exists(folder) else "does not exist"
        message = f"{name}: {one_line(folder)} {words}"
        yield _finding("error", "source_missing", message, name, "correct it, or leave it out")
    else:
        yield from _file_findings(name, folder, files)


def _file_findings(name: str, folder: str, files: list[str]) -> Iterator[Finding]:
    for file in files:
        pattern = bool(_MAGIC & set(file))
        inside = os.path.join(glob.escape(folder), file)
        if not glob.glob(inside, include_hidden=True):
            yield _finding(
                "warning" if pattern else "error",
                "source_missing",
                f"{name}: nothing in {one_line(folder)} is named {one_line(file)!r}",
                name,
                "correct it, or leave it out: the calculation would start without the file",
            )


def _finding(severity: Any, code: str, message: str, name: str, remedy: str) -> Finding:
    return Finding(
        severity=severity,
        code=code,
        message=message,
        source=f"the parameter {name}",
        remedy=remedy,
    )
