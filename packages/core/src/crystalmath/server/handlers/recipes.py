"""The handlers of ``recipes.*``: what the source of the recipes says; none is imported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypedDict

from crystalmath.models.fields import array, nullable
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import (
    ERROR,
    SUBMISSION,
    record,
)

if TYPE_CHECKING:
    from crystalmath.models.answer_lists import RecipeList
    from crystalmath.models.answers import RecipeDescription, RecipeEntry
    from crystalmath.recipes.lookup import Recipe
    from crystalmath.service import JobService

_TEXT: dict[str, Any] = {"type": "string"}
_KIND = {"enum": ["job", "flow", None], "description": "what quacc's decorator makes of it"}


class RecipesListParams(TypedDict, total=False):
    """The parameters of ``recipes.list``."""

    prefix: str


@method(
    "recipes.list",
    params={
        "prefix": {
            "type": "string",
            "description": "how the name begins; a leading quacc.recipes. may be left out",
        }
    },
    result=record(
        {
            "recipes": array(
                record(
                    {"name": _TEXT, "kind": _KIND, "summary": {**_TEXT, "description": "a line"}}
                )
            ),
            "error": ERROR,
        }
    ),
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

    recipe: str


@method(
    "recipes.describe",
    params={"recipe": SUBMISSION["recipe"]},
    required=("recipe",),
    result=record(
        {
            "name": nullable(_TEXT),
            "kind": _KIND,
            "file": nullable(_TEXT),
            "line": nullable({"type": "integer"}),
            "docstring": nullable(_TEXT),
            "structure": {
                "enum": ["required", "optional", "none", None],
                "description": "whether the recipe takes one; null where the source cannot tell",
            },
            "parameters": {
                **nullable({"type": "object"}),
                "description": "JSON Schema of `params`; null where the source cannot tell",
            },
            "error": ERROR,
        }
    ),
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
