"""The host's own check of a job: its recipe is asked what it reads, and that is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.hookspecs import hookimpl
from crystalmath.recipes.lookup import family_of, is_quaccs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from crystalmath.models import Finding, Pseudopotential

#: Programs for molecules, which heed no cell.
_MOLECULES = ("gaussian", "mrcc", "orca", "psi4", "qchem")


@hookimpl
def crystalmath_preflight(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Finding]:
    """Return what would keep a job's calculations from beginning.

    A job that would die has errors. A recipe that cannot be asked is a warning
    (``recipe_unchecked``): the job may well run. If quacc's settings are why, it is an error.
    """
    ours = is_quaccs(recipe)
    unread = _settings_elsewhere(environment, ours=ours)
    if found := [*_without_a_cell(recipe, atoms), *(unread if ours else ())]:
        return found
    # Within the functions: most recipes concern nobody here, and a command must start quickly.
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
    """Identify the files that a job reads, each once, from the same answer."""
    from crystalmath.preflight import inspector
    from crystalmath.preflight.programs_here import concerns

    if not concerns(recipe, environment):
        return ()
    from crystalmath.preflight.verdict import pseudopotentials

    try:
        # What the preflight was told is remembered.
        return pseudopotentials(inspector.ask(recipe, atoms, parameters, environment, document))
    except inspector.CannotAsk:
        return ()


def _refused(recipe: str, environment: Mapping[str, str]) -> Sequence[Finding]:
    """Find settings that quacc does not start with: workers import it, whatever they run."""
    from crystalmath.preflight.settings_check import settings_refused

    refused = settings_refused(environment)
    if not refused:
        return ()
    from crystalmath.preflight.verdict import unasked

    return (unasked("", recipe, environment, refused),)


def _settings_elsewhere(environment: Mapping[str, str], *, ours: bool) -> Sequence[Finding]:
    """Find a settings file that no job would read; a user's own recipe may do without quacc."""
    from crystalmath.recipes.quacc_settings import relative_file

    named = relative_file(environment)
    if named is None:
        return ()
    from crystalmath.models import Finding

    message = (
        f"the file of quacc's settings {named!r} (from QUACC_CONFIG_FILE) is a relative path, and "
        "a job does not run in this directory: quacc would have its defaults in place of them"
    )
    return (
        Finding(
            severity="error" if ours else "warning",
            code="settings_relative",
            message=message,
            source="QUACC_CONFIG_FILE",
            remedy="give it as an absolute path",
        ),
    )


def _without_a_cell(recipe: str, atoms: Atoms | None) -> Sequence[Finding]:
    """Find periodic structures that lack a lattice vector, be it that of the vacuum on a slab.

    Energies and forces come out as NaN, the program dies, or quacc fails where it describes the
    structure in the result, by pymatgen. A user's own recipe may mend that.
    """
    if not atoms or not atoms.pbc.any() or atoms.cell.array.any(axis=1).all():
        return ()
    if family_of(recipe) in ("", *_MOLECULES):
        return ()
    from crystalmath.models import Finding

    message = (
        f"the structure is periodic (pbc {atoms.pbc.tolist()}), and its cell has a vector of no "
        f"length: {atoms.cell.array.tolist()} Å"
    )
    remedy = (
        "give it three lattice vectors, with vacuum around a slab or molecule, or set pbc to false"
    )
    return (Finding(severity="error", code="structure_no_cell", message=message, remedy=remedy),)
