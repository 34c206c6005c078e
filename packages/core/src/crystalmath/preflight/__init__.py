"""The preflight: ask a recipe before submission which files its calculations would read.

A supervised warm process (:mod:`~crystalmath.preflight.child_supervisor`) calls the recipe up to
its calculations and reports them (:mod:`~crystalmath.plugins.report`). The process that submits
makes the verdict from the report; it imports neither quacc nor a recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from crystalmath.plugins.report import Report


def required(
    recipe: str,
    atoms: Atoms | None = None,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Report:
    """Return the pseudopotential files that a recipe's calculations would read, with reasons.

    Parameters
    ----------
    recipe : str
        Its name; a leading ``quacc.recipes.`` may be left out.
    atoms : ase.Atoms, optional
        The structure; ``None`` for a recipe that takes none.
    parameters : mapping of str to object, optional
        The recipe's parameters.
    environment : mapping of str to str, optional
        The variables that the job would see; by default those that this process would forward.

    Returns
    -------
    Report
        The calculations that could be seen, and the present state of their files.

    Raises
    ------
    CannotAsk
        The recipe hangs, or ended the process that called it.
    InvalidJob
        There is no such recipe, or the structure or the parameters cannot be part of a job.
    """
    # Within the function: the child and its supervisor import this package, too.
    from crystalmath import config
    from crystalmath.preflight.inspector import ask
    from crystalmath.quacc.engine import submission_environment
    from crystalmath.recipes import lookup

    if environment is None:
        environment = submission_environment(config.load())
    allow = config.admitted(environment)
    name = lookup.full_name(recipe, allow)
    lookup.look_up(name, allow)
    return ask(name, atoms, parameters or {}, environment)
