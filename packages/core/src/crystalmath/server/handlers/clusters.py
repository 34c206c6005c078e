"""The handler of ``clusters.list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.models.fields import array, nullable
from crystalmath.models.resources import RESOURCES
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.service import JobService

__all__ = ["handle_clusters_list"]

_TEXT: dict[str, Any] = {"type": "string"}


@method(
    "clusters.list",
    result=record(
        {
            "clusters": array(
                record(
                    {
                        "name": {**_TEXT, "description": "what a submission's cluster takes"},
                        "engine": {**_TEXT, "description": "the engine that it implies"},
                        "scheduler": _TEXT,
                        "walltime_s": {
                            **nullable({"type": "number"}),
                            "description": "how long an allocation lasts, in seconds",
                        },
                        "worker_init": {
                            **_TEXT,
                            "description": "shell commands that come before the worker",
                        },
                        "environment": {
                            "type": "object",
                            "additionalProperties": _TEXT,
                            "description": "variables that its jobs see in place of their "
                            "submitters'",
                        },
                        "launcher": {
                            **nullable(_TEXT),
                            "description": "what starts a job's ranks; default: mpirun",
                        },
                        "continue_lost": {
                            **nullable({"type": "boolean"}),
                            "description": "relaxations that were lost go on from their last "
                            "geometries; default: as [jobs] continue_lost says",
                        },
                        "resources": {
                            **RESOURCES,
                            "description": "what an allocation has by default",
                        },
                        "engine_options": {
                            "type": "object",
                            "description": "keys that are the engine's own",
                        },
                        "error": {
                            **nullable(_TEXT),
                            "description": "why its engine cannot use it",
                        },
                    }
                )
            ),
            "error": ERROR,
        }
    ),
    refused={"clusters": []},
    # Its engine is loaded, and a stranger's may hang.
    pool="engines",
)
def handle_clusters_list(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """List the clusters of the configuration file, and why one cannot be used. None is started."""
    from crystalmath import config
    from crystalmath.service.cluster_entries import describe_clusters

    del service, params
    return {"clusters": describe_clusters(config.load()), "error": None}
