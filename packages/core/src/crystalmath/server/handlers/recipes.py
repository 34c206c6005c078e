"""The handlers of ``recipes.*``: what the source of the recipes says; none is imported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypedDict

from crystalmath.models.answers import RecipeDescription, RecipeEntry, RecipeList
from crystalmath.models.fields import Limits
from crystalmath.models.schemas import SUBMISSION
from crystalmath.server.rpc.declare import method

if TYPE_CHECKING:
    from crystalmath.recipes.lookup import Recipe
    from crystalmath.service import JobService


class RecipesListParams(TypedDict, total=False):
    """The parameters of ``recipes.list``."""

    prefix: Annotated[str, "how the name begins; a leading quacc.recipes. may be left out"]


@method(
    "recipes.list",
    refused={"recipes": []},
    pool="recipes",
)
def handle_recipes_list(service: JobService, params: RecipesListParams) -> RecipeList:
    """List the recipes there are: quacc's jobs and flows, and those that the home admits."""
    from crystalmath.recipes.lookup import NAMESPACE, catalogue

    prefix = params.get("prefix", "")
    beginnings = (prefix, f"{NAMESPACE}.{prefix}")
    found: list[RecipeEntry] = [
        {"name": recipe.name, "kind": recipe.kind, "summary": _headline(recipe)}
        for recipe in catalogue(service.config.recipes_allow)
        if recipe.name.startswith(beginnings)
    ]
    return {"recipes": found, "error": None}


class RecipesDescribeParams(TypedDict):
    """The parameters of ``recipes.describe``."""

    recipe: Annotated[str, Limits(**SUBMISSION["recipe"])]


@method(
    "recipes.describe",
    refused=dict.fromkeys(("name", "kind", "file", "line", "docstring", "structure", "parameters")),
    pool="recipes",
)
def handle_recipes_describe(
    service: JobService, params: RecipesDescribeParams
) -> RecipeDescription:
    """Describe a recipe: its docstring, and the JSON Schema of its parameters.

    The first argument is left out where it gets the structure.
    """
    from crystalmath.recipes.arguments import structure_taken
    from crystalmath.recipes.lookup import check_namespace, full_name, look_up
    from crystalmath.server.rpc.recipe_schema import parameters_schema

    allow = service.config.recipes_allow
    name = full_name(params["recipe"], allow)
    if name in allow:
        check_namespace(name)
    recipe = look_up(name, allow)
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "file": recipe.file,
        "line": recipe.line,
        "docstring": recipe.docstring,
        "structure": structure_taken(recipe),
        "parameters": parameters_schema(recipe),
        "error": None,
    }


def _headline(recipe: Recipe) -> str:
    # "Workflow consisting of:" tells nothing without the list below it.
    paragraphs = re.split(r"(?<!:)\n\s*\n", (recipe.docstring or "").strip())
    return " ".join(paragraphs[0].split())
