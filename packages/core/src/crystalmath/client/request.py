"""Writes a submission as ``jobs.submit`` takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.errors import InvalidJob
from crystalmath.models import Submission
from crystalmath.models.checks import check_fields
from crystalmath.models.fields import declared, to_wire

if TYPE_CHECKING:
    from crystalmath.config import Config

#: What is sent as it is. Recipe and structure have more forms here than on the wire.
_CHECKED = {one.name for one in declared(Submission)} - {"recipe", "atoms"}


def document(
    submission: Submission, configured: Config, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Write a submission as the parameters of ``jobs.submit``: the one time that it is encoded.

    Parameters
    ----------
    submission : Submission
        What is asked for.
    configured : Config
        The home's configuration.
    environment : mapping of str to str
        What reaches the job of this process's environment, where the submission brings none.

    Raises
    ------
    InvalidJob
        Something in it cannot be sent.
    """
    from crystalmath.recipes import codec
    from crystalmath.recipes.source_folders import anchored

    check_fields(submission, _CHECKED)
    recipe = recipe_name(submission.recipe, configured.recipes_allow)
    parameters = {
        name: codec.encode_request(value, str(name))
        for name, value in anchored(recipe, submission.parameters).items()
    }
    brought = submission.environment
    sent = evolve(
        submission,
        recipe=recipe,
        atoms=_structure(submission.atoms),
        parameters=parameters,
        engine=submission.engine or _configured_engine(submission.cluster, configured),
        environment=environment if brought is None else brought,
    )
    return to_wire(sent, defaults=False)


def retry_document(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Write what is to be changed of jobs as the parameters of ``jobs.retry``.

    Parameters
    ----------
    changes : mapping
        The arguments of :class:`~crystalmath.models.retry.Retry`.

    Raises
    ------
    InvalidJob
        Something in it cannot be sent.
    """
    from crystalmath.models.retry import Retry
    from crystalmath.recipes import codec
    from crystalmath.recipes.lookup import NAMESPACE
    from crystalmath.recipes.source_folders import anchored

    given = Retry(**changes)
    check_fields(given, {one.name for one in declared(Retry)})
    # Of what recipe the jobs are is not known here; the names are quacc's.
    parameters = {
        name: codec.encode_request(value, str(name))
        for name, value in anchored(f"{NAMESPACE}.", given.parameters).items()
    }
    return to_wire(evolve(given, parameters=parameters), defaults=False)


def _configured_engine(cluster: str, configured: Config) -> str | None:
    # CRYSTALMATH_ENGINE is this process's; the server was started with another one. A cluster of
    # the configuration file says itself which engine it is of.
    return None if cluster in configured.clusters else configured.engine


def recipe_name(recipe: str | Callable[..., Any], allow: tuple[str, ...] = ()) -> str:
    """Return a recipe's full dotted name.

    Raises
    ------
    InvalidJob
        It is a function that no other process can import.
    """
    if isinstance(recipe, str):
        from crystalmath.recipes.lookup import full_name

        return full_name(recipe, allow)
    # quacc's decorators wrap a recipe where a workflow engine is set.
    function = inspect.unwrap(recipe)
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not module or not name:
        raise InvalidJob(
            f"a recipe is a dotted name or a function imported from its module, not {recipe!r:.80}"
        )
    if module == "__main__" or not name.isidentifier():
        where = "in this notebook or script" if module == "__main__" else f"inside {module}"
        raise InvalidJob(
            f"the recipe {name!r} is defined {where}, from where no worker can import it; put it "
            "at the top level of a module that is installed (mylab/recipes.py), admit that with "
            '[recipes] allow = ["mylab.recipes"] in config.toml or CRYSTALMATH_RECIPES='
            "mylab.recipes, and import it from there"
        )
    return f"{module}.{name}"


def _structure(atoms: object) -> str | dict[str, Any] | None:
    from crystalmath.recipes.job_structure import JobStructure

    if atoms is None:
        return None
    if isinstance(job_id := getattr(atoms, "job_id", None), str):
        return JobStructure(job_id).document()
    if isinstance(atoms, str):
        if (of_job := JobStructure.parse(atoms)) is not None:
            return of_job.document()
        if atoms and "\n" not in atoms:
            raise InvalidJob(
                f"a structure as text is a whole POSCAR, or job:ID, not {atoms!r:.80}; a file is "
                "read by ase.io.read"
            )
        return atoms
    if isinstance(atoms, Mapping):
        return dict(atoms)
    from ase import Atoms

    from crystalmath.recipes.ase_json import check_atoms
    from crystalmath.recipes.structures import to_ase_json

    if not isinstance(atoms, Atoms):
        raise InvalidJob(
            f"a structure must be an ase.Atoms, not {type(atoms).__name__}; "
            "ase.io.read reads files, pymatgen structures have to_ase_atoms()"
        )
    return to_ase_json(check_atoms(atoms))
