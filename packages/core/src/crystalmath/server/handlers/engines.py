"""The handler of ``engines.list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from crystalmath.models.answers import EngineEntry, EngineList
from crystalmath.server.rpc.declare import NoParams, method

if TYPE_CHECKING:
    from crystalmath.service import JobService


@method(
    "engines.list",
    refused={"engines": []},
    # Each plugin is imported, and a stranger's may hang.
    pool="engines",
)
def handle_engines_list(service: JobService, params: NoParams) -> EngineList:
    """List the installed workflow engines, and why one cannot serve. None is started."""
    from attrs import asdict

    from crystalmath.quacc.engines import describe_engines

    del service, params
    engines = [cast("EngineEntry", asdict(info)) for info in describe_engines()]
    return {"engines": engines, "error": None}
