"""The handler of ``rpc.discover``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from crystalmath.server.rpc.declare import METHODS, NoParams, method
from crystalmath.server.rpc.openrpc import document

if TYPE_CHECKING:
    from crystalmath.service import JobService

_Document: TypeAlias = Annotated[Mapping[str, Any], "an OpenRPC document"]


@method(
    "rpc.discover",
)
def handle_rpc_discover(service: JobService, params: NoParams) -> _Document:
    """Describe all methods as an OpenRPC document (https://spec.open-rpc.org)."""
    del service, params
    return document(METHODS)
