"""``crystalmath engines``: which engines are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client

if TYPE_CHECKING:
    from collections.abc import Mapping


def engines(*, as_json: Json = False) -> int:
    """List the installed engines, and why one cannot serve."""
    with any_client() as client:
        infos = client.ask("engines.list")["engines"]
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
