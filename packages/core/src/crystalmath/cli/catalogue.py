"""The commands that tell what there is, and what would run: engines, recipes, check."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli import complete, output
from crystalmath.cli.selection import any_client
from crystalmath.cli.submission import (
    Json,
    Params,
    ParamsFile,
    Recipe,
    Structure,
    asking,
    make_submission,
    with_options,
)
from crystalmath.errors import InvalidJob
from crystalmath.models import SubmissionOptions  # noqa: TC001 - read when the command is made

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.client import Client, Submission

__all__ = ["check", "engines", "recipes"]


@with_options
def check(
    recipe: Recipe,
    structure: Structure,
    *,
    param: Params = None,
    params: ParamsFile = None,
    options: SubmissionOptions,
    as_json: Json = False,
) -> int:
    """Tell whether a job would be accepted, and everything that is wrong with it at once.

    Nothing is recorded or started. A recipe of VASP or Quantum ESPRESSO is asked which files it
    reads: without a running server that takes some seconds each time; submit, or serve, starts one
    that stays warm. Exits 1 where the job would be refused.
    """
    submission = make_submission(recipe, structure, param=param, params=params, options=options)
    with any_client() as client:
        answer = _checked(client, submission)
    if as_json:
        output.write_json(answer)
    else:
        _show(answer)
    return 0 if answer["ok"] else 1


def _show(answer: Mapping[str, Any]) -> None:
    if answer["potcars"]:
        _show_potcars(answer["potcars"])
    for severity in ("error", "warning"):
        for finding in answer["findings"]:
            if finding["severity"] == severity:
                output.write(output.printable(f"{severity}: {output.sentence(finding)}"))
    if answer["environment"]:
        seen = ", ".join(answer["environment"])
        output.write(output.printable(f"checked with your environment, as forwarded: {seen}"))
    if answer["ok"]:
        output.write("this job would be accepted")


def _show_potcars(files: Sequence[Mapping[str, Any]]) -> None:
    paths = [file["path"] for file in files]
    folder = _shared_folder(paths)
    if folder:
        output.write(output.printable(f"reads, below {folder}:"))
        paths = [os.path.relpath(path, folder) for path in paths]
    rows = [
        (file["symbol"], file["setup"], file["titel"] or "", path)
        for file, path in zip(files, paths, strict=True)
    ]
    output.table(("SYMBOL", "SETUP", "TITEL", "FILE"), rows, whole=("FILE",))
    output.write("")


def _shared_folder(paths: Sequence[str]) -> str:
    """Give the library in which all files are, which would not fit beside the rest."""
    try:
        # A POTCAR is named by its folder.
        return os.path.commonpath([os.path.dirname(os.path.dirname(path)) for path in paths])  # noqa: PTH120
    except ValueError:  # relative paths among them
        return ""


def _checked(client: Client, submission: Submission) -> dict[str, Any]:
    from crystalmath import config
    from crystalmath.client.errors import raise_answered
    from crystalmath.client.request import document

    configured = config.load()
    asked = document(submission, configured, config.submitters_environment(configured))
    with asking([asked["recipe"]]):
        answer = client.call("jobs.check", asked)
    raise_answered(answer)
    # A server of an earlier release says less.
    return {"ok": not answer["error"], "potcars": [], "environment": [], **answer}


def engines(*, as_json: Json = False) -> int:
    """List the installed workflow engines, and why one cannot serve."""
    with any_client() as client:
        infos = client.engines()
    if as_json:
        output.write_json({"engines": infos})
        return 0
    rows = [(info["name"], info["distribution"], info["version"], _word(info)) for info in infos]
    output.table(("ENGINE", "PACKAGE", "VERSION", ""), rows)
    for info in infos:
        reasons = [info["error"]] if info["error"] else []
        for reason in [*reasons, *map(output.sentence, info["findings"])]:
            output.note(output.printable(f"{info['name']}: {reason}"))
    return 0


def _word(info: Mapping[str, Any]) -> str:
    if not info["loads"]:
        return "cannot load"
    if any(finding["severity"] == "error" for finding in info["findings"]):
        return "cannot serve"
    return "default" if info["configured"] else "ready"


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A recipe, or a module whose recipes are listed.",
            autocompletion=complete.recipes,
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List the recipes there are, or show one's docstring and parameters."""
    with any_client() as client:
        if name is None:
            return _list_recipes(client.recipes(), as_json=as_json)
        try:
            described = client.describe(name)
        except InvalidJob:
            below = client.recipes(_module(name))
            if not below:
                raise
            return _list_recipes(below, as_json=as_json)
    recipe: dict[str, Any] = {**described, "parameters": _parameters(described["parameters"])}
    if as_json:
        del recipe["error"]
        output.write_json({"recipe": recipe})
    else:
        output.write(_recipe_text(recipe))
    return 0


def _module(name: str) -> str:
    """Give the beginning that the full names of a module's recipes have."""
    from crystalmath import config
    from crystalmath.recipes.lookup import full_name

    allow = config.load().recipes_allow
    return f"{name if name in allow else full_name(name, allow)}."


def _list_recipes(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> int:
    if as_json:
        output.write_json({"recipes": found})
        return 0
    if not found:
        output.note("no recipes: quacc is not installed; pip install 'crystalmath[quacc]'")
        return 1
    rows = [(output.short_recipe(recipe["name"]), recipe["summary"]) for recipe in found]
    output.table(("RECIPE", "WHAT IT DOES"), rows, whole=("RECIPE",))
    return 0


def _parameters(schema: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """Give the parameters in order, as Python writes them; ``None`` where the source is mute."""
    if schema is None:
        return None
    return [
        {"name": name, "required": name in schema["required"], "default": _default(told)}
        for name, told in schema["properties"].items()
    ] + [{"name": "**", "required": False, "default": None}] * schema["additionalProperties"]


def _default(told: Mapping[str, Any]) -> str | None:
    return repr(told["default"]) if "default" in told else told.get("x-default")


def _recipe_text(recipe: Mapping[str, Any]) -> str:
    kind = f" ({recipe['kind']})" if recipe["kind"] else ""
    given = recipe["parameters"]
    arguments = "".join(f"\n    {_argument(argument)}" for argument in given or ()) or " none"
    if given is None:
        arguments = " its source cannot tell"
    docstring = recipe["docstring"] or "It has no docstring."
    return output.printable(
        f"{recipe['name']}{kind}\n{recipe['file']}:{recipe['line']}\n\n"
        f"Parameters, after the structure:{arguments}\n\n{docstring}"
    )


def _argument(argument: Mapping[str, Any]) -> str:
    default = "" if argument["default"] is None else f"={argument['default']}"
    return f"{argument['name']}{default}"
