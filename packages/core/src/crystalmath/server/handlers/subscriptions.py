"""The handlers of ``jobs.subscribe``: changes come by themselves, as notifications.

A subscription is a place in the event log, not a queue: a client that reads slowly is told later,
from the log, and costs no memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError
from crystalmath.server.handlers.events import handle_jobs_events
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.rpc.session import Session

__all__ = ["handle_jobs_subscribe", "handle_jobs_unsubscribe"]

#: The name of the notification.
_CHANGED = "jobs.changed"

#: How many events are read from the log at once.
_AT_ONCE = 200

#: How long is waited for an event before the log is asked again, in seconds.
_WAIT_S = 600

#: No event has so large a number.
_NEVER = 2**53

_SEQ: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": _NEVER}


@method(
    "jobs.subscribe",
    params={
        "after": {
            **_SEQ,
            "description": "tell events whose seq is larger; default: what happens from now on",
        }
    },
    result=record({"seq": _SEQ, "error": ERROR}),
    refused={"seq": None},
    of_session=True,
)
async def handle_jobs_subscribe(session: Session, params: dict[str, Any]) -> Mapping[str, Any]:
    """Be told of each change of each job, until the connection ends.

    The answer's ``seq`` is where the subscription begins. What comes after it arrives as
    notifications ``jobs.changed`` with ``{seq, job_id, at, from, status, reason}``, in the order of
    the growing ``seq``. Who subscribes again after a reconnect, ``after`` the last ``seq`` seen,
    misses nothing and is told nothing twice. A second subscription takes the place of the first.
    """
    after = params.get("after")
    if after is None:
        newest = await _events(session, after=_NEVER, limit=1)
        after = newest["last"]
    session.in_background(_tell(session, after, asyncio.current_task()))
    return {"seq": after, "error": None}


@method("jobs.unsubscribe", result=record({"error": ERROR}), of_session=True)
async def handle_jobs_unsubscribe(session: Session, params: dict[str, Any]) -> Mapping[str, Any]:
    """End the subscription; without one nothing happens."""
    del params
    session.in_background(None)
    return {"error": None}


async def _tell(session: Session, after: int, request: asyncio.Task[Any] | None) -> None:
    if request is not None:  # its answer goes first
        await asyncio.wait([request])
    while True:
        news = await _events(session, after=after, limit=_AT_ONCE, timeout_s=_WAIT_S)
        for event in news["events"]:
            names = ("seq", "job_id", "at", "from", "reason")
            change = {name: event[name] for name in names}
            await session.notify(_CHANGED, {**change, "status": event["to"]})
        after = max(after, news["last"])


async def _events(session: Session, **params: Any) -> Mapping[str, Any]:
    answer = await handle_jobs_events(session.controller, params)
    if answer["error"] is not None:
        raise CrystalMathError(answer["error"])
    return answer
