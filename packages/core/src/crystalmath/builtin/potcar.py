"""The POTCAR preflight: a VASP job without pseudopotentials is refused before it is recorded.

It is the coarse check of :mod:`crystalmath.quacc.potcar`. What the job's own parameters could
cure (another library, setups by hand, a preset) is a warning here, never a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding
from crystalmath.quacc.potcar import check_potcars
from crystalmath.quacc.potcar_path import PotcarPath, fresh_process, quacc_setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

__all__ = ["crystalmath_preflight"]

_RECIPES = "quacc.recipes.vasp."
#: Obstacles that a parameter of the job may go around.
_CURES = {
    "potcar_not_a_folder": {"pp", "xc", "preset"},  # an absolute folder as ``pp``
    "potcar_no_pbe": {"pp", "xc", "preset"},
    "potcar_missing": {"pp", "xc", "preset", "setups"},
}
_DEPTH = 5


@hookimpl
def crystalmath_preflight(
    recipe: str, atoms: Atoms, parameters: Mapping[str, Any], environment: Mapping[str, str]
) -> Sequence[Finding]:
    """Look for the POTCARs of a VASP job, without importing quacc or the recipe.

    Parameters
    ----------
    recipe : str
        Full dotted name; only those under ``quacc.recipes.vasp`` are looked at.
    atoms : ase.Atoms
        Its elements are looked for.
    parameters : mapping of str to object
        The recipe's parameters.
    environment : mapping of str to str
        The environment variables that the job will see.

    Returns
    -------
    sequence of Finding
        Errors for what no parameter can cure, warnings (``potcar_unchecked``) for what one might.
    """
    if not recipe.startswith(_RECIPES):
        return []
    elements = set(atoms.get_chemical_symbols())
    where = fresh_process(environment)
    finding = check_potcars(where, elements - {"X"}) or _relative(where)
    findings = [] if finding is None else [_softened(finding, parameters, environment)]
    if "X" in elements:
        findings.append(_ghost(atoms))
    return findings


def _softened(
    finding: Finding, parameters: Mapping[str, Any], environment: Mapping[str, str]
) -> Finding:
    if finding.code == "potcar_unlisted":
        reason = "a folder that may be entered but not listed may well hold them"
    else:
        cures = _CURES.get(finding.code, set())
        names = sorted(set(_choices(parameters)) & cures)
        if not names and cures and _own_presets(environment):
            names = ["VASP_PRESET_DIR"]
        if not names:
            return finding
        reason = f"the job chooses its own with {', '.join(names)}"
    message = f"the POTCARs could not be checked here ({reason}): {finding.message}"
    return evolve(finding, severity="warning", code="potcar_unchecked", message=message)


def _choices(parameters: Mapping[Any, Any], depth: int = _DEPTH) -> Iterator[str]:
    """Name the parameters that choose POTCARs, those of a flow's jobs (nested) included."""
    for key, value in parameters.items():
        name = str(key).lower()
        if isinstance(value, Mapping) and depth and name != "setups":
            yield from _choices(value, depth - 1)
        elif name in {"setups", "preset"} or (name in {"pp", "xc"} and _not_pbe(name, value)):
            yield name


def _not_pbe(name: str, value: object) -> bool:
    if not isinstance(value, str):
        return True
    # ASE: every functional but LDA takes PBE's datasets, and any other ``pp`` is a folder's name.
    return value.lower() == "lda" if name == "xc" else value.lower() != "pbe"


def _own_presets(environment: Mapping[str, str]) -> bool:
    try:
        return quacc_setting("VASP_PRESET_DIR", environment) is not None
    except ValueError:
        return False


def _relative(where: PotcarPath) -> Finding | None:
    if where.path is None or where.path.is_absolute():
        return None
    return Finding(
        severity="error",
        code="potcar_relative",
        message=f"the POTCAR folder {str(where.path)!r} (from {where.source}) is a relative path, "
        "and a job does not run in this directory",
        path=str(where.path),
        source=where.source,
        remedy="give it as an absolute path",
    )


def _ghost(atoms: Atoms) -> Finding:
    symbols = atoms.get_chemical_symbols()
    return Finding(
        severity="error",
        code="potcar_ghost_atom",
        message=f"VASP has no POTCAR for a ghost atom X ({symbols.count('X')} of {len(symbols)} "
        f"atoms, the first at index {symbols.index('X')})",
        remedy="remove ghost atoms, or give them their elements",
    )
