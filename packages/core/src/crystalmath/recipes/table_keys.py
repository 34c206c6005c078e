"""The tables among the parameters of quacc's recipes: which keys the functions take that get them.

Such a function takes no others, so that a recipe would end with an error, perhaps after hours.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.models import Finding
from crystalmath.recipes.written_classes import arguments_of, definition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.recipes.lookup import Recipe

_RUNNER = ("quacc.runners.ase", "Runner")
#: Which method of quacc's runner gets a table.
RUN_BY = {"opt_params": "run_opt", "md_params": "run_md"}
_SLABS = "quacc.atoms.slabs"
#: Which functions, all of them together, get another; and what these are given beside it.
_GOES_TO: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "vib_kwargs": (
        (("ase.vibrations.vibrations", "Vibrations", "__init__"),),
        ("atoms", "name"),
    ),
    "make_slabs_kwargs": (
        (
            (_SLABS, "make_slabs_from_bulk"),
            ("pymatgen.core.surface", "generate_all_slabs"),
        ),
        (),
    ),
    "make_ads_kwargs": (((_SLABS, "make_adsorbate_structures"),), ("adsorbate",)),
    "deform_kwargs": ((("quacc.atoms.deformation", "make_deformations_from_bulk"),), ()),
}
_LIKE = 0.75


def keys_run_by(table: str) -> tuple[str, ...]:
    """Return the keys of ``opt_params`` or ``md_params``."""
    return arguments_of(*_RUNNER, RUN_BY[table])


def check_tables(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Find keys that would make a recipe end with an error.

    Parameters
    ----------
    recipe : Recipe
        One of quacc's.
    parameters : mapping of str to object
        Its parameters.
    place : str
        Where they are, for a flow's job: ``job_params.relax_job.``.
    """
    named = {} if recipe.signature is None else recipe.signature.parameters
    for table in (*RUN_BY, *_GOES_TO):
        given = parameters.get(table)
        if table not in named or not isinstance(given, Mapping):
            continue
        taken = keys_run_by(table) if table in RUN_BY else _keys_of(table)
        itself = _gives_itself(recipe.name, table, taken) if taken else frozenset()
        for name in given if taken else ():
            if name in itself:
                yield _given_twice(recipe, place, table, name)
            elif name not in taken:
                yield _unknown(recipe, f"{place}{table}", name, taken)
        if table == "opt_params":
            yield from _of_optimizer(recipe, given, f"{place}{table}.optimizer_kwargs")


def _keys_of(table: str) -> tuple[str, ...]:
    functions, beside = _GOES_TO[table]
    taken = [arguments_of(*function, others=True) for function in functions]
    if not all(taken):
        return ()  # of another release, or not installed
    return tuple(dict.fromkeys(name for each in taken for name in each if name not in beside))


@functools.cache
def _gives_itself(recipe: str, table: str, taken: Sequence[str]) -> frozenset[str]:
    """Name what a recipe hands to the runner beside the table."""
    module, _, name = recipe.rpartition(".")
    found = definition(module, name)
    for node in ast.walk(found) if found is not None and table in RUN_BY else ():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == RUN_BY[table]
        ):
            return frozenset(
                (*taken[: len(node.args)], *(each.arg for each in node.keywords if each.arg))
            )
    return frozenset()


def _of_optimizer(recipe: Recipe, table: Mapping[str, Any], place: str) -> Iterator[Finding]:
    given = table.get("optimizer_kwargs")
    if isinstance(given, Mapping) and given:
        taken = _optimizer_takes(table.get("optimizer"))
        for name in (name for name in given if taken and name not in taken):
            yield _unknown(recipe, place, name, taken)


def _optimizer_takes(given: object) -> tuple[str, ...]:
    """Return the keys that ASE's optimizers take: all, where the recipe chooses which it is."""
    from ase import optimize

    from crystalmath.recipes.ase_classes import class_named

    kinds = [getattr(optimize, name) for name in optimize.__all__]
    with contextlib.suppress(InvalidJob):
        chosen = class_named(given) if isinstance(given, str) else given
        if isinstance(chosen, type):
            kinds = [chosen]
    if not all(kind.__module__.startswith("ase.") for kind in kinds):
        return ()
    found = [
        name
        for kind in kinds
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for name in inspect.signature(base.__init__).parameters
    ]
    quaccs = {"self", "atoms", "trajectory", "args", "kwargs"}
    return tuple(name for name in dict.fromkeys(found) if name not in quaccs)


def _given_twice(recipe: Recipe, place: str, table: str, name: object) -> Finding:
    named = {} if recipe.signature is None else recipe.signature.parameters
    return Finding(
        severity="error",
        code="parameter_unknown",
        message=f"{recipe.name} gives {name!r} itself: '{place}{table}' cannot hold it",
        source=f"the parameter {place}{table}.{name}",
        remedy=f"give it as {place}{name}" if name in named else "leave it out",
    )


def _unknown(recipe: Recipe, place: str, name: object, taken: Sequence[str]) -> Finding:
    like = difflib.get_close_matches(str(name)[:80], taken, 1, _LIKE)
    full = f"{place}.{name}"
    return Finding(
        severity="error",
        code="parameter_unknown",
        message=f"{recipe.name} has no {full!r}: it takes {', '.join(taken)}",
        source=f"the parameter {full}",
        remedy=f"did you mean {place}.{like[0]}?" if like else "leave it out",
    )
