"""The handler of ``presets.list``: what quacc's presets set; quacc is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypedDict

from crystalmath.models.answers import Name, PresetList
from crystalmath.models.fields import Limits
from crystalmath.models.schemas import SUBMISSION
from crystalmath.server.rpc.declare import method

if TYPE_CHECKING:
    from crystalmath.service import JobService


class PresetsListParams(TypedDict, total=False):
    """The parameters of ``presets.list``."""

    name: Annotated[Name, "only those of this name"]
    environment: Annotated[Mapping[str, str], Limits(**SUBMISSION["environment"])]


@method(
    "presets.list",
    refused={"presets": []},
    pool="recipes",
)
def handle_presets_list(service: JobService, params: PresetsListParams) -> PresetList:
    """List quacc's presets with what each sets, those that it inherits included.

    ``environment`` may name other folders of them, as for ``jobs.submit``.
    """
    from attrs import asdict

    found = service.presets(params.get("environment"), params.get("name"))
    return {"presets": [asdict(each) for each in found], "error": None}
