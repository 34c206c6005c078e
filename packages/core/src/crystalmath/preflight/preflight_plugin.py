"""The host's own check of a job: its recipe is asked what it reads, and that is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from crystalmath.models import Finding, Pseudopotential

__all__ = ["crystalmath_preflight", "crystalmath_pseudopotentials"]


@hookimpl
def crystalmath_preflight(
    recipe: str,
    atoms: Atoms,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Finding]:
    """Say what would keep a job's calculations from beginning.

    Parameters
    ----------
    recipe : str
        Full dotted name; those that run a program which a plugin knows are looked at.
    atoms : ase.Atoms
        The structure.
    parameters : mapping of str to object
        The recipe's parameters.
    environment : mapping of str to str
        The environment variables that the job will see.
    document : str
        Structure and parameters as they go to the recipe that is asked.

    Returns
    -------
    sequence of Finding
        Errors for a job that would die. Where the recipe could not be asked, one warning
        (``recipe_unchecked``): the job may well run. Where quacc's settings are why, an error.
    """
    # Within the functions: most recipes concern nobody here, and a command must start quickly.
    from crystalmath.preflight import inspector

    if not inspector.concerns(recipe, environment):
        return ()
    from crystalmath.preflight.verdict import judge, unasked

    try:
        report = inspector.ask(recipe, atoms, parameters, environment, document)
    except inspector.CannotAsk as error:
        return (unasked(str(error), recipe, environment),)
    return judge(report, recipe, atoms, environment, parameters)


@hookimpl
def crystalmath_pseudopotentials(
    recipe: str,
    atoms: Atoms,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Pseudopotential]:
    """Name the files that a job reads, from what the preflight was told.

    Parameters
    ----------
    recipe, atoms, parameters, environment, document
        As for :func:`crystalmath_preflight`.

    Returns
    -------
    sequence of Pseudopotential
        Each file once.
    """
    from crystalmath.preflight import inspector

    if not inspector.concerns(recipe, environment):
        return ()
    from crystalmath.preflight.verdict import pseudopotentials

    try:
        # What the preflight was told is remembered.
        return pseudopotentials(inspector.ask(recipe, atoms, parameters, environment, document))
    except inspector.CannotAsk:
        return ()
