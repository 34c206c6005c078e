"""Functions that compute many structures in one call, for jobs of one recipe.

A potential computes a hundred structures together in little more time than one::

    from crystalmath.batch import batched

    @batched(relax_job, most=256, atoms=20_000)
    def relax_many(structures, **parameters):
        return [...]

Jobs of ``relax_job`` with equal parameters that wait together are then computed by one call of
``relax_many``. Each keeps its id, its result and its error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Batched", "batched", "batched_for"]

#: The most structures of a call, unless the function says another number.
MOST = 256

F = TypeVar("F", bound="Callable[..., Any]")


@frozen(kw_only=True)
class Batched:
    """A function that computes many structures of a recipe in one call.

    Parameters
    ----------
    recipe : str
        The full name of the recipe.
    function : callable
        The function.
    most : int
        The most structures of a call.
    atoms : int, optional
        The most atoms of a call, in all its structures together.
    """

    recipe: str
    function: Callable[..., Any]
    most: int
    atoms: int | None


_known: dict[str, Batched] = {}


def batched(
    recipe: Callable[..., Any], *, most: int = MOST, atoms: int | None = None
) -> Callable[[F], F]:
    """Decorate a function that computes many structures of a recipe in one call.

    The function takes a list of structures, and the parameters of the recipe by keyword. It returns
    a list with the result of each structure, a dict as the recipe returns it. An exception in place
    of a result fails the job of that structure alone. A generator yields the results in the same
    order, and each is published at once.

    Jobs with equal walltimes share calls, too. If so much time passes from the beginning of a call,
    or from its last result, without a result, the call is ended, and made again for each half of
    its structures. A structure that is alone then has the walltime for itself, and fails at its
    end. On hosts of a batch system jobs go alone.

    The decorator must stand in the module of the recipe, or in a module that an entry point of the
    group ``crystalmath.batches`` names, under the full name of the recipe.

    Parameters
    ----------
    recipe : callable
        The recipe: a function at the top level of a module.
    most : int
        The most structures of a call.
    atoms : int, optional
        The most atoms of a call, in all its structures together. A structure with more atoms is
        computed by the recipe itself.

    Returns
    -------
    callable
        A decorator, which returns the function unchanged.

    Raises
    ------
    TypeError
        `recipe`, or the decorated object, is no function of a module, or a limit is no whole
        number.
    ValueError
        A limit is below 1, or the recipe has another batched function already.
    """
    name = name_of(recipe)
    _check(most, "most", name)
    if atoms is not None:
        _check(atoms, "atoms", name)

    def decorate(function: F) -> F:
        if not callable(function):
            raise TypeError(f"@batched({name}) decorates {function!r}, which is no function")
        before = _known.get(name)
        # A module that is loaded again defines the same function anew.
        if before is not None and _place(before.function) != _place(function):
            raise ValueError(
                f"the recipe {name} has two batched functions, {_place(before.function)} and "
                f"{_place(function)}; remove one of them"
            )
        _known[name] = Batched(recipe=name, function=function, most=most, atoms=atoms)
        return function

    return decorate


def batched_for(recipe: Callable[..., Any]) -> Batched | None:
    """Return the batched function of a recipe, if a module that is imported here has one."""
    return _known.get(_place(recipe))


def name_of(recipe: object) -> str:
    """Return the full name of a recipe; `TypeError`: it is no function of a module."""
    name = _place(recipe)
    is_function = callable(recipe) and not isinstance(recipe, type)
    if not is_function or "<" in name or "." not in name:
        raise TypeError(
            f"@batched takes a recipe, a function at the top level of a module, not {recipe!r}"
        )
    return name


def _place(function: object) -> str:
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", None) or ""
    return f"{module}.{name}" if module and name else ""


def _check(limit: object, name: str, recipe: str) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"@batched({recipe}) {name} must be a whole number, not {limit!r}")
    if limit < 1:
        raise ValueError(f"@batched({recipe}) {name} must be 1 or more, not {limit}")
