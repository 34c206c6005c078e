"""The handler of ``presets.list``: what quacc's presets set; quacc is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast

from crystalmath.models.fields import array, reference
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, NAME, SUBMISSION, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models.answer_lists import PresetList
    from crystalmath.models.answers import PresetEntry
    from crystalmath.service import JobService


class PresetsListParams(TypedDict, total=False):
    """The parameters of ``presets.list``."""

    name: str
    environment: Mapping[str, str]


@method(
    "presets.list",
    params={
        "name": {**NAME, "description": "only those of this name"},
        "environment": SUBMISSION["environment"],
    },
    result=record({"presets": array(reference("Preset")), "error": ERROR}),
    refused={"presets": []},
    pool="recipes",
)
def handle_presets_list(service: JobService, params: PresetsListParams) -> PresetList:
    """List quacc's presets with what each sets, those that it inherits included.

    ``environment`` may name other folders of them, as for ``jobs.submit``.
    """
    from attrs import asdict

    found = service.presets(params.get("environment"), params.get("name"))
    return {"presets": [cast("PresetEntry", asdict(each)) for each in found], "error": None}
