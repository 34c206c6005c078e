"""Batched functions for quacc's recipes of TorchSim, whose jobs take a list of structures each.

The structures of all jobs go into one call of the recipe, and its result is divided among the jobs.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from quacc.recipes.torchsim.core import md_job, relax_job, static_job

from crystalmath.batch import batched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    #: The structures of each job; a job may have one that is no list.
    Structures = Sequence[Atoms | Sequence[Atoms]]

#: The members of a result that have an entry for each structure.
_LISTS = ("atoms", "all_properties")


@batched(relax_job, most=256, atoms=20_000)
def relax_many(structures: Structures, **parameters: Any) -> list[dict[str, Any] | None]:
    """Relax the structures of many jobs together."""
    return _divided(relax_job, structures, parameters)


@batched(static_job, most=256, atoms=20_000)
def static_many(structures: Structures, **parameters: Any) -> list[dict[str, Any] | None]:
    """Compute the structures of many jobs together."""
    return _divided(static_job, structures, parameters)


@batched(md_job, most=256, atoms=20_000)
def md_many(structures: Structures, **parameters: Any) -> list[dict[str, Any] | None]:
    """Run molecular dynamics of the structures of many jobs together."""
    if isinstance(parameters.get("temperature"), (list, tuple)):
        return [None] * len(structures)  # a temperature for each structure, or for each step
    return _divided(md_job, structures, parameters)


def _divided(
    recipe: Callable[..., Any], structures: Structures, parameters: dict[str, Any]
) -> list[dict[str, Any] | None]:
    """Call a recipe for the structures of all jobs; return the part of each job."""
    if "filenames" in (parameters.get("trajectory_reporter_dict") or {}):
        return [None] * len(structures)  # the files are named for one job
    lists = [list(each) if isinstance(each, (list, tuple)) else [each] for each in structures]
    together = recipe(list(itertools.chain.from_iterable(lists)), **parameters)
    ends = list(itertools.accumulate(map(len, lists)))
    return [
        _part(together, slice(end - len(each), end)) for each, end in zip(lists, ends, strict=True)
    ]


def _part(result: dict[str, Any], which: slice) -> dict[str, Any]:
    """Return the part of a result that belongs to some of its structures."""
    part = {**result, **{name: result[name][which] for name in _LISTS if name in result}}
    part["output"] = {
        name: value if value is None else value[which] for name, value in result["output"].items()
    }
    reporter = result["trajectory_reporter"]
    if reporter and reporter["filenames"]:
        part["trajectory_reporter"] = {**reporter, "filenames": reporter["filenames"][which]}
    return part
