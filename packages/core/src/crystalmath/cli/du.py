"""``crystalmath du``: what jobs take on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.cli.shared.job_filters import with_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: So many groups of a kind are shown, the largest.
_SHOWN = 20


@with_filters
def du(*, filters: dict[str, Any], as_json: Json = False) -> int:
    """Measure the files of jobs: by recipe, by label, in all.

    HEAVY is what crystalmath prune --keep-results would remove.
    """
    with any_client() as client:
        usage = client.usage(**filters)
    if as_json:
        output.write_json(usage)
        return 0
    groups = [
        *_rows(usage["recipes"], lambda one: output.short_recipe(one["recipe"])),
        *_rows(usage["labels"], lambda one: f"{one['label']}={one['value']}"),
    ]
    rows = [*groups, _row("all", usage["total"])]
    headers = ("SIZE", "HEAVY", "FILES", "JOBS", "")
    output.show(output.grid(headers, rows, right=headers[:4], whole=headers[:4]))
    return 0


def _rows(groups: Sequence[Any], name: Callable[[Any], str]) -> list[tuple[str, ...]]:
    shown = [_row(name(one), one) for one in groups[:_SHOWN]]
    left = len(groups) - _SHOWN
    more = ("", "", "", "", f"({left} smaller ones; --json tells them)")
    return [*shown, more] if left > 0 else shown


def _row(name: str, use: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (output.size(use["size"]), output.size(use["heavy_size"]))
    return (*sizes, str(use["files"]), str(use["jobs"]), name)
