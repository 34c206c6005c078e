"""What a client asks for, written as ``jobs.submit`` takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.config import Config

__all__ = ["Request", "recipe_name"]


@frozen(kw_only=True)
class Request:
    """One job that is asked for.

    Parameters
    ----------
    recipe : str or callable
        A recipe's dotted name, from which ``quacc.recipes.`` may be left out, or the function as
        imported from its module.
    atoms : ase.Atoms, str or mapping
        The structure (Å). Constraints, initial magnetic moments and charges, tags, masses and
        momenta travel along. The text of a POSCAR, and what else ``jobs.submit`` takes, is sent
        as it is.
    parameters : mapping of str to object
        The recipe's parameters.
    engine : str, optional
        Default: the configured one, else ``local``.
    cluster : str, optional
        One of the engine's clusters; default ``local``.
    key : str, optional
        Idempotency key: the same key gives the same job.
    name : str, optional
        For people; never passed to the recipe.
    labels : mapping of str to str
        For people and filters; never passed to the recipe.
    walltime_s : float, optional
        Time after which the job is stopped, in seconds.
    """

    recipe: str | Callable[..., Any]
    atoms: Atoms | str | Mapping[str, Any]
    parameters: Mapping[str, Any] = field(factory=dict)
    engine: str | None = None
    cluster: str | None = None
    key: str | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    walltime_s: float | None = None

    def document(self, configured: Config, environment: Mapping[str, str]) -> dict[str, Any]:
        """Write it as the parameters of ``jobs.submit``.

        Raises
        ------
        InvalidJob
            The recipe, the structure or a parameter cannot be sent.
        """
        from crystalmath.recipes import codec
        from crystalmath.recipes.source_paths import anchored

        recipe = recipe_name(self.recipe, configured.recipes_allow)
        parameters = {
            name: codec.encode_request(value, str(name))
            for name, value in anchored(recipe, self.parameters).items()
        }
        given = {
            # CRYSTALMATH_ENGINE is this process's; the server was started with another one.
            "engine": self.engine or configured.engine,
            "cluster": self.cluster,
            "key": self.key,
            "name": self.name,
            "walltime_s": self.walltime_s,
        }
        return {
            "recipe": recipe,
            "structure": _structure(self.atoms),
            "params": parameters,
            "labels": _labels(self.labels),
            "environment": dict(environment),
            **{name: value for name, value in given.items() if value is not None},
        }


def recipe_name(recipe: str | Callable[..., Any], allow: tuple[str, ...] = ()) -> str:
    """Give a recipe's full dotted name.

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


def _labels(labels: object) -> dict[str, Any]:
    if not isinstance(labels, Mapping):
        raise InvalidJob(f'labels are a dict, {{"project": "alloys"}}, not {labels!r:.80}')
    return dict(labels)


def _structure(atoms: object) -> str | dict[str, Any]:
    if isinstance(atoms, str):
        if atoms and "\n" not in atoms:
            raise InvalidJob(
                f"a structure as text is a whole POSCAR, not {atoms!r:.80}; a file is read by "
                "ase.io.read"
            )
        return atoms
    if isinstance(atoms, Mapping):
        return dict(atoms)
    from ase import Atoms

    from crystalmath.recipes.asejson import check_atoms
    from crystalmath.recipes.structures import to_ase_json

    if not isinstance(atoms, Atoms):
        raise InvalidJob(
            f"a structure must be an ase.Atoms, not {type(atoms).__name__}; "
            "ase.io.read reads files, pymatgen structures have to_ase_atoms()"
        )
    return to_ase_json(check_atoms(atoms))
