"""The handler of ``rpc.discover``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.server.rpc.declare import METHODS, method
from crystalmath.server.rpc.openrpc import document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.rpc.shapes import NoParams
    from crystalmath.service import JobService


@method("rpc.discover", result={"type": "object", "description": "an OpenRPC document"})
def handle_rpc_discover(service: JobService, params: NoParams) -> Mapping[str, Any]:
    """Describe all methods as an OpenRPC document (https://spec.open-rpc.org)."""
    del service, params
    return document(METHODS)
