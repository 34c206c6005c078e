"""The handlers about what jobs take on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict

from crystalmath.models.fields import array
from crystalmath.server.handlers.jobs import FILTERS, read_filters
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, STATE, record
from crystalmath.service.usage import Usage, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystalmath.jobs.heavy import Use
    from crystalmath.service import JobService

__all__ = ["handle_jobs_usage"]

#: So many groups are told, the largest, and what each takes in memory about, in bytes.
_MOST = 1000
_GROUP_SIZE = 500
_COUNT = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_USE = {
    "jobs": {**_COUNT, "description": "how many jobs"},
    "files": {**_COUNT, "description": "how many files"},
    "size": {**_COUNT, "description": "of all files, in bytes"},
    "heavy_size": {
        **_COUNT,
        "description": "of those that jobs.prune removes with keep_results, in bytes",
    },
}
_NO_USE: Mapping[str, Any] = dict.fromkeys(_USE, 0)


@method(
    "jobs.usage",
    params=FILTERS,
    result=record(
        {
            "total": record(_USE),
            "states": array(record({"state": STATE, **_USE})),
            "recipes": array(record({"recipe": _TEXT, **_USE})),
            "labels": array(record({"label": _TEXT, "value": _TEXT, **_USE})),
            "error": ERROR,
        }
    ),
    refused={"total": _NO_USE, "states": [], "recipes": [], "labels": []},
    answer_size=lambda _: 2 * _GROUP_SIZE * _MOST,
)
async def handle_jobs_usage(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Measure what the run directories of jobs take: of all, by state, by recipe and by label.

    All filters must agree, as in jobs.list. Of recipes and labels the 1000 largest are told, the
    largest first. It looks at every file, which takes a second for some ten thousand.
    """
    usage: Usage = await in_slices("files", measure(service, **read_filters(params)))
    return {
        "total": asdict(usage.total),
        "states": _largest(usage.states, lambda state: {"state": state}),
        "recipes": _largest(usage.recipes, lambda recipe: {"recipe": recipe}),
        "labels": _largest(usage.labels, lambda pair: {"label": pair[0], "value": pair[1]}),
        "error": None,
    }


def _largest(
    uses: Mapping[Any, Use], named: Callable[[Any], dict[str, str]]
) -> list[dict[str, Any]]:
    first = sorted(uses.items(), key=lambda item: (-item[1].size, str(item[0])))[:_MOST]
    return [{**named(group), **asdict(use)} for group, use in first]
