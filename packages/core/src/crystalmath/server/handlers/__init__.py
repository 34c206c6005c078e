"""The handlers of all methods that a client can call.

Each declares its method with :func:`crystalmath.server.rpc.declare.method`.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def is_repeatable(method: object, params: object) -> bool:
    """Return whether a request has the same effect when it is carried out twice."""
    if str(method) not in METHODS or not isinstance(params, Mapping):
        return True
    return METHODS[str(method)].repeatable(params)
