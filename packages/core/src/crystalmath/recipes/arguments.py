"""Whether parameters fit a recipe, as its source tells; nothing of it is imported."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, did_you_mean
from crystalmath.models import Finding
from crystalmath.recipes.lookup import nearest
from crystalmath.recipes.parameter_kinds import check_flag, check_kinds, choices
from crystalmath.recipes.structure_argument import check_structure, structure_argument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.recipes.lookup import Recipe

_BY_NAME = frozenset((inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY))

# How like a named parameter a name must be to be taken for a slip: calculators have many
# parameters of their own that no signature names.
_LIKE = 0.8


def check_arguments(
    recipe: Recipe, parameters: Mapping[str, Any], *, structure: bool = True
) -> list[Finding]:
    """Check that parameters fit a recipe, which gets a structure, if any, as its first argument.

    Parameters
    ----------
    recipe : Recipe
        What its source says.
    parameters : mapping of str to object
        The parameters.
    structure : bool
        Whether it gets a structure.

    Returns
    -------
    list of Finding
        Warnings: what is let through, and looks like a slip.

    Raises
    ------
    InvalidJob
        A parameter is unknown, missing, no string, or the recipe's own first argument, or a text
        where the recipe wants true or false, or otherwise of a kind that it cannot be; or a
        structure is missing, or is not taken.
    """
    for key in parameters:
        if not isinstance(key, str):
            raise InvalidJob(f"the parameter name {key!r} of {recipe.name} is no string")
    if recipe.signature is None:
        _check_first("atoms", recipe, parameters)
        return []
    first = structure_argument(recipe)
    if first is not None:
        _check_first(first.name, recipe, parameters)
    check_structure(recipe, given=structure)
    others = [item for item in recipe.signature.parameters.values() if item is not first]
    findings = _check_unknown(recipe, parameters, others)
    missing = [item.name for item in others if _is_missing(item, parameters)]
    if missing:
        told = choices(recipe.signature.parameters[missing[0]])
        which = f", one of {', '.join(told)}: --param {missing[0]}={told[0]}" if told else ""
        raise InvalidJob(f"the recipe {recipe.name} needs the parameter {missing[0]!r}{which}")
    for item in others:
        if item.kind in _BY_NAME:
            check_flag(recipe, item, parameters.get(item.name))
    check_kinds(recipe, parameters)
    return [*findings, *_check_choices(recipe, parameters, others)]


def _check_first(first: str, recipe: Recipe, parameters: Mapping[str, Any]) -> None:
    if first in parameters:
        raise InvalidJob(
            f"{first!r} is the structure itself, the first argument of {recipe.name}; "
            "it cannot be a parameter too"
        )


def _check_unknown(
    recipe: Recipe, parameters: Mapping[str, Any], others: Sequence[inspect.Parameter]
) -> list[Finding]:
    known = [item.name for item in others if item.kind in _BY_NAME]
    rest = [item.name for item in others if item.kind is inspect.Parameter.VAR_KEYWORD]
    findings = []
    for name in parameters:
        if name in known:
            continue
        unknown = f"the recipe {recipe.name} has no parameter {name!r}"
        if not rest:
            raise InvalidJob(f"{unknown}{nearest(name, known)}")
        if like := difflib.get_close_matches(name[:80], known, 1, _LIKE):
            message = f"{unknown}; it goes into {rest[0]}; did you mean {like[0]!r}?"
            source = f"the parameter {name}"
            findings.append(
                Finding(
                    severity="warning", code="parameter_unknown", message=message, source=source
                )
            )
    return findings


def _check_choices(
    recipe: Recipe, parameters: Mapping[str, Any], others: Sequence[inspect.Parameter]
) -> Iterator[Finding]:
    """Find texts that are none of those which an annotation names; a recipe may take more."""
    for item in others:
        value, told = parameters.get(item.name), choices(item)
        if isinstance(value, str) and told and value.lower() not in map(str.lower, told):
            # Of a machine-learned potential's libraries quacc takes no other.
            certain = (recipe.name.split(".")[2:3], item.name) == (["mlip"], "library")
            yield Finding(
                severity="error" if certain else "warning",
                code="parameter_choice",
                message=f"{item.name} = {value!r:.80} is none of the choices of {recipe.name}: "
                f"{', '.join(told)}",
                source=f"the parameter {item.name}",
                remedy=did_you_mean(value, told, "name one of them"),
            )


def _is_missing(argument: inspect.Parameter, parameters: Mapping[str, Any]) -> bool:
    if argument.default is not inspect.Parameter.empty:
        return False
    if argument.kind is inspect.Parameter.POSITIONAL_ONLY:
        return True  # parameters are passed by name
    return argument.kind in _BY_NAME and argument.name not in parameters
