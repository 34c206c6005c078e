"""The handler of ``engines.list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from crystalmath.models.fields import array, nullable, reference
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import (
    ERROR,
    record,
)

if TYPE_CHECKING:
    from crystalmath.models.answer_lists import EngineList
    from crystalmath.models.answers import EngineEntry
    from crystalmath.server.rpc.shapes import NoParams
    from crystalmath.service import JobService

_TEXT: dict[str, Any] = {"type": "string"}


@method(
    "engines.list",
    result=record(
        {
            "engines": array(
                record(
                    {
                        "name": _TEXT,
                        "distribution": {**_TEXT, "description": "the package that brings it"},
                        "version": _TEXT,
                        "loads": {"type": "boolean", "description": "its plugin can be used"},
                        "error": {**nullable(_TEXT), "description": "why it cannot"},
                        "findings": array(reference("Finding")),
                        "configured": {
                            "type": "boolean",
                            "description": "submissions that name no engine use it",
                        },
                    }
                )
            ),
            "error": ERROR,
        }
    ),
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
