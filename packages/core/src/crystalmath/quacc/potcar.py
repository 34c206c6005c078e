"""Check VASP's pseudopotentials, and report missing ones.

This is a coarse check of elements alone: it accepts any PBE library with a dataset for each, in any
variant. :mod:`crystalmath.preflight` checks the datasets that a recipe reads. Neither quacc nor
pymatgen is imported here; :mod:`crystalmath.recipes.quacc_settings` finds the path.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from crystalmath.errors import one_line
from crystalmath.models import Finding
from crystalmath.recipes.quacc_settings import VARIABLE, PotcarPath, potcars_of_this_process
from crystalmath.recipes.source_folders import folder_trouble, names_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "check_potcars",
    "describe_potcars",
    "get_potcar_info",
    "get_potcar_path",
    "validate_potcars",
]

_ELEMENT = re.compile(r"[A-Z][a-z]?")
_DATASET = re.compile(r"[A-Z][a-z]?([._\d].*)?", re.DOTALL)
_LIBRARY = ("potpaw", "PBE", "LDA", "PW91", "GGA")
_PBE = ("potpaw_PBE", "PBE")
_FOLDER = "the folder that holds potpaw_PBE.64 or another potpaw_PBE folder"


def get_potcar_path() -> Path | None:
    """Return the configured path of the pseudopotentials, for this process.

    Returns
    -------
    pathlib.Path or None
        The path, which need not exist; ``None`` if no setting names one.
    """
    return potcars_of_this_process().path


def validate_potcars(elements: set[str]) -> tuple[bool, str | None]:
    """Check that a PBE library has a dataset for each element.

    Parameters
    ----------
    elements : set of str
        Chemical symbols. The empty set is valid.

    Returns
    -------
    tuple of bool and str or None
        ``(True, None)``, or ``(False, message)``. The message names the missing elements, the
        searched folder and the remedy. An unreadable folder raises no error.
    """
    if not elements:
        return True, None
    finding = check_potcars(potcars_of_this_process(), elements)
    return (True, None) if finding is None else (False, str(finding))


def get_potcar_info() -> dict[str, Any]:
    """Describe the pseudopotentials that this process sees.

    Returns
    -------
    dict
        ``path`` (:class:`pathlib.Path` or ``None``), ``source`` (what named it, or ``None``),
        ``valid`` (a PBE library is there and can be read) and ``functionals`` (name of a folder
        -> its number of datasets).
    """
    return describe_potcars(potcars_of_this_process())


def describe_potcars(where: PotcarPath) -> dict[str, Any]:
    """Describe the pseudopotentials of a place as :func:`get_potcar_info` does."""
    return {
        "path": where.path,
        "source": where.source,
        "valid": check_potcars(where, ()) is None,
        "functionals": {} if where.path is None else _functionals(where.path),
    }


def check_potcars(where: PotcarPath, elements: Iterable[str]) -> Finding | None:
    """Return the first obstacle to a VASP job with these elements, an error.

    With no elements only the library is looked for. Codes: ``potcar_element`` (no chemical symbol),
    ``potcar_settings`` (a setting or its file cannot be used), ``potcar_unset``, ``potcar_path``
    (cannot be reached), ``potcar_not_a_folder``, ``potcar_unlisted`` (may be entered, not listed),
    ``potcar_no_pbe``, ``potcar_missing`` (elements without dataset).
    """
    wanted = sorted(set(elements), key=str)
    strange = [name for name in wanted if not _is_element(name)]
    if strange:
        message = f"no chemical symbol: {', '.join(map(repr, strange))}"
        return _finding("element", message, where, "POTCARs go by symbols such as 'Si'")
    finding = _path_finding(where, wanted)
    if finding is not None or where.path is None:
        return finding
    return _library_finding(where, where.path, wanted)


def _path_finding(where: PotcarPath, wanted: list[str]) -> Finding | None:
    if where.trouble is not None:
        remedy = f"mend it: {VARIABLE} there must name {_FOLDER}"
        return _finding("settings", where.trouble + _for(wanted), where, remedy)
    if where.path is None:
        message = f"{VARIABLE} is not set, and nothing else says where VASP's POTCAR files are"
        return _finding("unset", message + _for(wanted), where, _correct(where))
    code, trouble = folder_trouble(where.path)
    if not code:
        return None
    message = f"the POTCAR folder {one_line(where.path)} (from {where.source}) {trouble}"
    remedy = _correct(where)
    if str(where.path).startswith("~"):
        remedy += "; write it without '~', which is not expanded there"
    return _finding(code, message + _for(wanted), where, remedy)


def _library_finding(where: PotcarPath, path: Path, wanted: list[str]) -> Finding | None:
    named = [name for name in names_in(path) or () if name.startswith(_PBE)]
    libraries = {name: names_in(path / name) for name in named if _usable(path / name)}
    if not libraries:
        return _no_library(where, path, named, wanted)
    # One job takes all its datasets from one folder.
    lacking = {
        name: [element for element in wanted if not _has(path / name, datasets, element)]
        for name, datasets in libraries.items()
        if datasets is not None
    }
    if not all(lacking.values()):
        return None
    if len(lacking) < len(libraries):
        closed = next(name for name in libraries if name not in lacking)
        message = f"the PBE folder {one_line(path / closed)} (from {where.source}) cannot be listed"
        return _finding("unlisted", message + _for(wanted), where, "make it readable (chmod u+r)")
    return _missing(where, path, lacking)


def _no_library(where: PotcarPath, path: Path, named: list[str], wanted: list[str]) -> Finding:
    message = f"no PBE folder (potpaw_PBE* or PBE*) in {one_line(path)} (from {where.source})"
    remedy = _correct(where)
    if named:
        message += f", where {', '.join(map(one_line, named))} cannot be opened as a folder"
    elif path.name.startswith(_PBE):
        parent = path.parent if path.is_absolute() else path / ".."
        message += ", which looks like such a folder itself"
        remedy = f"point at the parent folder: {where.source} = {one_line(parent)}"
    elif any(map(_is_dataset, _folders(path))):
        message += ", which holds datasets itself"
        remedy = f"link it as potpaw_PBE.64 into a folder, and point {where.source} at that one"
    return _finding("no_pbe", message + _for(wanted), where, remedy)


def _missing(where: PotcarPath, path: Path, lacking: Mapping[str, list[str]]) -> Finding:
    best = min(lacking, key=lambda name: len(lacking[name]))
    missing = lacking[best]
    message = f"no POTCAR folder for {', '.join(missing)} in {one_line(path / best)}"
    message += f" (from {where.source})"
    others = [
        f"{one_line(name)} lacks {', '.join(lacking[name])}" for name in lacking if name != best
    ]
    if others:
        message += f"; {'; '.join(others)}"
    remedy = (
        f"add a readable folder for each, such as {missing[0]} or {missing[0]}_sv, "
        f"or point {where.source} at another library"
    )
    return _finding("missing", message, where, remedy)


def _functionals(path: Path) -> dict[str, int]:
    # Any folder may be a library: ASE takes its name as the parameter ``pp``.
    counts = {name: sum(map(_is_dataset, _folders(path / name))) for name in _folders(path)}
    return {name: count for name, count in counts.items() if count or name.startswith(_LIBRARY)}


def _has(folder: Path, names: Iterable[str], element: str) -> bool:
    variant = f"{element}_"
    return any(
        (name == element or name.startswith(variant)) and _usable(folder / name) for name in names
    )


def _is_element(name: object) -> bool:
    return isinstance(name, str) and _ELEMENT.fullmatch(name) is not None


def _is_dataset(name: str) -> bool:
    return _DATASET.fullmatch(name) is not None


def _folders(path: Path) -> list[str]:
    return [name for name in names_in(path) or () if _usable(path / name)]


def _usable(path: Path) -> bool:
    # ASE opens files below it by name, which needs no listing. With the slash only a folder passes.
    return os.access(f"{path}/", os.X_OK)


def _for(wanted: list[str]) -> str:
    return f"; wanted for {', '.join(wanted)}" if wanted else ""


def _correct(where: PotcarPath) -> str:
    if where.source is None or where.source == VARIABLE:
        return f"set {VARIABLE} to {_FOLDER}"
    return f"correct {where.source}: {VARIABLE} must name {_FOLDER}"


def _finding(code: str, message: str, where: PotcarPath, remedy: str) -> Finding:
    return Finding(
        severity="error",
        code=f"potcar_{code}",
        message=message,
        path=None if where.path is None else str(where.path),
        source=where.source,
        remedy=remedy,
    )
