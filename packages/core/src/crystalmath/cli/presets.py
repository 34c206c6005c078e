"""``crystalmath presets``: which presets there are, and what each sets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crystalmath.models import Preset

#: So many elements of a table of them are shown in a list.
_MANY = 8


def presets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="One of them, which is shown whole."),
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List quacc's presets with what each sets, or show one."""
    with any_client() as client:
        found = client.presets(name)
    if as_json:
        output.write_json({"presets": [attrs.asdict(each) for each in found]})
        return 0
    if not found:
        output.note("no presets: quacc is not installed; pip install 'crystalmath[quacc]'")
        return 1
    output.write(
        output.printable("\n\n".join(_text(each, whole=name is not None) for each in found))
    )
    return 0


def _text(preset: Preset, *, whole: bool) -> str:
    head = f"{preset.name}  ({preset.program}, {preset.file})"
    return "\n".join([head, *(f"  {line}" for line in _lines(preset.settings, whole=whole))])


def _lines(settings: Mapping[str, Any], *, whole: bool, above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict) and len(value) > _MANY and not whole:
            yield f"{above}{name} = of {len(value)} elements"
        elif isinstance(value, dict):
            yield from _lines(value, whole=whole, above=f"{above}{name}.")
        else:
            yield f"{above}{name} = {json.dumps(value, ensure_ascii=False)}"
