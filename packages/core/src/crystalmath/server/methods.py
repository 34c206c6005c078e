"""The registry of all methods: what a client can call.

A handler declares its method with :func:`crystalmath.server.declare.method`.
"""

from __future__ import annotations

from crystalmath.server.declare import METHODS, Method
from crystalmath.server.handlers import (  # noqa: F401 - each declares its methods
    discover,
    engines,
    events,
    jobs,
    recipes,
    results,
    submission,
    subscriptions,
    system,
)

__all__ = ["METHODS", "Method"]
