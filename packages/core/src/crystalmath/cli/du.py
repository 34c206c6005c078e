"""``crystalmath du``: what jobs take on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.cli.shared import output
from crystalmath.cli.shared.job_filters import LabelFilter, StateFilter, any_client, states
from crystalmath.cli.shared.parameter_options import parse_labels
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["du"]

#: So many groups of a kind are shown, the largest.
_SHOWN = 20


def du(*, label: LabelFilter = None, state: StateFilter = None, as_json: Json = False) -> int:
    """Measure what the files of jobs take: by recipe, by label, and in all.

    HEAVY is what crystalmath prune --keep-results would remove.
    """
    with any_client() as client:
        usage = client.usage(labels=parse_labels(label or ()) or None, state=states(state))
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


def _rows(groups: Sequence[Any], name: Any) -> list[tuple[str, ...]]:
    shown = [_row(name(one), one) for one in groups[:_SHOWN]]
    left = len(groups) - _SHOWN
    return (
        [*shown, ("", "", "", "", f"({left} smaller ones; --json tells them)")]
        if left > 0
        else shown
    )


def _row(name: str, use: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (output.size(use["size"]), output.size(use["heavy_size"]))
    return (*sizes, str(use["files"]), str(use["jobs"]), name)
