"""The handlers of all methods that a client can call.

Each declares its method with :func:`crystalmath.server.rpc.declare.method`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.server.handlers import (
    events,
    inputs,
    installed,
    jobs,
    results,
    storage,
    submission,
    system,
    transfers,
)
from crystalmath.server.rpc.declare import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "METHODS",
    "events",
    "inputs",
    "installed",
    "is_repeatable",
    "jobs",
    "results",
    "storage",
    "submission",
    "system",
    "transfers",
]


def is_repeatable(method: str, params: Mapping[str, Any]) -> bool:
    """Return whether a request has the same effect when it is carried out twice."""
    return method not in METHODS or METHODS[method].repeatable(params)
