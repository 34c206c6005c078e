"""The host's own check of a job: ask its recipe for a report, and judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.hookspecs import hookimpl
from crystalmath.recipes.lookup import family_of, is_quaccs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from crystalmath.models import Finding, Pseudopotential

#: Programs for molecules, which ignore the cell.
_MOLECULES = ("gaussian", "mrcc", "orca", "psi4", "qchem")


@hookimpl
def crystalmath_preflight(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Finding]:
    """Return the findings that keep a job's calculations from beginning.

    A job that would fail has errors. A recipe that cannot be asked is a warning
    (``recipe_unchecked``), as the job may run. It is an error if quacc's settings are the cause.
    """
    ours = is_quaccs(recipe)
    unread = _settings_elsewhere(environment, ours=ours)
    if certain := [*_without_a_cell(recipe, atoms), *(unread if ours else ())]:
        return certain
    # Imported within the functions: most recipes need none of it, and a command must start quickly.
    from crystalmath.preflight import inspector, plausibility
    from crystalmath.preflight.programs_here import concerns

    findings = (*unread, *plausibility.findings(recipe, atoms, parameters))
    if not concerns(recipe, environment):
        return (*findings, *_refused(recipe, environment))
    from crystalmath.preflight.settings_check import settings_refused
    from crystalmath.preflight.verdict import judge, unasked

    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document)
    except inspector.CannotAsk as error:
        refused = settings_refused(environment)
        return (*findings, unasked(str(error), recipe, environment, refused))
    return (*findings, *judge(report, recipe, atoms, environment, parameters))


@hookimpl
def crystalmath_pseudopotentials(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Pseudopotential]:
    """Return the files that a job reads, each once, from the same report."""
    from crystalmath.preflight import inspector
    from crystalmath.preflight.programs_here import concerns

    if not concerns(recipe, environment):
        return ()
    from crystalmath.preflight.verdict import pseudopotentials

    try:
        # The inspector remembers the report of the preflight.
        return pseudopotentials(inspector.ask(recipe, atoms, parameters, environment, document))
    except inspector.CannotAsk:
        return ()


def _refused(recipe: str, environment: Mapping[str, str]) -> Sequence[Finding]:
    """Return a finding about settings that quacc does not start with: every worker imports it."""
    from crystalmath.preflight.settings_check import settings_refused

    refused = settings_refused(environment)
    if not refused:
        return ()
    from crystalmath.preflight.verdict import unasked

    return (unasked("", recipe, environment, refused),)


def _settings_elsewhere(environment: Mapping[str, str], *, ours: bool) -> Sequence[Finding]:
    """Return a finding about a settings file that no job would read.

    It is a warning for a user's own recipe, which may not use quacc.
    """
    from crystalmath.recipes.quacc_settings import relative_file

    named = relative_file(environment)
    if named is None:
        return ()
    from crystalmath.models import Finding

    message = (
        f"quacc's settings file {named!r} (from QUACC_CONFIG_FILE) is a relative path, but a job "
        "runs in another directory: quacc would use its defaults instead"
    )
    return (
        Finding(
            severity="error" if ours else "warning",
            code="settings_relative",
            message=message,
            source="QUACC_CONFIG_FILE",
            remedy="set QUACC_CONFIG_FILE to an absolute path",
        ),
    )


def _without_a_cell(recipe: str, atoms: Atoms | None) -> Sequence[Finding]:
    """Return a finding about a periodic structure without one of its lattice vectors.

    Its energies are NaN, its program fails, or quacc cannot describe the result. A user's own
    recipe may add the vector.
    """
    if not atoms or not atoms.pbc.any() or atoms.cell.array.any(axis=1).all():
        return ()
    if family_of(recipe) in ("", *_MOLECULES):
        return ()
    from crystalmath.models import Finding

    message = (
        f"the structure is periodic (pbc {atoms.pbc.tolist()}), but its cell has a vector of zero "
        f"length: {atoms.cell.array.tolist()} Å"
    )
    remedy = "set three lattice vectors, with vacuum around a slab or molecule, or set pbc to false"
    return (Finding(severity="error", code="structure_no_cell", message=message, remedy=remedy),)
