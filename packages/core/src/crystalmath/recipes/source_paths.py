"""Relative folders in a job's parameters mean the folder of whoever submits it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.recipes.lookup import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Parameters that are the folder of an earlier calculation.
FOLDERS = frozenset(("prev_dir", "prev_outdir"))


def anchored(recipe: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Write folders and the sources of ``copy_files`` as whole paths, from this directory.

    Parameters
    ----------
    recipe : str
        Full dotted name; the parameters of a user's own are left as they are.
    parameters : mapping of str to object
        Those of its job, and deeper those of a flow's.
    """
    return _anchored(parameters) if recipe.startswith(f"{NAMESPACE}.") else dict(parameters)


def _anchored(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(key, value) for key, value in parameters.items()}


def _value(key: str, value: Any) -> Any:
    if key in FOLDERS:
        return _whole(value)
    if key == "copy_files" and isinstance(value, (list, tuple)):
        return [_spec(spec) for spec in value]
    return _anchored(value) if isinstance(value, dict) else value


def _spec(spec: Any) -> Any:
    if not isinstance(spec, dict) or "source" not in spec:
        return spec
    return {**spec, "source": _whole(spec["source"])}


def _whole(path: Any) -> Any:
    if not isinstance(path, (str, Path)) or not str(path) or str(path).startswith("~"):
        return path
    return type(path)(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
