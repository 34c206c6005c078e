"""Find the batched functions of recipes: by their source, and in a worker by import."""

from __future__ import annotations

import functools
import importlib.util
import json
from typing import TYPE_CHECKING, Any

from crystalmath import entry_points_of
from crystalmath.batch import MOST, Batched, batched_for, name_of
from crystalmath.errors import InvalidJob, PluginError
from crystalmath.recipes.lookup import home_of
from crystalmath.recipes.source import locate, read_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from crystalmath.recipes.source import Module

#: The group of entry points that name the batched functions of recipes in other modules.
GROUP = "crystalmath.batches"
#: The classes of encoded structures (recipes.codec).
_STRUCTURES = frozenset(("Atoms", "MSONAtoms"))


def most_of(recipe: str) -> int | None:
    """Return how many structures the batched function of a recipe takes, importing nothing.

    ``None``: the source and the entry points show no such function. Raises `PluginError`: two
    distributions bring one.
    """
    if "." not in recipe:
        return None
    try:
        home, function = home_of(recipe)
        name = f"{home.name}.{function}"
        most = _most_in(home, name)
        if most is None and (entry := _entry(name)) is not None:
            spec = locate(entry.module)
            most = _most_in(read_module(spec), name) if spec else None
    except (InvalidJob, ImportError, ValueError, OSError):
        return None  # the recipe's own check, or the worker, reports it
    return most


def _most_in(module: Module, recipe: str) -> int | None:
    for binding in module.bindings.values():
        if binding.batch is None:
            continue
        of = binding.batch.recipe
        if of.startswith("."):
            of = importlib.util.resolve_name(of, module.package)
        if recipe in {of, f"{module.name}.{of}"}:
            return binding.batch.most or MOST
    return None


def parted(body: str) -> tuple[str | None, str]:
    """Return what jobs of one call have in common, from the body of a specification.

    That is the text of their parameters. A recipe that takes a list of structures has these among
    its parameters: the name of that parameter comes first, and the text is without it.
    """
    document = json.loads(body)
    parameters = document["parameters"]
    lists = [name for name, value in parameters.items() if _are_structures(value)]
    name = lists[0] if document["atoms"] is None and len(lists) == 1 else None
    rest = {key: value for key, value in parameters.items() if key != name}
    return name, json.dumps(rest, sort_keys=True)


def _are_structures(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(each, dict) and each.get("@class") in _STRUCTURES for each in value)
    )


def load(recipe: Callable[..., Any]) -> Batched | None:
    """Return the batched function of a recipe, whose module an entry point may name.

    Raises `PluginError`: two distributions bring one, or the entry point names another function.
    """
    batch = batched_for(recipe)
    if batch is None and (entry := _entry(name_of(recipe))) is not None:
        function = entry.load()
        batch = batched_for(recipe)
        if batch is None or batch.function is not function:
            raise PluginError(
                f"the entry point {entry.name} of {GROUP} names {entry.value}, which is not "
                f"decorated with @batched({entry.name})"
            )
    return batch


def _entry(recipe: str) -> EntryPoint | None:
    entries = [entry for entry in _entries() if entry.name == recipe]
    if len({entry.value for entry in entries}) > 1:
        values = " and ".join(sorted(entry.value for entry in entries))
        raise PluginError(f"the recipe {recipe} has two batched functions: {values}; remove one")
    return entries[0] if entries else None


@functools.cache
def _entries() -> list[EntryPoint]:
    # Kept, as reading the metadata of all distributions takes milliseconds.
    return entry_points_of(GROUP)
