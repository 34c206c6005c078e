"""The methods ``system.*``: about the server itself, and how to end it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from crystalmath import __version__, processes
from crystalmath.errors import CrystalMathError
from crystalmath.server.pools import in_pool
from crystalmath.server.rpc.declare import method

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.config import Config

__all__ = ["PROTOCOL", "describe_process"]

#: The version of the protocol; it grows when an old client could misread an answer.
PROTOCOL = 1

_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_TEXT: Mapping[str, Any] = {"type": "string"}


@method(
    "system.ping",
    result={"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]},
    of_session=True,
)
async def ping(session: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Answer, whatever else the server is doing."""
    del session, params
    return {"ok": True}


@method(
    "system.version",
    result={
        "type": "object",
        "properties": {
            "version": _TEXT,
            "protocol": _COUNT,
            "pid": _COUNT,
            "host": _TEXT,
            "python": _TEXT,
            "prefix": _TEXT,
            "home": _TEXT,
            "recipes_allow": {"type": "array", "items": _TEXT},
            "started_at": {"type": "number"},
        },
        "required": ["version", "protocol", "pid", "host"],
    },
    of_session=True,
)
async def version(session: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Tell what serves: release, protocol, process, interpreter and admitted recipes.

    A client compares them with its own: a job runs with the server's.
    """
    del params
    server = session.server
    return describe_process(server.place.home, server.source.last, server.started_at)


def describe_process(home: Path, configured: Config, started_at: float) -> dict[str, Any]:
    """Tell what answers: what ``system.version`` gives, and a client without a server."""
    return {
        "version": __version__,
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "host": processes.own_identity().host,
        "python": sys.version.split()[0],
        "prefix": sys.prefix,
        "home": str(home),
        "recipes_allow": list(configured.recipes_allow),
        "started_at": started_at,
    }


@method(
    "system.status",
    result={
        "type": "object",
        "properties": {
            "jobs": {
                "type": "object",
                "properties": {"pending": _COUNT, "running": _COUNT},
                "required": ["pending", "running"],
            },
            "connections": _COUNT,
            "quiet_s": {"type": "number"},
            "engines": {"type": "object", "additionalProperties": _TEXT},
        },
        "required": ["jobs", "connections", "quiet_s", "engines"],
    },
    of_session=True,
)
async def status(session: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Tell what the server is doing: its unfinished jobs, its connections, its engines."""
    del params
    server = session.server
    return {
        "jobs": _counts(server),
        "connections": server.connections.count,
        "quiet_s": round(server.quiet_s, 1),
        # Asked for the first time, it looks for what is installed.
        "engines": await in_pool("status", server.service.engine_states),
    }


@method(
    "system.stop",
    params={"cancel": {"type": "boolean"}},
    result={
        "type": "object",
        "properties": {"pending": _COUNT, "running": _COUNT, "cancel": {"type": "boolean"}},
        "required": ["pending", "running", "cancel"],
    },
    of_session=True,
)
async def stop(session: Any, params: dict[str, Any]) -> dict[str, Any]:
    """End the server.

    What runs goes on, what waits is taken up by the next server; with ``cancel`` all of the
    server's jobs are cancelled, and it ends once none of their processes is alive.
    """
    cancel = params.get("cancel", False)
    counts = await in_pool("stopping", _counts, session.server, abandoned=cancel)
    session.server.stop(cancel=cancel)
    return {**counts, "cancel": cancel}


def _counts(server: Any, *, abandoned: bool = False) -> dict[str, int]:
    unfinished = server.service.unfinished()
    if abandoned:
        # The server goes also where the database cannot be read.
        with contextlib.suppress(CrystalMathError):
            unfinished = server.service.unfinished(abandoned=True)
    states = [state.value for state in unfinished.values()]
    return {state: states.count(state) for state in ("pending", "running")}
