"""The commands that tell what there is, and what would run: engines, recipes, check."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli import output
from crystalmath.cli.submission import (
    Cluster,
    Engine,
    Json,
    Labels,
    Name,
    Params,
    ParamsFile,
    Recipe,
    Structure,
    Walltime,
    make_submission,
)
from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    import inspect
    from collections.abc import Iterable

    from crystalmath.quacc.engines import EngineInfo
    from crystalmath.quacc.recipes import Recipe as RecipeRecord

__all__ = ["check", "engines", "recipes"]


def check(
    recipe: Recipe,
    structure: Structure,
    *,
    engine: Engine = None,
    cluster: Cluster = "local",
    param: Params = None,
    params: ParamsFile = None,
    walltime: Walltime = None,
    name: Name = None,
    label: Labels = None,
    as_json: Json = False,
) -> int:
    """Tell whether a job would be accepted, and everything that is wrong with it at once.

    Nothing is recorded or started. Exits 1 where the job would be refused.
    """
    submission = make_submission(
        recipe,
        structure,
        engine=engine,
        cluster=cluster,
        param=param,
        params=params,
        walltime=walltime,
        name=name,
        label=label,
    )
    from crystalmath.service import JobService

    with JobService() as service:
        found = service.check(submission)
    errors = [str(finding) for finding in found if finding.severity == "error"]
    if as_json:
        document = {"status": "error" if errors else "ok", "error": "\n".join(errors) or None}
        output.write_json(document | {"findings": output.findings(found)})
        return 1 if errors else 0
    for finding in found:
        output.write(output.printable(f"{finding.severity}: {finding}"))
    if not errors:
        output.write("this job would be accepted")
    return 1 if errors else 0


def engines(*, as_json: Json = False) -> int:
    """List the installed workflow engines, and why one cannot serve."""
    import attrs

    from crystalmath.quacc.engines import describe_engines

    infos = describe_engines()
    if as_json:
        output.write_json({"engines": [attrs.asdict(info) for info in infos]})
        return 0
    rows = [(info.name, info.distribution, info.version, _word(info)) for info in infos]
    output.table(("ENGINE", "PACKAGE", "VERSION", ""), rows)
    for info in infos:
        reasons = [info.error] if info.error else []
        for reason in [*reasons, *map(str, info.findings)]:
            output.note(output.printable(f"{info.name}: {reason}"))
    return 0


def _word(info: EngineInfo) -> str:
    if not info.loads:
        return "cannot load"
    if any(finding.severity == "error" for finding in info.findings):
        return "cannot serve"
    return "default" if info.configured else "ready"


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A recipe, or a module whose recipes are listed."),
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List the recipes there are, or show one's docstring and parameters."""
    from crystalmath import config
    from crystalmath.quacc.recipes import catalogue, full_name, look_up

    allow = config.load().recipes_allow
    if name is None:
        return _list_recipes(catalogue(allow), as_json=as_json)
    full = full_name(name, allow)
    try:
        recipe = look_up(full, allow)
    except InvalidJob:
        below = [found for found in catalogue(allow) if found.name.startswith(f"{full}.")]
        if not below:
            raise
        return _list_recipes(below, as_json=as_json)
    if as_json:
        output.write_json({"recipe": _recipe_document(recipe)})
    else:
        output.write(_recipe_text(recipe))
    return 0


def _list_recipes(found: Iterable[RecipeRecord], *, as_json: bool) -> int:
    if as_json:
        output.write_json({"recipes": [_recipe_document(recipe) for recipe in found]})
        return 0
    rows = [(output.short_recipe(recipe.name), _headline(recipe)) for recipe in found]
    if not rows:
        output.note("no recipes: quacc is not installed; pip install 'crystalmath[quacc]'")
        return 1
    output.table(("RECIPE", "WHAT IT DOES"), rows, whole=("RECIPE",))
    return 0


def _headline(recipe: RecipeRecord) -> str:
    # "Workflow consisting of:" tells nothing without the list below it.
    paragraphs = re.split(r"(?<!:)\n\s*\n", (recipe.docstring or "").strip())
    return " ".join(paragraphs[0].split())


def _recipe_document(recipe: RecipeRecord) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "file": recipe.file,
        "line": recipe.line,
        "docstring": recipe.docstring,
        "parameters": [
            {
                "name": argument.name,
                "kind": argument.kind.name.lower(),
                "required": argument.default is argument.empty
                and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD),
                "default": None if argument.default is argument.empty else repr(argument.default),
            }
            for argument in _arguments(recipe)
        ],
    }


def _arguments(recipe: RecipeRecord) -> list[inspect.Parameter]:
    # The first one is the structure.
    return list(recipe.signature.parameters.values())[1:] if recipe.signature else []


def _recipe_text(recipe: RecipeRecord) -> str:
    kind = f" ({recipe.kind})" if recipe.kind else ""
    arguments = "".join(f"\n    {argument}" for argument in _arguments(recipe)) or " none"
    if recipe.signature is None:
        arguments = " its source cannot tell"
    docstring = recipe.docstring or "It has no docstring."
    return output.printable(
        f"{recipe.name}{kind}\n{recipe.file}:{recipe.line}\n\n"
        f"Parameters, after the structure:{arguments}\n\n{docstring}"
    )
