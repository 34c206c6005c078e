"""The folders that files of a quacc job come from: ``copy_files``, ``prev_dir`` and the like."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.models import Finding
from crystalmath.recipes.lookup import NAMESPACE
from crystalmath.recipes.one_line import shown
from crystalmath.recipes.source_paths import FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = frozenset("*?[")


def check_sources(recipe: str, parameters: Mapping[str, Any]) -> list[Finding]:
    """Look whether the folders and files are there that a job is told to take.

    Parameters
    ----------
    recipe : str
        Full dotted name; of a user's own, nobody knows what such parameters mean.
    parameters : mapping of str to object
        The recipe's parameters; those of a flow's jobs lie deeper.

    Returns
    -------
    list of Finding
        Errors ``source_missing`` and ``source_relative``; warnings for patterns that match nothing:
        the calculation would begin without.
    """
    if not recipe.startswith(f"{NAMESPACE}."):
        return []
    return [
        finding
        for name, folder, files in _sources(parameters, "")
        for finding in _of_source(name, os.path.expanduser(os.fspath(folder)), files)
    ]


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


def _of_source(name: str, folder: str, files: list[str]) -> Iterator[Finding]:
    if not os.path.isabs(folder):
        yield _finding(
            "error",
            "source_relative",
            f"{name} is {shown(folder)!r}, and a job does not run in this directory",
            name,
            "give it as an absolute path",
        )
    elif not os.path.isdir(folder):
        words = "is not a folder" if os.path.exists(folder) else "does not exist"
        message = f"{name}: {shown(folder)} {words}"
        yield _finding("error", "source_missing", message, name, "correct it, or leave it out")
    else:
        yield from _of_files(name, folder, files)


def _of_files(name: str, folder: str, files: list[str]) -> Iterator[Finding]:
    for file in files:
        pattern = bool(_MAGIC & set(file))
        inside = os.path.join(glob.escape(folder), file)
        if not glob.glob(inside, include_hidden=True):
            yield _finding(
                "warning" if pattern else "error",
                "source_missing",
                f"{name}: nothing in {shown(folder)} is named {shown(file)!r}",
                name,
                "correct it, or leave it out: the calculation would begin without",
            )


def _finding(severity: Any, code: str, message: str, name: str, remedy: str) -> Finding:
    return Finding(
        severity=severity,
        code=code,
        message=message,
        source=f"the parameter {name}",
        remedy=remedy,
    )
