"""The OpenRPC document: every method with its parameters and result, from their declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath import __version__
from crystalmath.models.fields import reference
from crystalmath.server.rpc.shapes import (
    COMPONENTS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.rpc.declare import Method

__all__ = ["OPENRPC", "document"]

#: The version of the OpenRPC specification.
OPENRPC = "1.3.2"


def document(methods: Mapping[str, Method]) -> dict[str, Any]:
    """Describe methods; see https://spec.open-rpc.org."""
    return {
        "openrpc": OPENRPC,
        "info": {
            "title": "CrystalMath jobs",
            "version": __version__,
            "description": "JSON-RPC 2.0 with LSP's Content-Length framing over the Unix socket of "
            "a home. Parameters go by their names. Answers may gain keys, and lose none.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": [_method(methods[name]) for name in sorted(methods)],
        # The specification has no place for what a server sends by itself.
        "x-notifications": [
            {
                "name": "jobs.changed",
                "summary": "A change of a job, to a client that called jobs.subscribe.",
                "params": reference("Change"),
            }
        ],
        "components": {"schemas": COMPONENTS},
    }


def _method(method: Method) -> dict[str, Any]:
    required = method.params["required"]
    # What must be given comes first, as the specification wants it.
    names = sorted(method.params["properties"], key=lambda name: name not in required)
    return {
        "name": method.name,
        "summary": method.summary,
        "description": method.description,
        "paramStructure": "by-name",
        "params": [
            _descriptor(name, method.params["properties"][name], required=name in required)
            for name in names
        ],
        "result": {"name": f"{method.name} result", "schema": method.result},
    }


def _descriptor(name: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    told = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "required": required, "schema": schema, **told}
