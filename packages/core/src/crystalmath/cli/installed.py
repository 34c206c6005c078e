"""``crystalmath engines``, ``recipes`` and ``presets``: list installed plugins and recipes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from crystalmath import server
from crystalmath.cli.shared import completion, output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.models import Preset


def engines(*, as_json: Json = False) -> int:
    """List the installed engines, and why one cannot be used."""
    with any_client() as client:
        infos = client.ask(server.ENGINES_LIST)["engines"]
    if as_json:
        return output.write_json({"engines": infos})
    rows = [(info["name"], info["distribution"], info["version"], _word(info)) for info in infos]
    output.table(("ENGINE", "PACKAGE", "VERSION", ""), rows)
    for info in infos:
        reasons = [info["error"]] if info["error"] else []
        for reason in [*reasons, *map(output.sentence, info["findings"])]:
            output.note(f"{info['name']}: {reason}")
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
            help="A recipe to show, or a module to list: emt.core.relax_job, vasp.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List the available recipes, or show one."""
    with any_client() as client:
        if name is None:
            entries = client.ask(server.RECIPES_LIST)["recipes"]
            return _list_recipes(entries, as_json=as_json)
        try:
            described = client.ask(server.RECIPES_DESCRIBE, recipe=name)
        except InvalidJob:
            below = client.ask(server.RECIPES_LIST, prefix=f"{name}.")["recipes"]
            if not below:
                raise
            return _list_recipes(below, as_json=as_json)
    recipe: dict[str, Any] = {**described, "parameters": _parameters(described["parameters"])}
    if as_json:
        del recipe["error"]
        return output.write_json({"recipe": recipe})
    output.write(_recipe_text(recipe))
    return 0


def _list_recipes(entries: Sequence[Mapping[str, Any]], *, as_json: bool) -> int:
    if as_json:
        return output.write_json({"recipes": entries})
    if not entries:
        output.note("no recipes: quacc is not installed; pip install 'crystalmath[quacc]'")
        return 1
    rows = [(output.short_recipe(recipe["name"]), recipe["summary"]) for recipe in entries]
    output.table(("RECIPE", "WHAT IT DOES"), rows, whole=("RECIPE",))
    return 0


def _parameters(schema: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """Return the parameters in order with Python defaults; ``None`` if they are unknown."""
    if schema is None:
        return None
    return [
        {"name": name, "required": name in schema["required"], "default": _default(declared)}
        for name, declared in schema["properties"].items()
    ] + [{"name": "**", "required": False, "default": None}] * schema["additionalProperties"]


def _default(declared: Mapping[str, Any]) -> str | None:
    return repr(declared["default"]) if "default" in declared else declared.get("x-default")


def _recipe_text(recipe: Mapping[str, Any]) -> str:
    kind = f" ({recipe['kind']})" if recipe["kind"] else ""
    parameters = recipe["parameters"]
    arguments = "".join(
        f"\n    {one['name']}" + ("" if one["default"] is None else f"={one['default']}")
        for one in parameters or ()
    ) or (" its source cannot tell" if parameters is None else " none")
    docstring = recipe["docstring"] or "It has no docstring."
    return (
        f"{recipe['name']}{kind}\n{output.there(recipe['file'])}:{recipe['line']}\n\n"
        f"{_BEFORE.get(recipe.get('structure'), _BEFORE[None])}:{arguments}\n\n{docstring}"
    )


#: The heading of the parameters, by the recipe's need of a structure.
_BEFORE = {
    None: "Parameters, after the structure",
    "optional": "Parameters, after the structure, which may be left out",
    "none": "Parameters; it takes no structure",
}


#: The most elements of a table that a list of presets shows.
_MANY = 8


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A preset to show with all its settings.")
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List quacc's presets with their settings, or show one."""
    with any_client() as client:
        shown = client.presets(name)
    if as_json:
        return output.write_json({"presets": [attrs.asdict(each) for each in shown]})
    if not shown:
        output.note("no presets: quacc is not installed; pip install 'crystalmath[quacc]'")
        return 1
    output.write("\n\n".join(_text(each, whole=name is not None) for each in shown))
    return 0


def _text(preset: Preset, *, whole: bool) -> str:
    head = f"{preset.name}  ({preset.program}, {output.there(preset.file)})"
    return "\n".join([head, *(f"  {line}" for line in _lines(preset.settings, whole=whole))])


def _lines(settings: Mapping[str, Any], *, whole: bool, above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict) and len(value) > _MANY and not whole:
            yield f"{above}{name} = of {len(value)} elements"
        elif isinstance(value, dict):
            yield from _lines(value, whole=whole, above=f"{above}{name}.")
        else:
            yield f"{above}{name} = {json.dumps(value, ensure_ascii=False)}"
